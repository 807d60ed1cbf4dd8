"use strict";
(() => {
  const box = document.getElementById("lightbox");
  const stage = box.querySelector(".stage");
  let shown = 0, gallery = [];

  const show = (index) => {
    shown = (index + gallery.length) % gallery.length;
    const image = gallery[shown].querySelector("img");
    stage.replaceChildren(image.cloneNode());
    stage.scrollTo(0, 0);
    box.querySelector(".caption").textContent = image.alt;
    box.querySelector(".position").textContent = `${shown + 1} of ${gallery.length}`;
  };

  document.querySelectorAll(".zoom").forEach((button) => button.addEventListener("click", () => {
    gallery = [...button.closest(".row").querySelectorAll(".zoom")];
    show(gallery.indexOf(button));
    box.showModal();
  }));
  box.querySelectorAll("[data-step]").forEach((button) => button.addEventListener("click", () => show(shown + Number(button.dataset.step))));
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(shown - 1);
    if (event.key === "ArrowRight") show(shown + 1);
  });
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });

  document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }));

  document.querySelectorAll(".course").forEach((figure) => {
    const [steps, values] = JSON.parse(figure.dataset.course);
    const [svg, cursor, output] = ["svg", ".cursor", "output"].map((name) => figure.querySelector(name));
    const low = Math.min(...values), high = Math.max(...values), first = steps[0], last = steps[steps.length - 1];
    const x = (step) => 600 * (step - first) / (last - first || 1), y = (value) => 150 - 140 * (value - low) / (high - low || 1);
    svg.querySelector("polyline").setAttribute("points", steps.map((step, i) => `${x(step)},${y(values[i])}`).join(" "));
    const read = (event) => {
      const place = 600 * event.offsetX / svg.clientWidth;
      const i = steps.reduce((best, step, j) => Math.abs(x(step) - place) < Math.abs(x(steps[best]) - place) ? j : best, 0);
      ["x1", "x2"].forEach((name) => cursor.setAttribute(name, x(steps[i])));
      cursor.style.visibility = "visible";
      output.textContent = `Step ${steps[i]}: ${values[i]}`;
    };
    svg.addEventListener("pointermove", read);
    svg.addEventListener("pointerdown", read);
    output.textContent = `Step ${last}: ${values[values.length - 1]}`;
  });

  const opened = [];
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((part) => { part.open = true; opened.push(part); }));
  addEventListener("afterprint", () => opened.splice(0).forEach((part) => { part.open = false; }));
})();

"""The report page: read from real runs, sound as HTML, and usable in a browser: on a desk, on a phone and in print.

Each property is a function from a page to its violations, so that a page that has one is caught by the same function.
"""

import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import main
from experiments.config.hydra_adapter import register_schema
from experiments.report import plan, runner
from experiments.report.plan import Plan
from experiments.report.read import label, read_row
from experiments.report.records import Check, Job, Page, Row, Verdict
from experiments.report.render import environment, number, write_page
from tests.conftest import ROOT, CommandLine, run_in, summary_of

VOID = {"meta", "link", "img", "wbr", "br", "hr", "input"}
SIZES = ((390, 844), (1280, 900))
HOSTILE = "<script>document.title = 'taken'</script> & \"quotes\""
FIT = ("--run", "experiment=cavi_normal_gamma", "hydra.run.dir=fit")
STUDY = ("--run", "experiment=gamma_fisher", "hydra.run.dir=study")
SHORT = ("--run", "experiment=cavi_normal_gamma", "trainer.limit=2", "plot.enabled=false", "hydra.run.dir=short")
SWEEP = (
    "-m",
    "experiment=cavi_normal_gamma",
    "trainer.limit=4",
    "dataset.num_points=10,-1,20",
    "hydra.sweep.dir=sweep",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fit that is judged, one that is too short, a study, and a sweep whose second job failed."""
    folder = tmp_path_factory.mktemp("runs")
    assert [run_in(folder, *arguments).code for arguments in (FIT, STUDY, SHORT, SWEEP)] == [0, 0, 0, 1]
    return folder


@pytest.fixture(scope="module")
def rows(runs: Path) -> list[Row]:
    """The rows of these runs under names of their own, one with a hostile note, and one that left nothing."""
    found = [replace(read_row(runs / name), name=name) for name in ("fit", "study", "short", "sweep")]
    found[1] = replace(found[1], note=HOSTILE, says=HOSTILE, where="report 000")
    return [*found, Row(name="broken", command="python run.py experiment=broken", jobs=(), error=HOSTILE)]


@pytest.fixture(scope="module")
def report(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scaled-down page of all these rows."""
    path = tmp_path_factory.mktemp("report") / "index.html"
    write_page(Page("The reports", tuple(rows), "2026-01-31 12:00", "quick", 12.0), path)
    return path


# --- what is read ---------------------------------------------------------------------------------------------------


def test_verdicts(rows: list[Row]) -> None:
    """A judged fit and a study pass, a shortened run is not judged, and whatever did not end well is a failure."""
    expected = (Verdict.PASS, Verdict.PASS, Verdict.UNJUDGED, Verdict.FAIL, Verdict.FAIL)
    assert tuple(row.verdict for row in rows) == expected
    page = Page("t", tuple(rows), "")
    assert page.counts == {Verdict.PASS: 2, Verdict.FAIL: 2, Verdict.UNJUDGED: 1}


def test_verdicts_on_fits_count_where_nothing_is_checked() -> None:
    fit = Job(0, {}, "completed", fit=Verdict.DISTRUSTED)
    checked = Job(1, {}, "completed", checks=(Check("q", "q", 1.0, 1.0, 0.1, True),), fit=Verdict.TRUSTED)
    scaled_down = Job(2, {}, "completed", unjudged="settings differ")
    of = {"alone": (fit,), "beside a check": (fit, checked), "scaled down": (fit, scaled_down)}
    found = {name: Row("sweep", "", jobs).verdict for name, jobs in of.items()}
    assert found == {
        "alone": Verdict.DISTRUSTED, "beside a check": Verdict.PASS, "scaled down": Verdict.UNJUDGED,
    }  # fmt: skip


def test_a_failed_check_is_a_failed_row(rows: list[Row]) -> None:
    (job,) = rows[0].jobs
    spoilt = (replace(job.checks[0], passed=False), *job.checks[1:])
    assert replace(rows[0], jobs=(replace(job, checks=spoilt),)).verdict is Verdict.FAIL


def test_numbers_are_those_of_the_summary(rows: list[Row], runs: Path) -> None:
    fit, _, short, sweep, _ = rows
    summary = summary_of(runs / "fit")
    checks = [(check.quantity, check.value, check.passed) for _, check in fit.checks]
    assert checks == [(check["name"], check["value"], check["passed"]) for check in summary["checks"]]
    assert fit.jobs[0].quantities[0].exact == summary["estimates"]["mu"]["exact"]
    assert [check.passed for _, check in short.checks] == [None] * len(fit.checks)
    assert short.checks[1][1].value == summary_of(runs / "short")["estimates"]["mu"]["mean"]
    assert [job.settings["dataset.num_points"] for job in sweep.jobs] == ["10", "-1", "20"]
    assert "dataset.num_points=-1" in sweep.jobs[1].error


def test_commands_are_what_was_typed(rows: list[Row]) -> None:
    assert rows[0].command == "python run.py experiment=cavi_normal_gamma"
    assert (
        rows[3].command == "python run.py -m experiment=cavi_normal_gamma trainer.limit=4 dataset.num_points=10,-1,20"
    )


def test_labels_and_numbers() -> None:
    assert label("estimates.mu.mean", "ELBO", fitted=True) == "E[mu]"
    assert label("estimates.natural[0,1].mean", "ELBO", fitted=False) == "natural[0,1]"
    assert label("trace.E[shape].15", "ELBO", fitted=True) == "E[shape], step 15"
    assert label("trace.elbo.15", "ELBO", fitted=True) == "ELBO, step 15"
    assert label("epoch_bound.3", "ELBO", fitted=True) == "ELBO, epoch 3"
    assert label("final.median", "IWELBO", fitted=True) == "IWELBO, median"
    assert label("diagnostics.likelihood.nll", "IWELBO", fitted=True) == "held-out −log p(x)"
    assert label("something.else", "ELBO", fitted=True) == "something.else"
    assert (number(None), number(-1.5, 2), number(0.1234567)) == ("–", "−1.50", "0.123457")


def test_task_report(cli: CommandLine, runs: Path, tmp_path: Path) -> None:
    """The task writes the page beside the run, for a run as for a sweep, and says in one line when there is neither."""
    for name, verdict in (("fit", "PASS"), ("sweep", "FAIL")):
        result = cli("task=report", f"run={runs / name}")
        assert (result.code, result.err) == (0, "")
        assert verdict in result.out
        assert violations(runs / name / "report.html") == []
    for folder in (tmp_path, tmp_path / "nowhere"):
        result = cli("task=report", f"run={folder}")
        assert (result.code, result.err.count("\n")) == (1, 1)


# --- the HTML, without a browser ------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """The ids, links and pictures of a page, and what is wrong with its nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.wrong: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [given["href"] or ""] if tag == "a" else []
        self.images += [given] if tag == "img" else []
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at line {self.getpos()[0]}")


def outline(text: str) -> Outline:
    """Parse a page."""
    parser = Outline()
    parser.feed(text)
    parser.close()
    return parser


def violations(path: Path) -> list[str]:
    """What is wrong with a page as HTML: nesting, ids, links into it, pictures without a text or from elsewhere."""
    page = outline(path.read_text(encoding="utf-8"))
    wrong = [*page.wrong, *(f"<{tag}> stays open" for tag in page.open)]
    wrong += [f"id {name} twice" for name in set(page.ids) if page.ids.count(name) > 1]
    wrong += [f"link {link}" for link in page.links if link[:1] != "#" or link[1:] not in page.ids]
    wrong += ["picture without a text" for image in page.images if not image.get("alt")]
    wrong += [
        "picture from elsewhere" for image in page.images if not (image["src"] or "").startswith("data:image/png")
    ]
    return wrong


def test_the_page_is_sound(report: Path) -> None:
    page = outline(report.read_text(encoding="utf-8"))
    assert violations(report) == []
    assert len(page.images) >= 8
    assert {"fit", "study", "short", "sweep", "broken"} <= set(page.ids)


def test_a_page_that_is_not_sound_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "wrong.html"
    path.write_text('<div id="a"><p id="a"></div><a href="#b"></a><img src="http://x/y.png"><b>')
    assert len(violations(path)) >= 6


def test_everything_is_escaped(report: Path) -> None:
    """Notes and errors reach readers as text; the one script is the page's own."""
    text = report.read_text(encoding="utf-8")
    assert text.count("&lt;script&gt;document.title") == 3
    assert outline(text).scripts == 1
    engine = environment()
    assert "<script>" not in engine.from_string("{{ note }}").render(note=HOSTILE)
    engine.autoescape = False
    assert "<script>" in engine.from_string("{{ note }}").render(note=HOSTILE)  # negative control


def test_a_scaled_down_page_says_so(report: Path, rows: list[Row], tmp_path: Path) -> None:
    full = tmp_path / "full.html"
    write_page(Page("The reports", tuple(rows), "2026-01-31 12:00", "full"), full)
    assert "Scaled-down page" in report.read_text(encoding="utf-8")
    assert "Scaled-down page" not in full.read_text(encoding="utf-8")


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """`visit(path, width, height)` opens a page; its `heard` lists console errors, exceptions and requests it made."""
    contexts = []

    def opened(path: Path, width: int = 1280, height: int = 900) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        local = (path.as_uri(), "data:")
        page.on("request", lambda it: None if it.url.startswith(local) else page.heard.append(it.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


def broken_images(page: Any) -> int:
    """How many pictures have not loaded."""
    return page.evaluate("[...document.images].filter(image => !image.complete || image.naturalWidth === 0).length")


def too_wide(page: Any) -> int:
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_page_in_a_browser(report: Path, visit: Any, width: int, height: int) -> None:
    page = visit(report, width, height)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.heard == []
    assert page.title() == "The reports"  # the hostile note did not run
    assert page.evaluate("document.images.length") >= 8
    assert (broken_images(page), max(0, too_wide(page))) == (0, 0)
    for link in page.locator(".contents a").all():
        link.click()
        name = page.evaluate("location.hash.slice(1)")
        assert 0 <= page.evaluate("name => document.getElementById(name).getBoundingClientRect().top", name) < height


def test_what_is_broken_is_caught(visit: Any, tmp_path: Path) -> None:
    path = tmp_path / "wrong.html"
    path.write_text(
        '<meta name="viewport" content="width=device-width"><div style="width: 600px">wide</div>'
        '<img src="data:image/png;base64,AAAA"><img src="http://localhost:1/x.png"><script>nothing()</script>'
    )
    page = visit(path, 390, 844)
    assert (broken_images(page), too_wide(page) > 200) == (2, True)
    assert [text for text in page.heard if "localhost" in text] and [text for text in page.heard if "nothing" in text]


def test_figures_enlarge(report: Path, visit: Any) -> None:
    """By mouse and by keyboard; arrows turn to the next one of the row, Escape closes and gives the focus back."""
    page = visit(report)
    box, first = page.locator("dialog"), page.locator("#fit .zoom").first
    assert not box.is_visible()
    first.click()
    assert box.is_visible() and broken_images(page) == 0
    wide = box.locator("img").bounding_box()["width"]
    assert wide > first.locator("img").bounding_box()["width"]
    alt = box.locator("img").get_attribute("alt")
    page.keyboard.press("ArrowRight")
    assert box.locator("img").get_attribute("alt") != alt
    page.keyboard.press("Escape")
    assert not box.is_visible()
    first.focus()
    page.keyboard.press("Enter")
    assert box.is_visible()
    box.get_by_role("button", name="Close").click()
    assert not box.is_visible()
    assert page.evaluate("document.activeElement.classList.contains('zoom')")
    assert page.heard == []


def test_print_shows_what_is_folded(report: Path, visit: Any) -> None:
    page = visit(report)
    folded = page.locator("#sweep details img").first
    assert not folded.is_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.is_visible()
    assert not page.locator(".copy").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert not folded.is_visible()
    assert len(page.pdf(format="A4")) > 10_000


# --- what is run ----------------------------------------------------------------------------------------------------


def test_runs_of_days_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full page leaves them out, a scaled-down one does not."""
    register_schema()
    monkeypatch.setattr(plan, "part_names", lambda group: ["bbvi", "iwae_burda"])
    chosen = {
        (fidelity, *only): [found.name for found in plan.plans(fidelity, only, [])]
        for fidelity, only in (("full", []), ("quick", []), ("full", ["iwae_burda"]))
    }
    assert chosen == {
        ("full",): ["bbvi"],
        ("quick",): ["bbvi", "iwae_burda"],
        ("full", "iwae_burda"): ["iwae_burda"],
    }


# --- the whole of it ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_reproduce(cli: CommandLine, tmp_path: Path) -> None:
    """A study passes, MNIST is not there; the second time nothing that finished is run again."""
    only = ("task=reproduce", "fidelity=quick", "reproduce.only=[gamma_fisher,vae_mnist]", "plot.enabled=false")
    arguments = (*only, "dataset.root=nowhere", "dataset.download=false")
    result = cli(*arguments)
    assert (result.code, result.err) == (0, "")
    assert "1 PASS, 1 SKIPPED" in result.out
    text = (tmp_path / "outputs" / "report" / "index.html").read_text(encoding="utf-8")
    assert violations(tmp_path / "outputs" / "report" / "index.html") == []
    for wanted in ("Skipped: data missing", "nowhere", "python run.py experiment=gamma_fisher plot.enabled=false"):
        assert wanted in text
    summary = tmp_path / "outputs" / "report" / "runs" / "quick" / "gamma_fisher" / "summary.json"
    before = summary.stat().st_mtime_ns
    again = cli(*arguments)
    assert "1 PASS, 1 SKIPPED" in again.out and "vae_mnist " in again.out
    assert "gamma_fisher " not in again.out
    assert summary.stat().st_mtime_ns == before


def test_a_command_that_fails_is_a_row(cli: CommandLine, tmp_path: Path) -> None:
    result = cli("task=reproduce", "reproduce.only=[cavi_normal_gamma]", "replicates=0")
    assert result.code == 1
    assert "1 FAIL" in result.out
    assert "replicates=0 must be at least 1." in (tmp_path / "outputs" / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("fidelity=fast", "fidelity=fast must be one of"),
        ("reproduce.parallel=0", "reproduce.parallel=0"),
        ("reproduce.only=[gamma_fishr]", "Did you mean 'gamma_fisher'?"),
        ("dataset.rot=x", "dataset.rot=x is a setting of no experiment"),
    ],
)
def test_refusals(argument: str, said: str, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.report.plan.part_names", lambda group: ["bbvi", "gamma_fisher"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = cli("task=reproduce", argument)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert said in result.err
    assert list(tmp_path.iterdir()) == []


def sleeper(main: object, arguments: list[str], output: Path) -> None:
    """A command that leaves a file when it begins, and another when it is interrupted."""

    def end(*_: object) -> None:
        Path(f"{output.parent.name}.ended").touch()
        sys.exit(130)

    os.setsid()
    signal.signal(signal.SIGINT, end)
    Path(f"{output.parent.name}.began").touch()
    time.sleep(60)


@pytest.mark.slow
def test_an_interruption_reaches_the_children_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends what runs in good order and begins nothing more; the exit code is the usual one."""
    monkeypatch.setattr(runner, "command", sleeper)
    monkeypatch.chdir(tmp_path)
    plans = [Plan(name, 1, (), False, "identity", "", "", "", 0) for name in ("a", "b", "c")]

    def interrupt() -> None:
        while len(list(tmp_path.glob("*.began"))) < 2:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit, match="130"):
        runner.run_all(main, plans, tmp_path / "runs", 2, lambda plan, seconds: None)
    assert len(list(tmp_path.glob("*.ended"))) == len(list(tmp_path.glob("*.began"))) == 2, list(tmp_path.iterdir())
    assert not any(runner.finished(plan, tmp_path / "runs") for plan in plans)


def test_documents_show_figures_that_can_be_made() -> None:
    from docs.figures import shown_figures, split_name

    shown = shown_figures(ROOT)
    assert ("bbvi", "bound") in shown
    assert {f"{experiment}_{figure}.png" for experiment, figure in shown} == {
        path.name for path in (ROOT / "docs" / "figures").iterdir()
    }
    assert split_name("bbvi_control_variate_bound") == ("bbvi_control_variate", "bound")

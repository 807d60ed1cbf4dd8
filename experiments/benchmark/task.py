"""`task=fit` for `experiment=benchmark`: time the contenders in turns, and write what was found as a run does."""

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vi_core.errors import did_you_mean, require

from ..config.hydra_adapter import yaml_text
from ..results.drawing import drawing, write
from ..results.files import write_json, write_text
from ..run.jobs import Job
from ..run.outcome import heading
from ..run.process import describe_environment, prepare
from ..run.settings import check_folder, resolved
from .entries import Place, Problem
from .images import write_images
from .machine import cores, describe_machine
from .measure import Effort, measure
from .problems import AXES, CONTENDERS, ON_IMAGES, PROBLEMS, TITLES
from .results import Row, label, read_rows, write_rows
from .targets import check_line, judge

log = logging.getLogger(__name__)
TABLE = "benchmark.csv"


def benchmark(job: Job) -> dict[str, Any]:
    """Run the benchmark and write its files; return its summary."""
    started = time.perf_counter()
    check_folder(job)
    config = resolved(job)
    settings = config["benchmark"]
    settings["only"] = [settings["only"]] if isinstance(settings["only"], str) else settings["only"]
    check_settings(settings)
    device, _, _ = prepare(config)
    write_text(job.folder / "config.yaml", yaml_text(config))
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), Path(folder) / "images.npz", cores())
        machine = describe_machine(provide_images(settings["only"], job.cfg.dataset.root, place.images))
        rows = run(settings, place, job.folder / TABLE, job.resume)
    figures = redraw(job.cfg, job.folder) if job.cfg.plot.enabled else []
    result = summarize(job, config, rows, machine)
    result["timing"] = {"total_s": time.perf_counter() - started}
    result["environment"] = describe_environment(config["seed"], device)
    write_json(job.folder / "summary.json", result)
    log.info("%s", report(result, rows, figures))
    return result


def provide_images(only: Sequence[str], root: str, path: Path) -> str:
    """Write the images that the problems need; return what they are, nothing where none needs any."""
    needed = any(name in ON_IMAGES for name in chosen_problems(only))
    return write_images(root, path) if needed else ""


def summarize(job: Job, config: dict[str, Any], rows: Sequence[Row], machine: dict[str, str]) -> dict[str, Any]:
    """Return the content of summary.json but for time and environment."""
    checks, unjudged = judge(config["benchmark"]["targets"], rows)
    found = {"estimates": {}, "machine": machine, "checks": checks, "checks_skipped": "", "unjudged": unjudged}
    return heading(job, config, "", "completed") | found


def run(settings: dict[str, Any], place: Place, path: Path, resume: bool) -> list[Row]:
    """Measure every problem that was asked for; the table is complete after each of them.

    With `resume`, what is in the table stays, and only problems that are not in it are measured.
    """
    rows = read_rows(path) if resume and path.is_file() else []
    measured = {row.problem for row in rows}
    effort = Effort(settings["repetitions"], settings["block_s"])
    for name in chosen_problems(settings["only"]):
        if name in measured:
            log.info("%s is measured already", name)
            continue
        problem = chosen_entries(PROBLEMS[name](place), settings["only"])
        if problem.entries:
            rows += measure(problem, place, effort, log.info)
            write_rows(rows, path)
            log.info("%s", "\n".join(table(TITLES[name], [row for row in rows if row.problem == name])))
    return rows


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse what cannot be measured."""
    require(settings["repetitions"] >= 1, f"benchmark.repetitions={settings['repetitions']} must be at least 1.")
    require(settings["block_s"] > 0, f"benchmark.block_s={settings['block_s']} must be positive.")
    known = (*PROBLEMS, *CONTENDERS)
    for name in settings["only"]:
        words = f"benchmark.only={name} is neither a problem nor a contender.{did_you_mean(name, known)}"
        require(name in known, f"{words} Known: {', '.join(known)}.")
    for target in settings["targets"]:
        one = (target["at_least"] is None) != (target["at_most"] is None)
        require(one, f"benchmark.targets: {target['quantity']} needs at_least or at_most, and not both.")


def chosen_problems(only: Sequence[str]) -> list[str]:
    """Return the problems that `only` names, all if it names none."""
    return [name for name in PROBLEMS if name in only] or list(PROBLEMS)


def chosen_entries(problem: Problem, only: Sequence[str]) -> Problem:
    """Return the problem with the contenders that `only` names, all if it names none."""
    wanted = {name for name in only if name in CONTENDERS}
    entries = [entry for entry in problem.entries if not wanted or entry.contender in wanted]
    return Problem(**{**vars(problem), "entries": entries})


def draw(rows: Sequence[Row], folder: Path, plot: Any) -> list[Path]:
    """Write the figures that apply to `<folder>/plots`; return their paths."""
    from .timings import Timing, cost_figure, times_figure

    timed = [row for row in rows if row.median is not None]
    panels: dict[tuple[str, str], list[Timing]] = {}
    for row in timed:
        panels.setdefault((AXES.get(row.problem, row.problem), row.unit), []).append(
            Timing(label(row), row.at, row.median or 0.0, row.q1 or 0.0, row.q3 or 0.0)
        )
    curves = {name: found for name, found in panels.items() if found[0].at is not None}
    bars = {name: found for name, found in panels.items() if found[0].at is None}
    kinds = (("times", times_figure, bars), ("curves", cost_figure, curves))
    with drawing(plot):
        return write([(name, make(found)) for name, make, found in kinds if found], folder / "plots", plot)


def redraw(cfg: DictConfig, folder: Path) -> list[Path]:
    """Draw the figures of a finished benchmark again, from its table."""
    return draw(read_rows(folder / TABLE), folder, cfg.plot)


def table(title: str, rows: Sequence[Row]) -> list[str]:
    """Return the lines of one problem."""
    head = f"{'':38}{'median':>11}{'quartiles':>24}{'least':>10}{'start':>8}{'first':>8}"
    lines = ["", f"{title}, {rows[0].unit}", head]
    for row in rows:
        name = label(row) + ("" if row.at is None else f", {row.at:g}")
        if row.median is None:
            lines.append(f"{name:38} {row.status}: {row.note}")
            continue
        quartiles = f"{row.q1:.4g} – {row.q3:.4g}"
        cells = f"{row.median:>11.4g}{quartiles:>24}{row.min:>10.4g}{_seconds(row.startup_s)}{_seconds(row.compile_s)}"
        lines.append(f"{name:38}{cells}" + (f"  {row.note}" if row.note else ""))
    return lines


def _seconds(value: float | None) -> str:
    return f"{'':8}" if value is None else f"{value:>6.1f} s"


def report(result: dict[str, Any], rows: Sequence[Row], figures: Sequence[Path]) -> str:
    """Return what the terminal shows at the end."""
    machine = ", ".join(f"{name} {words}" for name, words in result["machine"].items() if words)
    lines = ["", f"{result['experiment']}: {len(rows)} rows, {result['timing']['total_s']:.0f} s", machine]
    lines += [check_line(check) for check in result["checks"]]
    lines += [f"not judged: {result['unjudged']}"] if result["unjudged"] else []
    lines += [f"figure  {figure}" for figure in figures]
    return "\n".join([*lines, f"table   {Path(result['run']) / TABLE}", f"results {result['run']}"])

"""Figures of a sweep: which apply to what was swept, and what each is drawn from."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig

from vi_core.errors import DataError, did_you_mean
from vi_core.plots.drawing.panels import window_note
from vi_core.plots.drawing.series import smooth, thin
from vi_core.plots.drawing.style import DASHES, PALETTE
from vi_core.plots.sweep import (
    Points,
    course_figure,
    gradient_noise_figure,
    heat_figure,
    numbers_figure,
    settings_figure,
    sweep_figure,
)
from vi_core.training.history import History, read_history

from ..config.messages import one_line
from ..results import methods
from ..results.drawing import drawing, write
from ..results.posteriors import beside as posteriors_beside
from ..run.jobs import FINISHED
from .differences import COST_OR_NOISE, SYMBOLS, Job, beside, label, value_of, words
from .groups import Group, groups_of, telling
from .race import errors_of, seconds_of

log = logging.getLogger(__name__)
Labels = tuple[str, ...]  # what colours a curve and, where there is a second, what dashes it
MOST_LINES = len(DASHES) + 1  # line styles, the solid one included
ALL_SEEDS = "all seeds"  # name of a group of jobs that differ in nothing else
FEW = 3  # values of a number that make a curve of points
LOGARITHMIC = 30  # ratio of the largest to the smallest number from which an axis is logarithmic


def draw(folder: Path, jobs: list[Job], keys: list[str], cfg: DictConfig) -> list[Path]:
    """Draw the figures that apply to the sweep; return their paths.

    Raises:
        DataError: Where plot.group_by names a key that was not swept.
    """
    if not keys:
        return []
    with drawing(cfg.plot):
        return write(made(jobs, keys, cfg.plot), folder / "plots", cfg.plot)


def made(jobs: list[Job], keys: list[str], plot: Any) -> list[tuple[str, Figure]]:
    """Return name and figure of all that apply to the sweep."""
    by = grouping(jobs, keys, plot.group_by)
    telling_apart = [key for several in by for key in several]
    found = {
        "bound": overlay(jobs, keys, by, plot.smoothing),
        "final": against_numbers(jobs, keys),
        "gradient_noise": gradient_noise(jobs, by),
        "course": course(jobs, keys, by),
        "posterior": marginals(jobs, telling_apart),
        **side_by_side(jobs, telling_apart, plot),
    }
    return [(name, figure) for name, figure in found.items() if figure]


def grouping(jobs: list[Job], keys: list[str], chosen: str | None) -> list[list[str]]:
    """Return the swept keys whose values colour the curves and, apart from them, those that choose the line style.

    They are the chosen key alone; or two keys, one for each; or all but the seed, where there are colours enough; or
    none, where seeds alone were swept and are more than the colours; or else the first.
    """
    if chosen is not None:
        if chosen not in keys:
            hint = did_you_mean(chosen, keys)
            raise DataError(f"plot.group_by={chosen} was not swept.{hint} Swept: {', '.join(keys)}.")
        return [[chosen]]
    own = telling(keys)
    counts = {key: len({value_of(job, key) for job in jobs}) for key in own}
    if len(own) == 2 and min(counts.values()) <= MOST_LINES and max(counts.values()) <= len(PALETTE):
        return [[key] for key in sorted(own, key=lambda key: -counts[key])]
    if not own and len({value_of(job, key) for job in jobs for key in keys}) > len(PALETTE):
        return [[]]
    few = len({label(job, own) for job in jobs}) <= len(PALETTE)
    return [own if own and few else keys[:1]]


def labels_of(job: Job, by: list[list[str]], paths: Sequence[str]) -> Labels:
    """Return what colours and dashes a job's curve.

    What differs beside the keys, `paths`, stands in brackets: behind the part that it belongs to, or the first label.
    """
    owners = {path: next((i for i, keys in enumerate(by) if path.partition(".")[0] in keys), 0) for path in paths}
    found = []
    for i, keys in enumerate(by):
        own = [path for path in paths if owners[path] == i and path in job["settings"]]
        shown = ", ".join(words(path, str(job["settings"][path])) for path in own)
        name = label(job, keys) or ALL_SEEDS
        found.append(f"{name} ({shown})" if shown else name)
    return tuple(found)


def noted(jobs: Sequence[Job], keys: Sequence[str]) -> list[str]:
    """Return what legends tell of settings that were not swept: those that decide cost or noise."""
    return [path for path in beside([job["settings"] for job in jobs], keys) if path in COST_OR_NOISE]


def bound_label(objectives: list[dict[str, Any]]) -> str:
    """Return the axis label of several runs' bounds, which need not be the same bound."""
    names = {objective["name"].upper() for objective in objectives}
    per = next((f" per {objective['per']}" for objective in objectives if objective["per"]), "")
    return (names.pop() if len(names) == 1 else "bound") + f"{per} (nats)"


def title_of(jobs: Sequence[Job]) -> str:
    """Return the experiments of some jobs, and how many jobs there are."""
    experiments = list(dict.fromkeys(job["experiment"] for job in jobs))
    return f"{', '.join(experiments)}: {len(jobs)} jobs"


def overlay(jobs: list[Job], keys: list[str], by: list[list[str]], smoothing: int) -> Figure | None:
    """Return the bounds of all jobs that have a trace, in groups; None where none has.

    Bounds of different data are drawn as distances from their log evidence, and not at all where one is unknown.

    Args:
        jobs: As `read_jobs` returns them.
        keys: The swept keys.
        by: The keys whose values colour, and those that dash.
        smoothing: Window of the moving average, in steps.
    """
    traced = [(job, trace) for job in jobs if "objective" in job and (trace := trace_of(job["folder"]))]
    if not traced:
        return None
    drawn = [job for job, _ in traced]
    evidences = [job["final"]["log_evidence"] for job in drawn]
    apart = len({(job["data"]["checksum"], value_of(job, "model")) for job in drawn}) > 1
    apart = apart and not all(job["objective"]["per"] for job in drawn)
    if apart and None in evidences:
        log.info("bounds of different data or models are not drawn in one figure, as their log evidence is not known")
        return None
    name, reference = bound_label([job["objective"] for job in drawn]), {}
    if apart:
        name, reference = name.replace(" (nats)", " − log evidence (nats)"), {"log evidence": 0.0}
    elif len({*evidences}) == 1 and evidences[0] is not None:
        reference = {"log evidence": evidences[0]}
    paths, curves, longest = noted(drawn, keys), dict[Labels, list[Any]](), 1
    for job, trace in traced:
        random = "estimator.num_samples" in job["settings"]  # a curve without noise has nothing to smooth
        window = max(1, smoothing // int(trace.step[0])) if random else 1
        longest, shift = max(longest, window), job["final"]["log_evidence"] if apart else 0.0
        values = smooth(trace.step, trace.columns[trace.bound] - shift, window)
        curves.setdefault(labels_of(job, by, paths), []).append(values)
    return sweep_figure(curves, name=name, title=title_of(drawn), references=reference, note=window_note(longest))


def marginals(jobs: list[Job], by: list[str]) -> Figure | None:
    """Return the marginals of one job of each group beside the exact posterior, where all have the same one."""
    groups: dict[str, list[Path]] = {}
    for job in jobs:
        if any(row.get("exact_sd") for row in job.get("estimates", {}).values()) and job["status"] in FINISHED:
            groups.setdefault(values_of(job, by), []).append(job["folder"])
    return posteriors_beside(groups, f"{jobs[0]['experiment']}: q of the groups beside the exact posterior")


def side_by_side(jobs: list[Job], by: list[str], plot: Any) -> dict[str, Figure]:
    """Return the figures of jobs that solve one problem by several methods."""
    groups: dict[str, list[Any]] = {}
    for job in jobs:
        if job["status"] in FINISHED and "objective" in job and (trace := trace_of(job["folder"])):
            groups.setdefault(values_of(job, by), []).append((job, trace))
    look = {"first": plot.steps, "smoothing": plot.smoothing}
    return methods.figures(groups, title=jobs[0]["experiment"], by=", ".join(by), **look)


def values_of(job: Job, by: list[str]) -> str:
    """Return the group of a job: its values of some keys."""
    return ", ".join(value_of(job, key) for key in by)


def trace_of(folder: Path) -> History | None:
    """Return what a job recorded; None where there is no trace, or one that cannot be read, which is said."""
    try:
        return read_history(folder / "trace.csv") if (folder / "trace.csv").exists() else None
    except (DataError, OSError, ValueError) as error:
        log.warning("%s", one_line(error))
        return None


def gradient_noise(jobs: list[Job], by: list[list[str]]) -> Figure | None:
    """Return the noise of each latent's gradient, averaged over the jobs of a group; None where none was measured."""
    measured: dict[str, list[Any]] = {}
    paths = noted(jobs, [key for keys in by for key in keys])
    for job in jobs:
        if noise := job.get("diagnostics", {}).get("gradient"):
            measured.setdefault(", ".join(labels_of(job, by, paths)), []).append(noise)
    if not measured:
        return None
    groups = {name: {when: noise_at(every, when) for when in ("start", "final")} for name, every in measured.items()}
    first = next(iter(measured.values()))[0]
    of, draws = "layer" if "networks" in first["start"] else "latent", first["draws"]
    title = f"{jobs[0]['experiment']}: noise of each {of}'s gradient ± standard error, from {draws} estimates each"
    return gradient_noise_figure(groups, of=of, title=title)


def noise_at(every: Sequence[Mapping[str, Any]], when: str) -> dict[str, tuple[float, float]]:
    """Return by latent the noise averaged over jobs, and the standard error that the gradient estimates leave it."""
    means = mean_of([one[when]["latents"] for one in every])
    errors = [one[when].get("latents_se", {}) for one in every]
    squares = mean_of([{name: (row.get(name) or np.nan) ** 2 for name in means} for row in errors])
    return {name: (mean, (squares[name] / len(every)) ** 0.5) for name, mean in means.items()}


def course(jobs: list[Job], keys: list[str], by: list[list[str]]) -> Figure | None:
    """Return noise of the gradient and error of the posterior means in the course of the runs; None where not measured.

    The error is drawn against steps and against seconds, so that methods are compared at equal K and at equal time.
    """
    found: dict[str, dict[Labels, list[Any]]] = {}
    paths, xlabels = noted(jobs, keys), list[str]()
    for job in (job for job in jobs if "objective" in job):
        labels = labels_of(job, by, paths)
        if (noise := noise_rows(job)) is not None:
            of = "encoder's " if "networks" in job["diagnostics"]["gradient"]["start"] else ""
            found.setdefault(f"sd of the {of}gradient", {}).setdefault(labels, []).append(noise)
    if not found:
        return None
    xlabels.append("step")
    for job in (job for job in jobs if "objective" in job):
        trace = trace_of(job["folder"])
        errors = None if trace is None else errors_of(job, trace)
        if trace is None or errors is None:
            continue
        labels, rows = labels_of(job, by, paths), thin(len(errors))
        for name, x in {"": trace.step, " ": seconds_of(trace)}.items():
            curves = found.setdefault(f"error of posterior means{name}", {})
            shown = rows[x[rows] > 0]
            curves.setdefault(labels, []).append((x[shown], errors[shown], np.full(len(shown), np.nan)))
    xlabels += ["step", "seconds of training"][: 2 * (len(found) > 1)]
    note = "error in posterior standard deviations, over replicates and latents" if len(found) > 1 else ""
    return course_figure(found, xlabels=xlabels, title=title_of(jobs), note=note)


def noise_rows(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return step, noise and its standard error in the course of a run, (T,) each; None where it was not measured.

    The first is drawn at step 1, as a logarithmic axis has no 0. Of networks it is the noise of the encoder.
    """
    noise = job["diagnostics"].get("gradient")
    if noise is None or "along" not in noise:
        return None
    ends = [(1, noise["start"]), (int(job["timing"]["iterations"]), noise["final"])]
    first, last = ((step, *_noise_of(one)) for step, one in ends)
    rows = [first, *((row["step"], *_noise_of(row)) for row in noise["along"]), last]
    return tuple(np.array(column, dtype=float) for column in zip(*rows, strict=True))  # type: ignore[return-value]


def _noise_of(row: dict[str, Any]) -> tuple[float | None, float | None]:
    encoder = (row.get("networks") or row["latents"]).get("encoder")
    if encoder is not None:
        return encoder, None
    total = row["total"]
    return (total["mean"], total["se"]) if isinstance(total, dict) else (total, row["total_se"])


def mean_of(tables: list[dict[str, float | None]]) -> dict[str, float]:
    """Average numbers by name over tables; NaN where one is missing."""
    numbers = [{name: float("nan") if value is None else value for name, value in table.items()} for table in tables]
    return {name: sum(table[name] for table in numbers) / len(numbers) for name in numbers[0]}


def against_numbers(jobs: list[Job], keys: list[str]) -> Figure | None:
    """Return final bounds against the swept numbers: curves with error bars, or a map of two; None where none apply."""
    drawn = [job for job in jobs if "objective" in job]
    own = telling(keys)
    numeric = [key for key in own if is_number(drawn, key)]
    if not numeric or len(own) > 2 or len({job["data"]["checksum"] for job in drawn}) > 1:
        return None
    if any(job["best_replicate"] is not None for job in drawn):
        return restarts(drawn, keys)
    groups, evidences = groups_of(drawn, keys), {job["final"]["log_evidence"] for job in drawn}
    evidence = evidences.pop() if len(evidences) == 1 else None
    look = {
        "name": f"final {bound_label([job['final'] | job['objective'] for job in drawn])}",
        "title": title_of(drawn),
    }
    if len(numeric) == 2 and min(len({value_of(job, key) for job in drawn}) for key in numeric) >= FEW:
        return heat_map(groups, numeric, evidence, look)
    first = max(numeric, key=lambda key: len({value_of(job, key) for job in drawn}))
    others, paths, lines = [key for key in own if key != first], noted(drawn, keys), dict[str, list[Group]]()
    for group in groups:
        lines.setdefault(labels_of(group.jobs[0], [others], paths)[0], []).append(group)
    if max(map(len, lines.values()), default=0) < FEW or len(lines) > len(PALETTE):
        return None
    curves = {name: points(members, first) for name, members in lines.items()}
    every = np.concatenate([curve.number for curve in curves.values()])
    seeds = max(len(group.jobs) for group in groups)
    look["note"] = f"mean ± standard error over {f'{seeds} seeds' if seeds > 1 else 'replicates'}"
    return numbers_figure(curves, xlabel=name_of(first), logarithmic=is_wide(first, every), evidence=evidence, **look)


def is_number(jobs: list[Job], key: str) -> bool:
    """Whether every job has a number as its value of a key."""
    try:
        return all(np.isfinite(float(value_of(job, key))) for job in jobs)
    except ValueError:
        return False


def is_wide(key: str, numbers: np.ndarray) -> bool:
    """Whether numbers belong on a logarithmic axis, as rates do."""
    positive = numbers.min() > 0
    return bool(positive and (key == "optimizer.lr" or numbers.max() / numbers.min() >= LOGARITHMIC))


def name_of(key: str) -> str:
    """Return a key for an axis, with its symbol where the field has one."""
    symbol = SYMBOLS.get(key, key)
    return key if key.endswith(symbol) else f"{key} ({symbol})"


def points(groups: list[Group], key: str) -> Points:
    """Return the final bounds of groups against their numbers, sorted."""
    table = sorted((float(group.values[key]), *group.final()) for group in groups)
    return Points(*np.array(table).T)


def heat_map(groups: list[Group], keys: list[str], evidence: float | None, look: dict[str, str]) -> Figure:
    """Return the final bound over two numbers, those with more values across."""
    across, up = sorted(keys, key=lambda key: -len({group.values[key] for group in groups}))
    axes = [sorted({group.values[key] for group in groups}, key=float) for key in (across, up)]
    table = np.full((len(axes[1]), len(axes[0])), np.nan)
    for group in groups:
        table[axes[1].index(group.values[up]), axes[0].index(group.values[across])] = group.final()[0]
    return heat_figure(table, *axes, xlabel=name_of(across), ylabel=name_of(up), evidence=evidence, **look)


def restarts(drawn: list[Job], keys: list[str]) -> Figure | None:
    """Return final bounds of restarts against the one swept number, and the dispersion of counts where there is one."""
    if len(keys) != 1 or len(drawn) < FEW:
        return None
    dispersion = [job.get("misfit", {}).get("count_dispersion") for job in drawn]
    statistic = None if None in dispersion else ("variance of counts / Poisson's", np.array(dispersion, float), 1.0)
    return settings_figure(
        np.array([float(value_of(job, keys[0])) for job in drawn]),
        [np.array(job["final"]["values"], dtype=float) for job in drawn],
        name=f"{drawn[0]['final']['name'].upper()} (nats)",
        xlabel=keys[0],
        title=drawn[0]["experiment"],
        statistic=statistic,
    )

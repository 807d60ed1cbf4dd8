"""Result table of a run on the terminal: one text from the content of summary.json."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .expectations import limits
from .verdict_lines import verdict_lines

Summary = dict[str, Any]
MOST_ROWS = 40  # of the estimates; summary.json has them all
MOST_PLACES = 6  # decimals of a shown number
MOST_NAMES = 10  # of features in a line
POSTERIOR = {
    "mean": "mean", "sd": "sd", "q05": "5 %", "q95": "95 %", "exact": "exact mean", "exact_sd": "exact sd",
    "reference": "reference", "reference_error": "± its error", "reference_sd": "reference sd",
    "truth": "truth", "mc_error": "± MC error",
}  # fmt: skip
PRIOR = {"median": "median", "q05": "5 %", "q95": "95 %", "observed": "observed"}
COMPUTED = {"mean": "value", "exact": "exact", "mc_error": "± MC error"}
"""Columns of the estimates of a fit, of a prior and of a study: key in summary.json -> head."""


def report(summary: Summary, figures: Sequence[str]) -> str:
    """Return the result table of a fit.

    Args:
        summary: Content of summary.json.
        figures: Paths of the figures that were drawn.
    """
    found, diverged = summary["diagnostics"], summary["diverged_replicates"]
    lines = [
        "",
        f"{summary['experiment']}: {summary['status']} after {summary['timing']['iterations']} steps",
        _data_line(summary["data"]),
        *column_lines(summary["data"]),
        *_estimate_lines(summary["estimates"], POSTERIOR),
        *_bound_lines(summary["objective"], summary["final"], summary.get("up_to", "")),
    ]
    if "likelihood" in found:
        row = found["likelihood"]
        words = f"nats per held-out point, {row['samples']} importance samples"
        lines.append(f"{'-log p(x)':14}{row['nll']:14.6f}{row['se']:12.2g}{'':16}  {words}")
    if "held_out" in found:
        row = found["held_out"]
        error = "" if row["se"] is None else f"{row['se']:.2g}"
        cells = f"{row['mean']:14.6f}{error:>12}{'':16}"
        lines.append(f"{'held out':14}{cells}  log predictive density of a point, {row['points']} points")
    if (gap := summary["final"]["kl_to_posterior"]) is not None:
        lines.append(f"KL(q || posterior) = {gap:.6g} nats")
    if (evidence := summary["final"].get("reference_log_evidence")) is not None:
        lines.append(f"log evidence of the reference = {evidence:.4f} ± {summary['final']['reference_error']:.2g} nats")
    if not summary.get("trained", True):
        lines.append("nothing is trained: q was found before the first step, and its bound measured once")
    if summary["bias"]:
        lines.append(f"the gradient is biased: {summary['bias']}")
    if "denoising" in found:
        lines += _denoising_lines(found["denoising"])
    if summary["best_replicate"] is not None:
        lines.append(restarts_line(summary["final"]["values"], summary["best_replicate"]))
    for group in ("recovery", "misfit"):
        if summary[group]:
            lines.append(f"{group}: " + ", ".join(f"{name} {value:.4g}" for name, value in summary[group].items()))
    if diverged:
        lines.append(f"{diverged} of {summary['replicates']} replicates diverged, and are left out")
    if "gradient" in found:
        lines += [_noise_line(when, found["gradient"][when]) for when in ("start", "final")]
    return "\n".join([*lines, *verdict_lines(summary), *_verdict_lines(summary, figures)])


def study_report(summary: Summary, figures: Sequence[str]) -> str:
    """Return the result table of a study; the arguments are those of `report`."""
    head = f"{summary['experiment']}: {summary['status']}"
    return "\n".join(["", head, *_estimate_lines(summary["estimates"], COMPUTED), *_verdict_lines(summary, figures)])


def prior_report(summary: Summary, figures: Sequence[str]) -> str:
    """Return the table of the prior; the arguments are those of `report`."""
    lines = ["", f"{summary['experiment']}: {summary['subtitle']}", *column_lines(summary["data"])]
    lines += _estimate_lines(summary["estimates"], PRIOR)
    lines += _estimate_lines(summary["observed"], PRIOR)
    return "\n".join([*lines, *_verdict_lines(summary, figures)])


def restarts_line(values: Sequence[float], best: int) -> str:
    """Say which restart was kept and how far below it the others ended, so that local optima are seen.

    Args:
        values: Final bound of each restart; NaN where it diverged.
        best: Number of the restart that was kept.
    """
    gaps = values[best] - np.array(values)
    near = int((gaps < 0.01).sum())
    return (
        f"best of {len(values)} restarts: number {best}; {near} within 0.01 nats of it, "
        f"the median {np.nanmedian(gaps):.4g} and the worst {np.nanmax(gaps):.4g} nats below"
    )


def _estimate_lines(rows: dict[str, Any], heads: dict[str, str]) -> list[str]:
    """Return a head and a line for each entry of `estimates`, in the units of the latents; at most `MOST_ROWS`.

    Args:
        rows: Entries by name.
        heads: Key of an entry -> head of its column; a column in which nothing stands is left out.
    """
    if not rows:
        return []
    shown = dict(itertools.islice(rows.items(), MOST_ROWS))
    cells = [[_cell(row, key) for key in heads] for row in shown.values()]
    used = [i for i in range(len(heads)) if any(line[i] for line in cells)]
    names, table = ["", *shown], [list(heads.values()), *cells]
    widths = {i: max(len(line[i]) for line in table) + 2 for i in used}
    first = max(13, *map(len, names)) + 1
    lines = [
        name.ljust(first) + "".join(line[i].rjust(max(11, widths[i])) for i in used)
        for name, line in zip(names, table, strict=True)
    ]
    hidden = len(rows) - len(shown)
    return [*lines, f"... and {hidden} more, in summary.json"] if hidden else lines


def _cell(row: Summary, key: str) -> str:
    """Return a number of an entry: with the decimals that its error and deviation leave, the error with two digits."""
    value = row.get(key)
    if value is None:
        return ""
    if key in ("mc_error", "reference_error"):
        return f"{value:.2g}"
    places = decimals(row)
    return f"{value:.6g}" if key == "truth" or places is None else f"{value:.{places}f}"


def decimals(row: Summary) -> int | None:
    """Return the number of decimals that show two digits of the Monte Carlo error and three of the deviation.

    Of a row without deviation, three digits of the distance of its quantiles. None where neither is known: six digits.
    """
    spread = row.get("sd")
    if spread is None and None not in (row.get("q05"), row.get("q95")):
        spread = row["q95"] - row["q05"]
    sizes = [(row.get("mc_error"), 1), (spread, 2)]
    places = [digits - math.floor(math.log10(size)) for size, digits in sizes if size and math.isfinite(size)]
    return min(MOST_PLACES, max(0, *places)) if places else None


def _data_line(data: Summary) -> str:
    """Return the number of data points, and what `summary.data` says of the observed numbers."""
    names = ("mean", "variance", "precision")
    found = [
        f"{name}: " + ", ".join(f"{key} {row[key]:.6g}" for key in names if row[key] is not None)
        for name, row in data["numbers"].items()
    ]
    return "; ".join([f"data: {data['points']} points", *found])


def column_lines(data: Summary) -> list[str]:
    """Return which column of x each element of a vector belongs to, and which columns no model sees."""
    found = {"features": numbered_features(data), "columns of text left out": data.get("left_out", [])}
    return [f"{words}: {_first(names)}" for words, names in found.items() if names]


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more, in summary.json" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def numbered_features(data: Summary) -> list[str]:
    """Return the names of the columns of x, each after its index."""
    return [f"{i} {name}" for i, name in enumerate(data.get("features", []))]


def _bound_lines(trained: Summary, final: Summary, up_to: str) -> list[str]:
    """Return the lines of the bound at the end of training and of the final q; `up_to` is what both lack."""
    words = {"per": trained["per"], "up to": up_to}
    label = " ".join([trained["name"], *(f"{word} {what}" for word, what in words.items() if what)])
    head = f"{'':14}{'nats':>14}{'± MC error':>12}" + ("" if final["log_evidence"] is None else f"{'log evidence':>16}")
    training = _bound_cells(trained["mean"], trained["se"], None)
    ended = _bound_cells(final["mean"], final["se"], final["log_evidence"])
    return [
        head,
        f"{'training':14}{training}  {label}, last tenth of the steps",
        f"{'final':14}{ended}  {final['method']}",
    ]


def _denoising_lines(found: Summary) -> list[str]:
    """Return the terms of a diffusion model's bound, and their difference from those of the best affine denoiser."""
    lines = [f"{'':14}{'nats':>14}{'± MC error':>12}{found['units']:>36}"]
    for key, name in {"L_T": "L_T", "L_t": "sum L_(t-1)", "L_0": "L_0", "total": "L"}.items():
        row = found[key]
        lines.append(f"{name:14}{row['nats']:14.6f}{row['se']:12.2g}{row['bits_per_dim']:36.6f}")
    total, excess = found["affine"]["total"], found["affine"]["excess"]
    if np.isfinite(total):
        lines.append(f"{'affine L':14}{total:14.6f}{'':12}  the best affine denoiser's, in closed form")
        lines.append(f"{'L - affine L':14}{excess['nats']:14.6f}{excess['se']:12.2g}")
    return lines


def _noise_line(when: str, noise: Summary) -> str:
    """Return the standard deviation of the gradient (a norm over parameters) at the start or the end, and its bias."""
    total, bias = noise["total"]["mean"], noise["bias"]
    text = f"gradient noise, {when}: " + ("no replicate left" if total is None else f"{total:.5g}")
    if "networks" in noise:
        text += f" ({', '.join(f'{name} {value:.5g}' for name, value in noise['networks'].items())})"
    if bias is None or bias["largest_z"] is None:
        return text
    return f"{text}; its mean is off the exact gradient by {bias['largest_z']:.2f} standard errors at most"


def _verdict_lines(summary: Summary, figures: Sequence[str]) -> list[str]:
    lines = [summary["note"]] if summary["note"] else []
    lines += [_check_line(check) for check in summary["checks"]]
    if summary["checks_skipped"]:
        lines.append(f"checks not applied: {summary['checks_skipped']}")
    lines += [f"figure  {figure}" for figure in figures]
    return [*lines, f"results {summary['run']}"]


def _check_line(check: Summary) -> str:
    verdict = "PASS" if check["passed"] else "FAIL"
    asked = limits(check["name"], check["expected"], check["tolerance"])
    return f"{verdict}    {check['name']} = {_check_value(check['value'])}, expected {asked}"


def _check_value(value: float | None) -> str:
    if value is None:
        return "missing"
    return "0" if value == 0 else f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.6f}"


def _bound_cells(value: float | None, error: float | None, evidence: float | None) -> str:
    columns = ((value, 14, ".6f"), (error, 12, ".2g"), (evidence, 16, ".6f"))
    return "".join(("" if value is None else format(value, form)).rjust(width) for value, width, form in columns)

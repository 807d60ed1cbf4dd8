"""Result table of a run on the terminal: one text from the content of summary.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .verdict_lines import verdict_lines

Summary = dict[str, Any]


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
        *_estimate_lines({f"E[{name}]": row for name, row in summary["estimates"].items()}),
        *_bound_lines(summary["objective"], summary["final"]),
    ]
    if "likelihood" in found:
        row = found["likelihood"]
        words = f"nats per held-out point, {row['samples']} importance samples"
        lines.append(f"{'-log p(x)':14}{row['nll']:14.6f}{row['se']:12.2g}{'':26}  {words}")
    if (gap := summary["final"]["kl_to_posterior"]) is not None:
        lines.append(f"KL(q || posterior) = {gap:.6g} nats; the exact value beside the final bound is the log evidence")
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
    return "\n".join(["", head, *_estimate_lines(summary["estimates"]), *_verdict_lines(summary, figures)])


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


def _estimate_lines(rows: dict[str, Any]) -> list[str]:
    """Return a head and a line for each entry of `estimates`, in the units of the latents."""
    width = max([13, *map(len, rows)]) + 1
    lines = [f"{'':{width}}{'estimate':>14}{'± se':>12}{'truth':>12}{'exact':>14}"]
    cells = {name: _cells(row["mean"], row["se"], row["truth"], row["exact"]) for name, row in rows.items()}
    return lines + [name.ljust(width) + text for name, text in cells.items()]


def _bound_lines(trained: Summary, final: Summary) -> list[str]:
    """Return the lines of the bound at the end of training and of the final q."""
    label = trained["name"] + (f" per {trained['per']}" if trained["per"] else "")
    training = _cells(trained["mean"], trained["se"], None, None)
    ended = _cells(final["mean"], final["se"], None, final["log_evidence"])
    return [f"{'training':14}{training}  {label}, last tenth of the steps", f"{'final':14}{ended}  {final['method']}"]


def _denoising_lines(found: Summary) -> list[str]:
    """Return the terms of a diffusion model's bound, and their difference from those of the best affine denoiser."""
    lines = [f"{'':14}{'nats':>14}{'± se':>12}{found['units']:>36}"]
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
    value = "missing" if check["value"] is None else f"{check['value']:.6f}"
    return f"{verdict}    {check['name']} = {value}, expected {check['expected']} ± {check['tolerance']}"


def _cells(estimate: float | None, se: float | None, truth: float | None, exact: float | None) -> str:
    columns = ((estimate, 14, ".6f"), (se, 12, ".2g"), (truth, 12, ".6g"), (exact, 14, ".6f"))
    return "".join(("" if value is None else format(value, form)).rjust(width) for value, width, form in columns)

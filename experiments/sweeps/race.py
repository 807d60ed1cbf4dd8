"""Jobs of a sweep at equal time: their bounds and errors when the first of them ended.

Of jobs that know the exact posterior the error is √mean ((E[z] − exact)/exact sd)², over replicates and latents, in
posterior standard deviations. The clock is the one of trace.csv from its first row on, which counts training alone.
"""

from collections.abc import Sequence

import numpy as np

from vi_core.training.history import History

from .differences import Job

LATE = 0.9  # of the time: bounds and errors are averaged over what comes after it


def errors_of(job: Job, trace: History) -> np.ndarray | None:
    """Return the error at each recorded step, (T,), in posterior deviations; None where the posterior is not known."""
    rows, found = job["estimates"], trace.expectations()
    known = [name for name in found if rows.get(name, {}).get("exact_sd")]
    if not known:
        return None
    squares = [((found[name] - rows[name]["exact"]) / rows[name]["exact_sd"]) ** 2 for name in known]
    return np.sqrt(np.nanmean(squares, axis=(0, 2)))


def seconds_of(trace: History) -> np.ndarray:
    """Return the seconds of each row since the first, (T,): what precedes it is not of the method alone."""
    return trace.seconds - trace.seconds[0]


def at_equal_time(jobs: Sequence[Job], traces: Sequence[History]) -> list[dict[str, float]]:
    """Return for each job `equal_s`, the time that all had, and its `final_in_time` and `error_in_time` by then.

    Args:
        jobs: With results.
        traces: What they recorded.
    """
    time = float(min(seconds_of(trace)[-1] for trace in traces))
    lines = []
    for job, trace in zip(jobs, traces, strict=True):
        seconds = seconds_of(trace)
        late = (seconds <= time) & (seconds >= LATE * time)
        late[np.searchsorted(seconds, time, side="right") - 1] = True
        line = {"equal_s": time, "final_in_time": float(np.nanmean(trace.columns[trace.bound][late]))}
        errors = errors_of(job, trace)
        if errors is not None:
            line |= {"error": float(errors[-1]), "error_in_time": float(np.sqrt((errors[late] ** 2).mean()))}
        lines.append(line)
    return lines

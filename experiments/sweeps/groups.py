"""Jobs of a sweep that differ in their seed alone, as one group: means over the seeds, with standard errors.

A group of one job has the standard error over its replicates, of the numbers for which summary.json has one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .differences import Job, settings, value_of

SEED = "seed"


@dataclass(frozen=True)
class Group:
    """Jobs that have all values but the seed in common.

    Attributes:
        values: Value of each telling key.
        jobs: All of its jobs.
    """

    values: dict[str, str]
    jobs: list[Job]

    @property
    def finished(self) -> list[Job]:
        """The jobs that have results."""
        return [job for job in self.jobs if "objective" in job]

    def final(self) -> tuple[float, float]:
        """Return the mean of the final bound and its standard error, each NaN where it is unknown."""
        return mean_and_error([_pair(job["final"]) for job in self.finished])


def telling(keys: Sequence[str]) -> list[str]:
    """Return the swept keys without the seed."""
    return [key for key in keys if key != SEED]


def groups_of(jobs: Sequence[Job], keys: Sequence[str]) -> list[Group]:
    """Return the jobs in groups with the same values of all `keys` but the seed, in their order."""
    found: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        found.setdefault(tuple(value_of(job, key) for key in telling(keys)), []).append(job)
    return [Group(dict(zip(telling(keys), values, strict=True)), members) for values, members in found.items()]


def mean_and_error(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return mean and standard error over several numbers; of one number its own error.

    Args:
        pairs: Numbers with their own errors; those that are not finite are left out.
    """
    known = [pair for pair in pairs if math.isfinite(pair[0])]
    if len(known) < 2:
        return known[0] if known else (math.nan, math.nan)
    mean = math.fsum(value for value, _ in known) / len(known)
    variance = math.fsum((value - mean) ** 2 for value, _ in known) / (len(known) - 1)
    return mean, math.sqrt(variance / len(known))


def _pair(spread: dict[str, Any]) -> tuple[float, float]:
    mean, error = spread["mean"], spread["se"]
    return math.nan if mean is None else mean, math.nan if error is None else error


def aggregated(group: Group, rows: Sequence[dict[str, Any]], beside: Sequence[str]) -> dict[str, Any]:
    """Return a group's line of groups.csv: each number of its jobs' lines as mean and, with `.se`, standard error.

    Args:
        group: The group.
        rows: The lines of its jobs in sweep.csv.
        beside: Settings that differ without having been swept.
    """
    line: dict[str, Any] = dict(group.values)
    line |= {path: rows[0].get(path, "") for path in beside if len({str(row.get(path, "")) for row in rows}) == 1}
    line |= {"jobs": len(rows), "status": statuses([row["status"] for row in rows])}
    aside = {
        "job",
        "status",
        "error",
        "checks_passed",
        "checks",
        *line,
        *(key for job in group.jobs for key in settings(job)),
    }
    for name in dict.fromkeys(name for row in rows for name in row):
        if name in aside or name.endswith(("_se", ".mc_error")):
            continue
        own = {"objective": "objective_se", "final": "final_se"}.get(name, f"{name}.mc_error")
        pairs = [(_float(row[name]), _float(row.get(own))) for row in rows if name in row]
        mean, error = mean_and_error(pairs)
        line |= {name: mean if math.isfinite(mean) else "", f"{name}.se": error if math.isfinite(error) else ""}
    return line


def statuses(found: Sequence[str]) -> str:
    """Return how jobs ended, such as `3 completed, 1 diverged`; the word alone where all ended alike."""
    counts = {status: found.count(status) for status in dict.fromkeys(found)}
    return found[0] if len(counts) == 1 else ", ".join(f"{count} {status}" for status, count in counts.items())


def _float(value: Any) -> float:
    return math.nan if value is None or isinstance(value, str) else float(value)

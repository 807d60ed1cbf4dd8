"""What the benchmark must show: PASS or FAIL for each target of the experiment."""

from collections.abc import Mapping, Sequence
from typing import Any

from .results import OURS, Row, quantities


def judge(targets: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> tuple[list[dict[str, Any]], str]:
    """Return a check for each target that could be judged, and which could not, and why.

    A target fails where this program's part of it is missing. It is not judged where its problem was not asked for, or
    where the other contender is not there or gave no right answer.
    """
    found, checks, unjudged = quantities(rows), [], []
    for target in targets:
        name = target["quantity"]
        reason = "" if name in found else why_not(name, rows)
        if reason:
            unjudged.append(f"{name} ({reason})")
            continue
        value, low, high = found.get(name), target["at_least"], target["at_most"]
        passed = value is not None and (low is None or value >= low) and (high is None or value <= high)
        sense = "at least" if high is None else "at most"
        limit = low if high is None else high
        checks.append(
            {"name": name, "value": value, "expected": limit, "sense": sense, "tolerance": 0.0, "passed": passed}
        )
    return checks, "; ".join(unjudged)


def why_not(name: str, rows: Sequence[Row]) -> str:
    """Return why a quantity that was not found is nobody's fault; empty where it is this program's."""
    _, problem, *contender = name.split(".")
    here = [row for row in rows if row.problem == problem]
    if not here:
        return "not measured"
    other = [row for row in here if contender and row.contender == contender[0] and row.contender != OURS]
    if contender and contender[0] != OURS and not other:
        return "not measured"
    absent = [row for row in other if row.status != "ok"]
    return f"{absent[0].contender} is {absent[0].status}" if absent and len(absent) == len(other) else ""


def check_line(check: Mapping[str, Any]) -> str:
    """Return one line for the terminal."""
    verdict = "PASS" if check["passed"] else "FAIL"
    value = "missing" if check["value"] is None else f"{check['value']:.4g}"
    return f"{verdict}    {check['name']} = {value}, {check['sense']} {check['expected']:g}"

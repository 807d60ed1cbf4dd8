"""PASS or FAIL: an experiment's expected numbers against what came out."""

from collections.abc import Mapping, Sequence
from typing import Any

from vi_core.training.history import History

from ..config.schema import names


def chosen_key(override: str) -> str:
    """Return the key that an override sets, adds or removes."""
    return override.partition("=")[0].lstrip("+~")


def changed_settings(overrides: Sequence[str], swept: Sequence[str]) -> list[str]:
    """Return the overrides that make a run another experiment than the one whose numbers are expected."""
    allowed = {*names("expected"), *swept}
    return [text for text in overrides if not any(_covers(key, chosen_key(text)) for key in allowed)]


def _covers(key: str, name: str) -> bool:
    return name == key or name.startswith((f"{key}.", f"{key}/", f"{key}@"))


def check(
    expected: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], config: Mapping[str, Any], trace: History | None
) -> list[dict[str, Any]]:
    """Compare each expectation that applies to `config` with its quantity in `summary` or `trace`.

    A condition `data.checksum` holds for the data themselves, wherever they were read from.
    """
    checks, known = [], {**config, "data": summary.get("data", {})}
    for item in expected:
        if any(lookup(known, key) != value for key, value in item.get("when", {}).items()):
            continue
        source, _, rest = item["quantity"].partition(".")
        value = recorded(trace, rest) if trace and source == "trace" else lookup(summary, item["quantity"])
        passed = isinstance(value, (int, float)) and abs(value - item["value"]) <= item["tolerance"]
        checks.append(
            {
                "name": item["quantity"],
                "value": value,
                "expected": item["value"],
                "tolerance": item["tolerance"],
                "passed": passed,
            }
        )
    return checks


def recorded(trace: History, path: str) -> float | None:
    """Return `<column>.<step>` of a trace, averaged over replicates, or None where it was not recorded."""
    name, _, step = path.rpartition(".")
    rows = (trace.step == int(step)).nonzero()[0] if step.isdigit() else []
    return float(trace.columns[name][rows[0]].mean()) if len(rows) and name in trace.columns else None


def lookup(tree: Any, path: str) -> Any:
    """Return the value at a dotted path, or None; integers index lists from 1, as epochs are counted."""
    node = tree
    for key in path.split("."):
        if isinstance(node, Mapping):
            node = node.get(key)
        elif isinstance(node, Sequence) and key.isdigit() and 1 <= int(key) <= len(node):
            node = node[int(key) - 1]
        else:
            return None
    return node

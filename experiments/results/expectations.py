"""Checks of a run: PASS or FAIL for each number that its experiment expects, within a tolerance."""

from collections.abc import Mapping, Sequence
from typing import Any

from vi_core.storage.renamed import ESTIMATES
from vi_core.training.history import History

from ..config.schema import names


def chosen_key(override: str) -> str:
    """Return the key that an override such as `+trainer.steps=10` sets, adds or removes."""
    return override.partition("=")[0].lstrip("+~")


def changed_settings(overrides: Sequence[str], swept: Sequence[str]) -> list[str]:
    """Return the overrides under which an experiment's expected numbers no longer hold.

    Args:
        overrides: What the command line changed.
        swept: Keys that may vary, as the experiment's own sweep varies them.
    """
    allowed = {*names("expected"), *swept}
    return [text for text in overrides if not any(_covers(key, chosen_key(text)) for key in allowed)]


def _covers(key: str, name: str) -> bool:
    return name == key or name.startswith((f"{key}.", f"{key}/", f"{key}@"))


def limits(name: str, expected: float, tolerance: float) -> str:
    """Return what a check asks for, in words: a p-value only not to be tiny, and a number to be near another one."""
    low, high = f"{expected - tolerance:.3g}".replace("e-0", "e-"), f"{expected + tolerance:.3g}"
    if "p_value" in name:
        return f"> {low}"
    if abs(expected) > tolerance > 0.9 * abs(expected):  # a wide range has no middle that means something
        return f"from {low} to {high}"
    return f"{0 if expected == 0 else expected} ± {tolerance}"


def check(
    expected: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], config: Mapping[str, Any], trace: History | None
) -> list[dict[str, Any]]:
    """Compare each expected number that applies to a configuration with what the run found.

    Args:
        expected: Items with `quantity`, `value`, `tolerance` and, optionally, `when`: settings under which they apply.
            The condition `data.checksum` holds for the data themselves, wherever they were read from.
        summary: Content of summary.json, for quantities such as `estimates.mu.mean`.
        config: The run's resolved configuration.
        trace: The run's history, for quantities such as `trace.elbo.100`, or None.

    Returns:
        name, value, expected, tolerance and passed of each check.
    """
    checks, known = [], {**config, "data": summary.get("data", {})}
    for item in expected:
        if any(lookup(known, key) != value for key, value in item.get("when", {}).items()):
            continue
        source, _, rest = item["quantity"].partition(".")
        value = recorded(trace, rest) if trace and source == "trace" else lookup(summary, present(item["quantity"]))
        passed = isinstance(value, (int, float)) and abs(value - item["value"]) <= item["tolerance"]
        found = {"name": item["quantity"], "value": value, "expected": item["value"], "tolerance": item["tolerance"]}
        checks.append(found | {"passed": passed})
    return checks


def present(quantity: str) -> str:
    """Return the path of a quantity in schema 2, also where it is that of schema 1, such as `estimates.mu.std`."""
    head, _, statistic = quantity.rpartition(".")
    return f"{head}.{ESTIMATES.get(statistic, statistic)}" if head.startswith("estimates.") else quantity


def recorded(trace: History, path: str) -> float | None:
    """Return the value `<column>.<step>` of a history, averaged over replicates; None where it was not recorded."""
    name, _, step = path.rpartition(".")
    rows = (trace.step == int(step)).nonzero()[0] if step.isdigit() else []
    return float(trace.columns[name][rows[0]].mean()) if len(rows) and name in trace.columns else None


def lookup(tree: Any, path: str) -> Any:
    """Return the value at a dotted path, or None where it leads nowhere.

    Args:
        tree: Dicts and lists, nested.
        path: Such as `estimates.mu.mean`; integers index lists from 1, as epochs are counted.
    """
    node = tree
    for key in path.split("."):
        if isinstance(node, Mapping):
            node = node.get(key)
        elif isinstance(node, Sequence) and key.isdigit() and 1 <= int(key) <= len(node):
            node = node[int(key) - 1]
        else:
            return None
    return node

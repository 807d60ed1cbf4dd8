"""The verdict on the terminal."""

from typing import Any


def verdict_lines(summary: dict[str, Any]) -> list[str]:
    """Return the line of the verdict, and one for each scalar that importance sampling corrects."""
    found = summary.get("verdict") or {}
    rows = [
        f"corrected {name}: mean {row['mean']:.6g}, sd {row['sd']:.4g}, 90 % in ({row['q05']:.4g}, {row['q95']:.4g})"
        for name, row in found.get("corrected", {}).items()
    ]
    return [found["line"], *rows] if found else []

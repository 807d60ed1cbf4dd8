"""The verdict on the terminal."""

from typing import Any

from vi_core.diagnostics.verdict import EVEN

WORDS = {"good": "TRUST", "corrected": "CORRECTED", "poor": "DO NOT TRUST"}
"""The verdict in summary.json -> its words."""


def verdict_lines(summary: dict[str, Any]) -> list[str]:
    """Return the line of the verdict, and one for each scalar that importance sampling corrects."""
    found = summary.get("verdict") or {}
    rows = [
        f"corrected {name}: mean {row['mean']:.6g}, sd {row['sd']:.4g}, 90 % in ({row['q05']:.4g}, {row['q95']:.4g})"
        for name, row in found.get("corrected", {}).items()
    ]
    return [found["line"], *weights_line(found), *rows] if found else []


def weights_line(found: dict[str, Any]) -> list[str]:
    """Return k-hat and the effective draws of q as a proposal, with what they allow; none without a verdict.

    The limits are those of Vehtari, Simpson, Gelman, Yao and Gabry 2024: below 0.5 an average over weighted draws has a
    variance, up to 0.7 its error still falls with more draws, and above no number of draws in reach helps.
    """
    if found.get("trust") is None or found["k_hat"] is None:
        return []
    k_hat, share = found["k_hat"], found["ess"] / found["draws"]
    advice = "averages over weighted draws are of no use, as q misses part of the posterior"
    if share > EVEN:
        advice = "they are so even that k-hat does not matter, and weighted averages are reliable"
    elif k_hat < 0.7:
        advice = "weighted averages are reliable" if k_hat < 0.5 else "weighted averages need many more draws"
    return [f"weights of draws of q: k-hat {k_hat:.2f}, {share:.0%} effective; {advice}"]

"""Statistical tests state the smallest effect that they find, and the numbers that they state are right.

The numbers in the docstrings of tests/statistical are computed again from the sizes beside them, by the functions of
`tests/oracles.py`, and these against simulations: an effect of the stated size is found, and a third of it is not.
False alarms of the simulations: each asserts a frequency that is many standard errors away from its limit.
"""

import ast
import re
from pathlib import Path

import pytest
import torch
from scipy import stats

from tests import oracles
from tests.conftest import ROOT

FILES = sorted((ROOT / "tests" / "statistical").glob("test_*.py"))
MEAN = r"([\d,]+)\s+samples(?:,\s+each\s+over\s+[\d,]+\s+images,)?(?:\s+that\s+is\s+off)?\s+by\s+([\d.]+)"
STATED = {
    MEAN: oracles.smallest_shift,
    r"([\d,]+)\s+draws\s+at\s+a\s+distance\s+of\s+([\d.]+)": oracles.smallest_distance,
    r"([\d,]+)\s+counts\s+that\s+are\s+off\s+by\s+w = ([\d.]+)": lambda size: oracles.smallest_frequency(size, 4),
}
"""How a docstring states an effect: the sample size and the effect; and what computes it."""


def wrong_statements(text: str) -> list[str] | None:
    """Statements of a docstring that are not what the functions give; None where it states no power."""
    if "Power, in 99 of 100 runs" not in text or ("alse alarm" not in text and "alse-alarm" not in text):
        return None
    found = [
        (match[0], float(match[2].rstrip(".")), compute(int(match[1].replace(",", ""))))
        for pattern, compute in STATED.items()
        for match in re.finditer(pattern, text)
    ]
    wrong = [statement for statement, stated, computed in found if abs(stated - computed) > 6e-4]
    return wrong if found else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_statistical_file_states_its_power(path: Path) -> None:
    assert wrong_statements(ast.get_docstring(ast.parse(path.read_text())) or "") == []


def test_a_wrong_or_a_missing_statement_is_caught() -> None:
    right = "One false alarm in a million. Power, in 99 of 100 runs: a mean of 4,000 samples that is off by 0.141."
    assert wrong_statements(right) == []
    assert wrong_statements(right.replace("0.141", "0.041"))
    assert wrong_statements("A test.") is None


def frequency(size: int, shift: float) -> float:
    """How often `max_z` rejects a mean of `size` Normal samples that is off by `shift` deviations, of 300 times."""
    torch.manual_seed(0)
    samples = torch.randn(300, size, 1, dtype=torch.float64) + shift
    return sum(oracles.max_z(one, torch.zeros(1)) > oracles.limit(size) for one in samples) / 300


def test_effects_of_the_stated_size_are_found() -> None:
    effect = oracles.smallest_shift(2000)
    assert frequency(2000, effect) > 0.95
    assert frequency(2000, effect / 3) < 0.05


def test_distances_and_frequencies_of_the_stated_size_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    distance = oracles.smallest_distance(2000)
    uniform = torch.rand(100, 2000, generator=generator, dtype=torch.float64)
    shifted = [oracles.law_p_value((1 - distance) * one, stats.uniform.cdf) for one in uniform]
    least = oracles.FALSE_ALARM / oracles.COMPARISONS
    assert sum(p < least for p in shifted) > 95
    assert min(oracles.law_p_value(one, stats.uniform.cdf) for one in uniform) > least
    off = 0.25 * oracles.smallest_frequency(2000, 4)
    wrong = torch.tensor([0.25 + off, 0.25 - off, 0.25 + off, 0.25 - off], dtype=torch.float64)
    counts = torch.multinomial(wrong.expand(100, 4), 2000, replacement=True, generator=generator)
    p_values = [float(stats.chisquare(torch.bincount(one, minlength=4), [500] * 4)[1]) for one in counts]
    assert sum(p < least for p in p_values) > 95

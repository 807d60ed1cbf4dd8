"""Ranks of true values: uniform for the posterior itself, and not for one that is too narrow, too wide or elsewhere.

With 200 ranks in 20 bins Pearson's test rejects uniform ranks at p < 1e-6 once in a million; a q with 0.6 or 2 of the
posterior's deviation, or a mean that is 0.7 deviations away, is rejected in each of 20 repetitions.
"""

import numpy as np
import pytest

from vi_core.studies.calibration import histogram, outside, p_value

FITS, DRAWS = 200, 99


def ranks(scale: float, shift: float, seed: int = 0) -> np.ndarray:
    """Ranks of θ ~ N(0, 1) among draws of N(shift, scale²), which is the posterior where they are 0 and 1."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=(FITS, 1))
    return (shift + scale * generator.normal(size=(FITS, DRAWS)) < truth).sum(axis=1)


def test_ranks_of_the_posterior_are_uniform() -> None:
    assert all(p_value(ranks(1.0, 0.0, seed), DRAWS) > 1e-6 for seed in range(20))
    assert outside(ranks(1.0, 0.0), DRAWS) == pytest.approx(0.1, abs=0.08)
    assert histogram(np.array([0, 4, 5, 99]), DRAWS)[[0, 1, 19]].tolist() == [2, 1, 1]


@pytest.mark.parametrize(("scale", "shift"), [(0.6, 0.0), (2.0, 0.0), (1.0, 0.7)])
def test_a_wrong_q_is_found(scale: float, shift: float) -> None:
    assert all(p_value(ranks(scale, shift, seed), DRAWS) < 1e-6 for seed in range(20))

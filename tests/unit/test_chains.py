"""R-hat, effective sizes and Monte Carlo errors against autoregressive chains, and bridge sampling against Normals.

An AR(1) chain with coefficient φ has the effective size S (1 − φ)/(1 + φ). All draws have fixed seeds; the limits on
them are four standard errors of the statistic, found from 40 repetitions.
"""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from vi_core.diagnostics.bridge import bridge_evidence
from vi_core.diagnostics.chains import effective_size, mean_error, quantile_error, split_rhat


def autoregressive(phi: float, chains: int = 4, count: int = 4000, seed: int = 0) -> np.ndarray:
    """Return chains (C, N, 1) of x' = φ x + √(1 − φ²) ε, from their stationary law N(0, 1)."""
    noise = np.random.default_rng(seed).normal(size=(chains, count))
    x = noise.copy()
    for t in range(1, count):
        x[:, t] = phi * x[:, t - 1] + np.sqrt(1 - phi**2) * noise[:, t]
    return x[..., None]


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.6, 0.9])
def test_effective_size_of_an_autoregressive_chain(phi: float) -> None:
    """Within 20 % of S (1 − φ)/(1 + φ)."""
    found = float(effective_size(autoregressive(phi))[0])
    assert found == pytest.approx(16_000 * (1 - phi) / (1 + phi), rel=0.2)


def test_rhat_of_chains_that_agree() -> None:
    assert split_rhat(autoregressive(0.6))[0] < 1.01


@pytest.mark.parametrize("fault", ["one chain elsewhere", "one chain wider", "a trend"])
def test_rhat_sees_what_is_wrong(fault: str) -> None:
    draws = autoregressive(0.3)
    if fault == "one chain elsewhere":
        draws[0] += 1
    elif fault == "one chain wider":
        draws[0] *= 3
    else:
        draws += np.linspace(0, 1.5, draws.shape[1])[:, None]
    assert split_rhat(draws)[0] > 1.02


def test_error_of_a_mean_and_of_a_quantile() -> None:
    """The errors of 60 sets of chains have the deviation that each set says, within 30 %."""
    sets = [autoregressive(0.5, 2, 1000, seed) for seed in range(60)]
    for errors, values in (
        ([mean_error(s)[0] for s in sets], [s.mean() for s in sets]),
        ([quantile_error(s, 0.05)[0] for s in sets], [np.quantile(s, 0.05) for s in sets]),
    ):
        assert np.std(values) == pytest.approx(np.mean(errors), rel=0.3)


@pytest.mark.parametrize("size", [1, 6])
def test_evidence_of_a_normal(size: int) -> None:
    """log ∫ e³ N(u; m, Σ) du = 3, within four of the stated errors, which are below 0.02 nats."""
    generator = torch.Generator().manual_seed(size)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64).tril() + 2 * torch.eye(size).double()
    law = MultivariateNormal(torch.arange(size).double(), scale_tril=root)
    noise = torch.randn(4, 2000, size, generator=generator, dtype=torch.float64)
    draws = (law.loc + noise @ root.mT).numpy()
    found = bridge_evidence(lambda u: law.log_prob(u) + 3, draws, 0, 8000)
    assert found.error < 0.02
    assert abs(found.value - 3) < 4 * found.error


def test_evidence_of_a_skewed_law() -> None:
    """A Gamma(2) law of eᵘ, far from Normal in u: log Γ(2) + 0.5 = 0.5."""
    value = np.random.default_rng(1).gamma(2.0, size=(4, 4000, 1))
    found = bridge_evidence(lambda u: (2 * u - u.exp()).sum(-1) + 0.5, np.log(value), 0, 16_000)
    assert abs(found.value - 0.5) < 4 * found.error < 0.1

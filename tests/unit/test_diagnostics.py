"""Importance-sampling diagnostics against laws whose tail is known."""

import math

import pytest
import torch

from vi_core.diagnostics.importance import effective_sample_size, pareto_k, pareto_shape


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.7, 1.2])
def test_shape_of_a_generalised_pareto_law(shape: float) -> None:
    """Mean of 200 estimates from n = 2,000 exact draws, within 0.02: over eight standard errors of about 0.0023."""
    uniform = torch.rand(200, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = (uniform ** (-shape) - 1) / shape
    estimates = torch.stack([pareto_shape(row.sort().values) for row in draws])
    assert estimates.mean().item() == pytest.approx(shape, abs=0.02)


def test_light_and_heavy_weights_are_told_apart() -> None:
    normal = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    narrow = 0.3 * normal
    proposal_density = -0.5 * (narrow / 0.3).square() - math.log(0.3)
    assert bool((pareto_k(-0.5 * narrow.square() - proposal_density) > 0.7).all())
    wide = 1.2 * normal
    assert bool((pareto_k(-0.5 * wide.square() + 0.5 * normal.square()) < 0.5).all())


def test_constant_weights_are_the_best_verdict() -> None:
    log_w = torch.full((1000, 2), -185.9, dtype=torch.float64)
    assert pareto_k(log_w).tolist() == [-math.inf, -math.inf]
    assert effective_sample_size(log_w).tolist() == pytest.approx([1.0, 1.0])


def test_one_weight_that_holds_all() -> None:
    log_w = torch.zeros(1000, dtype=torch.float64)
    log_w[3] = 1000.0
    assert effective_sample_size(log_w).item() == pytest.approx(1 / 1000)


def test_too_few_draws_and_infinite_weights_have_no_shape() -> None:
    assert pareto_k(torch.randn(20)).isnan().item()
    assert pareto_k(torch.cat([torch.zeros(999), torch.tensor([math.inf])])).isnan().item()

"""Bounds as functions of log-weights, and their signals, by enumeration: no Monte Carlo.

On four states with q = softmax(θ), E[f(z_1, ..., z_K)] is a sum over 4^K tuples. So is its gradient in θ, by autograd,
which the score-function identity E[Σ_k s_k ∇ log q(z_k)] with s = `bound.signal(log w)` must equal for every bound.
`EVERY` holds the bounds of conf/bound, found by looking; `tests/discovery.py` has the enumeration.
"""

import math
from collections.abc import Callable
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from tests import fakes
from tests.contracts.test_config import composed, names
from tests.discovery import (
    EVIDENCE,
    LOG_P,
    THETA,
    expectation,
    gradient,
    is_additive,
    is_finite_on_extremes,
    score_function_gradient,
)
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.schema import construct

EVERY: list[Bound] = [construct(composed(f"bound/{name}"), "bound") for name in names("bound")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", EVERY)
def test_shapes_reduce_the_samples_alone(bound: Bound) -> None:
    log_w = torch.randn(5, 3, 2, dtype=torch.float64)
    assert bound(log_w).shape == (3, 2)
    assert bound.signal(log_w).shape == (5, 3, 2)
    torch.testing.assert_close(bound(log_w)[1, 0], bound(log_w[:, 1, 0]))
    torch.testing.assert_close(bound.signal(log_w)[:, 1, 0], bound.signal(log_w[:, 1, 0]))


def test_definitions() -> None:
    log_w = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    assert ELBO()(log_w).item() == pytest.approx(0.5)
    assert IWELBO()(log_w).item() == pytest.approx(math.log((math.exp(0.5) + math.exp(-1) + math.exp(2)) / 3))


@pytest.mark.parametrize("bound", EVERY)
def test_one_sample_gives_the_elbo(bound: Bound) -> None:
    log_w = torch.randn(1, 100, dtype=torch.float64)
    torch.testing.assert_close(bound(log_w), ELBO()(log_w), rtol=0, atol=0)
    torch.testing.assert_close(gradient(bound, 1), gradient(ELBO(), 1))


def ladder(bound: Bound) -> list[float]:
    return [expectation(bound, THETA, num_samples).item() for num_samples in range(1, 7)]


def test_iwelbo_rises_towards_the_evidence() -> None:
    """L_1 = ELBO < L_2 < ... < log p(x)."""
    values = ladder(IWELBO())
    assert values[0] == pytest.approx(expectation(ELBO(), THETA, 1).item(), abs=1e-12)
    assert all(lower < higher < EVIDENCE for lower, higher in pairwise(values))


def test_gap_of_the_iwelbo_shrinks_as_one_over_the_samples() -> None:
    """K (log p(x) − L_K) → Var(w)/(2 p(x)²), for a q near enough to the posterior for K = 6 to be large."""
    theta = LOG_P + torch.tensor([0.1, -0.1, 0.05, 0.1], dtype=torch.float64)
    second_moment = (2 * LOG_P - theta.log_softmax(0)).logsumexp(0).item()
    limit = (math.exp(second_moment - 2 * EVIDENCE) - 1) / 2
    assert 6 * (EVIDENCE - expectation(IWELBO(), theta, 6).item()) == pytest.approx(limit, rel=0.02)


def test_elbo_does_not_depend_on_the_number_of_samples() -> None:
    assert ladder(ELBO()) == pytest.approx([ladder(ELBO())[0]] * 6, abs=1e-12)


def test_wrong_values_are_caught() -> None:
    """A mean of logarithms does not rise, and a sum of weights rises above the evidence."""
    assert ladder(fakes.MeanOfLogarithms()) == pytest.approx([ladder(IWELBO())[0]] * 6)
    assert ladder(fakes.SumOfWeights())[2] > EVIDENCE


def test_a_perfect_q_is_tight() -> None:
    """With q = p(z | x) all weights are p(x), for every K and every bound."""
    for bound, num_samples in product(EVERY, (1, 2, 5)):
        assert expectation(bound, LOG_P, num_samples).item() == pytest.approx(EVIDENCE, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, -1743.289125, 1e5])
@pytest.mark.parametrize("bound", EVERY)
def test_constant_log_weights(bound: Bound, constant: float) -> None:
    """The bound is the constant, and the weights are equal."""
    log_w = torch.full((50, 2), constant, dtype=torch.float64)
    torch.testing.assert_close(bound(log_w), log_w[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bound(log_w + 3.0), bound(log_w) + 3.0, rtol=1e-12, atol=1e-12)
    expected = log_w[0] / 50 if bound.additive else log_w[0] - 1 / 50
    torch.testing.assert_close(bound.signal(log_w), expected.expand(50, 2), rtol=1e-12, atol=1e-12)


def test_extreme_log_weights_do_not_overflow() -> None:
    assert all(is_finite_on_extremes(bound) for bound in EVERY)
    assert not is_finite_on_extremes(fakes.LinearSpace())
    log_w = torch.tensor([1e4, 2e4, -3e4], dtype=torch.float64)
    assert IWELBO()(log_w).item() == pytest.approx(2e4 - math.log(3), abs=1e-9)


def test_a_zero_weight_does_no_harm() -> None:
    """A draw where the model's density is zero leaves the others' mean."""
    log_w = torch.tensor([0.7, -math.inf], dtype=torch.float64)
    assert IWELBO()(log_w).item() == pytest.approx(0.7 - math.log(2))
    assert bool(IWELBO().signal(log_w).isfinite().all())


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5])
@pytest.mark.parametrize("bound", EVERY)
def test_signal_gives_the_gradient(bound: Bound, num_samples: int) -> None:
    torch.testing.assert_close(
        score_function_gradient(bound, num_samples), gradient(bound, num_samples), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("bound", [fakes.SignalOfELBO(), fakes.SignalWithoutWeights()])
def test_wrong_signals_are_caught(bound: Bound) -> None:
    for num_samples in (2, 3, 5):
        error = score_function_gradient(bound, num_samples) - gradient(bound, num_samples)
        assert float(error.abs().max()) > 1e-2


@pytest.mark.parametrize("bound", EVERY)
def test_signal_is_the_bound_less_its_derivative(bound: Bound) -> None:
    """s_k = L − ∂L/∂log w_k, up to what does not depend on z_k where the bound is additive."""
    log_w = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    value = bound(log_w)
    (slope,) = torch.autograd.grad(value.sum(), log_w)
    general = value - slope
    if bound.additive:
        others = (log_w.sum(0) - log_w) / len(log_w)
        general = general - others + slope
    torch.testing.assert_close(bound.signal(log_w.detach()), general.detach())


@pytest.mark.parametrize("bound", EVERY)
def test_additive_bounds_are_those_with_a_separate_term_for_each_sample(bound: Bound) -> None:
    """The second derivative in two different log-weights is zero."""
    assert is_additive(bound) == bound.additive


# --- weights that do not count ----------------------------------------------------------------------------------------


def normalized_weights(function: Callable[[Tensor], Tensor], log_w: Tensor) -> Tensor:
    """∂L/∂log w."""
    log_w = log_w.clone().requires_grad_()
    return torch.autograd.grad(function(log_w).sum(), log_w)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_weight_is_so_small_that_it_slows_the_processor(dtype: torch.dtype) -> None:
    """In float32 e^{−90} is subnormal; the bound does not notice, and what counts is as it was."""
    log_w = torch.linspace(-900, 0, 2001, dtype=dtype).reshape(-1, 1) - torch.tensor([0.0, 5000.0], dtype=dtype)
    plain = normalized_weights(lambda values: values.logsumexp(dim=0), log_w)
    kept = normalized_weights(IWELBO(), log_w)
    least = torch.finfo(dtype).eps ** 2
    assert bool(((plain > 0) & (plain < torch.finfo(dtype).tiny)).any())
    assert kept[kept > 0].min() > least / 3
    assert bool((kept == 0).any())
    torch.testing.assert_close(kept, plain, rtol=1e-6, atol=least)
    assert bool((IWELBO()(log_w) == log_w.logsumexp(dim=0) - math.log(len(log_w))).all())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_seen(bad: float) -> None:
    log_w = torch.tensor([[0.0, 0.0], [-200.0, bad], [1.0, 1.0]])
    assert IWELBO()(log_w).isfinite().tolist() == [True, False]
    assert IWELBO()(torch.full((3, 1), -math.inf)).item() == -math.inf

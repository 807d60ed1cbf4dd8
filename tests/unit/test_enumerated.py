"""Expectations over discrete draws and over steps of a diffusion model, enumerated instead of sampled.

K draws of a one-hot latent with C values have C^K outcomes; an estimate is a function of them, and its expectation is
the sum of the estimates weighted by their probabilities. The steps t of a diffusion model are T outcomes, and its noise
enters through polynomials of degree 2, for which equal-weight nodes give the expectation. Comparisons are to rounding,
1e-9 relative: no false alarms, and nothing above 1e-9 of a gradient or bound goes unseen.
"""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import fakes
from tests.contracts.test_config import composed, names
from tests.linear_gaussian import NODES
from tests.unit.test_ddpm import CORRELATED, MEAN, Chain, T, optimal_model
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO
from vi_core.errors import LabError
from vi_core.estimators.base import Estimate, Estimator
from vi_core.estimators.diffusion import DiffusionSimple, DiffusionVariational
from vi_core.families.amortized.categorical import AmortizedCategorical, GumbelSoftmaxRelaxation
from vi_core.families.base import VariationalDistribution
from vi_core.models.autoencoders.vae import CategoricalVAE
from vi_core.models.base import denoising_terms
from vi_core.models.diffusion.process import Linear
from vi_core.schema import construct
from vi_core.types import Latents

CLASSES, PIXELS = 3, 4
IMAGES = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(7)


# --- one-hot latents ------------------------------------------------------------------------------------------------


class Pinned(VariationalDistribution):
    """q with given draws in place of random ones."""

    def __init__(self, q: VariationalDistribution, z: Latents):
        self.q, self.z = q, z

    def rsample(self, num_samples: int) -> Latents:
        assert all(len(value) == num_samples for value in self.z.values())
        return self.z

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        return self.q.log_prob_terms(z)

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        return self.q.moments()


def tiny() -> tuple[CategoricalVAE, AmortizedCategorical]:
    """Four pixels and one latent of three classes, with weights far from flat."""
    model = CategoricalVAE(PIXELS, groups=1, classes=CLASSES, hidden=[4], activation="tanh")
    relaxation = GumbelSoftmaxRelaxation(initial=1.0, final=0.5)
    family = AmortizedCategorical(model.latents, 1, PIXELS, relaxation=relaxation, hidden=[4], activation="tanh")
    with torch.no_grad():
        for weight in (*model.parameters(), *family.parameters()):
            weight.mul_(3)
    return model, family


def outcomes(num_samples: int) -> list[Latents]:
    """All values of K draws for both images, each (K, 1, 2, 1, C)."""
    corners = torch.eye(CLASSES).reshape(CLASSES, 1, 1, 1, CLASSES).expand(-1, 1, len(IMAGES), 1, CLASSES)
    return [{"z": corners[list(pick)]} for pick in itertools.product(range(CLASSES), repeat=num_samples)]


def parameters(model: CategoricalVAE, family: AmortizedCategorical) -> list[Tensor]:
    return [*family.parameters(), *model.parameters()]


def slopes(value: Tensor, of: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, of)])


def exact(model: CategoricalVAE, family: AmortizedCategorical, bound: Bound, num_samples: int) -> Tensor:
    """(P + 1): the gradient of E[L] by autograd through the sum over outcomes, and E[L], averaged over both images."""
    params = family.variational(IMAGES)
    q = family.distribution(params)
    total = torch.zeros(len(IMAGES))
    for z in outcomes(num_samples):
        log_q = q.log_prob(z)
        total = total + log_q.sum(dim=0).exp().squeeze(0) * bound(model.log_joint(z, IMAGES) - log_q).squeeze(0)
    value = total.mean()
    return torch.cat([slopes(value, parameters(model, family)), value.detach().reshape(1)])


def expected(
    estimator: Estimator, model: CategoricalVAE, family: AmortizedCategorical, bound: Bound, patch: pytest.MonkeyPatch
) -> Tensor:
    """(P + 1): the expectation of an estimator's gradient and of its reported bound, over all its draws."""
    original, total = family.distribution, torch.zeros(())
    probability = original(family.variational(IMAGES))
    for z in outcomes(estimator.num_samples):
        patch.setattr(family, "distribution", lambda params, z=z: Pinned(original(params), z))
        weight = probability.log_prob(z).sum(dim=0).exp().detach()
        estimate: Estimate = estimator(model, family, bound, IMAGES)
        surrogate = slopes((weight * estimate.surrogate).sum() / len(IMAGES), parameters(model, family))
        total = total + torch.cat([surrogate, (weight * estimate.bound).sum().reshape(1) / len(IMAGES)])
    patch.setattr(family, "distribution", original)
    return total


def accepted(bound: Bound) -> list[tuple[str, Estimator]]:
    """Estimators of conf/estimator, with three draws, that accept the tiny model and whose draws have no gradient."""
    model, family = tiny()
    found = []
    for name in names("estimator"):
        config = composed(f"estimator/{name}")
        estimator: Estimator = construct(config | {"num_samples": 3} if "num_samples" in config else config, name)
        try:
            estimator.check(model, family, bound)
        except LabError:
            continue
        if not estimator.differentiates_draws:
            found.append((name, estimator))
    return found


@pytest.mark.parametrize("bound_name", names("bound"))
def test_gradients_of_one_hot_latents_by_enumeration(bound_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every estimator that accepts them: unbiased to rounding unless it says that it is biased, its bound in any case.
    With the opposite sign it would be off by twice the gradient."""
    bound: Bound = construct(composed(f"bound/{bound_name}"), "bound")
    model, family = tiny()
    wanted, tried = exact(model, family, bound, 3), accepted(bound)
    assert "score_function" in {name for name, _ in tried}
    for name, estimator in tried:
        found = expected(estimator, model, family, bound, monkeypatch)
        torch.testing.assert_close(found[-1], wanted[-1], rtol=1e-9, atol=1e-12)
        unbiased = torch.allclose(found[:-1], wanted[:-1], rtol=1e-9, atol=1e-10)
        assert unbiased == (not estimator.bias(bound)), name
    assert float(wanted[:-1].abs().max()) > 1e-2


def test_a_wrong_factor_is_caught_by_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    model, family = tiny()
    right = dict(accepted(ELBO()))["score_function"]
    found = expected(fakes.Scaled(right, 1 + 1e-6), model, family, ELBO(), monkeypatch)
    assert not torch.allclose(found[:-1], exact(model, family, ELBO(), 3)[:-1], rtol=1e-9, atol=1e-10)


# --- steps of a diffusion model -------------------------------------------------------------------------------------


@pytest.fixture
def enumerate_draws(monkeypatch: pytest.MonkeyPatch) -> int:
    """Every t with every node of the noise, in place of random ones; returns K, their number."""
    steps = torch.arange(1, T + 1).repeat_interleave(len(NODES))
    noise = NODES.repeat(T, 1)

    def randint(low: int, high: int, size: Any, **_: Any) -> Tensor:
        assert (low, high, size[0]) == (1, T + 1, len(steps))
        return steps.reshape(-1, 1, 1).expand(*size)

    def randn(*size: int, **_: Any) -> Tensor:
        given = noise if size[0] == len(noise) else NODES
        assert size[0] == len(given)
        return given.reshape(len(given), 1, 1, 2).expand(*size)

    monkeypatch.setattr(torch, "randint", randint)
    monkeypatch.setattr(torch, "randn", randn)
    return len(steps)


def gaussian_data() -> Tensor:
    """Nodes of N(m, S), (36, 2): a mean of a quadratic over them is its expectation."""
    return MEAN + NODES @ torch.linalg.cholesky(CORRELATED).T


def test_random_steps_count_t_times(enumerate_draws: int) -> None:
    """With every t drawn once, the bound is −L of brute-force conditioning: T times the mean over steps, not T − 1."""
    model, x = optimal_model(), gaussian_data()
    exact_value = -float(Chain(MEAN, CORRELATED, Linear().betas(T)).terms(model.variance).sum())
    estimate = DiffusionVariational(num_samples=enumerate_draws)(model, None, ELBO(), x)  # type: ignore[arg-type]
    assert float(estimate.bound.mean()) == pytest.approx(exact_value, rel=1e-9)
    terms = estimate.terms["L_T"] + estimate.terms["L_t"] + estimate.terms["L_0"]
    torch.testing.assert_close(-terms, estimate.bound)


def test_gradient_of_random_steps_is_that_of_the_sum(enumerate_draws: int) -> None:
    """In the scale θ of the denoiser, away from its optimum; `denoising_terms` takes one t after the other."""
    model, x = optimal_model(), gaussian_data()
    theta = next(model.parameters())
    with torch.no_grad():
        theta.fill_(0.9)
    estimate = DiffusionVariational(num_samples=enumerate_draws)(model, None, ELBO(), x)  # type: ignore[arg-type]
    found = torch.autograd.grad(estimate.surrogate.mean(), theta)[0]
    step, values = 1e-4, []
    for sign in (1, -1):
        with torch.no_grad():
            theta.fill_(0.9 + sign * step)
        values.append(-denoising_terms(model, x, len(NODES)).sum(dim=0).mean().item())
    assert float(found) == pytest.approx(
        (values[0] - values[1]) / (2 * step), rel=1e-8
    )  # the bound is a quadratic in θ
    assert float(found) > 1


def test_simple_objective_is_the_mean_squared_error_of_the_noise(enumerate_draws: int) -> None:
    """Of the best denoiser: tr Cov(ε | x_t) = D − (1 − ᾱ_t) tr (ᾱ_t S + (1 − ᾱ_t) I)⁻¹, averaged over t."""
    model, x = optimal_model(), gaussian_data()
    kept = (1 - Linear().betas(T)).cumprod(0)
    left = [2 - (1 - a) * torch.linalg.inv(a * CORRELATED + (1 - a) * torch.eye(2)).trace() for a in kept]
    estimate = DiffusionSimple(num_samples=enumerate_draws)(model, None, ELBO(), x)  # type: ignore[arg-type]
    assert -float(estimate.surrogate.detach().mean()) == pytest.approx(float(torch.stack(left).mean()), rel=1e-9)
    assert math.isfinite(float(estimate.bound.mean()))

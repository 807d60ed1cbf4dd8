"""Pathfinder: the update of a curvature by steps, a Normal target, a funnel without a mode, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

import vi_core
from tests.unit.test_unconstrained import Target, funnel, gaussian
from vi_core.algorithms.fixed import FixedStep
from vi_core.algorithms.pathfinder import best_normal, inverse_curvature, normals, updated_diagonal
from vi_core.algorithms.whitening import climb, density, gradient, log_weights
from vi_core.bounds.elbo import ELBO
from vi_core.errors import LabError, Unsupported
from vi_core.estimators.pathwise import Pathwise
from vi_core.families.pathfinder import Pathfinder
from vi_core.models.bayesian.hierarchical import EightSchoolsCentered
from vi_core.models.bayesian.regression import LinearRegression

SCHOOLS = {"y": [28.0, 8, -3, 7, -1, 1, 18, 12], "sigma": [15.0, 10, 16, 11, 9, 11, 10, 18]}


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def quadratic(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A curvature H with condition 100, steps (L, D), and the changes of the gradient H s along them."""
    vectors = torch.linalg.qr(torch.randn(size, size)).Q
    curvature = vectors @ torch.diag(torch.logspace(0, 2, size)) @ vectors.T
    steps = torch.randn(4, size)
    return curvature, steps, steps @ curvature


def updated(direct: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """The BFGS update of a curvature B, not of its inverse: B − B s sᵀB/(sᵀBs) + y yᵀ/(yᵀs)."""
    moved = direct @ s
    return direct - torch.outer(moved, moved) / (s @ moved) + torch.outer(y, y) / (y @ s)


def test_updates_of_the_inverse_invert_those_of_the_curvature() -> None:
    _, steps, changes = quadratic(6)
    diagonal = torch.rand(6) + 0.5
    direct = torch.diag(1 / diagonal)
    for s, y in zip(steps, changes, strict=True):
        direct = updated(direct, s, y)
    found = inverse_curvature(diagonal, list(zip(steps, changes, strict=True)))
    torch.testing.assert_close(found, torch.linalg.inv(direct))
    torch.testing.assert_close(found @ changes[-1], steps[-1])


def test_the_diagonal_is_that_of_an_update() -> None:
    """Of the curvature (a/b)/α, whose inverse has the scale of the step."""
    _, steps, changes = quadratic(6)
    diagonal, s, y = torch.rand(6) + 0.5, steps[0], changes[0]
    inverse = (s @ y) / (diagonal @ y.square()) * diagonal
    wanted = updated(torch.diag(1 / inverse), s, y).diagonal()
    torch.testing.assert_close(1 / updated_diagonal(diagonal, s, y), wanted)


def test_conjugate_steps_recover_a_curvature() -> None:
    """After D steps that are conjugate, sᵢᵀH sⱼ = 0, the updates are exact; a Newton step ends at the mode."""
    curvature, _, _ = quadratic(5)
    steps = torch.linalg.eigh(curvature).eigenvectors.T
    path = torch.cat([torch.zeros(1, 5), steps.cumsum(0)]) + 1.0
    *_, (mean, root) = normals(path, -path @ curvature, memory=5)
    torch.testing.assert_close(root @ root.T, torch.linalg.inv(curvature))
    torch.testing.assert_close(mean, torch.zeros(5), atol=1e-10, rtol=0)


def test_a_step_into_negative_curvature_says_nothing() -> None:
    path = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    slopes = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.5, 0.0]])  # log p bends upwards along the first step
    (_, first), (_, second) = normals(path, slopes, memory=3)
    torch.testing.assert_close(first, torch.eye(2))
    torch.testing.assert_close((second @ second.T)[0, 0], torch.tensor(2.0))


def step_of(model: Target, replicates: int, memory: int = 20) -> FixedStep:
    return FixedStep(model, Pathfinder(model.latents, replicates, memory=memory), ELBO(), Pathwise(num_samples=8))


def test_a_normal_target_is_found() -> None:
    """Ten coordinates, deviations over a factor 30: means within 0.01 of one, deviations within 15 %, KL below 0.5."""
    model, mean, covariance = gaussian(10, spread=30.0)
    step = step_of(model, 4, memory=100)
    step.begin(None)
    q: Any = step.family.distribution(step.family.variational())
    centres, spreads = q.coordinate_moments()
    sd = covariance.diagonal().sqrt()
    for centre, spread in zip(centres[:, 0], spreads[:, 0], strict=True):
        torch.testing.assert_close(centre / sd, mean / sd, rtol=0, atol=0.01)
        torch.testing.assert_close(spread.diagonal().sqrt(), sd, rtol=0.15, atol=0)
        away = kl_divergence(MultivariateNormal(centre, spread), MultivariateNormal(mean, covariance))
        assert away < 0.5
    assert bool(step.alive.all()) and 0 < step.start_gradients < 2000


def test_a_density_without_a_mode_has_a_best_normal() -> None:
    """Eight schools, centred: the ELBO falls along the path into the funnel, and the best Normal is not its last."""
    model = funnel()
    step = step_of(model, 1)
    step.begin(None)
    assert bool(step(None)["elbo"].isfinite().all())
    f = density(step.family, model, 0, lambda: [(None, 1.0)])  # pyright: ignore[reportArgumentType]
    noise = torch.randn(200, 10)
    torch.manual_seed(3)
    path = torch.stack(climb(f, torch.rand(10) * 4 - 2))
    elbos = [float(log_weights(f, *each, noise).mean()) for each in normals(path, gradient(f, path), 20)]
    torch.manual_seed(3)
    best = best_normal(f, torch.zeros(10), 20)
    chosen = float(log_weights(f, best.mean, best.root, noise).mean())
    assert chosen > max(elbos) - 1.0
    assert chosen > elbos[-1] + 5.0 or not math.isfinite(elbos[-1])


def test_a_fit_says_what_it_is_worth() -> None:
    """Trusted where the posterior is a Normal; its budget is kept, and nothing is trained."""
    x = torch.randn(50, 2)
    y = x @ torch.tensor([1.0, -1.0]) + 0.5 * torch.randn(50)
    model = LinearRegression(sigma=0.5)
    fit = vi_core.fit(model, {"x": x, "y": y}, family="pathfinder")
    assert fit.verdict.trust == "good"
    assert model.exact(fit.data)["log_evidence"] - fit.elbo.max() < 0.05
    assert (fit.run.loop.done, len(fit.elbo)) == (1, 4) and fit.gradients < 1000
    schools = vi_core.fit(EightSchoolsCentered(), SCHOOLS, family="pathfinder", replicates=2)
    assert np.isfinite(schools.elbo).all() and schools.gradients < 10_000
    assert schools.verdict.trust == "poor"


def test_replicates_see_data_of_their_own() -> None:
    x = torch.randn(30, 1)
    y = torch.stack([x[:, 0], -x[:, 0]]) + 0.5 * torch.randn(2, 30)
    data = {"x": x, "y": y}
    fit = vi_core.fit(LinearRegression(sigma=0.5), data, family="pathfinder", replicates=2, per_replicate=["y"])
    slopes = fit.q.moments()["beta"][0].flatten()
    torch.testing.assert_close(slopes, torch.tensor([1.0, -1.0]), rtol=0, atol=0.4)


def test_what_has_no_normal_is_refused() -> None:
    model, _, _ = gaussian(2)
    nowhere = Target(model.latents, lambda z: z["a"].sum(-1) * math.nan)
    with pytest.raises(Unsupported, match="family=pathfinder found no Normal with a finite ELBO on 5 paths"):
        step_of(nowhere, 1).begin(None)
    with pytest.raises(LabError, match=r"family\.memory=0 must be at least 1"):
        Pathfinder(model.latents, memory=0)

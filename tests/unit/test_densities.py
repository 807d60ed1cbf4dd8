"""Densities of q and of the exact posterior on grids, against scipy's, and what the figure shows of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from vi_core.diagnostics.densities import Densities, densities, kernel_density
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential
from vi_core.families.base import Family
from vi_core.families.mean_field import MeanField
from vi_core.families.mixture import MixtureOfNormals
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.models.bayesian.regression import LinearRegression
from vi_core.models.conjugate.gaussian_network import GaussianNetwork
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.plots.marginals import marginals_figure
from vi_core.types import Latent

LATENTS = {"mu": Latent(supports.real), "tau": Latent(supports.positive)}
MODEL = NormalGamma()
X = MODEL.summarize(torch.tensor([0.3, 2.0, 1.1, -0.4, 0.9, 1.7]).double())


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def found(model: Any, family: Family, x: Any, replicates: int) -> Densities:
    result = densities(model, family, x, x, np.ones(replicates, bool))
    assert result is not None
    return result


def mean_field(replicates: int) -> MeanField:
    initial: dict[str, Any] = {"scale": 0.4, "concentration": 3.0, "rate": 5.0}
    return MeanField(LATENTS, replicates, positive=Exponential(), loc=1.0, loc_std=0.0, **initial)


def test_quantiles_become_densities_and_the_plane_is_their_product() -> None:
    """Differences of quantiles miss a density by 2e-4 of its peak; a width off by 0.1 % changes it by 1e-3."""
    result = found(MODEL, mean_field(2), X, 2)
    laws: dict[str, Any] = {"mu": stats.norm(1.0, 0.4), "tau": stats.gamma(3.0, scale=1 / 5)}
    for name, law in laws.items():
        curve = result.curves[name]
        inside = (curve.grid > law.ppf(1e-5)) & (curve.grid < law.ppf(1 - 1e-5))
        exact = law.pdf(curve.grid)[inside]
        assert np.abs(curve.q[inside] - exact[:, None]).max() < 3e-4 * exact.max()
    plane = result.plane
    assert plane is not None and plane.q.shape == (2, len(plane.y), len(plane.x))
    np.testing.assert_allclose(plane.q[0], np.outer(laws["tau"].pdf(plane.y), laws["mu"].pdf(plane.x)), atol=1e-9)


def test_draws_become_densities_of_their_own_width() -> None:
    """The deviation of the estimate is that of the draws to 0.3 %; without the correction it is 1.5 % too large."""
    draws, places = np.random.default_rng(0).standard_normal(4000), np.linspace(-6, 6, 2001)
    density = kernel_density(places, draws)
    step = places[1] - places[0]
    mean = (density * places).sum() * step
    assert density.sum() * step == pytest.approx(1, abs=1e-6)
    assert ((density * (places - mean) ** 2).sum() * step) ** 0.5 == pytest.approx(draws.std(), rel=3e-3)


def test_families_without_quantiles_are_drawn() -> None:
    family = MixtureOfNormals(LATENTS, 8, components=2, loc_std=0.0, scale=0.5)
    curves = found(MODEL, family, X, 8).curves
    laws: dict[str, Any] = {"mu": stats.norm(0, 0.5), "tau": stats.lognorm(0.5)}
    for name, law in laws.items():
        exact = law.pdf(curves[name].grid)
        assert np.abs(curves[name].q.mean(axis=1) - exact).max() < 0.03 * exact.max()


@pytest.mark.parametrize("model", ["normal_gamma", "gaussian_network", "linear_regression", "known_sigma"])
def test_exact_marginals_have_the_exact_moments_and_the_plane_the_exact_marginals(model: str) -> None:
    target: Any = MODEL
    x: Any = X
    if model == "gaussian_network":
        target = GaussianNetwork(4)
        x = target.summarize(torch.tensor([0.5, -1.0, 2.0, 0.1]))
    elif model != "normal_gamma":
        target = LinearRegression(sigma=0.7 if model == "known_sigma" else None)
        x = {"x": torch.randn(9, 2), "y": torch.randn(9)}
    laws, exact = target.exact_marginals(x), target.exact(x)
    assert {name for name in exact if f"{name}.std" in exact} == laws.keys()
    for name, law in laws.items():
        assert float(law.mean) == pytest.approx(exact[name], rel=1e-9)
        assert float(law.stddev) == pytest.approx(exact[f"{name}.std"], rel=1e-9)


def test_the_exact_plane_has_the_exact_marginals() -> None:
    """Also what the structured family gives at the posterior's parameters."""
    loc, ratio, a, b = (float(value) for value in MODEL.posterior(X))
    family = NormalGammaFamily(
        LATENTS, 1, positive=Exponential(), loc=loc, loc_std=0.0, precision_ratio=ratio, concentration=a, rate=b
    )
    result = found(MODEL, family, X, 1)
    plane = result.plane
    assert plane is not None and plane.exact is not None
    np.testing.assert_allclose(plane.q[0], plane.exact, atol=1e-9)
    summed = plane.exact.sum(axis=1) * (plane.x[1] - plane.x[0])
    law: Any = stats.gamma(a, scale=1 / b)
    wide = plane.y > law.ppf(0.2)  # where mu reaches beyond the grid there is less
    np.testing.assert_allclose(summed[wide], law.pdf(plane.y)[wide], rtol=1e-3)
    for curve in result.curves.values():
        assert curve.exact is not None
        assert np.abs(curve.q[:, 0] - curve.exact).max() < 1e-3 * curve.exact.max()


def test_the_figure_has_marginals_differences_and_contours() -> None:
    result = found(MODEL, mean_field(3), X, 3)
    marginals: Any = {name: ({"q": curve[:2]}, (curve.grid, curve.exact)) for name, curve in result.curves.items()}
    plane = result.plane
    assert plane is not None
    figure = marginals_figure(marginals, notes={"mu": "narrow"}, joint=({"q": plane[1:4]}, plane.exact))
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["q − exact", "density", "", "", "tau"] or labels.count("q − exact") == 1
    assert "narrow" in [axes.get_title() for axes in figure.axes]
    difference = next(axes for axes in figure.axes if axes.get_ylabel() == "q − exact").lines[1].get_ydata()
    curve = result.curves["mu"]
    assert curve.exact is not None
    expected = (curve.q[:, 0] - curve.exact) / curve.exact.max()
    np.testing.assert_allclose(np.asarray(difference, float), expected, atol=1e-12)
    alone = marginals_figure({name: (fitted, None) for name, (fitted, _) in marginals.items()})
    assert [axes.get_ylabel() for axes in alone.axes] == ["density", ""]


def test_there_are_none_where_all_replicates_diverged() -> None:
    assert densities(MODEL, mean_field(2), X, X, np.zeros(2, bool)) is None

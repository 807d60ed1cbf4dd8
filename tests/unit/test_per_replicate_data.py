"""Data of its own for each replicate: densities, starts and fits are those of separate data sets."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, Poisson

import vi_core
from tests.references import grouped
from vi_core.errors import LabError
from vi_core.fits.fitted import Fit
from vi_core.models.bayesian.hierarchical import HierarchicalRegression
from vi_core.models.bayesian.regression import LinearRegression

R, N = 5, 30
G = np.random.default_rng(0)
X = G.normal(size=(N, 2))
Y = X @ G.normal(size=(2, R)) * 2 + 0.5 * G.normal(size=(N, R))
SETS = {"x": X, "y": Y.T.copy()}


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


class Scaled(vi_core.BayesianModel):
    """The observed variables, the prior and a number of all data differ between replicates."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "b", lambda z: Normal(data["middle"], data["x"].square().mean())

    def statistics(self, data: Any) -> Any:
        return {"middle": data["y"].mean()}

    def likelihood(self, z: Any, data: Any) -> Any:
        counts = Poisson((z["b"] - data["middle"]).exp() * torch.ones(N))
        return {"y": Normal(data["x"] * z["b"], 1.0), "count": counts, "hit": Bernoulli(logits=data["x"] * z["b"])}

    def quantities(self, z: Any, data: Any) -> Any:
        return {"twice": 2 * z["b"] + data["middle"]}


def of_scaled() -> dict[str, Tensor]:
    """Rows first, replicates second."""
    counts, hits = torch.randint(0, 4, (N, R)), torch.randint(0, 2, (N, R))
    return {"x": torch.randn(N, R), "y": torch.randn(N, R) + torch.arange(R), "count": counts, "hit": hits}


def test_densities_are_those_of_single_data_sets() -> None:
    model, single, data, b = Scaled(), Scaled(), of_scaled(), torch.randn(3, R, 1)
    model.per_replicate = frozenset(data)
    model.observe(data, N)
    joint, points = model.log_joint({"b": b}, data), model.log_likelihood_of_points({"b": b}, data)
    twice = model.quantities_at({"b": b}, data)["twice"]
    assert joint.shape == twice.shape == (3, R, 1) and points.shape == (3, R, 1, N)
    for r in range(R):
        own, z = {name: value[:, r] for name, value in data.items()}, {"b": b[:, r : r + 1]}
        single.observe(own, N)
        torch.testing.assert_close(joint[:, r : r + 1], single.log_joint(z, own))
        torch.testing.assert_close(points[:, r : r + 1], single.log_likelihood_of_points(z, own))
        torch.testing.assert_close(twice[:, r : r + 1], single.quantities_at(z, own)["twice"])
        torch.testing.assert_close(model.log_joint(z, model.seen_by(r, data)), joint[:, r : r + 1])
    assert not torch.allclose(joint[:, 0], joint[:, 1])


@pytest.fixture(scope="module")
def fits() -> Fit:
    torch.set_default_dtype(torch.float64)
    return vi_core.fit(LinearRegression(sigma=0.5), SETS, per_replicate=["y"], replicates=R, steps=150)


def test_each_replicate_has_the_exact_posterior_of_its_data(fits: Fit) -> None:
    means, deviations = fits.q.moments()["beta"]
    for r in range(R):
        model, own = LinearRegression(sigma=0.5), {"x": torch.from_numpy(X), "y": torch.from_numpy(Y[:, r])}
        exact = model.exact(own)
        assert fits.elbo[r] == pytest.approx(exact["log_evidence"], abs=1e-3)
        for i in range(2):
            assert means[r, 0, i].item() == pytest.approx(exact[f"beta[{i}]"], abs=1e-3)
            assert deviations[r, 0, i].item() == pytest.approx(exact[f"beta[{i}].std"], abs=1e-3)


@pytest.mark.slow
def test_data_sets_fitted_at_once_are_data_sets_fitted_alone() -> None:
    """The law of the groups' effects depends on the data; the noise of the gradients is what differs."""
    data = grouped()
    y = np.stack([data["y"], 2 * data["y"] + 1])
    together = vi_core.fit(HierarchicalRegression(), data | {"y": y}, per_replicate=["y"], replicates=2, steps=300)
    for r in range(2):
        alone = vi_core.fit(HierarchicalRegression(), data | {"y": y[r]}, replicates=1, steps=300)
        assert together.elbo[r] == pytest.approx(alone.elbo[0], abs=0.15)
        torch.manual_seed(0)
        found, wanted = together.at(r).draws(10_000), alone.draws(10_000)
        for name in ("alpha", "beta", "sigma"):
            spread = wanted[name].std(0)
            assert bool(((found[name].mean(0) - wanted[name].mean(0)).abs() < 0.12 * spread).all()), (r, name)
            torch.testing.assert_close(found[name].std(0), spread, rtol=0.1, atol=0)


def test_minibatches_take_the_same_rows_of_all(fits: Fit) -> None:
    found = vi_core.fit(LinearRegression(sigma=0.5), SETS, per_replicate=["y"], replicates=R, steps=600, batch_size=10)
    spread = fits.q.moments()["beta"][1]
    assert bool(((found.q.moments()["beta"][0] - fits.q.moments()["beta"][0]).abs() < 0.5 * spread).all())


def test_one_replicate_is_described(fits: Fit) -> None:
    assert "5 data sets" in repr(fits) and "data set 2" in repr(fits.at(2))
    table, means = fits.at(2).summary(), fits.q.moments()["beta"][0]
    assert table["beta[0]"]["mean"] == pytest.approx(means[2, 0, 0].item(), abs=0.02)
    assert table["beta[0]"]["mc_error"] is None
    drawn = fits.at(3).predict({"x": X}, 4000)
    assert isinstance(drawn, Tensor)
    assert (drawn.mean(0).numpy() - Y[:, 3]).std() < 0.7 < (drawn.mean(0).numpy() - Y[:, 1]).std()
    density = fits.at(3).log_predictive(SETS)
    assert density.shape == (N,) and density.mean() > -1.5


MISTAKES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (SETS, {"per_replicate": ["z"]}, "per_replicate names 'z'"),
    (SETS, {"per_replicate": ["y"], "replicates": 4}, "replicates=4"),
    ({"x": X, "y": Y[:, 0]}, {"per_replicate": ["y"], "replicates": N}, "data 'y' has shape (30,)"),
    ({"x": X, "y": Y.T[:, :20]}, {"per_replicate": ["y"]}, "'y'"),
]


@pytest.mark.parametrize(("data", "settings", "named"), MISTAKES)
def test_a_mistake_is_named(data: dict[str, Any], settings: dict[str, Any], named: str) -> None:
    with pytest.raises(LabError) as caught:
        vi_core.fit(LinearRegression(sigma=0.5), data, **{"replicates": R, "steps": 3} | settings)  # type: ignore[arg-type]
    assert named in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


def test_a_data_set_outside_the_support_is_found() -> None:
    counts = np.ones((R, N))
    counts[3, 7] = -1
    model = Scaled()
    data = {name: value.movedim(0, 1).numpy() for name, value in of_scaled().items()} | {"count": counts}
    with pytest.raises(LabError, match=r"count\[7\] = -1 is outside"):
        vi_core.fit(model, data, per_replicate=list(data), replicates=R, steps=3)


def test_a_replicate_must_be_chosen(fits: Fit) -> None:
    for call in (lambda: fits.summary(), lambda: fits.draws(3), lambda: fits.predict({"x": X})):
        with pytest.raises(LabError, match=r"fit\.at\(0\)"):
            call()
    with pytest.raises(LabError, match="choose 0 to 4"):
        fits.at(5)


def test_a_statistic_needs_a_name_of_its_own() -> None:
    data = {"x": torch.ones(N), "y": torch.ones(N), "count": torch.ones(N), "middle": torch.ones(N)}
    with pytest.raises(LabError, match="'middle' is also a name of the data"):
        Scaled().observe(data, N)

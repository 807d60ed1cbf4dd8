"""`vi_core.fit`: exact posteriors of conjugate regressions, random streams left alone, and mistakes of a first model.

Linear regression with known noise has a Normal posterior and a Normal evidence, which are written here.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Exponential,
    Gamma,
    HalfNormal,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
)

import vi_core
from vi_core.bounds.elbo import ELBO
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential as Exp
from vi_core.errors import LabError, matrices_factorized
from vi_core.estimators.pathwise import Pathwise
from vi_core.families.normals import FullRankNormal, MeanFieldNormal
from vi_core.families.point_mass import PointMass
from vi_core.fits.fitted import Fit
from vi_core.fits.tables import Table
from vi_core.models.bayesian.file import FileModel
from vi_core.optimizers.adam import Adam
from vi_core.optimizers.schedules import Decay
from vi_core.types import Latent

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(40, 2))
Y = X @ np.array([1.0, -2.0]) + 0.5 * GENERATOR.normal(size=40)
NOISE = 0.5


@pytest.fixture(autouse=True)
def _single() -> None:
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)


class Linear(vi_core.BayesianModel):
    """y_n ~ N(x_n · beta, NOISE²), beta ~ N(0, 2²)."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "beta", Normal(torch.zeros(data["x"].shape[1]), 2.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        """A tensor of plain numbers has the fit's type, also after the fit."""
        return Normal(data["x"] @ z["beta"] + torch.zeros(len(data["x"])), NOISE)


def exact() -> tuple[np.ndarray, np.ndarray, float]:
    """Posterior mean and covariance, and log evidence."""
    precision = X.T @ X / NOISE**2 + np.eye(2) / 4
    covariance = np.linalg.inv(precision)
    mean = covariance @ X.T @ Y / NOISE**2
    marginal = 4 * X @ X.T + NOISE**2 * np.eye(40)
    law = MultivariateNormal(torch.zeros(40, dtype=torch.float64), torch.from_numpy(marginal))
    return mean, covariance, float(law.log_prob(torch.from_numpy(Y)))


@pytest.fixture(scope="module")
def fitted() -> Fit:
    torch.set_default_dtype(torch.float32)
    return vi_core.fit(Linear(), {"x": X, "y": Y}, steps=300, replicates=2)


def test_a_conjugate_posterior_and_its_evidence(fitted: Fit) -> None:
    mean, covariance, evidence = exact()
    found, std = fitted.q.moments()["beta"]
    for r in range(2):
        np.testing.assert_allclose(found[r, 0].numpy(), mean, atol=1e-3)
        np.testing.assert_allclose(std[r, 0].numpy(), covariance.diagonal() ** 0.5, atol=1e-3)
    np.testing.assert_allclose(fitted.elbo, evidence, atol=1e-3)


def test_predictions_are_those_of_the_exact_law(fitted: Fit) -> None:
    mean, covariance, _ = exact()
    new = np.array([[1.0, 1.0], [0.0, -3.0], [2.0, 0.5]])
    scale = (np.einsum("ni,ij,nj->n", new, covariance, new) + NOISE**2) ** 0.5
    draws = fitted.predict({"x": new}, 2000)
    assert isinstance(draws, Tensor) and draws.shape == (2000, 3)
    assert bool(((draws.mean(0).numpy() - new @ mean) / scale < 6.5 / 2000**0.5).all())
    np.testing.assert_allclose(draws.std(0).numpy(), scale, rtol=0.15)
    observed = new @ mean + 0.3
    wanted = Normal(torch.from_numpy(new @ mean), torch.from_numpy(scale)).log_prob(torch.from_numpy(observed))
    found = fitted.log_predictive({"x": new, "y": observed})
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0)


def test_summary_is_a_table(fitted: Fit) -> None:
    mean, covariance, _ = exact()
    table = fitted.summary()
    assert list(table.rows) == ["beta[0]", "beta[1]"]
    assert table["beta[0]"]["mean"] == pytest.approx(mean[0], abs=0.02)
    assert table["beta[1]"]["sd"] == pytest.approx(covariance[1, 1] ** 0.5, rel=0.1)
    assert "replicates within 1 nat" in repr(table) and repr(fitted) == table.title
    assert "<td>" in table._repr_html_() and "beta[1]" in table._repr_html_()


def test_a_history_prints_a_few_lines(fitted: Fit) -> None:
    lines = repr(fitted.history).splitlines()
    assert len(lines) <= 8 and f"{len(fitted.history.step)} rows, steps 1 to" in lines[0]
    bound = fitted.history.columns[fitted.history.bound][-1]
    assert lines[1] == f"  {fitted.history.bound}: {bound[0]:.5g}, {bound[1]:.5g}" and "more columns" in lines[-1]


def test_a_table_is_aligned_and_escaped() -> None:
    table = Table(("mean", "error"), {"a<b": (1.0, None), "long name": (-2.34567, 1e-9)}, "Title & more")
    assert repr(table).splitlines() == [
        "Title & more",
        "             mean  error",
        "a<b             1       ",
        "long name  -2.346  1e-09",
    ]
    assert "a&lt;b" in table._repr_html_() and "Title &amp; more" in table._repr_html_()
    assert repr(Table(("x",), {"a": (1.0,)})).splitlines() == ["   x", "a  1"]


def test_files(fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path / "fit.npz")
    with np.load(tmp_path / "fit.npz") as content:
        assert content["draws.beta"].shape == (2000, 2)
        assert np.array_equal(content["elbo"], fitted.elbo) and len(content["step"]) == len(content["bound"])
    with pytest.raises(LabError, match=r"path that ends so, not '.*fit.csv'"):
        fitted.save(tmp_path / "fit.csv")
    figure = fitted.plot(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").stat().st_size > 1000 and len(figure.axes) == 4


# --- random streams and types ---------------------------------------------------------------------------------------


def test_the_seed_determines_the_fit_and_other_streams_stay() -> None:
    data = {"x": X, "y": Y}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = vi_core.fit(Linear(), data, steps=20, replicates=2)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == torch.float32
    torch.manual_seed(4)
    again, other = (vi_core.fit(Linear(), data, steps=20, replicates=2, seed=seed) for seed in (0, 1))
    assert np.array_equal(first.elbo, again.elbo)
    assert not np.array_equal(first.elbo, other.elbo)
    assert torch.equal(first.q.moments()["beta"][0], again.q.moments()["beta"][0])


def test_the_state_is_put_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(LabError):
        vi_core.fit(Linear(), {"x": X, "y": Y}, family="mean_field", steps=5, start="nowhere")
    with pytest.raises(LabError):
        vi_core.fit(Linear(), {"x": X, "z": Y}, steps=5)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == torch.float32


def test_passed_arrays_are_not_kept() -> None:
    x, y = X.copy(), Y.copy()
    fit = vi_core.fit(Linear(), {"x": x, "y": y}, steps=5, replicates=1)
    x[:] = 0.0
    assert fit.data["x"].abs().max() > 0


def test_single_precision() -> None:
    fit = vi_core.fit(Linear(), {"x": X, "y": Y}, steps=50, replicates=1, dtype=torch.float32)
    mean, _, evidence = exact()
    assert fit.draws(3)["beta"].dtype == torch.float32
    assert fit.elbo[0] == pytest.approx(evidence, abs=0.05)
    np.testing.assert_allclose(fit.q.moments()["beta"][0][0, 0].numpy(), mean, atol=0.02)


# --- settings -------------------------------------------------------------------------------------------------------


def test_minibatches_reach_the_same_posterior() -> None:
    mean, _, evidence = exact()
    seen = []
    fit = vi_core.fit(
        Linear(), {"x": X, "y": Y}, steps=400, batch_size=10, replicates=2, progress=lambda *at: seen.append(at)
    )
    assert fit.elbo.max() == pytest.approx(evidence, abs=0.3)
    assert seen and seen[-1][0] <= 400
    np.testing.assert_allclose(fit.draws(2000)["beta"].mean(0).numpy(), mean, atol=0.1)


def test_held_out_rows_are_scored() -> None:
    fit = vi_core.fit(
        Linear(), {"x": X[:30], "y": Y[:30]}, test={"x": X[30:], "y": Y[30:]}, batch_size=10, steps=60, replicates=2
    )
    found = [values for name, values in fit.history.columns.items() if "held" in name or "test" in name]
    assert found and np.isfinite(found[0]).any()


def test_time_ends_a_fit() -> None:
    fit = vi_core.fit(Linear(), {"x": X, "y": Y}, steps=1_000_000, max_seconds=0.5, replicates=1)
    assert 0 < fit.run.loop.done < 1_000_000 and fit.seconds < 10


class Frame(dict):
    """What a data frame has that is used: names, and columns by name."""

    @property
    def columns(self) -> list[str]:
        return list(self)


class Slope(vi_core.BayesianModel):
    """One slope."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "b", Normal(0.0, 1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(data["x"] * z["b"], data["sigma"])


def test_data_frames() -> None:
    x = X[:, 0].copy()
    x.setflags(write=False)
    found = vi_core.fit(Slope(), Frame(x=x, y=Y.tolist(), sigma=1.0), steps=5, replicates=1)
    assert found.data["sigma"].shape == () and found.model.num_points == 40


def test_text_that_a_model_does_not_use_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    days = np.array(["2001-02-03"] * 40, dtype="datetime64[D]")
    frame = Frame(x=X[:, 0], y=Y, sigma=1.0, town=["a", None] * 20, kind=np.array(["b"] * 40), day=days)
    found = vi_core.fit(Slope(), frame, steps=3, replicates=1)
    assert caplog.messages == ["columns of text are left out: town, kind, day"]
    assert sorted(found.data) == ["sigma", "x", "y"] and len(found.predict(frame, 3)) == 3
    for used in ("x", "y", "sigma"):
        with pytest.raises(LabError, match=f"^data '{used}' holds text"):
            vi_core.fit(Slope(), Frame({**frame, used: ["a"] * 40}), steps=3, replicates=1)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "robbins_monro"])
@pytest.mark.parametrize("family", ["mean_field_normal", "low_rank_normal", "mean_field"])
def test_parts_by_name(family: str, optimizer: str) -> None:
    fit = vi_core.fit(Linear(), {"x": X, "y": Y}, family=family, optimizer=optimizer, steps=10, replicates=1)
    assert np.isfinite(fit.elbo).all() and family in repr(fit)


def test_a_bound_and_its_estimator() -> None:
    bound = {"_target_": "vi_core.bounds.elbo.IWELBO"}
    fit = vi_core.fit(Linear(), {"x": X, "y": Y}, bound=bound, steps=10, replicates=1)
    assert "full_rank_normal, pathwise;" in repr(fit)


def test_parts_as_objects() -> None:
    """Objects find the exact posterior, and stay as they were: a second fit with them is the same."""
    first = vi_core.fit(Linear(), {"x": X, "y": Y}, family="laplace", replicates=1)
    family = FullRankNormal(first.model.latents, 2, start="random", preconditioner="none")
    adam = Adam(lr=0.2, schedule=Decay(steps=150, final=0.02))
    parts: dict[str, Any] = {"family": family, "optimizer": adam, "estimator": Pathwise(num_samples=4)}
    before = {name: value.clone() for name, value in family.state_dict().items()}
    parts |= {"bound": ELBO(), "recipe": "none", "steps": 150, "replicates": 2}
    one, two = (vi_core.fit(Linear(), {"x": X, "y": Y}, **parts) for _ in range(2))
    found, _ = one.q.moments()["beta"]
    np.testing.assert_allclose(found[:, 0].numpy(), [exact()[0]] * 2, atol=0.05)
    assert np.array_equal(one.elbo, two.elbo) and "full_rank_normal, pathwise;" in repr(one)
    assert all(torch.equal(before[name], value) for name, value in family.state_dict().items())


# --- mistakes -------------------------------------------------------------------------------------------------------


def model(prior: Any, likelihood: Any, /, **methods: Any) -> vi_core.BayesianModel:
    """A model of two functions."""
    own = {"prior": lambda self, data: prior(data), "likelihood": lambda self, z, data: likelihood(z, data)}
    return type("Own", (vi_core.BayesianModel,), own | methods)()


def mu(data: Any) -> Iterator[Any]:
    yield "mu", Normal(0.0, 1.0)


def normal(z: Any, data: Any) -> Any:
    return Normal(z["mu"], 1.0)


def only(name: str, law: Any) -> Any:
    """A prior of one latent."""
    return lambda data: [(name, law)]


GOOD = {"y": [1.0, 2.0, 3.0]}
ANY: Any = 2  # where a type checker would notice the mistake
COUNTS = {"y": [1, 0, 2]}
OWN, OTHERS = {"mu": Latent(supports.real)}, {"nu": Latent(supports.real)}
MISTAKES: list[tuple[str, Any, Any, dict[str, Any], str]] = [
    # the data
    ("no mapping", model(mu, normal), [1.0, 2.0], {}, "list"),
    ("an array", model(mu, normal), np.ones(3), {}, "ndarray"),
    ("nothing", model(mu, normal), {}, {}, "data hold nothing"),
    ("text", model(mu, normal), {"y": ["a", "b"]}, {}, "'y'"),
    ("objects", model(mu, normal), {"y": [None, 1.0]}, {}, "'y'"),
    ("complex", model(mu, normal), {"y": [1j, 2.0]}, {}, "complex128"),
    ("ragged", model(mu, normal), {"y": [[1.0], [2.0, 3.0]]}, {}, "'y'"),
    ("NaN", model(mu, normal), {"y": [1.0, np.nan]}, {}, "[1]"),
    ("infinite", model(mu, normal), {"x": [[1.0, 2.0], [np.inf, 0.0]], "y": [1.0, 2.0]}, {}, "[1, 0]"),
    ("numbers alone", model(mu, normal), {"y": 1.0}, {}, "row for each point"),
    ("empty", model(mu, normal), {"y": []}, {}, "'y'"),
    ("target missing", model(mu, normal), {"x": [1.0, 2.0]}, {}, "'y'"),
    ("large integers", model(mu, normal), {"y": [2**60, 1]}, {}, "2^53"),
    ("unsigned", model(mu, normal), {"y": np.array([2**63 + 1, 1], dtype=np.uint64)}, {}, "'y'"),
    # the prior
    ("prior misspells", model(lambda d: [("mu", Normal(d["locs"], 1.0))], normal), GOOD, {}, "'locs'"),
    ("no pair", model(lambda d: [Normal(0.0, 1.0)], normal), GOOD, {}, "must yield pairs"),
    ("no density", model(only("mu", 3.0), normal), GOOD, {}, "mu"),
    ("function of nothing", model(only("mu", lambda z: 2.0), normal), GOOD, {}, "'mu'"),
    ("discrete", model(only("mu", Poisson(3.0)), normal), GOOD, {}, "discrete law Poisson"),
    ("categorical", model(only("mu", Categorical(torch.ones(3))), normal), GOOD, {}, "discrete law Categorical"),
    ("twice", model(lambda d: [*mu(d), *mu(d)], normal), GOOD, {}, "'mu' is declared twice"),
    ("name of data", model(only("y", Normal(0.0, 1.0)), normal), GOOD, {}, "'y' is also a name of the data"),
    ("no identifier", model(only("my mu", Normal(0.0, 1.0)), normal), GOOD, {}, "'my mu' is no identifier"),
    ("no latents", model(lambda d: [], normal), GOOD, {}, "yields no latent"),
    ("nothing yielded", model(lambda d: None, normal), GOOD, {}, "Own.prior"),
    ("negative scale", model(lambda d: [("mu", Normal(0.0, -1.0))], normal), GOOD, {}, "Own.prior"),
    ("later latent", model(only("mu", lambda z: Normal(z["tau"], 1.0)), normal), GOOD, {}, "'tau'"),
    (
        "moving bounds",
        model(lambda d: [("a", HalfNormal(1.0)), ("mu", lambda z: Uniform(0.0, z["a"]))], normal),
        GOOD,
        {},
        "'mu' depend",
    ),
    # the likelihood
    ("misspelt latent", model(mu, lambda z, d: Normal(z["nu"], 1.0)), GOOD, {}, "no latent called 'nu'"),
    ("misspelt column", model(mu, lambda z, d: Normal(z["mu"] * d["w"], 1.0)), GOOD, {}, "'w'"),
    ("no law", model(mu, lambda z, d: z["mu"]), GOOD, {}, "Tensor"),
    ("nothing returned", model(mu, lambda z, d: None), GOOD, {}, "NoneType"),
    ("no latent used", model(mu, lambda z, d: Normal(0.0, 1.0)), GOOD, {}, "uses no latent"),
    ("latent observed", model(mu, lambda z, d: {"mu": Normal(z["mu"], 1.0)}), GOOD, {}, "'mu'"),
    ("unknown observed", model(mu, lambda z, d: {"v": Normal(z["mu"], 1.0)}), GOOD, {}, "'v'"),
    ("wrong shape", model(mu, lambda z, d: Normal(z["mu"] * torch.ones(3, 1), 1.0)), GOOD, {}, "(3, 3)"),
    ("wrong length", model(mu, lambda z, d: Normal(z["mu"] * torch.ones(4), 1.0)), GOOD, {}, "'y'"),
    ("negative for Gamma", model(mu, lambda z, d: Gamma(z["mu"].exp(), 1.0)), {"y": [1.0, -2.0]}, {}, "y[1] = -2"),
    ("two for Bernoulli", model(mu, lambda z, d: Bernoulli(logits=z["mu"])), COUNTS, {}, "y[2] = 2"),
    ("half a count", model(mu, lambda z, d: Poisson(z["mu"].exp())), {"y": [1.0, 2.5]}, {}, "y[1] = 2.5"),
    (
        "branch on values",
        model(mu, lambda z, d: Normal(z["mu"] if z["mu"] > 0 else -z["mu"], 1.0)),
        GOOD,
        {},
        "without branches on values",
    ),
    ("item", model(mu, lambda z, d: Normal(z["mu"] + z["mu"].item(), 1.0)), GOOD, {}, ".item()"),
    ("assertion", model(mu, lambda z, d: [][0]), GOOD, {}, "Own.likelihood failed"),
    ("attribute", model(mu, lambda z, d: Normal(z.mu, 1.0)), GOOD, {}, "'mu'"),
    ("weights", model(mu, normal, weights=lambda self, data: torch.ones(2)), GOOD, {}, "Own.weights"),
    ("quantity", model(mu, normal, quantities=lambda self, z, data: {"s": z["tau"]}), GOOD, {}, "Own.quantities"),
    ("quantity alone", model(mu, normal, quantities=lambda self, z, data: z["mu"]), GOOD, {}, "not Tensor"),
    ("quantity of Python", model(mu, normal, quantities=lambda self, z, data: {"c": 1.0}), GOOD, {}, "'c' is float"),
    (
        "quantity by item",
        model(mu, normal, quantities=lambda self, z, data: {"c": z["mu"] * z["mu"].item()}),
        GOOD,
        {},
        ".item()",
    ),
    ("statistic", model(mu, normal, statistics=lambda self, data: None), GOOD, {}, "Own.statistics must return"),
    ("weight of Python", model(mu, normal, weights=lambda self, data: 2.0), GOOD, {}, "Own.weights has shape float"),
    ("quantity twice", model(mu, normal, quantities=lambda self, z, data: {"mu": z["mu"]}), GOOD, {}, "'mu'"),
    # the call
    ("no model", "linear", GOOD, {}, "str"),
    ("a class", Linear, GOOD, {}, "class Linear"),
    ("family", model(mu, normal), GOOD, {"family": "full_rank"}, "full_rank_normal"),
    ("family of nothing", model(mu, normal), GOOD, {"family": 3}, "family=3"),
    ("family of others", model(mu, normal), GOOD, {"family": PointMass(OTHERS, positive=Exp(), values=[0.0])}, "nu"),
    ("family of two", model(mu, normal), GOOD, {"family": MeanFieldNormal(OWN, 2)}, "use replicates=2"),
    ("a setting beside", model(mu, normal), GOOD, {"family": MeanFieldNormal(OWN, 1), "start": "mode"}, "start="),
    ("unfit family", model(mu, normal), GOOD, {"family": "amortized_normal"}, "amortized_normal"),
    ("setting", model(mu, normal), GOOD, {"skale": 1.0}, "Did you mean 'scale'"),
    ("start", model(mu, normal), GOOD, {"start": "here"}, "here"),
    ("bound", model(mu, normal), GOOD, {"bound": "elob"}, "Did you mean 'elbo'"),
    ("estimator", model(mu, normal), GOOD, {"estimator": "path"}, "estimator='path'"),
    ("optimizer", model(mu, normal), GOOD, {"optimizer": "adamm"}, "Did you mean 'adam'"),
    ("samples", model(mu, normal), GOOD, {"num_samples": 0}, "num_samples=0"),
    ("steps", model(mu, normal), GOOD, {"steps": 0}, "steps=0"),
    ("replicates", model(mu, normal), GOOD, {"replicates": 0}, "replicates=0"),
    ("seed", model(mu, normal), GOOD, {"seed": "one"}, "seed='one'"),
    ("steps in words", model(mu, normal), GOOD, {"steps": True}, "steps=True"),
    ("large seed", model(mu, normal), GOOD, {"seed": 2**70}, "71 bits"),
    ("gradients", model(mu, normal), GOOD, {"max_gradients": 0}, "max_gradients=0"),
    ("seconds", model(mu, normal), GOOD, {"max_seconds": -1}, "max_seconds=-1"),
    ("seconds in words", model(mu, normal), GOOD, {"max_seconds": "9"}, "max_seconds='9'"),
    ("seconds not a number", model(mu, normal), GOOD, {"max_seconds": np.nan}, "max_seconds=nan"),
    ("device", model(mu, normal), GOOD, {"device": "gpu"}, "device='gpu'"),
    ("device not there", model(mu, normal), GOOD, {"device": "cuda:77"}, "device='cuda:77'"),
    ("device without numbers", model(mu, normal), GOOD, {"device": "meta"}, "device='meta'"),
    ("type by name", model(mu, normal), GOOD, {"dtype": "float32"}, "dtype='float32' must be torch.float64"),
    ("type of integers", model(mu, normal), GOOD, {"dtype": torch.int64}, "dtype=torch.int64 must be"),
    ("progress", model(mu, normal), GOOD, {"progress": True}, "progress=True"),
    ("one name", model(mu, normal), GOOD, {"per_replicate": "y"}, "per_replicate='y'"),
    ("bound of nothing", model(mu, normal), GOOD, {"bound": 3}, "bound"),
    ("bound without a class", model(mu, normal), GOOD, {"bound": {}}, "bound"),
    ("estimator of nothing", model(mu, normal), GOOD, {"estimator": 3}, "estimator"),
    ("optimizer of nothing", model(mu, normal), GOOD, {"optimizer": None}, "optimizer"),
    ("a family's class", model(mu, normal), GOOD, {"family": {"_target_": "torch.nn.Linear"}}, "family"),
    ("batch", model(mu, normal), GOOD, {"batch_size": 0}, "batch_size=0"),
    (
        "batch of one law",
        model(mu, lambda z, d: MultivariateNormal(z["mu"] * torch.ones(3), torch.eye(3))),
        GOOD,
        {"batch_size": 2},
        "batch_size=2",
    ),
    ("test lacks", model(mu, normal), GOOD, {"test": {"x": [1.0]}}, "'y'"),
    ("test shape", model(mu, normal), GOOD, {"test": {"y": [[1.0, 2.0]]}}, "'y'"),
    ("test type", model(mu, lambda z, d: Poisson(z["mu"].exp())), COUNTS, {"test": {"y": [1.5]}}, "'y'"),
    ("no density", model(mu, lambda z, d: Normal(z["mu"] * torch.nan, 1.0)), GOOD, {}, "loc of Normal for 'y' is nan"),
    (
        "rate",
        model(only("mu", Exponential(-1.0, validate_args=False)), normal),
        GOOD,
        {},
        "rate of Exponential for 'mu'",
    ),
    # arguments and errors of the methods
    ("prior without data", model(mu, normal, prior=lambda self: mu({})), GOOD, {}, "def prior(self, data)"),
    ("likelihood of z", model(mu, normal, likelihood=lambda self, z: normal(z, {})), GOOD, {}, "(self, z, data)"),
    ("forgotten self", model(mu, normal, likelihood=lambda z, data: normal(z, data)), GOOD, {}, "(self, z, data)"),
    ("prior returns a law", model(lambda d: Normal(0.0, 1.0), normal), GOOD, {}, "returns Normal; yield pairs"),
    ("prior returns a pair", model(lambda d: ("mu", Normal(0.0, 1.0)), normal), GOOD, {}, "yield pairs"),
    ("a law's class", model(only("mu", Normal), normal), GOOD, {}, "'mu' has no density, it is the class Normal"),
    ("a law in words", model(only("mu", "Normal(0, 1)"), normal), GOOD, {}, "it is str"),
    ("class returned", model(mu, lambda z, d: Normal), GOOD, {}, "the class Normal; write return Normal(...)"),
    ("laws in a list", model(mu, lambda z, d: [Normal(z["mu"], 1.0)]), GOOD, {}, "not list; write return"),
    ("undefined", model(mu, lambda z, d: Norml(z["mu"], 1.0)), GOOD, {}, "name 'Norml' is not defined"),  # type: ignore[name-defined]  # noqa: F821
    ("division", model(mu, lambda z, d: Normal(z["mu"], 1 / 0)), GOOD, {}, "ZeroDivisionError"),
    ("the line", model(mu, lambda z, d: z["mu"] + "THIS"), GOOD, {}, '"THIS"'),
    ("expand", model(lambda d: [("mu", Normal(0.0, 1.0).expand(ANY))], normal), GOOD, {}, "Own.prior failed in line"),
    (
        "shapes",
        model(only("mu", Normal(0.0, 1.0).expand([3])), lambda z, d: Normal(d["x"] @ z["mu"], 1.0)),
        {"x": np.ones((4, 2)), "y": np.ones(4)},
        {},
        "shapes: mu (3,), x (4, 2)",
    ),
    (
        "whole numbers",
        model(only("mu", Normal(0.0, 1.0).expand([2])), lambda z, d: Normal(d["x"] @ z["mu"], 1.0)),
        {"x": [[1, 2], [3, 4]], "y": [1.0, 2.0]},
        {},
        "x (2, 2) of whole numbers; give all tensors one floating type",
    ),
    ("a column of one", model(mu, normal), {"y": [[1.0], [2.0]]}, {}, "y.squeeze(1)"),
    ("points of two", model(mu, normal), {"y": [[1.0, 3.0], [2.0, 4.0]]}, {}, "Independent(law, 1)"),
    (
        "other lengths",
        model(mu, lambda z, d: Normal(z["mu"] * d["x"], 1.0)),
        {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0]},
        {},
        "x (3,), y (2,)",
    ),
    ("numpy", model(mu, lambda z, d: Normal(z["mu"].numpy(), 1.0)), GOOD, {}, "Own.likelihood"),
    ("math", model(mu, lambda z, d: Normal(z["mu"] * math.exp(z["mu"]), 1.0)), GOOD, {}, "the module math"),
    ("max", model(mu, lambda z, d: Normal(max(z["mu"], 0), 1.0)), GOOD, {}, "torch.maximum"),
    ("noise", model(mu, lambda z, d: Normal(z["mu"] + torch.randn(()), 1.0)), GOOD, {}, "draws random numbers"),
    (
        "no factor at draws of q",  # which start wider than the prior
        model(
            only("mu", Normal(1.0, 0.01)),
            lambda z, d: MultivariateNormal(torch.zeros(3), z["mu"] * torch.eye(3)),
        ),
        GOOD,
        {"start": "random", "preconditioner": "none"},
        "makes a matrix that is not positive definite",
    ),
    ("a mask", model(mu, lambda z, d: Normal(z["mu"][z["mu"] > 0].sum(), 1.0)), GOOD, {}, "torch.where"),
    ("negative weight", model(mu, normal, weights=lambda self, data: -torch.ones(3)), GOOD, {}, "weights[0] = -1"),
    (
        "no such category",
        model(mu, lambda z, d: Categorical(logits=z["mu"] * torch.ones(2))),
        COUNTS,
        {},
        "y[2] = 2 is outside",
    ),
    ("in place", model(mu, lambda z, d: Normal(d["y"].mul_(z["mu"]), 1.0)), GOOD, {}, "in place"),
    (
        "all rows in a batch",
        model(mu, lambda z, d: Normal(z["mu"] + torch.zeros(3), 1.0)),
        GOOD,
        {"batch_size": 2},
        "with 2 of 3 rows",
    ),
    # more data
    ("None", model(mu, normal), {"y": [1.0, None, 2.0]}, {}, "has no value at [1]"),
    ("dates", model(mu, normal), {"y": np.array(["2020-01-01"], dtype="datetime64[D]")}, {}, "holds dates or times"),
    ("a mapping", model(mu, normal), {"y": {"a": 1.0}}, {}, "holds a dict"),
    ("a generator", model(mu, normal), {"y": iter([1.0])}, {}, "holds a list_iterator"),
    ("masked", model(mu, normal), {"y": np.ma.masked_array([1.0, 2.0], [False, True])}, {}, "masked at [1]"),
    ("lists of other lengths", model(mu, normal), {"y": [[1.0], [2.0, 3.0]]}, {}, "its lists differ in length"),
    ("sparse", model(mu, normal), {"y": torch.eye(2).to_sparse()}, {}, "to_dense"),
    # more of the call
    ("misspelt argument", model(mu, normal), GOOD, {"replicate": 2}, "Did you mean 'replicates'?"),
    ("an optimizer's setting", model(mu, normal), GOOD, {"lr": 0.1}, "lr= is no argument of fit"),
    ("exact gradients", model(mu, normal), GOOD, {"estimator": "exact"}, "use estimator=pathwise"),
    ("coordinate ascent", model(mu, normal), GOOD, {"optimizer": "coordinate_ascent"}, "use optimizer=adam"),
]


@pytest.mark.parametrize(
    ("wrong", "data", "settings", "named"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_mistake_is_named_in_one_line(wrong: Any, data: Any, settings: dict[str, Any], named: str) -> None:
    call: Any = vi_core.fit
    with pytest.raises(LabError) as caught:
        call(wrong, data, **{"steps": 3, "replicates": 1} | settings)
    message = str(caught.value)
    assert "\n" not in message and named in message, message
    assert torch.get_default_dtype() == torch.float32


def test_the_same_without_the_mistake() -> None:
    """What the mistakes are made in fits."""
    assert np.isfinite(vi_core.fit(model(mu, normal), GOOD, steps=3, replicates=1).elbo).all()
    counts: Any = {"steps": np.int64(3), "replicates": np.int32(1)}
    assert np.isfinite(vi_core.fit(model(mu, normal), {"y": torch.ones(3).bfloat16()}, **counts).elbo).all()


class Groups(vi_core.BayesianModel):
    """y_n ~ N(x_n + alpha[group_n], 1) in three groups."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "alpha", Normal(0.0, 1.0).expand([3])

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(data["x"] + z["alpha"][data["group"]], 1.0)


def test_predictions_for_groups() -> None:
    """Rows of other types of numbers are those of the fit; a level that the fit has not seen is named."""
    fit = vi_core.fit(Groups(), {"x": [1.0, 2.0, 3.0], "group": [0, 1, 2], "y": [1.0, 2.0, 3.0]}, steps=3, replicates=1)
    found: Any = fit.predict({"x": [1, 2], "group": [0.0, 2.0]}, 4)
    assert found.shape == (4, 2)
    for call in (fit.predict, fit.log_predictive):
        with pytest.raises(LabError, match=r"'group' is 7 at \[1\], and the fit has seen 0 to 2"):
            call({"x": [1.0, 2.0], "group": [0, 7], "y": [1.0, 2.0]}, 4)
    with pytest.raises(LabError, match="'group' holds fractions"):
        fit.predict({"x": [1.0], "group": [0.5]}, 4)


def test_a_matrix_without_a_factor_in_a_step_is_one_line() -> None:
    """Where q is wide only after the first look, and in whatever is done while a problem is assembled."""
    with (
        pytest.raises(LabError, match="not positive definite, or singular, at a draw of q") as caught,
        matrices_factorized(),
    ):
        torch.linalg.cholesky(-torch.eye(2))
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="size"), matrices_factorized():
        torch.mv(torch.ones(3, 3), torch.ones(2))


def test_a_class_without_likelihood_is_one_line() -> None:
    class Half(vi_core.BayesianModel):
        def prior(self, data: Any) -> Iterator[Any]:
            yield from mu(data)

    with pytest.raises(LabError, match="Half lacks the method likelihood"):
        Half()  # type: ignore[abstract]


FILE = """
import vi_core
from torch.distributions import Normal
class Own(vi_core.BayesianModel):
    def prior(self, data):
        yield "mu", Normal(0.0, 1.0)
    def likelihood(self, z, data):
        return Normal(z["mu"], 1.0)
"""


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("my.py", "import sys\nsys.exit(3)\n", "line 2: SystemExit"),
        ("my.py", "import nowhere_at_all\n" + FILE, "line 1: ModuleNotFoundError"),
        ("my.py", FILE.replace("        yield", "\tyield"), "line 6: TabError"),
        ("my.py", FILE + "\0", "null bytes"),
        ("my.py", "name = input()\n" + FILE, "line 1: "),
        ("my.py", FILE.replace("(vi_core.BayesianModel)", ""), "defines no model"),
        ("my.py", "", "defines no model"),
        ("my.py", FILE + FILE.replace("Own", "Two"), "choose one"),
        ("my.py", FILE.replace("    def prior", "    def __init__(self, k): ...\n    def prior"), "model.settings.k"),
        ("my.py", FILE.replace("    def prior", "    def __init__(self): 1 / 0\n    def prior"), "cannot be made"),
        ("my.py", FILE.replace("def likelihood", "def likelyhood"), "Own lacks the method likelihood"),
        ("my.csv", "a,b\n1,2\n", "must end in .py"),
        ("my.stan", "parameters { real x; }", "model=stan"),
    ],
)
def test_a_wrong_file_is_one_line(name: str, text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LabError) as caught:
        FileModel(path=str(tmp_path / name))
    assert named in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


def test_the_right_file_is_a_model(tmp_path: Path) -> None:
    """Negative control."""
    (tmp_path / "my.py").write_text(FILE)
    assert type(FileModel(path=str(tmp_path / "my.py")).own).__name__ == "Own"


def test_mistakes_after_a_fit(fitted: Fit) -> None:
    calls = [
        (lambda: fitted.predict({"z": X}), "'x'"),
        (lambda: fitted.predict({"x": X[:, :1]}), "(rows, "),
        (lambda: fitted.log_predictive({"x": X}), "'y'"),
        (lambda: fitted.predict({"x": X[0]}), "'x' has shape (2,), and (rows, 2) is needed"),
        (lambda: fitted.predict({"X": X}), "lack 'x'"),
        (lambda: fitted.predict({"x": X * np.nan}), "'x' is nan at [0, 0]"),
        (lambda: fitted.log_predictive({"x": X[:3], "y": Y[:2]}), "'x' 3, 'y' 2"),
        (lambda: fitted.log_predictive({"x": X[:2], "y": Y[:2, None]}), "'y' has shape (2, 1), and (rows,) is needed"),
        (lambda: fitted.draws(0), "n=0"),
        (lambda: fitted.draws(2.5), "n=2.5"),  # type: ignore[arg-type]
        (lambda: fitted.at("0"), "no replicate '0'"),  # type: ignore[arg-type]
        (lambda: fitted.save("nowhere/fit.npz"), "no folder 'nowhere'"),
        (lambda: fitted.plot("nowhere/fit.png"), "no folder 'nowhere'"),
        (lambda: fitted.plot("fit.doc"), "plot writes"),
        (lambda: vi_core.load(3), "not int"),  # type: ignore[arg-type]
        (lambda: fitted.predict([1.0]), "list"),
    ]
    for call, named in calls:
        with pytest.raises(LabError) as caught:
            call()
        assert named in str(caught.value) and "\n" not in str(caught.value), str(caught.value)

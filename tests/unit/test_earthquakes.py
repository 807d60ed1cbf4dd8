"""The earthquake mixture: its ELBO by explicit responsibilities and by enumeration, its updates as stationary points,
empirical Bayes against numerical maximisation, restarts, recovery, and what its data sets refuse.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

import vi_core
from tests.conftest import DATA, CommandLine, needs_quakes
from vi_core.algorithms.coordinate_ascent import CoordinateAscentStep
from vi_core.bounds.elbo import ELBO
from vi_core.datasets.csv import Catalogue
from vi_core.datasets.synthetic import EarthquakeDraws
from vi_core.diagnostics.clustering import adjusted_rand_index, renumbering
from vi_core.distributions.transforms import Exponential
from vi_core.errors import ConfigError, DataError, LabError, Unsupported
from vi_core.estimators.exact import Exact
from vi_core.families.mean_field import MeanField
from vi_core.models.mixtures import one_pass as mixture
from vi_core.models.mixtures.earthquakes import Earthquakes, spread_out
from vi_core.models.mixtures.hyperparameters import EmpiricalBayes, Fixed, Hyperparameters, fit_gamma
from vi_core.types import Params

SETTINGS: dict[str, Any] = {
    "components": 3,
    "weights": [0.2, 0.3, 0.5],
    "precision": 0.7,
    "loc": [1.0, -0.5],
    "loc_precision": 0.2,
    "concentration": 2.0,
    "rate": 0.3,
}


@pytest.fixture(autouse=True)
def wide() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def events(number: int = 40) -> Tensor:
    """Events of three overlapping sources, away from the origin."""
    return (
        EarthquakeDraws(
            epicentres=[[8.0, 3.0], [10.0, 4.0], [9.0, 6.0]], strengths=[3.0, 8.0, 15.0], num_points=number, seed=1
        )
        .load()
        .train
    )


def problem(x: Tensor, replicates: int = 1, kind: Hyperparameters | None = None, **changes: Any):
    """Model, family, summary and a step that has begun."""
    model = Earthquakes(replicates, **(SETTINGS | changes), hyperparameters=kind or Fixed())
    family = MeanField(model.latents, replicates, positive=Exponential())
    summary = model.summarize(x)
    step = CoordinateAscentStep(model, family, ELBO(), Exact(), "best")
    step.begin(summary)
    return model, family, summary, step


def naive_elbo(x: np.ndarray, q: dict[str, np.ndarray], theta: dict[str, Any], r: np.ndarray | None = None) -> float:
    """The ELBO of q(k) q(mu) q(λ), from scipy's densities; responsibilities r (N, K), or their optimum."""
    m, s, a, b = q["loc"], q["scale"], q["a"], q["b"]
    tau, rho, points, count = theta["precision"], theta["loc_precision"], len(x), len(m)
    expected = np.zeros((points, count))
    for n, k in itertools.product(range(points), range(count)):
        distance = ((x[n, :2] - m[k]) ** 2 + s[k] ** 2).sum()
        log_strength = float(special.digamma(a[k])) - math.log(b[k])
        poisson = x[n, 2] * log_strength - a[k] / b[k] - math.lgamma(x[n, 2] + 1)
        expected[n, k] = math.log(theta["weights"][k]) + math.log(tau / (2 * math.pi)) - tau / 2 * distance + poisson
    shares = np.asarray(special.softmax(expected, axis=1) if r is None else r)
    likelihood = (shares * expected).sum() + special.entr(shares).sum()
    entropy = stats.norm.entropy(scale=s).sum() + stats.gamma.entropy(a, scale=1 / b).sum()
    drift = ((m - np.array(theta["loc"])) ** 2 + s**2).sum()
    prior_place = count * math.log(rho / (2 * math.pi)) - rho / 2 * drift
    c, d = theta["concentration"], theta["rate"]
    log_lam = special.digamma(a) - np.log(b)
    prior_strength = (c * math.log(d) - math.lgamma(c) + (c - 1) * log_lam - d * a / b).sum()
    return likelihood + entropy + prior_place + prior_strength


def numbers(params: Params, replicate: int = 0) -> dict[str, np.ndarray]:
    """Parameters of q of one replicate under the names of `naive_elbo`."""
    place, strength = params["epicentre"], params["strength"]
    tensors = {"loc": place["loc"], "scale": place["scale"], "a": strength["concentration"], "b": strength["rate"]}
    return {name: value[replicate, 0].detach().numpy() for name, value in tensors.items()}


# --- the ELBO -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 2**17])
def test_elbo_is_that_of_explicit_responsibilities(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "LOGITS_AT_ONCE", chunk)
    x = events()
    model, family, summary, _ = problem(x, replicates=2)
    for replicate in range(2):
        expected = naive_elbo(x.numpy(), numbers(family.variational(), replicate), SETTINGS)
        assert model.expected_bound(family.variational(), summary)[replicate].item() == pytest.approx(
            expected, rel=1e-12
        )
        completed = model.complete(family.variational(), summary)
        assert completed.bound[replicate].item() == pytest.approx(expected, rel=1e-12)


def test_a_normal_that_is_normalised_in_one_dimension_is_caught() -> None:
    """Report 003 writes sqrt(precision/2π) for a Normal in the plane: the ELBO is off by N/2 log(precision/2π)."""
    x = events()
    model, family, summary, _ = problem(x)
    right = naive_elbo(x.numpy(), numbers(family.variational()), SETTINGS)
    wrong = right - len(x) / 2 * math.log(SETTINGS["precision"] / (2 * math.pi))
    assert model.expected_bound(family.variational(), summary).item() != pytest.approx(wrong, rel=1e-3)


def test_any_other_responsibilities_lower_the_elbo() -> None:
    x = events()
    model, family, summary, _ = problem(x)
    r = model.responsibilities(family.variational(), x, summary)[0].detach().numpy()
    q = numbers(family.variational())
    best = naive_elbo(x.numpy(), q, SETTINGS, r)
    assert best == pytest.approx(naive_elbo(x.numpy(), q, SETTINGS), rel=1e-12)
    for mixed in (0.9 * r + 0.1 / 3, np.roll(r, 1, axis=1) * 0.01 + r * 0.99):
        assert naive_elbo(x.numpy(), q, SETTINGS, mixed) < best - 1e-3


def log_evidence(x: np.ndarray, theta: dict[str, Any]) -> float:
    """log p(x) by summing over all K^N assignments, each conjugate."""
    terms = []
    for origin in itertools.product(range(theta["components"]), repeat=len(x)):
        total = sum(math.log(theta["weights"][k]) for k in origin)
        for k in range(theta["components"]):
            own = x[[n for n, o in enumerate(origin) if o == k]]
            if not len(own):
                continue
            for axis in range(2):
                covariance = np.eye(len(own)) / theta["precision"] + 1 / theta["loc_precision"]
                total += stats.multivariate_normal.logpdf(own[:, axis], [theta["loc"][axis]] * len(own), covariance)
            a, b = theta["concentration"] + own[:, 2].sum(), theta["rate"] + len(own)
            total += theta["concentration"] * math.log(theta["rate"]) - math.lgamma(theta["concentration"])
            total += math.lgamma(a) - a * math.log(b) - special.gammaln(own[:, 2] + 1).sum()
        terms.append(total)
    return float(special.logsumexp(terms))


def test_elbo_lies_below_the_evidence_of_all_assignments() -> None:
    x = events(5)
    _, _, summary, step = problem(x, replicates=5)
    evidence = log_evidence(x.numpy(), SETTINGS)
    bounds = step(summary)["elbo"]
    for _ in range(60):
        bounds = step(summary)["elbo"]
        assert bool((bounds < evidence).all())
    assert evidence - bounds.max().item() < math.log(math.factorial(3)) + 3  # one of 3! equal modes, and mean field


def test_log_joint_sums_the_assignments_out() -> None:
    x = events(4)
    model, family, summary, _ = problem(x)
    z = family.distribution(family.variational()).sample(2)
    for draw in range(2):
        mu, lam = z["epicentre"][draw, 0, 0].numpy(), z["strength"][draw, 0, 0].numpy()
        density = [
            sum(
                SETTINGS["weights"][k]
                * stats.norm.pdf(event[:2], mu[k], SETTINGS["precision"] ** -0.5).prod()
                * stats.poisson.pmf(event[2], lam[k])
                for k in range(3)
            )
            for event in x.numpy()
        ]
        prior = stats.norm.logpdf(mu, SETTINGS["loc"], SETTINGS["loc_precision"] ** -0.5).sum()
        prior += stats.gamma.logpdf(lam, SETTINGS["concentration"], scale=1 / SETTINGS["rate"]).sum()
        assert model.log_joint(z, summary)[draw].item() == pytest.approx(np.log(density).sum() + prior, rel=1e-11)


# --- coordinate ascent ----------------------------------------------------------------------------------------------


def gradient(model: Earthquakes, family: MeanField, summary: Any) -> Tensor:
    """Of the closed-form ELBO in the stored parameters."""
    bound = model.expected_bound(family.variational(), summary).sum()
    return torch.autograd.grad(bound, family.packed.raw)[0]


def test_the_fixed_point_is_stationary() -> None:
    x = events(200)
    model, family, summary, step = problem(x)
    at_first = gradient(model, family, summary).abs().max()
    for _ in range(300):
        step(summary)
    step.check()
    assert gradient(model, family, summary).abs().max() < 1e-6 * at_first


@pytest.mark.parametrize("kind", [Fixed(), EmpiricalBayes()], ids=["fixed", "empirical_bayes"])
def test_elbo_never_falls(kind: Hyperparameters) -> None:
    _, _, summary, step = problem(events(300), 6, kind)
    bounds = torch.stack([step(summary)["elbo"] for _ in range(80)])
    step.check()
    assert bool((bounds.diff(dim=0) > -1e-13 * bounds.abs().max()).all())


class WrongPlaces(Earthquakes):
    """Forgets the prior's mean."""

    def update(self, block: str, params: Params, x: Any) -> dict[str, Tensor]:
        new = super().update(block, params, x)
        return new | {"loc": new["loc"] * 0.98} if block == "epicentre" else new


class WrongPrecision(EmpiricalBayes):
    """Counts one coordinate of a place."""

    def update(self, constants: Any, moments: Any) -> Any:
        new = super().update(constants, moments)
        return new._replace(precision=new.precision / 2)


@pytest.mark.parametrize("wrong", ["places", "precision"])
def test_a_wrong_update_is_caught(wrong: str) -> None:
    cls = WrongPlaces if wrong == "places" else Earthquakes
    model = cls(3, **SETTINGS, hyperparameters=WrongPrecision() if wrong == "precision" else Fixed())
    family = MeanField(model.latents, 3, positive=Exponential())
    summary = model.summarize(events(300))
    step = CoordinateAscentStep(model, family, ELBO(), Exact())
    step.begin(summary)
    for _ in range(20):
        step(summary)
    with pytest.raises(LabError, match="the ELBO fell"):
        step.check()


def test_replicates_are_isolated() -> None:
    """Another replicate's restart changes nothing, and a dead replicate's q and constants stay."""
    x = events(100)
    model, family, summary, step = problem(x, 3, EmpiricalBayes())
    alone, single, same, other = problem(x, 1, EmpiricalBayes())
    with torch.no_grad():
        single.packed.raw.copy_(family.packed.raw[1:2])
    step.alive[2] = False
    before = family.packed.raw[2].clone(), model.constants.precision[2].clone()
    for _ in range(10):
        step(summary)
        other(same)
    assert torch.allclose(family.packed.raw[1:2], single.packed.raw, rtol=1e-12)
    assert torch.allclose(model.constants.rate[1:2], alone.constants.rate, rtol=1e-12)
    assert torch.equal(family.packed.raw[2], before[0]) and torch.equal(model.constants.precision[2], before[1])


def test_the_best_live_replicate_is_kept() -> None:
    step = problem(events(), 3)[3]
    assert step.kept(torch.tensor([1.0, 3.0, 2.0])).tolist() == [False, True, False]
    step.alive[1] = False
    assert step.kept(torch.tensor([1.0, 3.0, 2.0])).tolist() == [False, False, True]
    step.keep = "all"
    assert step.kept(torch.tensor([1.0, 3.0, 2.0])).tolist() == [True, False, True]


def test_state_holds_the_constants() -> None:
    """Another step that loads the state goes on as the first does."""
    _, _, summary, step = problem(events(100), 2, EmpiricalBayes())
    for _ in range(5):
        step(summary)
    state = {name: value.clone() for name, value in step.state_dict().items()}
    other = problem(events(100), 2, EmpiricalBayes())[3]
    other.load_state_dict(state)
    for _ in range(5):
        assert torch.equal(step(summary)["elbo"], other(summary)["elbo"])


def test_starts_are_spread_out() -> None:
    """Four far groups: the squared distance finds one of each, even draws would in 9 % of all replicates."""
    groups = torch.randn(200, 1, 40, 2) * 0.01 + torch.tensor([[0.0, 0], [100, 0], [0, 100], [100, 100]]).reshape(
        4, 1, 2
    )
    points = groups.reshape(200, 160, 2)
    found = spread_out(points, 4).div(40, rounding_mode="floor").sort(dim=1).values
    assert torch.equal(found, torch.arange(4).expand(200, 4))
    assert len(set(spread_out(points, 4)[:, 0].tolist())) > 50
    assert spread_out(torch.zeros(2, 5, 2), 3).shape == (2, 3)


# --- empirical Bayes ------------------------------------------------------------------------------------------------


def test_empirical_bayes_maximises_the_elbo() -> None:
    """No constant can be moved to raise the ELBO at the fixed point; q and r are those of the model there."""
    x = events(60)
    model, family, summary, step = problem(x, 1, EmpiricalBayes())
    for _ in range(600):
        step(summary)
    q, constants = numbers(family.variational()), model.constants
    theta = {name: getattr(constants, name)[0, 0].numpy() for name in constants._fields}
    best = naive_elbo(x.numpy(), q, theta)
    for name, step_size in itertools.product(("precision", "loc_precision", "concentration", "rate"), (-1e-3, 1e-3)):
        assert naive_elbo(x.numpy(), q, theta | {name: theta[name] * (1 + step_size)}) <= best + 1e-9
    for move in ([1e-3, 0], [0, -1e-3]):
        assert naive_elbo(x.numpy(), q, theta | {"loc": theta["loc"] + np.array(move)}) <= best + 1e-9
    for move in ([1e-3, -1e-3, 0], [0, -1e-3, 1e-3], [-1e-3, 1e-3, 0]):
        assert naive_elbo(x.numpy(), q, theta | {"weights": theta["weights"] + np.array(move)}) <= best + 1e-9


@pytest.mark.parametrize("gap", [1e-6, 1e-3, 0.1, 1.0, 10.0, 100.0])
def test_the_gamma_prior_is_fitted(gap: float) -> None:
    mean, mean_log = torch.tensor([[3.0, 5.0]]), torch.tensor([[math.log(4.0) - gap] * 2])
    concentration, rate = fit_gamma(mean, mean_log)

    def equation(log_a: float) -> float:
        return log_a - special.digamma(math.exp(log_a)) - gap

    if gap >= 1e-3:
        assert concentration.item() == pytest.approx(math.exp(cast(float, optimize.brentq(equation, -8, 10))), rel=1e-9)
    assert concentration.item() == pytest.approx(1 / (2 * gap), rel=1e-3) or gap > 1e-6
    assert (concentration / rate).item() == pytest.approx(4.0)


def test_empirical_bayes_is_refused_where_nothing_moves_it(cli: CommandLine) -> None:
    arguments = ("experiment=earthquakes_cavi", "model/hyperparameters=empirical_bayes", "trainer=smoke")
    result = cli(*arguments, "optimizer=adam")
    assert result.code == 1 and "use optimizer=coordinate_ascent" in result.err and result.err.count("\n") == 1
    with pytest.raises(ConfigError, match="components=1 must be at least 2"):
        Earthquakes(components=1, hyperparameters=EmpiricalBayes())


# --- misfit, recovery -----------------------------------------------------------------------------------------------


def test_predicted_counts() -> None:
    model, family, summary, _ = problem(events())
    params, grid = family.variational(), torch.arange(400.0)
    mass = model.count_probabilities(params, grid)[0].detach().numpy()
    q = numbers(params)
    expected = sum(
        w * stats.nbinom.pmf(np.arange(400), a, b / (b + 1))
        for w, a, b in zip(SETTINGS["weights"], q["a"], q["b"], strict=True)
    )
    assert mass == pytest.approx(expected, rel=1e-9)
    found = {name: value.item() for name, value in model.misfit(params, summary).items()}
    mean = (mass * np.arange(400)).sum()
    assert found["predictive_mean"] == pytest.approx(mean)
    assert found["predictive_variance"] == pytest.approx((mass * (np.arange(400) - mean) ** 2).sum())


@pytest.mark.parametrize(("excess", "low", "high"), [(1, 0.9, 1.1), (4, 3.0, 6.0)])
def test_overdispersed_counts_are_told_from_poisson(excess: int, low: float, high: float) -> None:
    """Counts that are multiplied by 4 have 4 times the variance of a Poisson of their mean."""
    x = EarthquakeDraws(num_points=2000).load().train * torch.tensor([1.0, 1.0, float(excess)])
    model, family, summary, step = problem(x, 8, components=4, weights=None, rate=0.05)
    bounds = torch.stack([step(summary)["elbo"] for _ in range(40)])[-1]
    dispersion = model.misfit(family.variational(), summary)["count_dispersion"]
    assert low < dispersion[int(bounds.argmax())].item() < high


def test_adjusted_rand_index() -> None:
    random = np.random.default_rng(0)
    for size, first, second in [(50, 3, 4), (200, 5, 2), (30, 1, 3)]:
        a, b = random.integers(0, first, size), random.integers(0, second, size)
        assert adjusted_rand_index(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    assert adjusted_rand_index(a, a) == 1.0
    assert adjusted_rand_index(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])) == 1.0


def test_renumbering_undoes_a_permutation() -> None:
    truth = np.random.default_rng(0).normal(size=(5, 3)) * [1, 10, 100]
    order = np.array([3, 1, 4, 0, 2])
    assert (renumbering(truth[order] + 1e-3, truth) == order).all()


# --- data -----------------------------------------------------------------------------------------------------------


def test_synthetic_events() -> None:
    data = EarthquakeDraws(num_points=20_000, weights=[0.1, 0.2, 0.3, 0.4]).load()
    assert data.labels is not None
    for k, (place, strength) in enumerate(zip(EarthquakeDraws().epicentres, EarthquakeDraws().strengths, strict=True)):
        own = data.train[data.labels == k]
        assert len(own) / 20_000 == pytest.approx(0.1 * (k + 1), abs=0.02)
        assert own.mean(dim=0).tolist() == pytest.approx([*place, strength], abs=5 * (strength / len(own)) ** 0.5)
        assert own[:, 2].var().item() == pytest.approx(strength, rel=0.2)


def catalogue(tmp_path: Path, text: str, **settings: Any) -> Catalogue:
    (tmp_path / "e.csv").write_text(text)
    return Catalogue(path=str(tmp_path / "e.csv"), **settings)


def test_catalogue_reads_named_columns(tmp_path: Path) -> None:
    data = catalogue(tmp_path, "n,b,a\n3,1.5,-2\n0,4,5\n", horizontal="a", vertical="b", strength="n").load()
    assert data.train.tolist() == [[-2.0, 1.5, 3.0], [5.0, 4.0, 0.0]]
    assert data.columns == ("a (degrees)", "b (degrees)", "n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("long,lat,station\n1,2,3\n1,2,3\n", "dataset.strength=stations is not in .* Did you mean 'station'"),
        ("lon,lat,stations\n1,2,3\n1,2,3\n", "dataset.horizontal=long is not in"),
        ("long,lat,stations\n1,2,3\n1,2,3.5\n", "row 2, column 'stations': 3.5 is no count"),
        ("long,lat,stations\n1,2,-3\n1,2,3\n", "row 1, column 'stations': -3 is no count"),
        ("long,lat,stations\n1,,3\n1,2,3\n", "column 'lat': the cell is empty"),
    ],
)
def test_a_bad_catalogue_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        catalogue(tmp_path, text).load()
    assert "\n" not in str(caught.value)


def test_data_that_are_no_events_are_refused() -> None:
    for wrong in (torch.randn(5), torch.randn(5, 3), torch.zeros(5, 4)):
        with pytest.raises(Unsupported, match="dataset=catalogue"):
            Earthquakes(hyperparameters=Fixed()).check_data(wrong)


@pytest.mark.parametrize(
    "settings",
    [{"weights": [0.5, 0.5]}, {"strengths": [1.0]}, {"epicentres": [[1.0]]}, {"weights": [0.5, 0.5, 0.5, 0.5]}],
)
def test_impossible_events_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="dataset\\."):
        EarthquakeDraws(**settings)


# --- runs -----------------------------------------------------------------------------------------------------------


def run_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.slow
def test_a_run_recovers_and_is_read_back(cli: CommandLine, tmp_path: Path) -> None:
    short = ("trainer.final_samples=50", "trainer.steps=30")
    whole = cli("experiment=earthquakes_cavi", "hydra.run.dir=whole", "model/hyperparameters=empirical_bayes", *short)
    assert whole.code == 0, whole.err
    summary = run_of(tmp_path / "whole")
    best = summary["best_replicate"]
    assert summary["final"]["values"][best] == summary["final"]["median"] == max(summary["final"]["values"])
    assert summary["recovery"]["adjusted_rand_index"] > 0.99
    assert summary["recovery"]["largest_error_in_deviations"] < 4
    for row in summary["estimates"].values():
        assert abs(row["mean"] - row["truth"]) < 4 * row["sd"]
    assert {path.name for path in (tmp_path / "whole" / "plots").iterdir()} == {
        "bound.png", "expectations.png", "parameters.png", "posterior.png", "network.png", "map.png", "counts.png",
    }  # fmt: skip
    archived = vi_core.load(tmp_path / "whole")
    model, full = archived.problem.model, archived.problem.batches.full
    again = model.expected_bound(archived.problem.family.variational(), full)  # pyright: ignore
    assert again.flatten().tolist() == pytest.approx(summary["final"]["values"], rel=1e-13)
    assert cli("task=plot", f"run={tmp_path / 'whole'}").code == 0


@pytest.mark.slow
@needs_quakes
def test_catalogue_shows_the_misfit(cli: CommandLine, tmp_path: Path) -> None:
    path = f"dataset.path={DATA / 'quakes' / 'quakes.csv'}"
    result = cli(
        "experiment=earthquakes_catalogue", path, "model.components=2,3,4", "replicates=4", "trainer.steps=20",
        "trainer.final_samples=50", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert (tmp_path / "sweep" / "plots" / "final.png").exists()
    misfit = run_of(tmp_path / "sweep" / "0")["misfit"]
    assert (misfit["count_mean"], misfit["count_variance"]) == (
        pytest.approx(33.42, abs=0.01),
        pytest.approx(479.6, abs=0.1),
    )
    assert misfit["count_dispersion"] > 2

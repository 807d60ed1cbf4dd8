"""Exact answers at the edges of floating point, against 50-digit arithmetic.

Hypothesis draws data at scales from 1e-8 to 1e8, with 1 to 1,000 points, and priors from 1e-6 to 1e12. What it draws is
fixed by `derandomize`, so that there is no false alarm; the tolerances are some hundred roundings, and each test names
the formula that it caught.
"""

import math
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CommandLine, summary_of
from vi_core.distributions.gamma import Gamma, binet, digamma_less_log, kl_gamma, log_gamma_ratio
from vi_core.models.bayesian.regression import LinearRegression
from vi_core.models.conjugate.gaussian_network import GaussianNetwork
from vi_core.models.conjugate.normal_gamma import NormalGamma

mp.mp.dps = 50
FEW = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SCALES = st.floats(-8, 8).map(lambda power: 10.0**power)
PRIORS = st.floats(-6, 12).map(lambda power: 10.0**power)
SHAPES = st.floats(-3, 15).map(lambda power: 10.0**power)


@pytest.fixture(autouse=True)
def double() -> None:
    """The constants of models are created in float64; the default is put back after each test."""
    torch.set_default_dtype(torch.float64)


def exact(value: float) -> Any:
    """The number itself, without rounding."""
    return mp.mpf(value)


# --- Normal–Gamma ---------------------------------------------------------------------------------------------------


def normal_gamma_reference(x: np.ndarray, loc: float, ratio: float, a: float, b: float) -> tuple[Any, ...]:
    """Log evidence, E[mu] and E[tau] from the definition."""
    data, m0, k0, a0, b0 = [exact(v) for v in x.tolist()], *map(exact, (loc, ratio, a, b))
    n = len(data)
    mean = mp.fsum(data) / n
    squares = mp.fsum((v - mean) ** 2 for v in data)
    kn, an = k0 + n, a0 + mp.mpf(n) / 2
    bn = b0 + squares / 2 + k0 * n * (mean - m0) ** 2 / (2 * kn)
    evidence = mp.loggamma(an) - mp.loggamma(a0) + a0 * mp.log(b0) - an * mp.log(bn)
    evidence += (mp.log(k0 / kn) - n * mp.log(2 * mp.pi)) / 2
    return evidence, (k0 * m0 + n * mean) / kn, an / bn


def largest_summand(x: np.ndarray, a: float, b: float) -> float:
    """What the evidence adds up, at least: rounding is relative to it."""
    half = len(x) / 2
    return 1 + half * (abs(math.log(b)) + abs(math.log(a)) + abs(math.log(float(np.ptp(x)) + 1e-300)))


@FEW
@given(st.integers(1, 1000), SCALES, st.floats(-3, 3), PRIORS, SHAPES, SHAPES, st.integers(0, 10))
def test_normal_gamma(n: int, scale: float, shift: float, ratio: float, a: float, b: float, seed: int) -> None:
    """Caught: lgamma differences, 1e-5 off at a_0 = 1e10 and 0.4 at 1e14."""
    x = scale * (np.random.default_rng(seed).standard_normal(n) + shift)
    model = NormalGamma(loc=0.5 * scale, precision_ratio=ratio, concentration=a, rate=b)
    found = model.exact(model.summarize(torch.from_numpy(x)))
    evidence, mu, tau = normal_gamma_reference(x, 0.5 * scale, ratio, a, b)
    assert abs(found["log_evidence"] - evidence) <= 1e-9 * abs(evidence) + 1e-13 * largest_summand(x, a, b)
    assert abs(found["tau"] / tau - 1) < 1e-11
    assert abs(found["mu"] - mu) < 1e-12 * scale * 10


def test_the_reported_evidence() -> None:
    x = torch.from_numpy(np.array([1.0, 2.0, 4.0]))
    for power in (10, 14):
        model = NormalGamma(concentration=10.0**power, rate=10.0**power)
        evidence, *_ = normal_gamma_reference(x.numpy(), 1.0, 0.1, 10.0**power, 10.0**power)
        assert abs(model.exact(model.summarize(x))["log_evidence"] - evidence) < 1e-12


@pytest.mark.parametrize("prior", ["1e10", "1e14"])
def test_no_negative_divergence(cli: CommandLine, tmp_path: Path, prior: str) -> None:
    arguments = ("--run", "estimator=exact", "optimizer=coordinate_ascent", "trainer.steps=100", "replicates=1")
    priors = (f"model.concentration={prior}", f"model.rate={prior}")
    assert cli(*arguments, *priors, "plot.enabled=false", "hydra.run.dir=run").code == 0
    final = summary_of(tmp_path / "run")["final"]
    assert final["log_evidence"] == pytest.approx(-203.42445190562, abs=2e-6 if prior == "1e14" else 1e-10)
    assert 0 <= final["kl_to_posterior"] < 1e-10


# --- Gamma functions ------------------------------------------------------------------------------------------------


@FEW
@given(SHAPES, SHAPES)
def test_gamma_functions(a: float, m: float) -> None:
    """Against the definitions: the series take over at 16, where their first omitted terms are below rounding."""
    large = exact(a)
    found = [f(torch.tensor(a)).item() for f in (binet, digamma_less_log)]
    remainder = mp.loggamma(large) - (large - 0.5) * mp.log(large) + large - mp.log(2 * mp.pi) / 2
    less = mp.digamma(large) - mp.log(large)
    assert abs(found[0] - remainder) < 2e-14
    assert abs(found[1] - less) < 4e-15 * (1 + abs(less))
    ratio = mp.loggamma(large + exact(m)) - mp.loggamma(large) - exact(m) * mp.log(large)
    assert abs(log_gamma_ratio(torch.tensor(a), torch.tensor(m)).item() - ratio) < 1e-13 * (1 + abs(ratio) + m)


@FEW
@given(SHAPES, SHAPES, SCALES, SCALES, st.booleans())
def test_kl_gamma(a: float, c: float, b: float, d: float, near: bool) -> None:
    """Caught: differences of a log b − log Γ(a) that lose the divergence of near laws with large shapes."""
    if near:
        c, d = a + min(50.0, a), b * 1.01
    found = kl_gamma(Gamma(torch.tensor(a), torch.tensor(b)), Gamma(torch.tensor(c), torch.tensor(d))).item()
    (e, f), (g, h) = map(exact, (a, b)), map(exact, (c, d))
    divergence = (e - g) * mp.digamma(e) - mp.loggamma(e) + mp.loggamma(g) + g * mp.log(f / h) + e * (h / f - 1)
    assert abs(found - divergence) < 1e-11 * (1 + divergence)


# --- the network of Normals -----------------------------------------------------------------------------------------


def network_reference(model: GaussianNetwork, x: torch.Tensor) -> tuple[Any, list[Any]]:
    """Log evidence and posterior means by the normal equations, which 50 digits bear."""
    forms = model.summarize(x)
    scales = [exact(s) for s in forms.scale.tolist()]
    design = mp.matrix([[exact(v) / s for v in row] for row, s in zip(forms.design.tolist(), scales, strict=True)])
    target = mp.matrix([exact(t) / s for t, s in zip(forms.target.tolist(), scales, strict=True)])
    precision = design.T * design
    mean = mp.lu_solve(precision, design.T * target)
    residual = target - design * mean
    constants = 2 * mp.fsum(map(mp.log, scales)) + mp.log(mp.det(precision))
    spare = design.rows - design.cols
    evidence = -(mp.fsum(v * v for v in residual) + constants + spare * mp.log(2 * mp.pi)) / 2
    return evidence, list(mean)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 6), st.lists(SCALES, min_size=5, max_size=5), SCALES)
def test_gaussian_network(n: int, scales: list[float], unit: float) -> None:
    """Caught: an inverse of the normal equations, 214 nats off where the data's scale is 1e-8."""
    names = ("v_scale", "z_scale", "w_scale", "y_scale", "x_scale")
    model = GaussianNetwork(n, **dict(zip(names, scales, strict=True)))
    x = unit * torch.from_numpy(np.random.default_rng(n).standard_normal(n))
    found = model.exact(model.summarize(x))
    evidence, means = network_reference(model, x)
    assert abs(found["log_evidence"] - evidence) < 1e-10 * (1 + abs(evidence))
    for name, mean in zip(model.latents, means, strict=True):
        assert abs(found[name] - mean) < 1e-7 * found[f"{name}.std"] + 1e-12 * (unit + abs(mean))


def test_the_reported_network() -> None:
    x = torch.from_numpy(1.7 * np.random.default_rng(3).standard_normal(20))
    model = GaussianNetwork(20, x_scale=1e-8)
    found = model.exact(model.summarize(x))
    assert found["log_evidence"] == pytest.approx(-64.9656526, abs=1e-7)
    assert found["z"] == pytest.approx(-0.14756983, abs=1e-8)


# --- linear regression ----------------------------------------------------------------------------------------------


def regression_reference(model: LinearRegression, x: np.ndarray, y: np.ndarray) -> tuple[Any, list[Any], Any]:
    """Log evidence, E[alpha] and E[beta], and E[sigma2], by the normal equations, which 50 digits bear."""
    rows = [[exact(1.0), *map(exact, row)] for row in x.tolist()]
    size, half = len(rows[0]), exact(len(rows)) / 2
    scales = [exact(model.intercept_scale), *[exact(model.slope_scale)] * (size - 1)]
    design, target = mp.matrix(rows), mp.matrix([exact(value) for value in y.tolist()])
    precision = design.T * design + mp.diag([1 / scale**2 for scale in scales])
    mean = mp.lu_solve(precision, design.T * target)
    squares = mp.fsum(v * v for v in target - design * mean)
    squares += mp.fsum((m / scale) ** 2 for m, scale in zip(mean, scales, strict=True))
    evidence = -half * mp.log(2 * mp.pi) - mp.fsum(map(mp.log, scales)) - mp.log(mp.det(precision)) / 2
    if model.sigma is not None:
        variance = exact(model.sigma) ** 2
        return evidence - half * mp.log(variance) - squares / (2 * variance), list(mean), variance
    a, b = exact(model.concentration), exact(model.rate)
    a_n, b_n = a + half, b + squares / 2
    evidence += mp.loggamma(a_n) - mp.loggamma(a) + a * mp.log(b) - a_n * mp.log(b_n)
    return evidence, list(mean), b_n / (a_n - 1) if a_n > 1 else mp.inf


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 60), st.integers(1, 3), SCALES, SCALES, PRIORS, SHAPES, SHAPES, st.booleans(), st.integers(0, 9))
def test_linear_regression(
    n: int, width: int, unit: float, spread: float, scale: float, a: float, b: float, known: bool, seed: int
) -> None:
    """Caught: lgamma differences, as in the Normal–Gamma model."""
    generator = np.random.default_rng(seed)
    x, y = spread * generator.standard_normal((n, width)), unit * generator.standard_normal(n)
    sigma = unit * 0.7 if known else None
    model = LinearRegression(intercept_scale=scale, slope_scale=scale, concentration=a, rate=b, sigma=sigma)
    found = model.exact({"x": torch.from_numpy(x), "y": torch.from_numpy(y)})
    evidence, means, variance = regression_reference(model, x, y)
    size = n * (1 + abs(math.log(unit)) + abs(math.log(b)) + abs(math.log(a))) + abs(math.log(scale * spread))
    assert abs(found["log_evidence"] - evidence) <= 1e-9 * abs(evidence) + 1e-12 * size
    for name, mean in zip(["alpha", *(f"beta[{i}]" for i in range(width))], means, strict=True):
        assert abs(found[name] - mean) <= 1e-6 * found[f"{name}.std"] + 1e-12 * abs(mean), name
    if sigma is None and mp.isfinite(variance):
        assert abs(found["sigma2"] / variance - 1) < 1e-6


def test_a_regression_with_a_large_prior() -> None:
    """Within 1e-12 where differences of lgamma are off by 1e-5 and 0.4."""
    x, y = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 2.5, 3.0])
    for power in (10, 14):
        model = LinearRegression(concentration=10.0**power, rate=10.0**power)
        evidence, *_ = regression_reference(model, x.numpy(), y.numpy())
        assert abs(model.exact({"x": x, "y": y})["log_evidence"] - evidence) < 1e-12


# --- mixtures of places ---------------------------------------------------------------------------------------------

MIXTURE = (
    "--run", "model=earthquakes", "family=mean_field", "estimator=exact", "optimizer=coordinate_ascent",
    "dataset=catalogue", "optimizer.keep=best", "trainer.steps=60", "model.components=2", "replicates=5",
    "model.concentration=1.5", "model.rate=0.045", "plot.enabled=false", "hydra.run.dir=run",
)  # fmt: skip


def two_clusters(path: Path, separation: float, unit: float = 1.0) -> str:
    """Write 40 events around two places that lie `separation` widths apart; return the override that names the file."""
    rows = [
        (unit * (separation * (i % 2) + math.sin(i * i + 1)), unit * (-separation * (i % 2) + math.cos(3 * i * i + 2)))
        for i in range(40)
    ]
    counts = [(5, 40)[i % 2] + (7 * i) % 5 for i in range(40)]
    lines = [f"{x!r},{y!r},{count}" for (x, y), count in zip(rows, counts, strict=True)]
    path.write_text("long,lat,stations\n" + "\n".join(lines) + "\n")
    return f"dataset.path={path}"


def fitted(cli: CommandLine, folder: Path, separation: float, unit: float, *settings: str) -> dict:
    """The summary of a fit to two clusters whose coordinates are in multiples of 1/unit."""
    path = two_clusters(folder / "clusters.csv", separation, unit)
    result = cli(*MIXTURE, path, f"model.precision={unit**-2!r}", "model.loc=[0,0]", *settings)
    assert (result.code, result.err) == (0, "")
    return summary_of(folder / "run")


def test_clusters_far_apart(cli: CommandLine, tmp_path: Path) -> None:
    """Caught: distances expanded into squares, whose rounding was taken for a wrong update."""
    bayes = ("model.loc_precision=1e-6", "model/hyperparameters=empirical_bayes")
    assert fitted(cli, tmp_path, 300, 1.0, *bayes)["final"]["mean"] == pytest.approx(-241.2436779, abs=2e-5)


def test_clusters_very_far_apart(cli: CommandLine, tmp_path: Path) -> None:
    """Caught: −293.8307 in place of −293.8801, with exit code 0."""
    found = fitted(cli, tmp_path, 1e7, 1.0, "model.loc_precision=1e-14")
    assert found["final"]["mean"] == pytest.approx(-293.8801, abs=1e-4)


@pytest.mark.parametrize(
    "unit", [1e-6, pytest.param(1e-3, marks=pytest.mark.slow), pytest.param(1e3, marks=pytest.mark.slow), 1e8]
)
def test_a_change_of_units(cli: CommandLine, tmp_path: Path, unit: float) -> None:
    """Estimates change their unit, and the bound by the Jacobian of 40 points of the plane alone."""
    runs = {}
    for name, size in (("one", 1.0), ("other", unit)):
        (tmp_path / name).mkdir()
        folder = tmp_path / name
        path = two_clusters(folder / "clusters.csv", 300, size)
        result = cli(
            *MIXTURE[:-1], path, f"model.precision={size**-2!r}", f"model.loc_precision={1e-6 * size**-2!r}",
            "model.loc=[0,0]", f"hydra.run.dir={folder / 'run'}",
        )  # fmt: skip
        assert (result.code, result.err) == (0, "")
        runs[name] = summary_of(folder / "run")
    jacobian = -2 * 40 * math.log(unit)
    assert runs["other"]["final"]["mean"] == pytest.approx(runs["one"]["final"]["mean"] + jacobian, abs=1e-7)
    for name, row in runs["one"]["estimates"].items():
        factor = unit if name.startswith("epicentre") else 1.0
        assert runs["other"]["estimates"][name]["mean"] == pytest.approx(factor * row["mean"], rel=1e-9)


# --- data in a narrow type ------------------------------------------------------------------------------------------


def offset_data(path: Path) -> str:
    """Write 100 numbers with a spread of 1e-3 around a million; return the override that names the file."""
    path.write_text("x\n" + "\n".join(f"{1e6 + 1e-3 * math.sin(i * i + 1):.9f}" for i in range(100)) + "\n")
    return f"dataset.path={path}"


def test_exact_answers_come_from_the_data_as_read(cli: CommandLine, tmp_path: Path) -> None:
    """Caught: sums of data that float32 had rounded to a single number, under the name of exact.

    The decimals of the file give E[tau] = 2053457.834, and their nearest float64 numbers 2053457.822.
    """
    result = cli(
        "--run", "dataset=csv", offset_data(tmp_path / "offset.csv"), "optimizer=coordinate_ascent", "estimator=exact",
        "trainer.steps=100", "replicates=1", "model.loc=1e6", "model.rate=1e-9", "dtype=float32",
        "plot.enabled=false", "hydra.run.dir=run",
    )  # fmt: skip
    assert result.code == 0
    assert "dtype=float64" in result.out + result.err
    found = summary_of(tmp_path / "run")
    assert found["estimates"]["tau"]["exact"] == pytest.approx(2053457.834, rel=1e-8)
    assert found["estimates"]["tau"]["exact"] == pytest.approx(2053457.822485, rel=1e-10)
    assert found["final"]["kl_to_posterior"] > 0


def test_float32_says_nothing_of_data_that_it_can_hold(cli: CommandLine, tmp_path: Path) -> None:
    result = cli("--run", "trainer=smoke", "replicates=1", "plot.enabled=false", "dtype=float32", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    assert "dtype=float64" not in result.out
    assert summary_of(tmp_path / "run")["estimates"]["mu"]["exact"] == pytest.approx(0.890227, abs=1e-6)


def test_an_evidence_below_a_bound_is_never_shown(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong exact answer ends the run in one line."""
    right = NormalGamma.exact
    wrong = lambda model, x: right(model, x) | {"log_evidence": -1000.0}  # noqa: E731
    monkeypatch.setattr(NormalGamma, "exact", wrong)
    result = cli("--run", "trainer=smoke", "replicates=2", "plot.enabled=false", "hydra.run.dir=run")
    assert result.code == 1
    assert "log evidence -1000 is below an ELBO" in result.err
    assert result.err.count("\n") == 1

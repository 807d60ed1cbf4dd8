"""Stan programs: densities beside those of the same model in torch, errors at draws, shapes, data and refusals."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import vi_core
from tests.conftest import ROOT
from vi_core.algorithms.whitening import place
from vi_core.datasets.base import Data
from vi_core.datasets.columns import column_data, named_columns
from vi_core.errors import ConfigError, DataError, LabError, Unsupported
from vi_core.execution.choice import Execution
from vi_core.families.unconstrained import Space
from vi_core.models.bayesian.hierarchical import EightSchools
from vi_core.models.stan import program as programs
from vi_core.models.stan.model import StanModel

SCHOOLS = """
data { int<lower=0> J; vector[J] y; vector<lower=0>[J] sigma; }
parameters { real mu; real<lower=0> tau; vector[J] raw; }
transformed parameters { vector[J] theta = mu + tau * raw; }
model { mu ~ normal(0, 5); tau ~ cauchy(0, 5); raw ~ normal(0, 1); y ~ normal(theta, sigma); }
generated quantities { real drawn = normal_rng(mu, 1); }
"""
Y, SIGMA = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]
DATA = {"J": 8, "y": Y, "sigma": SIGMA}
DROPPED = -(
    9 * 0.5 * math.log(2 * math.pi) + 2 * math.log(5) + math.log(math.pi / 2)  # mu and raw, their scales, tau
) - sum(0.5 * math.log(2 * math.pi) + math.log(sigma) for sigma in SIGMA)
"""The constants of the laws of SCHOOLS, which torch's densities have; the half-Cauchy of tau has log 2 more."""
Make = Callable[[str], StanModel]


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(text) -> StanModel` of a program."""

    def made(text: str, **settings: Any) -> StanModel:
        path = tmp_path / "my.stan"
        path.write_text(text)
        return StanModel(path=str(path), **settings)

    return made


def observing(model: StanModel, data: dict[str, Any]) -> StanModel:
    """The model with its data."""
    columns = named_columns(data, sparing=True)
    model.observe(columns, len(columns))
    return model


def density(model: StanModel, u: Tensor) -> Tensor:
    """log p(u) at points (S, D)."""
    return model.log_joint(Space(model.latents).split(u[:, None, None]), None).flatten()


def refusal(model: StanModel, data: dict[str, Any], kind: type[LabError]) -> str:
    """The one line with which a model refuses data."""
    with pytest.raises(kind) as caught:
        observing(model, data)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((".", "?"))
    return str(caught.value)


def test_density_and_gradient_are_those_of_the_same_model_in_torch(make: Make) -> None:
    stan, own = observing(make(SCHOOLS), DATA), EightSchools()
    columns = {"y": torch.tensor(Y, dtype=torch.float64), "sigma": torch.tensor(SIGMA, dtype=torch.float64)}
    own.observe(columns, 8)
    space = Space(own.latents)
    u = torch.randn(6, 10, dtype=torch.float64).requires_grad_()
    z = space.values(u[:, None, None])
    log_det = torch.stack(list(space.log_dets(u[:, None, None], z).values())).sum(dim=0)
    expected, found = (own.log_joint(z, columns) + log_det).flatten(), density(stan, u)
    assert torch.allclose(expected - found, torch.full_like(found, DROPPED), rtol=0, atol=1e-10)
    slopes = [torch.autograd.grad(value.sum(), u, retain_graph=True)[0] for value in (expected, found)]
    assert torch.allclose(*slopes, rtol=1e-10, atol=1e-10)
    assert torch.equal(density(stan, u.detach()), found)


def test_a_fit_is_that_of_the_same_model_in_torch(make: Make) -> None:
    """The same draws lead to the same parameters; the bounds differ by the dropped constants."""
    few = {"steps": 40, "replicates": 2}
    own = vi_core.fit(EightSchools(), {"y": np.array(Y), "sigma": np.array(SIGMA)}, **few)  # type: ignore[arg-type]
    fit = vi_core.fit(make(SCHOOLS), DATA, **few)  # type: ignore[arg-type]
    bounds = [each.history.columns["elbo"][-1] for each in (own, fit)]
    assert np.allclose(bounds[0] - bounds[1], DROPPED, atol=1e-6)
    assert list(fit.summary().rows) == ["mu", "tau", *(f"raw[{i}]" for i in range(8))]
    for name, row in fit.summary().rows.items():
        assert row[:4] == pytest.approx(own.summary().rows[name][:4], rel=1e-4, abs=1e-5)
    assert "up to the program's dropped constants" in str(fit)
    run, problem = fit.run, fit.run.problem
    for mode in ("auto", "replay"):
        execution = Execution(mode, problem.step, run.plan, problem.batches)  # type: ignore[arg-type]
        assert execution.next(0, None)[0] is execution.eager
        assert execution.mode == "eager"
    with pytest.raises(Unsupported, match="generated quantities"):
        fit.predict({})
    with pytest.raises(Unsupported, match="generated quantities"):
        fit.log_predictive(DATA)


def test_transformed_parameters_and_generated_quantities_on_request(make: Make) -> None:
    model = make(SCHOOLS, transformed_parameters=True, generated_quantities=True)  # type: ignore[call-arg]
    draws = vi_core.fit(model, DATA, steps=2, replicates=1).draws(50)
    assert list(draws) == ["mu", "tau", "raw", "theta", "drawn"]
    assert torch.allclose(draws["theta"], draws["mu"][:, None] + draws["tau"][:, None] * draws["raw"])
    assert draws["tau"].min() > 0
    assert 0.5 < (draws["drawn"] - draws["mu"]).std() < 1.5


SHAPES = """
parameters { matrix[2, 3] m; simplex[3] p; array[2] real<lower=1, upper=4> a; }
transformed parameters { matrix[3, 2] t = m'; array[2] matrix[2, 3] whole; whole[1] = m; whole[2] = 2 * m; }
model { to_vector(m) ~ normal(0, 1); }
"""


def test_containers_keep_their_shapes(make: Make) -> None:
    model = observing(make(SHAPES, transformed_parameters=True), {})  # type: ignore[call-arg]
    assert {name: latent.shape for name, latent in model.latents.items()} == {"m": (2, 3), "p": (2,), "a": (2,)}
    z = {name: torch.randn(4, 2, 1, *latent.shape) for name, latent in model.latents.items()}
    found = model.reported(z, None)
    assert torch.equal(found["t"], found["m"].mT)
    assert torch.equal(found["whole"], torch.stack([found["m"], 2 * found["m"]], dim=3))
    assert torch.allclose(found["p"].sum(dim=-1), torch.ones(4, 2, 1))
    assert torch.allclose(found["a"], 1 + 3 * z["a"].sigmoid())
    parts = programs.grouped(["c.real", "c.imag", "both:1", "both:2.1", "x.1.1", "x.2.1", "x.1.2", "x.2.2"])
    assert list(parts) == ["c.real", "c.imag", "both:1", "both:2", "x"]
    assert parts["x"] == programs.Variable((2, 2), (4, 6, 5, 7))


@pytest.mark.parametrize("family", ["mean_field_normal", "low_rank_normal", "full_rank_normal", "mean_field"])
@pytest.mark.parametrize("estimator", ["pathwise", "sticking_the_landing", "score_function", "control_variate"])
def test_estimators_and_families(estimator: str, family: str, make: Make) -> None:
    """Chunks of samples too, which are evaluated once more for the gradient."""
    model = make("parameters { vector<lower=0>[2] x; } model { x ~ gamma(3, 2); }")
    chosen = vi_core.fit(model, {}, estimator=estimator, family=family, steps=2, replicates=3)
    assert chosen.draws(3)["x"].shape == (3, 2)


REJECTS = 'parameters { real x; } model { if (x > 1) reject("too large: ", x); x ~ normal(0, 1); }'


def test_an_error_at_a_draw_is_minus_infinity_there(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model = observing(make(REJECTS), {})
    u = torch.tensor([[0.5], [1.5], [-2.0], [3.0]], dtype=torch.float64, requires_grad=True)
    value = density(model, u)
    assert value.tolist() == [-0.125, -math.inf, -2.0, -math.inf]
    assert torch.autograd.grad(value.sum(), u)[0].flatten().tolist() == [-0.5, 0.0, 2.0, 0.0]
    assert density(model, u.detach()).tolist() == value.tolist()
    told = [record.getMessage() for record in caplog.records]
    assert told == ["my.stan fails at a point, whose density is zero: too large: 1.5."]


def test_an_error_at_every_point_is_one_line(make: Make) -> None:
    text = REJECTS.replace("x > 1", "x < 9")
    assert "fails at each of 20 points between -2 and 2: too large: " in refusal(make(text), {}, ConfigError)


def test_threads_find_the_same(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = observing(make(SCHOOLS), DATA)
    u = np.random.default_rng(0).normal(size=(33, 10))
    serial = (*model.program.gradients(u), model.program.constrained(u, True, None))
    monkeypatch.setattr(programs, "processors", lambda: 4)
    model.program.seconds = 1.0
    threaded = (*model.program.gradients(u), model.program.constrained(u, True, None))
    assert model.program.seconds == 1.0  # which an evaluation without threads would have measured
    assert all(np.array_equal(a, b) for a, b in zip(serial, threaded, strict=True))


def test_numbers_of_either_type_and_nothing_are_data(make: Make) -> None:
    text = """data { int N; array[N] int n; vector[0] none; matrix[2, 3] x; real r; } parameters { real mu; }
    model { mu ~ normal(sum(n) + 10 * x[1, 3] + 100 * x[2, 1] + 1000 * r + num_elements(none), 1); }"""
    data = {"N": 2.0, "n": torch.tensor([1.0, 2.0]), "none": [], "x": [[0, 0, 1], [2, 0, 0]], "r": 0.25}
    model = observing(make(text), data)
    slope = model.program.gradients(np.zeros((1, 1)))[1]
    assert slope.tolist() == [[3 + 10 + 200 + 250]]
    assert vi_core.fit(make("parameters { real x; } model { x ~ normal(0, 1); }"), {}, steps=1).best >= 0


@pytest.mark.parametrize(
    ("text", "data", "kind", "parts"),
    [
        ("parameters { real x }\nmodel {}", {}, ConfigError, ["my.stan: Syntax error in line 1, column 20", '";"']),
        ("parameters { real x; } model { y ~ normal(0, 1); }", {}, ConfigError, ["Semantic error", '"y" not in scope']),
        ("model { }", {}, ConfigError, ["declares no parameters"]),
        ('#include "other.stan"', {}, ConfigError, ["#include"]),
        (SCHOOLS, {"J": 8, "y": Y, "sigmas": SIGMA}, DataError, ["needs data 'sigma'", "Did you mean 'sigmas'?"]),
        (SCHOOLS, DATA | {"y": Y[:3]}, DataError, ["declares data 'y' with shape (8)", "have shape (3)"]),
        (SCHOOLS, DATA | {"J": 8.5}, DataError, ["with these data", "non-int", "name=J"]),
        (SCHOOLS, DATA | {"sigma": [-1.0] * 8}, DataError, ["with these data", "sigma"]),
    ],
)  # fmt: skip
def test_refusals(text: str, data: dict[str, Any], kind: type[LabError], parts: list[str], make: Make) -> None:
    message = refusal(make(text), data, kind)
    assert [part for part in ("my.stan", *parts) if part not in message] == [], message


def test_files_that_are_no_program(tmp_path: Path, make: Make) -> None:
    for path, said in ((None, "needs a program"), ("my.py", "must end in .stan"), ("no.stan", "does not exist")):
        with pytest.raises(LabError, match=said):
            StanModel(path=path)
    (tmp_path / "my.so").write_bytes(b"no library")
    assert "no library that BridgeStan made" in refusal(StanModel(path=str(tmp_path / "my.so")), {}, ConfigError)
    with pytest.raises(Unsupported, match="data by name"):
        make(SCHOOLS).observe(torch.zeros(3), 3)  # type: ignore[arg-type]


def test_a_missing_package_is_one_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("stanli", "bridgestan"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            said = refusal(make(SCHOOLS), DATA, ConfigError)
            assert f"{package} is not installed; pip install 'vi-lab[stan]'" in said


def test_a_compiled_library_keeps_its_constants(tmp_path: Path) -> None:
    """N(3, 2²) is normalised, so that the ELBO of the exact q is zero."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library, source = tmp_path / "normal.so", ROOT / "tests" / "data" / "bridgestan.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
    model = StanModel(path=str(library), transformed_parameters=True)
    fit = vi_core.fit(model, {"scale": 2.0}, steps=20, replicates=1)
    assert fit.elbo == pytest.approx([0.0], abs=1e-3)
    assert (model.lacks, "up to" in str(fit)) == ("", False)
    value, slope = model.program.gradients(np.array([[3.0], [5.0]]))
    assert value == pytest.approx(-np.array([0, 0.5]) - math.log(2) - 0.5 * math.log(2 * math.pi))
    assert slope.tolist() == [[0.0], [-0.5]]
    assert fit.summary()["twice"]["mean"] == pytest.approx(6, abs=0.3)
    assert density(model, torch.tensor([[-200.0]])).tolist() == [-math.inf]
    assert "needs data 'scale'" in refusal(StanModel(path=str(library)), {"scales": 2.0}, DataError)


def test_constants_are_in_the_checksum() -> None:
    def data(limit: float) -> Data:
        return column_data(named_columns({"y": [1.0, 2.0], "x": [3.0, 4.0], "limit": limit}), "here")

    assert data(1.0).checksum == data(1.0).checksum != data(2.0).checksum


def test_starts_are_where_the_program_does_not_fail(make: Make) -> None:
    """A point drawn where the density is zero has a finite gradient, zero, and is no start."""
    model = observing(make(REJECTS.replace("x > 1", "x > 0")), {})
    found = [place(lambda u: density(model, u), torch.zeros(1), "random", "none").point.item() for _ in range(8)]
    assert max(found) < 0 < len(set(found)) - 7


@pytest.mark.slow
def test_lotka_volterra_beside_a_long_run_of_nuts() -> None:
    """Means within 0.1 deviations and deviations within 15 % in the best replicate; several others miss its mode."""
    values = yaml.safe_load((ROOT / "conf" / "dataset" / "lynx_hare.yaml").read_text())["values"]
    reference = json.loads((ROOT / "tests" / "data" / "lotka_volterra.json").read_text())["estimates"]
    fit = vi_core.fit(StanModel(path="lotka_volterra"), values, steps=2000, num_samples=16)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        draws = fit.draws(20_000)
    found = {f"{name}[{i}]": draws[name][:, i] for name in draws for i in range(draws[name].shape[1])}
    assert found.keys() == reference.keys()
    for name, (mean, sd, *_) in reference.items():
        assert abs(found[name].mean().item() - mean) < 0.1 * sd, name
        assert found[name].std().item() == pytest.approx(sd, rel=0.15), name

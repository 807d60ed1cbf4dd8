"""Gradient noise in a run's summary: its arithmetic, that looking changes nothing, and that resuming finds the same.

Deviations of 20,000 draws are compared to 5 %, ten standard errors or more: a deviation that is off by a tenth is
found. The law of standardised errors is tested at 1e-6, its false-alarm rate. Power, in 99 of 100 runs: the law of
2,000 draws at a distance of 0.104 (`oracles.smallest_distance`); a shift of two units in 7, over ten draws, is
asserted to be found.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy import stats

from experiments.results.noise import read_noise
from tests import fakes
from tests.conftest import SMOKE, CommandLine, summary_of, trace_text
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.diagnostics.gradient_noise import (
    exact_gradient,
    gradient_draws,
    layer_distances,
    layers,
    noise_of,
    squared_distances,
    standardised_errors,
    stored,
)
from vi_core.distributions import supports
from vi_core.errors import LabError
from vi_core.estimators.exact import Exact
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.types import Latent

MEASURED = (*SMOKE, "estimator=rao_blackwell")
VALUES = {"loc": 1.7, "scale": 0.6, "concentration": 5.0, "rate": 12.0}


def test_deviations_are_roots_of_summed_variances() -> None:
    torch.manual_seed(0)
    scales = torch.tensor([3.0, 4.0, 0.5])
    draws = scales * torch.randn(20_000, 2, 3, dtype=torch.float64)
    found = {name: noise_of(own).sd for name, own in squared_distances(draws, ["a", "a", "b"]).items()}
    assert list(found) == ["a", "b"]
    torch.testing.assert_close(found["a"], torch.full((2,), 5.0, dtype=torch.float64), rtol=0.05, atol=0)
    torch.testing.assert_close(found["b"], torch.full((2,), 0.5, dtype=torch.float64), rtol=0.05, atol=0)


def normal(shape: tuple[int, ...]) -> torch.Tensor:
    """Draws of the standard Normal."""
    return torch.randn(shape, dtype=torch.float64)


def heavy(shape: tuple[int, ...]) -> torch.Tensor:
    """Draws of Laplace's law, whose deviation has a larger error than a Normal one's."""
    return torch.distributions.Laplace(torch.zeros((), dtype=torch.float64), 1.0).sample(shape)


@pytest.mark.parametrize(
    "law", [lambda shape: torch.randn(shape, dtype=torch.float64), heavy], ids=["normal", "laplace"]
)
def test_standard_errors_are_how_far_deviations_scatter(law: Callable[[tuple[int, ...]], torch.Tensor]) -> None:
    """Of 2,000 replicates with 100 draws of three numbers that share a factor: error and scatter agree to 10 %.

    The scatter has a standard error of 2 % or a little more.
    """
    torch.manual_seed(3)
    common = law((100, 2000, 1))
    draws = common * torch.tensor([1.0, -2.0, 3.0]) + 0.3 * law((100, 2000, 3))
    (found,) = (noise_of(own) for own in squared_distances(draws, ["a"] * 3).values())
    torch.testing.assert_close(found.sd, draws.var(dim=0).sum(dim=-1).sqrt())
    assert float(found.se.mean() / found.sd.std()) == pytest.approx(1, abs=0.1)
    assert noise_of(squared_distances(draws[:2], ["a"] * 3)["a"]).se.isnan().all()


def test_standardised_errors_follow_student_and_see_a_shift() -> None:
    torch.manual_seed(1)
    draws = 2 + 7 * torch.randn(10, 400, 5, dtype=torch.float64)
    exact = torch.full((400, 5), 2.0, dtype=torch.float64)
    errors = standardised_errors(draws, exact).flatten()
    assert stats.kstest(errors.numpy(), stats.t(9).cdf).pvalue > 1e-6
    assert stats.kstest(standardised_errors(draws, exact + 2).flatten().numpy(), stats.t(9).cdf).pvalue < 1e-6


def test_no_noise_and_no_bias_where_the_gradient_is_exact() -> None:
    model, family = NormalGamma(), fakes.normal_gamma_family(VALUES, 3)
    x = model.summarize(torch.tensor([0.3, 1.2, -0.4], dtype=torch.float64))
    draws = gradient_draws(Exact(), model, family, ELBO(), x, 4)
    exact = exact_gradient(model, family, ELBO(), x)
    assert exact is not None and draws.shape == (4, 3, 4)
    assert float(standardised_errors(draws, exact).abs().max()) < 1
    found = [noise_of(own) for own in squared_distances(draws, stored(family)[1]).values()]
    assert all(bool((each.sd == 0).all() and (each.se == 0).all()) for each in found)
    assert exact_gradient(model, family, IWELBO(), x) is None
    assert exact_gradient(fakes.Gaussian(), fakes.gaussian_family([0.0], [1.0]), ELBO(), x) is None


def test_networks_are_refused() -> None:
    family = AmortizedNormal({"z": Latent(supports.real, (2,), local=True)}, 1, 6, hidden=[4])
    with pytest.raises(LabError, match="gradient_draws"):
        stored(family)


def test_deviations_of_layers_are_roots_of_summed_variances() -> None:
    """Gradients 3 ε and 4 ε' in two tensors of a layer have noise 5, and in a layer of its own 0.5 has 0.5."""
    torch.manual_seed(2)
    wide, bias, other = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def surrogate() -> torch.Tensor:
        noise = torch.randn(3, dtype=torch.float64)
        return (3 * noise[0] + 100) * wide.sum() + 4 * noise[1] * bias.sum() + 0.5 * noise[2] * other.sum()

    squares = layer_distances(surrogate, {"a": [wide, bias], "b": [other]}, 4000)
    found = {name: noise_of(own).sd for name, own in squares.items()}
    torch.testing.assert_close(found["a"], torch.full((1,), 5.0, dtype=torch.float64), rtol=0.1, atol=0)
    torch.testing.assert_close(found["b"], torch.full((1,), 0.5, dtype=torch.float64), rtol=0.1, atol=0)


def test_a_layer_has_matrix_and_bias() -> None:
    family = AmortizedNormal({"z": Latent(supports.real, (2,), local=True)}, 1, 6, hidden=[4])
    found = layers(family)
    assert {name: [tuple(weight.shape) for weight in own] for name, own in found.items()} == {
        "encoder.0": [(4, 6), (4,)], "encoder.2": [(4, 4), (4,)],
    }  # fmt: skip


def test_noise_of_an_encoder_is_measured_along_the_run_and_changes_nothing(cli: CommandLine, tmp_path: Path) -> None:
    run = ("--run", "experiment=vae_digits", "trainer.epochs=1", "plot.enabled=false", "dataset.batch_size=500")
    for folder, draws in (("with", "4"), ("without", "0")):
        result = cli(*run, f"trainer.gradient_draws={draws}", f"hydra.run.dir={folder}")
        assert (result.code, result.err) == (0, "")
    assert trace_text(tmp_path / "with") == trace_text(tmp_path / "without")
    noise = summary_of(tmp_path / "with")["diagnostics"]["gradient"]
    start = noise["start"]
    assert set(start["networks"]) == {"encoder", "decoder"} and noise["final"] != start
    squares = {name: value**2 for name, value in start["latents"].items()}
    assert start["total"]["mean"] ** 2 == pytest.approx(sum(squares.values()))
    encoder = sum(value for name, value in squares.items() if name.startswith("encoder"))
    assert start["networks"]["encoder"] ** 2 == pytest.approx(encoder)
    assert [row["step"] for row in noise["along"]] == [1, 2]  # the checkpoints before the end
    assert read_noise(tmp_path / "with" / "noise.csv") == noise["along"]
    (tmp_path / "with" / "noise.csv").write_text("step,total\n1,loud\n")
    with pytest.raises(LabError, match=r"noise\.csv"):
        read_noise(tmp_path / "with" / "noise.csv")


def test_one_draw_is_refused(cli: CommandLine) -> None:
    assert "trainer.gradient_draws=1" in cli(*SMOKE, "trainer.gradient_draws=1").err


def test_looking_changes_nothing(cli: CommandLine, tmp_path: Path) -> None:
    """History, draws of q and the other diagnostics are those of a run that was not measured."""
    for folder, draws in (("with", "5"), ("without", "0")):
        result = cli(*MEASURED, f"trainer.gradient_draws={draws}", f"hydra.run.dir={folder}")
        assert (result.code, result.err) == (0, "")
    seen, unseen = (summary_of(tmp_path / folder)["diagnostics"] for folder in ("with", "without"))
    assert trace_text(tmp_path / "with") == trace_text(tmp_path / "without")
    assert {key: value for key, value in seen.items() if key != "gradient"} == unseen
    noise = seen["gradient"]
    assert noise["draws"] == 5 and noise["start"] != noise["final"]
    assert len(noise["along"]) > 2 and set(noise["along"][0]["latents"]) == {"mu", "tau"}
    for when in ("start", "final"):
        total, latents = noise[when]["total"], noise[when]["latents"]
        assert set(latents) == {"mu", "tau"}
        assert max(latents.values()) < total["mean"] < sum(latents.values())
        assert noise[when]["bias"]["comparisons"] == 2 * 4
    assert seen["blankets"] == {
        "mu": {"factors": ["likelihood", "prior_mu"], "q": ["mu"]},
        "tau": {"factors": ["likelihood", "prior_mu", "prior_tau"], "q": ["tau"]},
    }


def test_a_resumed_run_finds_the_same_noise(cli: CommandLine, tmp_path: Path) -> None:
    """The noise at the start is measured again, at the same parameters and from the same stream, and not stored."""
    assert cli(*MEASURED, "trainer.gradient_draws=5", "hydra.run.dir=run").code == 0
    before = summary_of(tmp_path / "run")["diagnostics"]
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert cli("resume=copy").code == 0
    assert summary_of(tmp_path / "copy")["diagnostics"] == before


def test_an_estimator_replaces_the_experiments_own_with_its_parts(cli: CommandLine, tmp_path: Path) -> None:
    """A part inside a part belongs to the YAML file that was chosen; only plain settings are the experiment's."""
    result = cli(*SMOKE, "estimator=score_function", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    assert "blankets" not in summary_of(tmp_path / "run")["diagnostics"]


@pytest.mark.slow
def test_a_sweep_tells_the_noise_apart(cli: CommandLine, tmp_path: Path) -> None:
    arguments = [*SMOKE[1:], "trainer.gradient_draws=5", "hydra.sweep.dir=sweep"]
    result = cli("-m", *arguments, "estimator=score_function,rao_blackwell")
    assert (result.code, result.err) == (0, "")
    header = (tmp_path / "sweep" / "sweep.csv").read_text().splitlines()[0].split(",")
    assert {"gradient_sd_start", "gradient_sd_final"} <= set(header)
    assert cli("task=collect", f"run={tmp_path / 'sweep'}").code == 0
    assert {path.name for path in (tmp_path / "sweep" / "plots").iterdir()} >= {
        "bound.png",
        "course.png",
        "gradient_noise.png",
    }

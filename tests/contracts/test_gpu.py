"""The same numbers on a CUDA device as on the CPU; without a device the comparisons are made on the CPU alone.

A device has a random stream of its own. Where noise matters, both draw Normals on the CPU; what draws Gammas is judged
by the experiment's own checks.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.config.validate import plain_values
from experiments.run.process import choose_device
from tests.conftest import CommandLine, configuration, run_in, summary_of, trace_text
from vi_core.diagnostics.importance import held_out_likelihood
from vi_core.execution.base import EagerSteps
from vi_core.execution.cuda_graph import GraphedSteps
from vi_core.problem import Problem, assemble

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU = [pytest.mark.gpu, NO_GPU]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]

SMALL = ("dataset=digits", "dataset.batch_size=20", "model.latent_dims=[6,4]", "model.widths=[[16],[8]]")
BURDA = ("experiment=iwae_burda", *SMALL, "family.widths=[[16],[8]]", "estimator.num_samples=5", "threads=1")
VAE = ("experiment=vae_digits", "model.hidden=[16]", "family.hidden=[16]", "threads=1")
STEPS = 10
TERMS = 20 * 64 * 5
"""Terms of the longest sum in a step: images of a batch, pixels, samples."""
SMALL_GRADIENT = 1e-4
"""Size of a gradient's element, relative to the largest, from which on it moves its weight as the largest does."""
TOLERANCE = torch.finfo(torch.float64).eps * TERMS * STEPS / SMALL_GRADIENT
"""Relative difference of the same steps on two devices, 1.4e-7.

A sum of n terms in another order differs by eps · n of their size at most. Adam divides each element of the gradient by
its own size, so that an element that is small beside its terms keeps their absolute error: eps · n over the relative
size of the element. The errors of all steps add up. Measured on an H100 after ten steps: 1.2e-8. What a wrong step
changes is of the size of the learning rate, 1e-3.
"""


def problem(arguments: tuple[str, ...], device: str) -> Problem:
    """A problem in float64 with the same weights on every device: they are drawn on the CPU."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    config = plain_values(configuration(*arguments))
    return assemble(config, choose_device(device), torch.float64, torch.Generator().manual_seed(1))


@pytest.fixture
def noise_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normal noise is drawn on the CPU, wherever it goes."""
    genuine = torch.randn

    def randn(*size, device: torch.device | str = "cpu", **settings) -> torch.Tensor:
        return genuine(*size, **settings).to(device)

    monkeypatch.setattr(torch, "randn", randn)


@pytest.mark.usefixtures("noise_of_the_cpu")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "arguments",
    [
        VAE,
        (*VAE, "variant=iwae_5"),
        (*BURDA, "dataset.binarization=threshold"),
        (*BURDA, "dataset.binarization=threshold", "bound=elbo", "estimator=sticking_the_landing"),
        (*BURDA, "dataset.binarization=threshold", "estimator=score_function"),
    ],
    ids=["vae", "iwae", "burda", "burda, sticking the landing", "burda, score function"],
)
def test_image_models_make_the_same_steps(arguments: tuple[str, ...], device: str) -> None:
    """Bounds and weights of ten steps, and log p(x) after them."""
    here, there = problem(arguments, "cpu"), problem(arguments, device)
    name, bounds = here.bound.name, []
    for one in (here, there):
        torch.manual_seed(2)
        bounds.append([one.step(one.batches.next()[0])[name].item() for _ in range(STEPS)])
    assert len(set(bounds[0])) == STEPS
    assert bounds[0] == pytest.approx(bounds[1], rel=TOLERANCE)
    for a, b in zip(here.step.moving, there.step.moving, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=TOLERANCE, atol=TOLERANCE)
    likelihoods = []
    for one in (here, there):
        torch.manual_seed(3)
        likelihoods.append(held_out_likelihood(one.model, one.family, one.data, 3).log_likelihood.cpu())
    torch.testing.assert_close(*likelihoods, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("arguments", [VAE, BURDA, ("experiment=bbvi", "replicates=3")], ids=["vae", "burda", "bbvi"])
def test_steps_of_a_cuda_graph_are_the_eager_ones(arguments: tuple[str, ...]) -> None:
    """The same draws of the device, and the same generator afterwards; bounds and weights to rounding."""
    found = []
    for graphed in (False, True):
        one = problem(arguments, "cuda")
        torch.manual_seed(2)
        made: Any = GraphedSteps(one.step, one.batches, 1, 1) if graphed else EagerSteps(one.step, one.batches)
        rows = [made([one.batches.next_stored()[0]]).metrics for _ in range(STEPS)]
        found.append((torch.cat(rows), list(one.step.moving), torch.cuda.get_rng_state()))
    (bounds, weights, stream), (same_bounds, same_weights, same_stream) = found
    torch.testing.assert_close(same_bounds, bounds, rtol=TOLERANCE, atol=TOLERANCE)
    for a, b in zip(weights, same_weights, strict=True):
        torch.testing.assert_close(b, a, rtol=TOLERANCE, atol=TOLERANCE)
    assert torch.equal(stream, same_stream)


@pytest.mark.gpu
@NO_GPU
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cuda_graph", "compiled"])
def test_runs_on_a_device_resume_bit_for_bit(mode: str, cli: CommandLine, tmp_path: Path) -> None:
    """In the way that was asked for, and not with eager steps in its place."""
    arguments = ("experiment=bbvi", "replicates=3", "device=cuda", f"trainer.execution={mode}", "plot.enabled=false")
    assert cli(*arguments, "trainer.steps=60", "hydra.run.dir=whole").code == 0
    assert cli(*arguments, "trainer.steps=60", "trainer.limit=30", "hydra.run.dir=cut").code == 0
    assert cli("resume=cut", "trainer.limit=60").code == 0
    assert trace_text(tmp_path / "cut") == trace_text(tmp_path / "whole")
    assert summary_of(tmp_path / "cut")["timing"]["execution"] == mode


@pytest.mark.parametrize("device", DEVICES)
def test_two_steps_of_iwae_burda(device: str) -> None:
    """With images drawn on the device, from its own stream: finite, and all parts where they belong."""
    there = problem(BURDA, device)
    for _ in range(2):
        bound = there.step(there.batches.next()[0])[there.bound.name]
        assert bound.device.type == device
        assert bool(bound.isfinite().all())
    assert {tensor.device.type for tensor in there.step.state_dict().values()} == {device}
    assert bool(there.step.alive.all())


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("name", ["cavi_normal_gamma", "gamma_gd_vs_ngd", "natural_gradient_vi"])
def test_experiments_without_noise_agree(name: str, tmp_path: Path) -> None:
    """Every final bound and every estimate of two runs of the program, one on each device."""
    found = []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        folder.mkdir()
        assert run_in(folder, f"experiment={name}", f"device={device}", "plot.enabled=false").code == 0
        runs = [summary_of(path.parent) for path in sorted(folder.rglob("summary.json"))]
        found.append([(run["final"]["mean"], *(e["mean"] for e in run["estimates"].values())) for run in runs])
    assert found[0]
    for here, there in zip(*found, strict=True):
        assert here == pytest.approx(there, rel=1e-3)  # one of them is in float32


@pytest.mark.gpu
@NO_GPU
@pytest.mark.slow
@pytest.mark.parametrize("name", ["bbvi", "bbvi_structured", "vae_digits"])
def test_experiments_with_noise_pass_their_checks(name: str, cli: CommandLine, tmp_path: Path) -> None:
    result = cli(f"experiment={name}", "device=cuda", "plot.enabled=false", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    checks = summary_of(tmp_path / "run")["checks"]
    assert checks and all(check["passed"] for check in checks)

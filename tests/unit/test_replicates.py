"""Replicates are independent runs: at given noise, none feels what the others are, and a diverged one stands still.

Noise is given by resetting the seed, since Normal draws depend on the shape alone, and by `StoredGamma`, since torch's
rejection sampler takes as many random numbers from the one stream as the parameters of all replicates ask for.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import fakes
from vi_core.algorithms.coordinate_ascent import CoordinateAscentStep
from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.elbo import ELBO
from vi_core.datasets.synthetic import NormalNumpyDraws
from vi_core.estimators.base import Estimator
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.exact import Exact
from vi_core.estimators.pathwise import Pathwise
from vi_core.estimators.score_function.coefficients import InSample, LeaveOneOut, NoControl
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.estimators.score_function.scopes import Everything
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.families.base import Family
from vi_core.models.autoencoders.vae import VAE
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.optimizers.adam import Adam
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.sgd import SGD, AdaGrad, RobbinsMonro

K, R = 6, 5
SPOILED = {1: math.nan, 2: math.inf, 4: 1e300}
HEALTHY = [0, 3]
ESTIMATORS: dict[str, Estimator] = {
    "plain": ScoreFunction(num_samples=K, coefficient=NoControl(), scope=Everything()),
    "leave-one-out": ScoreFunction(num_samples=K, coefficient=LeaveOneOut(), scope=Everything()),
    "in-sample": ScoreFunction(num_samples=K, coefficient=InSample(), scope=Everything()),
    "pathwise": Pathwise(num_samples=K),
    "closed-form KL": ClosedFormKL(num_samples=K),
    "exact": Exact(),
}
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "sgd": lambda: SGD(lr=0.01),
    "adam": lambda: Adam(lr=0.01),
    "adagrad": lambda: AdaGrad(lr=0.01),
    "robbins_monro": lambda: RobbinsMonro(lr=10.0),
}
STARTS = [
    {"loc": 1.0, "scale": 0.7, "concentration": 4.0, "rate": 5.0},
    {"loc": 1.0, "precision_ratio": 3.0, "concentration": 4.0, "rate": 5.0},
]


# --- densities and gradients at given noise -------------------------------------------------------------------------


class StoredGamma(torch.autograd.Function):
    """A draw of Gamma(concentration, 1) that is given, with torch's own implicit derivative."""

    @staticmethod
    def forward(ctx: Any, concentration: Tensor, noise: Tensor) -> Tensor:
        ctx.save_for_backward(concentration, noise)
        return noise.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        concentration, noise = ctx.saved_tensors
        return grad_outputs[0] * torch._standard_gamma_grad(concentration, noise), None


@pytest.fixture
def _given_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every Gamma draw of a shape the same, whatever its parameters."""

    def stored(concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        noise = -torch.rand(concentration.shape, generator=generator, dtype=concentration.dtype).log()
        return StoredGamma.apply(concentration, 3 * noise)  # pyright: ignore[reportReturnType]

    monkeypatch.setattr(torch, "_standard_gamma", stored)


def evaluated(estimator: Estimator, family: Family) -> dict[str, Tensor]:
    """Bound, log-weights and gradient at the noise of one seed, replicates first."""
    torch.manual_seed(0)
    model = NormalGamma()
    estimate = estimator(model, family, ELBO(), model.summarize(NormalNumpyDraws(num_points=10).load().train))
    (raw,) = family.parameters()
    (gradient,) = torch.autograd.grad(estimate.surrogate.sum(), raw)
    found = {"bound": estimate.bound, "gradient": gradient}
    return found if estimate.log_w is None else found | {"log_w": estimate.log_w.movedim(0, -1)}


def unmoved(estimator: Estimator, start: dict[str, float]) -> bool:
    """Whether healthy replicates have the same numbers, bit for bit, beside healthy and beside spoiled ones."""
    family = fakes.normal_gamma_family(start, R)
    (raw,) = family.parameters()
    before = evaluated(estimator, family)
    with torch.no_grad():
        for replicate, value in SPOILED.items():
            raw[replicate] = value
    after = evaluated(estimator, family)
    assert not bool(torch.cat([after["bound"], after["gradient"].flatten(1)], dim=1)[list(SPOILED)].isfinite().all())
    return all(torch.equal(before[name][HEALTHY], after[name][HEALTHY]) for name in before)


@pytest.mark.usefixtures("_given_noise")
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_replicate_feels_another(name: str, start: dict[str, float]) -> None:
    assert unmoved(ESTIMATORS[name], start)


@pytest.mark.usefixtures("_given_noise")
@pytest.mark.parametrize("start", STARTS)
def test_mixing_is_caught(start: dict[str, float]) -> None:
    assert not unmoved(fakes.Mixing(ESTIMATORS["pathwise"]), start)


# --- divergence -----------------------------------------------------------------------------------------------------

DATUM = torch.tensor([1.3, -0.4], dtype=torch.float64)
STEPS, POISON_AT = 30, 10
LOCS, SCALES = [0.5, -1.0, 2.0], [0.5, 1.0, 2.0]


def run(
    estimator: Estimator, optimizer: Optimizer, poison: int | None, value: float = math.nan
) -> tuple[GradientStep, Tensor]:
    """30 steps on a Gaussian with three replicates, one of them set to `value` before the tenth; the step and raw."""
    torch.manual_seed(1)
    step = GradientStep(fakes.Gaussian(), fakes.gaussian_family(LOCS, SCALES), ELBO(), estimator, optimizer)
    (raw,) = step.moving
    for t in range(STEPS):
        if t == POISON_AT and poison is not None:
            with torch.no_grad():
                raw[poison] = value
        step(DATUM)
    return step, raw.detach().clone()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["plain", "leave-one-out", "in-sample", "pathwise"])
def test_a_diverged_replicate_is_frozen(name: str, optimizer: str, value: float) -> None:
    """It keeps its last values and what was seen, and the others are bit for bit as beside a healthy one."""
    _, healthy = run(ESTIMATORS[name], OPTIMIZERS[optimizer](), None)
    step, raw = run(ESTIMATORS[name], OPTIMIZERS[optimizer](), 1, value)
    assert step.alive.tolist() == [True, False, True]
    assert step.good_steps.tolist() == [STEPS, POISON_AT, STEPS]
    assert torch.equal(raw[[0, 2]], healthy[[0, 2]])
    torch.testing.assert_close(raw[1], torch.full_like(raw[1], value), rtol=0, atol=0, equal_nan=True)
    assert not bool(step.witness[1].isfinite().all())
    assert bool(step.witness[[0, 2]].isfinite().all())


def test_a_step_that_moves_the_dead_is_caught() -> None:
    step, raw = run(ESTIMATORS["pathwise"], fakes.Unmasked(lr=0.01), 1, math.inf)
    assert step.alive.tolist() == [True, False, True]
    assert bool(raw[1].isnan().any())


def test_replicates_are_what_they_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fed the same noise, three replicates together end where each ends in a run of its own."""
    columns = [0, 1, 2]
    generator = torch.Generator()

    def randn(shape: tuple[int, ...], **_: object) -> Tensor:
        return torch.empty(K, 3, 1, dtype=torch.float64).normal_(generator=generator)[:, columns]

    monkeypatch.setattr(torch, "randn", randn)
    ends = []
    for columns in ([0, 1, 2], [0], [1], [2]):
        family = fakes.gaussian_family([0.0] * len(columns), [1.0] * len(columns))
        column = {"loc": torch.tensor(LOCS), "scale": torch.tensor(SCALES)}
        family.assign({"z": {n: v.double()[columns].unsqueeze(1) for n, v in column.items()}})
        step = GradientStep(fakes.Gaussian(), family, ELBO(), ESTIMATORS["leave-one-out"], Adam(lr=0.01))
        generator.manual_seed(2)
        for _ in range(STEPS):
            step(DATUM)
        ends.append(step.moving[0].detach())
    torch.testing.assert_close(ends[0], torch.cat(ends[1:]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("replicates", [1, 3])
def test_a_gradient_that_is_not_finite_is_not_taken(replicates: int, optimizer: str) -> None:
    """With a finite bound: the parameters stay what they were, with one replicate too, where Adam is fused."""
    family = fakes.gaussian_family(LOCS[:replicates], SCALES[:replicates])
    model = fakes.Poisoned(0, replicates)
    step = GradientStep(model, family, ELBO(), ESTIMATORS["pathwise"], OPTIMIZERS[optimizer]())
    (raw,) = step.moving
    before = raw.detach().clone()
    for _ in range(5):
        assert bool(step(DATUM)["elbo"].isfinite().all())
    assert step.alive.tolist() == [False, True, True][:replicates]
    assert torch.equal(raw[0], before[0])
    assert bool(raw.isfinite().all())
    assert not bool((raw[1:] == before[1:]).any())


def test_networks_stay_finite_after_a_bad_image() -> None:
    """One set of weights: a NaN in a batch ends the only replicate, with the weights as they were before."""
    model = VAE(4, latent_dim=2, hidden=[3])
    family = AmortizedNormal(model.latents, 1, 4, hidden=[3])
    step = GradientStep(model, family, ELBO(), ESTIMATORS["closed-form KL"], Adam(lr=0.01))
    good, bad = torch.rand(8, 4), torch.full((8, 4), math.nan)
    for _ in range(3):
        step(good)
    before = [p.detach().clone() for p in step.moving]
    for batch in (bad, good, good):
        step(batch)
    assert step.alive.tolist() == [False]
    assert step.good_steps.tolist() == [3]
    assert all(torch.equal(now, then) for now, then in zip(step.moving, before, strict=True))


def test_coordinate_ascent_freezes_a_diverged_replicate() -> None:
    """The mask holds for every step: the living go on, the dead stay where they were."""
    model, start = NormalGamma(), STARTS[0]
    family = fakes.normal_gamma_family(start, 2)
    params = fakes.normal_gamma_params(start, 2)
    params["tau"]["rate"][1] = math.nan
    family.assign(params)
    step = CoordinateAscentStep(model, family, ELBO(), Exact())
    for _ in range(3):
        step(model.summarize(DATUM))
    loc = family.variational()["mu"]["loc"]
    assert step.alive.tolist() == [True, False]
    assert step.good_steps.tolist() == [3, 0]
    assert loc[0].item() != start["loc"]
    assert loc[1].item() == start["loc"]

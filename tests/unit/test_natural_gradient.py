"""Fisher information, point masses and natural gradients, against autograd, Monte Carlo and the reports' table."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import vi_core
from experiments.results import methods
from tests.conftest import CommandLine
from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.elbo import ELBO
from vi_core.datasets.synthetic import GammaDraws, NormalDraws
from vi_core.distributions import supports
from vi_core.distributions.gamma import Gamma
from vi_core.distributions.normal import Normal
from vi_core.distributions.transforms import Clamp, Exponential, Softplus
from vi_core.errors import Unsupported
from vi_core.estimators.exact import Exact
from vi_core.estimators.pathwise import Pathwise
from vi_core.families.mean_field import MeanField
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.families.point_mass import PointMass
from vi_core.models.conjugate.gamma import GammaLikelihood, GammaStatistics
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.natural_gradient import NaturalGradient
from vi_core.optimizers.sgd import SGD
from vi_core.types import Latent, flatten

SHAPE, SCALE = 2.0, 3.0


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def information(shape: float, scale: float) -> Tensor:
    z = {"shape": doubles(shape).reshape(1, 1), "scale": doubles(scale).reshape(1, 1)}
    return GammaLikelihood().fisher(z, GammaStatistics(doubles(1.0)[0], doubles(1.0)[0]))[0, 0]


def test_fisher_information_of_the_gamma() -> None:
    """Minus the Hessian at the expected statistics; α ψ₁(α) − 1 = 0.289868 at α = 2 (report 001 has 0.2878)."""
    parameters = doubles(SHAPE, SCALE)
    expected = GammaStatistics(parameters.prod(), torch.digamma(parameters[0]) + parameters[1].log())

    def log_likelihood(at: Tensor) -> Tensor:
        return (
            GammaLikelihood()
            .log_joint({"shape": at[0].reshape(1, 1, 1), "scale": at[1].reshape(1, 1, 1)}, expected)
            .sum()
        )

    hessian = torch.autograd.functional.hessian(log_likelihood, parameters)
    assert isinstance(hessian, Tensor)
    torch.testing.assert_close(information(SHAPE, SCALE), -hessian)
    assert SCALE**2 * information(SHAPE, SCALE).det().item() == pytest.approx(0.289868, abs=1e-6)


@pytest.mark.parametrize(
    "q",
    [Normal(doubles(0.3), doubles(0.7)), Gamma(doubles(2.5), doubles(1.5))],
    ids=["normal", "gamma"],
)
def test_fisher_information_is_the_covariance_of_the_score(
    q: Normal | Gamma,
) -> None:
    """Six standard errors on four entries of 400,000 draws: one false alarm in 10⁸; the identity is caught."""
    torch.manual_seed(0)
    fields = [p.expand(400_000, 1).clone().requires_grad_() for p in vars(q).values()]
    z = q.rsample(400_000).detach()
    scores = torch.stack(torch.autograd.grad(type(q)(*fields).log_prob(z).sum(), fields), dim=-1).squeeze(1)
    products = (scores.unsqueeze(-1) * scores.unsqueeze(-2)).flatten(1)
    error = products.std(dim=0) / len(products) ** 0.5 + 1e-12

    def largest_z(exact: Tensor) -> float:
        return ((products.mean(dim=0) - exact.flatten()) / error).abs().max().item()

    assert largest_z(q.fisher()[0]) < 6
    assert largest_z(torch.eye(2, dtype=torch.float64)) > 6


@pytest.mark.parametrize("positive", [Exponential(), Softplus(), Clamp()], ids=lambda positive: type(positive).__name__)
def test_information_is_carried_to_the_stored_parameters(positive: Exponential | Softplus | Clamp) -> None:
    """Jᵀ F J with the Jacobian of the whole map from stored numbers to `Params`, whatever their order in storage."""
    latents = {"s": Latent(supports.positive), "m": Latent(supports.real, (2,))}
    family = MeanField(latents, 2, positive=positive, concentration=2.0, rate=0.5, scale=0.7).double()

    def flat(raw: Tensor) -> Tensor:
        return torch.cat([value.flatten() for value in flatten(family.packed.constrain(raw.reshape(1, -1)))])

    raw = family.packed.raw.detach()[0, 0]
    jacobian = torch.autograd.functional.jacobian(flat, raw)
    assert isinstance(jacobian, Tensor)
    a, b, precision = 2.0, 0.5, 1 / 0.49
    exact = torch.diag(doubles(0, 0, precision, precision, 2 * precision, 2 * precision))
    trigamma = torch.polygamma(1, doubles(a))[0]
    exact[:2, :2] = torch.stack([torch.stack([trigamma, doubles(-1 / b)[0]]), doubles(-1 / b, a / b**2)])
    torch.testing.assert_close(family.fisher(), (jacobian.T @ exact @ jacobian).expand(2, -1, -1))


def ascend(optimizer: Optimizer, steps: int) -> list[tuple[float, float, float]]:
    """(shape, scale) after each step and the NLL before it, on the reports' data and from their start, in float32."""
    model = GammaLikelihood()
    x = model.summarize(GammaDraws().load().train)
    family = PointMass(model.latents, 1, positive=Clamp(), values=[0.5, 8.0]).float()
    step = GradientStep(model, family, ELBO(), Pathwise(), optimizer)
    rows = []
    for _ in range(steps):
        bound = step(x)["elbo"].item()
        values = family.variational()
        rows.append((values["shape"]["value"].item(), values["scale"]["value"].item(), -bound))
    return rows


TABLE = {
    "gradient": {1: (0.6516, 8.0032, 3.1866), 15: (1.0504, 7.9743, 2.8331), 150: (1.1339, 7.4175, 2.8086)},
    "natural": {1: (0.5340, 7.8695, 3.1866), 15: (1.2770, 4.3331, 2.7370), 150: (3.0720, 1.9756, 2.5434)},
}


@pytest.mark.parametrize("kind", TABLE)
def test_table_of_report_004(kind: str) -> None:
    rows = ascend(SGD(lr=0.1) if kind == "gradient" else NaturalGradient(lr=0.1), 150)
    for epoch, expected in TABLE[kind].items():
        assert rows[epoch - 1] == pytest.approx(expected, abs=6e-5)


def test_table_tells_the_two_apart() -> None:
    """The negative control: plain gradient ascent does not follow the natural gradient's rows."""
    assert ascend(SGD(lr=0.1), 15)[-1] != pytest.approx(TABLE["natural"][15], abs=1e-2)


def test_natural_gradient_finds_the_mean_field_optimum() -> None:
    model = NormalGamma()
    x = model.summarize(NormalDraws().load().train.double())
    torch.manual_seed(0)
    near = partial(MeanField, loc=0.5, loc_std=0.2, scale=0.3, concentration=20.0, rate=40.0)
    family = near(model.latents, 4, positive=Exponential()).double()
    step = GradientStep(model, family, ELBO(), Exact(), NaturalGradient(lr=0.3))
    for _ in range(80):
        step(x)
    bound = model.expected_bound(family.variational(), x)
    torch.testing.assert_close(bound, torch.full_like(bound, -185.942036), atol=1e-6, rtol=0)


def test_damping_shortens_the_step() -> None:
    bare, damped = (ascend(NaturalGradient(lr=0.1, damping=damping), 1)[0] for damping in (0.0, 10.0))
    assert math.dist(damped[:2], (0.5, 8.0)) < 0.5 * math.dist(bare[:2], (0.5, 8.0))


def test_pair_without_information_is_refused() -> None:
    model = NormalGamma()
    family = NormalGammaFamily(model.latents, 1, positive=Exponential()).double()
    with pytest.raises(Unsupported, match="Fisher information"):
        GradientStep(model, family, ELBO(), Exact(), NaturalGradient())


def test_the_maximum_of_a_gamma_likelihood_is_that_of_scipy() -> None:
    data = torch.distributions.Gamma(3.0, 0.5).sample((200,)).double()
    found = GammaLikelihood().exact(GammaLikelihood().summarize(data))
    shape, _, scale = stats.gamma.fit(data.numpy(), floc=0)
    assert found["shape"] == pytest.approx(shape, rel=1e-6)
    assert found["scale"] == pytest.approx(scale, rel=1e-6)


@pytest.mark.slow
def test_methods_are_drawn_side_by_side(cli: CommandLine, tmp_path: Path) -> None:
    result = cli("experiment=gamma_gd_vs_ngd", "trainer.steps=20", "plot.steps=10", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    drawn = {path.stem for path in (tmp_path / "sweep" / "plots").iterdir()}
    assert drawn >= {"bound", "methods", "paths", "convergence"}
    groups = {}
    for i in range(2):
        job = {"folder": tmp_path / "sweep" / str(i), **vi_core.load(tmp_path / "sweep" / str(i)).summary}
        groups[str(i)] = (job, vi_core.load(tmp_path / "sweep" / str(i)).trace)
    land = methods.landscape(groups)
    assert land is not None
    np.testing.assert_allclose(land.directions["gradient"], [1.516, 0.0323], rtol=1e-3)  # by an independent program
    np.testing.assert_allclose(land.directions["F⁻¹ gradient"], [0.340, -1.305], rtol=1e-3)
    assert land.start.tolist() == [0.5, 8.0]

"""Mean field in natural coordinates: natural-gradient steps against coordinate updates, and what leaves the domain."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests import fakes
from tests.oracles import limit, max_z
from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.elbo import ELBO
from vi_core.datasets.synthetic import NormalDraws
from vi_core.distributions import supports
from vi_core.distributions.transforms import Clamp, Exponential
from vi_core.estimators.base import Estimator
from vi_core.estimators.exact import Exact
from vi_core.estimators.pathwise import Pathwise
from vi_core.estimators.score_function.coefficients import LeaveOneOut, NoControl
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.estimators.score_function.scopes import Everything
from vi_core.execution.choice import Execution
from vi_core.families.base import Family, HasInformation
from vi_core.families.mean_field import MeanField, NaturalMeanField
from vi_core.models.conjugate.normal_gamma import NormalGamma, NormalStatistics
from vi_core.optimizers.adam import Adam
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.natural_gradient import NaturalGradient
from vi_core.optimizers.sgd import SGD
from vi_core.training.batches import Batches
from vi_core.training.loop import Loop
from vi_core.training.recorder import Recorder
from vi_core.training.stopping import Fixed
from vi_core.training.trainer import Plan
from vi_core.types import Latent, Params, flatten

MODEL = NormalGamma()
OPTIMUM = -185.942036
LATENTS = {"s": Latent(supports.positive), "m": Latent(supports.real, (2,))}


@pytest.fixture(scope="module")
def x() -> NormalStatistics:
    return MODEL.summarize(NormalDraws().load().train.double())


def start(kind: Callable[..., Family] = NaturalMeanField, replicates: int = 3) -> Family:
    """Different points for each replicate, none near the optimum."""
    torch.manual_seed(0)
    positive = {"positive": Exponential()} if kind is MeanField else {}
    family = kind(MODEL.latents, replicates, scale=0.4, concentration=3.0, rate=2.0, **positive)
    return family.double()


def distance(found: Params, wanted: Params) -> float:
    """Largest relative difference of any parameter."""
    pairs = zip(flatten(found), flatten(wanted), strict=True)
    return max(float(((a - b) / b).detach().abs().max()) for a, b in pairs)


def updates(family: Family, x: NormalStatistics) -> Params:
    """Every factor's coordinate-ascent update, the others at their present values."""
    params = family.variational()
    return {block: MODEL.update(block, params, x) for block in MODEL.latents}


def error_of_a_full_step(kind: Callable[..., Family], x: NormalStatistics) -> float:
    """How far one natural-gradient step of size 1 ends from the coordinate updates."""
    family = start(kind)
    wanted = updates(family, x)
    GradientStep(MODEL, family, ELBO(), Exact(), NaturalGradient(lr=1.0))(x)
    return distance(family.variational(), wanted)


def test_a_step_of_size_one_is_the_coordinate_update_of_each_factor(x: NormalStatistics) -> None:
    assert error_of_a_full_step(NaturalMeanField, x) < 1e-10


def test_it_is_not_in_other_coordinates(x: NormalStatistics) -> None:
    """The negative control: the same densities stored as logarithms."""
    assert error_of_a_full_step(MeanField, x) > 0.1


@pytest.mark.parametrize("block", ["mu", "tau"])
def test_a_step_on_one_factor_alone(block: str, x: NormalStatistics) -> None:
    """The gradient of one factor, the other's set to zero: that factor's update, the other untouched."""
    family = start()
    before = {name: {field: v.detach().clone() for field, v in g.items()} for name, g in family.variational().items()}
    wanted = before | {block: MODEL.update(block, before, x)}
    stored = next(family.parameters())
    (gradient,) = torch.autograd.grad(MODEL.expected_bound(family.variational(), x).sum(), stored)
    mine = torch.tensor([name.startswith(f"{block}.") for name in family.stored_names() or []])
    optimizer = NaturalGradient(lr=1.0)
    assert isinstance(family, HasInformation)
    optimizer.bind([stored], 3, family.fisher)
    with torch.no_grad():
        optimizer([stored], [gradient * mine], torch.ones(3, dtype=torch.bool))
    assert distance(family.variational(), wanted) < 1e-10


@pytest.mark.parametrize("lr", [0.25, 0.5, 1.0])
def test_a_shorter_step_is_a_convex_combination(lr: float, x: NormalStatistics) -> None:
    family = start()
    other = start()
    before = next(family.parameters()).detach().clone()
    other.assign(updates(family, x))
    GradientStep(MODEL, family, ELBO(), Exact(), NaturalGradient(lr=lr))(x)
    exact = (1 - lr) * before + lr * next(other.parameters()).detach()
    torch.testing.assert_close(next(family.parameters()).detach(), exact, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("lr", "steps"), [(1.0, 12), (0.5, 40)])
def test_joint_steps_find_the_mean_field_optimum(lr: float, steps: int, x: NormalStatistics) -> None:
    family = start()
    step = GradientStep(MODEL, family, ELBO(), Exact(), NaturalGradient(lr=lr))
    for _ in range(steps):
        step(x)
    bound = MODEL.expected_bound(family.variational(), x)
    torch.testing.assert_close(bound, torch.full_like(bound, OPTIMUM), rtol=0, atol=1e-6)


NOISY = {
    "pathwise": Pathwise(num_samples=5),
    "score function": ScoreFunction(num_samples=20, coefficient=NoControl(), scope=Everything()),
    "control variate": ScoreFunction(num_samples=20, coefficient=LeaveOneOut(), scope=Everything()),
}
MANY = 4000


def mean_step_error(estimator: Estimator, x: NormalStatistics, scale: float = 1.0) -> float:
    """Largest standardised error of MANY noisy steps from one point: the step is linear in the gradient."""
    torch.manual_seed(1)
    values = {"loc": 0.8, "loc_std": 0.0, "scale": 0.2, "concentration": 40.0, "rate": 80.0}
    family, other = (NaturalMeanField(MODEL.latents, MANY, **values).double() for _ in range(2))
    before = family.natural.detach().clone()
    other.assign(updates(family, x))
    GradientStep(MODEL, family, ELBO(), estimator, NaturalGradient(lr=1e-4))(x)
    exact = scale * 1e-4 * (other.natural - before)[0, 0].detach()
    return max_z((family.natural.detach() - before).squeeze(1), exact)


@pytest.mark.parametrize("name", NOISY)
def test_noisy_steps_are_unbiased(name: str, x: NormalStatistics) -> None:
    """False alarms as in `oracles.limit`; a step shorter by a sixth is caught for the least noisy estimator."""
    assert mean_step_error(NOISY[name], x) < limit(MANY)


def test_a_shrunk_noisy_step_is_caught(x: NormalStatistics) -> None:
    assert mean_step_error(NOISY["pathwise"], x, scale=5 / 6) > limit(MANY)


# --- storage --------------------------------------------------------------------------------------------------------


def test_the_densities_are_those_of_mean_field() -> None:
    """The same parameters give the same log q, layout and initial values."""
    torch.manual_seed(0)
    natural = NaturalMeanField(LATENTS, 2, scale=0.7, concentration=2.0, rate=0.5).double()
    usual = MeanField(LATENTS, 2, positive=Exponential(), scale=0.7, concentration=2.0, rate=0.5).double()
    usual.assign(natural.variational())
    z = natural.distribution(natural.variational()).sample(5)
    assert natural.layout == usual.layout
    assert distance(natural.variational(), usual.variational()) < 1e-6  # the initial values are float32's
    expected = usual.distribution(usual.variational()).log_prob(z)
    torch.testing.assert_close(natural.distribution(natural.variational()).log_prob(z), expected)


def test_information_in_natural_coordinates() -> None:
    """∇²A by autograd against F(θ) in closed form, carried by the Jacobian of θ(η): F(η) = Jᵀ F(θ) J."""
    torch.manual_seed(0)
    family = NaturalMeanField(LATENTS, 1, scale=0.7, concentration=2.5, rate=0.5).double()
    eta = family.natural.detach()[0, 0]

    def constrained(at: Tensor) -> Tensor:
        (s1, s2), m1, m2 = at[:2], at[2:4], at[4:]
        return torch.cat([torch.stack([s2 + 1, -s1]), -m1 / (2 * m2), (-2 * m2).rsqrt()])

    jacobian = torch.autograd.functional.jacobian(constrained, eta)
    assert isinstance(jacobian, Tensor)
    factors = family.distribution(family.variational()).factors
    closed = torch.zeros(6, 6, dtype=torch.float64)
    closed[:2, :2] = factors["s"].fisher()[0, 0].detach()
    for i in range(2):
        closed[2 + i :: 2, 2 + i :: 2] = factors["m"].fisher()[0, 0, i].detach()
    exact = (jacobian.T @ closed @ jacobian).unsqueeze(0)
    torch.testing.assert_close(family.fisher(), exact)
    assert not torch.allclose(family.fisher(), closed.unsqueeze(0), rtol=0.1)


def test_names_follow_the_storage() -> None:
    family = NaturalMeanField(LATENTS, 1)
    assert family.stored_names() == ["s.eta1", "s.eta2", "m.eta1[0]", "m.eta1[1]", "m.eta2[0]", "m.eta2[1]"]


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=100.0), Adam(lr=100.0), NaturalGradient(lr=5.0)], ids=["sgd", "adam", "ng"]
)
@pytest.mark.parametrize("replicates", [1, 3])
def test_a_step_out_of_the_domain_is_cut(optimizer: Optimizer, replicates: int, x: NormalStatistics) -> None:
    """To half the way to the boundary: densities stay densities, whatever the rule and its rate."""
    family = start(replicates=replicates)
    step = GradientStep(MODEL, family, ELBO(), Exact(), optimizer)
    for _ in range(5):
        step(x)
        assert all(bool((value > 0).all()) for group in family.variational().values() for value in positives(group))
    assert bool(step.alive.all())


def positives(group: dict[str, Tensor]) -> list[Tensor]:
    return [value for name, value in group.items() if name != "loc"]


def test_cut_to_half_the_way() -> None:
    family = NaturalMeanField({"s": Latent(supports.positive)}, 3, concentration=2.0, rate=4.0).double()
    step = torch.tensor([[[8.0, 0.0]], [[2.0, -1.0]], [[1.0, -4.0]]], dtype=torch.float64)
    exact = torch.tensor([[[2.0, 0.0]], [[2.0, -1.0]], [[0.25, -1.0]]], dtype=torch.float64)
    torch.testing.assert_close(family.confine(step), exact)


# --- a singular information -----------------------------------------------------------------------------------------


class Rank(NaturalGradient):
    """A natural gradient whose information is singular for one replicate from a given step on."""

    def __init__(self, replicate: int, first: int):
        super().__init__(lr=0.5)
        self.replicate, self.left = replicate, first

    def directions(self, gradients: object) -> list[Tensor]:
        assert self.information is not None
        self.left -= 1
        information = self.information().clone()
        if self.left < 0:
            information[self.replicate, 0] = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self, "information", lambda: information)
            return list(super().directions(gradients))  # pyright: ignore[reportArgumentType]


def test_a_singular_information_freezes_the_replicate_where_it_is(x: NormalStatistics) -> None:
    """Its parameters stay those of its last good step, and the others go on as beside a healthy one."""
    family, healthy = start(), start()
    step = GradientStep(MODEL, family, ELBO(), Exact(), Rank(1, 2))
    other = GradientStep(MODEL, healthy, ELBO(), Exact(), NaturalGradient(lr=0.5))
    kept = []
    for _ in range(4):
        step(x)
        other(x)
        kept.append(next(family.parameters()).detach()[1].clone())
    stored = next(family.parameters()).detach()
    assert step.alive.tolist() == [True, False, True]
    assert step.good_steps.tolist() == [4, 2, 4]
    assert torch.equal(stored[1], kept[1])
    assert torch.equal(stored[[0, 2]], next(healthy.parameters()).detach()[[0, 2]])


def test_its_message_says_what_to_do(x: NormalStatistics) -> None:
    step = GradientStep(MODEL, start(), ELBO(), Exact(), Rank(1, 2))
    for _ in range(3):
        step(x)
    batches = Batches(NormalDraws().load(), MODEL, None, torch.Generator())
    plan = Plan(3, 1, 0, 1)
    execution = Execution("eager", step, plan, batches)
    loop = Loop(
        step, batches, Recorder(step, 1), Fixed(), plan, execution, on_nonfinite="raise",  # pyright: ignore[reportArgumentType]
        evaluate=lambda: torch.zeros(3), interrupted=lambda: False,
    )  # fmt: skip
    assert "step 3, replicate 1: not finite: the step" in loop.describe_divergence()
    assert "optimizer.damping" in loop.describe_divergence()


def test_a_clamped_parameter_makes_it_singular() -> None:
    """Below the clamp no gradient flows: family/positive=clamp is where a singular information is met."""
    family = MeanField(MODEL.latents, 1, positive=Clamp(), rate=2.0).double()
    with torch.no_grad():
        family.packed.raw[0, 0, -1] = -1.0
    assert family.fisher()[0, -1].abs().max().item() == 0


class Counting(MeanField):
    """Counts how often its information is computed."""

    calls = 0

    def fisher(self) -> Tensor:
        self.calls += 1
        return super().fisher()


def test_other_optimizers_never_compute_the_information(x: NormalStatistics) -> None:
    for optimizer, wanted in ((Adam(lr=0.01), 0), (NaturalGradient(lr=0.1), 3)):
        family = Counting(MODEL.latents, 2, positive=Exponential()).double()
        step = GradientStep(MODEL, family, ELBO(), Exact(), optimizer)
        for _ in range(3):
            step(x)
        assert family.calls == wanted


def test_a_wrong_update_is_told_from_the_natural_step(x: NormalStatistics) -> None:
    """The negative control of the comparison itself."""
    family = start()
    params = family.variational()
    wrong = {block: fakes.WrongUpdate().update(block, params, x) for block in MODEL.latents}
    assert distance(wrong, updates(family, x)) > 1e-3

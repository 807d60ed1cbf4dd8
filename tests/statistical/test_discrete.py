"""One-hot latents and their relaxations: laws by tests with a stated false-alarm rate, the density by quadrature, and
gradients and bounds against the sum over all one-hot values of a tiny model. Limits are those of `tests/oracles.py`:
one false alarm in a million runs of the whole suite. `tests/unit/test_enumerated.py` has the same gradients to
rounding.

Power, in 99 of 100 runs: frequencies of 4 classes in 20,000 counts that are off by w = 0.066 (`smallest_frequency`),
the law of 20,000 draws at a distance of 0.033 (`smallest_distance`), and a mean of 150 samples, each over 400 images,
that is off by 0.769 standard deviations (`smallest_shift`). Noise of the wrong sign and relaxed draws in place of
one-hot ones are larger effects, and asserted to be found.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch import distributions as reference

from tests import oracles
from tests.conftest import configuration
from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.distributions import categorical
from vi_core.distributions.categorical import GumbelSoftmax, OneHotCategorical, StraightThrough, gumbel, one_hot_argmax
from vi_core.distributions.transforms import Softplus
from vi_core.errors import ConfigError, Unsupported
from vi_core.estimators.base import Estimator
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.pathwise import Pathwise, StickingTheLanding
from vi_core.estimators.score_function.coefficients import InSample, LeaveOneOut, NoControl
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.estimators.score_function.scopes import Everything
from vi_core.families.amortized.categorical import (
    AmortizedCategorical,
    GumbelSoftmaxRelaxation,
    Relaxation,
    StraightThroughRelaxation,
)
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.families.mean_field import MeanField
from vi_core.models.autoencoders.vae import CategoricalVAE
from vi_core.optimizers.sgd import SGD
from vi_core.studies.exponential_inverse_cdf import ExponentialInverseCDF
from vi_core.studies.gumbel_softmax import GumbelSoftmaxStudy

LEAST_P = oracles.FALSE_ALARM / oracles.COMPARISONS
PROBABILITIES = torch.tensor([0.1, 0.2, 0.5, 0.2], dtype=torch.float64)
LOGITS = PROBABILITIES.log() + 3.0
"""Not normalised, on purpose."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def classes_p_value(z: Tensor) -> float:
    """Probability under PROBABILITIES of counts as far off as those of the argmax of z (N, C), by Pearson's test."""
    counts = torch.bincount(z.argmax(dim=-1), minlength=4)
    return float(stats.chisquare(counts, PROBABILITIES * len(z))[1])


# --- laws -----------------------------------------------------------------------------------------------------------


def test_gumbel_noise_has_its_law() -> None:
    noise = gumbel(20_000, scalar(0.0))
    assert oracles.law_p_value(noise, stats.gumbel_r.cdf) > LEAST_P
    assert oracles.law_p_value(-noise, stats.gumbel_r.cdf) < LEAST_P


def test_gumbel_noise_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """At both ends of what torch draws: 0 and the number below 1."""
    for dtype in (torch.float32, torch.float64):
        ends = torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
        monkeypatch.setattr(torch, "rand", lambda *args, ends=ends, **kwargs: ends)
        assert bool(gumbel(2, torch.zeros((), dtype=dtype)).isfinite().all())


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("law", [GumbelSoftmax, StraightThrough])
def test_argmax_is_categorical_at_every_temperature(law: Callable, temperature: float) -> None:
    assert classes_p_value(law(LOGITS, scalar(temperature)).rsample(20_000)) > LEAST_P


def test_noise_of_the_wrong_sign_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(categorical, "gumbel", lambda count, like: -gumbel(count, like))
    assert classes_p_value(GumbelSoftmax(LOGITS, scalar(0.1)).rsample(20_000)) < LEAST_P
    assert classes_p_value(OneHotCategorical(LOGITS).sample(20_000)) < LEAST_P


def test_categorical_against_torch_and_enumeration() -> None:
    ours, theirs = OneHotCategorical(LOGITS), reference.OneHotCategorical(probs=PROBABILITIES)
    corners = torch.eye(4, dtype=torch.float64)
    assert classes_p_value(ours.sample(20_000)) > LEAST_P
    torch.testing.assert_close(ours.log_prob(corners), PROBABILITIES.log())
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)
    by_enumeration = sum(p * math.log(p / 0.25) for p in PROBABILITIES.tolist())
    assert float(ours.kl_to_uniform()) == pytest.approx(by_enumeration, abs=1e-12)
    certain = OneHotCategorical(torch.tensor([200.0, 0.0, 0.0]))
    assert float(certain.kl_to_uniform()) == pytest.approx(math.log(3))


# --- the density ----------------------------------------------------------------------------------------------------


def mass(law: GumbelSoftmax, density: Callable[[Tensor], Tensor]) -> float:
    """∫ density over the log-ratios to the last class, by the trapezoid rule."""
    axis = torch.linspace(-30, 30, 301, dtype=torch.float64) / law.temperature
    count = law.logits.shape[-1] - 1
    grid = torch.cartesian_prod(*[axis] * count).reshape(-1, count)
    log_z = torch.cat([grid, grid.new_zeros(len(grid), 1)], dim=-1).log_softmax(dim=-1)
    return float(density(log_z).exp().sum() * (axis[1] - axis[0]) ** count)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_density_integrates_to_one(classes: int, temperature: float) -> None:
    law = GumbelSoftmax(LOGITS[:classes], scalar(temperature))
    assert mass(law, law.log_prob_log) == pytest.approx(1, abs=1e-6)
    assert mass(law, lambda y: law.log_prob_log(y) - scalar(temperature).log()) != pytest.approx(1, abs=1e-3)


def formula_of_report_001(z: np.ndarray, probabilities: np.ndarray, tau: float) -> np.ndarray:
    """Γ(k) τ^(k−1) (Σ_i π_i/y_i^τ)^(−k) Π_i π_i/y_i^(τ+1): question 3.1.20."""
    k = len(probabilities)
    product = np.prod(probabilities / z ** (tau + 1), axis=-1)
    return math.gamma(k) * tau ** (k - 1) * np.sum(probabilities / z**tau, axis=-1) ** -k * product


@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
def test_density_is_that_of_report_001(temperature: float) -> None:
    law = GumbelSoftmax(LOGITS, scalar(temperature))
    z = law.rsample(200)
    expected = np.log(formula_of_report_001(z.numpy(), PROBABILITIES.numpy(), temperature))
    np.testing.assert_allclose(law.log_prob(z).numpy(), expected, rtol=1e-9)
    assert not np.allclose(law.log_prob_log(z.log()).numpy(), expected, rtol=1e-2)  # another variable's density


def test_density_against_torch() -> None:
    law = GumbelSoftmax(LOGITS, scalar(0.7))
    z = law.rsample(50)
    theirs = reference.RelaxedOneHotCategorical(scalar(0.7), logits=LOGITS).log_prob(z)
    torch.testing.assert_close(law.log_prob(z), theirs)


def test_density_of_logarithms_does_not_underflow() -> None:
    law = GumbelSoftmax(LOGITS.float(), torch.tensor(0.05))
    log_z = law.rsample_log(10_000)
    assert bool((log_z.exp() == 0).any())
    assert bool(law.log_prob_log(log_z).isfinite().all())
    assert not bool(law.log_prob(log_z.exp()).isfinite().all())


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_draws_have_the_density(temperature: float) -> None:
    """With two classes, τ logit(z_1) is logistic about the difference of the logits."""
    log_z = GumbelSoftmax(LOGITS[:2], scalar(temperature)).rsample_log(20_000)
    ratio, location = temperature * (log_z[:, 0] - log_z[:, 1]), float(LOGITS[0] - LOGITS[1])
    assert oracles.law_p_value(ratio, stats.logistic(location).cdf) > LEAST_P
    assert oracles.law_p_value(ratio, stats.logistic(-location).cdf) < LEAST_P


# --- straight through -----------------------------------------------------------------------------------------------


def test_straight_through_is_exactly_one_hot_with_the_relaxed_derivative() -> None:
    weights, gradients = torch.randn(4, dtype=torch.float64), []
    for law in (StraightThrough, GumbelSoftmax):
        torch.manual_seed(0)
        logits = LOGITS.clone().requires_grad_()
        z = law(logits, scalar(0.3)).rsample(500)
        gradients += torch.autograd.grad((z @ weights).sum(), logits)
        exact = torch.equal(z, one_hot_argmax(z)) and bool((z.sum(dim=-1) == 1).all())
        assert exact == (law is StraightThrough)
    assert torch.equal(*gradients)


# --- the discrete model, by enumeration -----------------------------------------------------------------------------

GROUPS, CLASSES, PIXELS, COPIES, CALLS = 2, 3, 4, 200, 150
IMAGES = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)


def tiny(relaxation: Relaxation) -> tuple[CategoricalVAE, AmortizedCategorical]:
    """Four pixels and two groups of three classes, in float64, with an encoder and a decoder that are far from flat."""
    model = CategoricalVAE(PIXELS, groups=GROUPS, classes=CLASSES, hidden=[5], activation="tanh").double()
    family = AmortizedCategorical(
        model.latents, 1, PIXELS, relaxation=relaxation, hidden=[5], activation="tanh"
    ).double()
    with torch.no_grad():
        for weight in (*model.parameters(), *family.parameters()):
            weight.mul_(3)
    return model, family


def exact_elbo(model: CategoricalVAE, family: AmortizedCategorical) -> Tensor:
    """E_q[log p(x, z) − log q(z)] averaged over IMAGES, as a sum over all values of z; differentiable."""
    log_q_groups = family.encoder(IMAGES).reshape(-1, GROUPS, CLASSES).log_softmax(dim=-1)
    total = torch.zeros(len(IMAGES), dtype=torch.float64)
    for indices in itertools.product(range(CLASSES), repeat=GROUPS):
        z = torch.eye(CLASSES, dtype=torch.float64)[list(indices)]
        log_q = torch.stack([log_q_groups[:, g, c] for g, c in enumerate(indices)]).sum(dim=0)
        likelihood = reference.Bernoulli(logits=model.decoder(z.flatten())).log_prob(IMAGES).sum(dim=-1)
        total = total + log_q.exp() * (likelihood - GROUPS * math.log(CLASSES) - log_q)
    return total.mean()


def weight_gradient(value: Tensor, model: CategoricalVAE, family: AmortizedCategorical) -> Tensor:
    weights = [*family.parameters(), *model.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)])


def discrepancies(estimator: Estimator, relaxation: Relaxation) -> tuple[float, float]:
    """Largest standardised errors of the gradient of every weight, and of the reported ELBO."""
    model, family = tiny(relaxation)
    exact = exact_elbo(model, family)
    exact_gradient = weight_gradient(exact, model, family)
    copies, gradients, values = IMAGES.repeat(COPIES, 1), [], []
    for _ in range(CALLS):
        estimate = estimator(model, family, ELBO(), copies)
        gradients.append(weight_gradient(estimate.surrogate.mean(), model, family))
        values.append(estimate.bound.mean().reshape(1))
    value = oracles.max_z(torch.stack(values), exact.detach().reshape(1))
    return oracles.max_z(torch.stack(gradients), exact_gradient), value


RELAXED, ONE_HOT = GumbelSoftmaxRelaxation(initial=1.0, final=0.5), StraightThroughRelaxation(initial=1.0, final=0.5)
LIMIT = oracles.limit(CALLS)


@pytest.mark.parametrize(
    ("estimator", "relaxation", "unbiased"),
    [
        (ScoreFunction(num_samples=2, coefficient=NoControl(), scope=Everything()), RELAXED, True),
        (ScoreFunction(num_samples=6, coefficient=LeaveOneOut(), scope=Everything()), RELAXED, True),
        (ClosedFormKL(num_samples=2), RELAXED, False),
        (ClosedFormKL(num_samples=2), ONE_HOT, False),
        (Pathwise(num_samples=2), ONE_HOT, False),
        (StickingTheLanding(num_samples=2), ONE_HOT, False),
    ],
    ids=["score function", "leave-one-out", "relaxed", "straight-through", "pathwise", "sticking the landing"],
)
def test_reported_bounds_are_discrete_and_score_functions_unbiased(
    estimator: Estimator, relaxation: Relaxation, unbiased: bool
) -> None:
    """What each reports is the discrete model's ELBO; the gradients of relaxed draws are biased, and caught."""
    gradient, value = discrepancies(estimator, relaxation)
    assert value < LIMIT
    assert (gradient < LIMIT) == unbiased
    assert bool(relaxation.bias and estimator.differentiates_draws) == (not unbiased)


def test_the_relaxed_objective_is_not_the_bound() -> None:
    model, family = tiny(RELAXED)
    estimator, copies = ClosedFormKL(num_samples=2), IMAGES.repeat(COPIES, 1)
    estimates = [estimator(model, family, ELBO(), copies) for _ in range(CALLS)]
    values = torch.stack([estimate.terms["relaxed"].mean().reshape(1) for estimate in estimates])
    assert oracles.max_z(values, exact_elbo(model, family).detach().reshape(1)) > LIMIT
    torch.testing.assert_close(values[-1, 0], estimates[-1].surrogate.mean().detach())


@pytest.mark.parametrize("bound", [ELBO(), IWELBO()])
def test_evaluation_is_of_the_discrete_model(bound: Bound) -> None:
    """The bound of K = 1 fresh draws, against enumeration, for an estimator that trains on relaxed ones."""
    model, family = tiny(RELAXED)
    estimator = (
        ClosedFormKL()
        if isinstance(bound, ELBO)
        else ScoreFunction(num_samples=1, coefficient=NoControl(), scope=Everything())
    )
    copies = IMAGES.repeat(COPIES, 1)
    values = torch.stack([estimator.value(model, family, bound, copies).mean().reshape(1) for _ in range(CALLS)])
    assert oracles.max_z(values, exact_elbo(model, family).detach().reshape(1)) < LIMIT


def test_kl_against_enumeration() -> None:
    model, family = tiny(RELAXED)
    params = family.variational(IMAGES)
    probabilities = params["z"]["logits"].softmax(dim=-1)
    expected = (probabilities * (probabilities.log() + math.log(CLASSES))).sum(dim=(-1, -2))
    torch.testing.assert_close(model.kl(params), expected)
    corners = torch.eye(CLASSES, dtype=torch.float64)
    z = {"z": torch.stack([corners[list(i)] for i in itertools.product(range(CLASSES), repeat=GROUPS)])[:, None, None]}
    log_q = family.distribution(params).log_prob(z)
    log_prior = model.factors(z, IMAGES)["prior"][0]
    torch.testing.assert_close((log_q.exp() * (log_q - log_prior)).sum(dim=0), expected)


def test_leave_one_out_where_the_other_draws_share_a_value() -> None:
    """Scores of one class among few draws: the slope of equal scores is 0/0, and none is used."""
    h = torch.tensor([0.7, -0.3, -0.3, -0.3, -0.3]).reshape(1, 5, 1)
    f = h * torch.tensor([-21.3, -20.1, -25.7, -24.4, -22.8]).reshape(1, 5, 1)
    same = torch.full_like(h, 0.7) + torch.tensor([0, 1e-8, 0, 6e-8, 0]).reshape(1, 5, 1)
    assert not bool(LeaveOneOut()(f, same).any()) and not bool(InSample()(f, same).any())
    coefficient = LeaveOneOut()(f, h).flatten()
    assert float(coefficient[0]) == 0
    for k in range(1, 5):
        others = [j for j in range(5) if j != k]
        slope = np.polyfit(h.flatten()[others].double(), f.flatten()[others].double(), 1)[0]
        assert float(coefficient[k]) == pytest.approx(slope, rel=1e-4)


# --- annealing ------------------------------------------------------------------------------------------------------


def step_of(relaxation: Relaxation) -> GradientStep:
    model, family = tiny(relaxation)
    return GradientStep(model, family, ELBO(), ClosedFormKL(), SGD(lr=0.01))


def test_temperature_falls_once_per_training_step_and_never_in_evaluation() -> None:
    step = step_of(GumbelSoftmaxRelaxation(initial=2.0, final=0.5, steps=4))
    seen = []
    for _ in range(6):
        seen.append(float(step(IMAGES)["temperature"]))
        step.estimator.value(step.model, step.family, ELBO(), IMAGES)
        step.family.distribution(step.family.variational(IMAGES)).rsample(3)
    assert seen == pytest.approx([2.0, 2**0.5, 1.0, 0.5**0.5, 0.5, 0.5])


def test_annealing_resumes_bit_for_bit() -> None:
    """Six steps, or three, a state dict and three more: the same weights; without the buffer, others."""
    first, second, forgetful = (step_of(GumbelSoftmaxRelaxation(steps=5)) for _ in range(3))
    for step in (second, forgetful):
        step.load_state_dict(first.state_dict())
    for _ in range(3):
        first(IMAGES)
    state, stream = {k: v.clone() for k, v in first.state_dict().items()}, torch.get_rng_state()
    weights = {}
    for name, step in {"first": first, "second": second, "forgetful": forgetful}.items():
        step.load_state_dict(state)
        if name == "forgetful":
            cast(AmortizedCategorical, step.family).relaxation.trained.zero_()
        torch.set_rng_state(stream)
        for _ in range(3):
            step(IMAGES)
        weights[name] = torch.cat([weight.detach().flatten() for weight in step.moving])
    assert torch.equal(weights["first"], weights["second"])
    assert not torch.equal(weights["first"], weights["forgetful"])


def test_single_precision_stays_single() -> None:
    z = GumbelSoftmaxRelaxation().distribution(LOGITS.float()).rsample(3)
    assert z.dtype == torch.float32


# --- refusals and studies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [Pathwise(), StickingTheLanding()])
def test_densities_at_relaxed_draws_are_refused(estimator: Estimator) -> None:
    model, family = tiny(RELAXED)
    with pytest.raises(Unsupported, match="straight_through"):
        estimator.check(model, family, ELBO())
    estimator.check(model, tiny(ONE_HOT)[1], ELBO())


def test_families_refuse_latents_that_are_not_theirs() -> None:
    one_hot = CategoricalVAE(PIXELS, groups=GROUPS, classes=CLASSES).latents
    with pytest.raises(Unsupported, match="family=amortized_categorical"):
        AmortizedNormal(one_hot, 1, PIXELS)
    with pytest.raises(Unsupported, match="family=amortized_categorical"):
        MeanField(one_hot, positive=Softplus())
    with pytest.raises(Unsupported, match="replicates=2"):
        AmortizedCategorical(one_hot, 2, PIXELS, relaxation=RELAXED)


def test_ranges_are_checked() -> None:
    ranges: list[dict[str, Any]] = [{"initial": 0.5, "final": 1.0}, {"final": 0.0}, {"initial": math.inf}, {"steps": 0}]
    for wrong in ranges:
        with pytest.raises(ConfigError, match="relaxation"):
            GumbelSoftmaxRelaxation(**wrong)
    studies: list[dict[str, Any]] = [{"probabilities": [0.5, 0.6]}, {"temperatures": []}, {"num_draws": 1}]
    for wrong in studies:
        with pytest.raises(ConfigError, match="study"):
            GumbelSoftmaxStudy(**wrong)


def test_the_score_function_trains_the_experiment_from_the_command_line() -> None:
    """Its coefficient, a part inside the estimator, survives the change of the experiment's estimator."""
    config = configuration("experiment=categorical_vae_digits", "estimator=score_function", "family.hidden=[8]")
    assert config.estimator.coefficient["_target_"].endswith("NoControl")
    assert config.family.relaxation.steps == 1000


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_study_integrates_any_number_of_classes(classes: int) -> None:
    study = GumbelSoftmaxStudy(probabilities=[1 / classes] * classes, num_samples=100, temperatures=[1.0])
    assert study.run().quantities["density_mass"].value == pytest.approx(1, abs=1e-6)


def test_study_gradient_is_that_of_the_enumerated_expectation() -> None:
    study = GumbelSoftmaxStudy()
    logits = study.logits.clone().requires_grad_()
    expectation = torch.stack([p * c**2 for c, p in enumerate(logits.softmax(dim=0), start=1)]).sum()
    torch.testing.assert_close(study.exact_gradient(), *torch.autograd.grad(expectation, logits))


def test_exponential_study_rejects_the_formula_of_report_003(monkeypatch: pytest.MonkeyPatch) -> None:
    """−log(1 − u)/u in place of −log(1 − u)/rate has another law."""
    study = ExponentialInverseCDF(rate=2.0, num_samples=10)
    assert study.run().quantities["inverse_ks_p_value"].value > LEAST_P

    def printed(self: object, count: int) -> Tensor:
        u = torch.rand(count, dtype=torch.float64)
        return -torch.log1p(-u) / u

    monkeypatch.setattr(study, "_gradients", lambda rate: {})
    monkeypatch.setattr("vi_core.studies.exponential_inverse_cdf.Exponential.rsample", printed)
    assert study.run().quantities["inverse_ks_p_value"].value < LEAST_P

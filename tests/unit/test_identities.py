"""Each claim of the study `identities` fails where the library is broken, and its routes agree where it is right.

The checks are those of conf/experiment/identities.yaml. `tests/contracts/test_config.py` sees that all of them pass.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from experiments.results.expectations import check
from tests.conftest import ROOT
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.distributions.gamma import Exponential, Gamma, kl_gamma
from vi_core.distributions.normal import Normal, kl_normal
from vi_core.distributions.transforms import Softplus
from vi_core.estimators.base import Estimate
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.exact import Exact
from vi_core.estimators.pathwise import Pathwise, StickingTheLanding
from vi_core.estimators.score_function import coefficients
from vi_core.estimators.score_function import estimator as score_function
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.families.mean_field import NaturalMeanField
from vi_core.models.base import Factors
from vi_core.models.conjugate.gamma import GammaLikelihood
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.models.mixtures import one_pass
from vi_core.studies import identities
from vi_core.studies.base import Quantity
from vi_core.studies.claims import bounds, gradients, natural, reports
from vi_core.studies.claims.base import Problem, Rule

CONF = ROOT / "conf" / "experiment" / "identities.yaml"
EXPECTED = OmegaConf.to_container(OmegaConf.load(CONF).expected)
PROBLEM = Problem(20_000)
Quantities = dict[str, Quantity]
Claim = Callable[[], Quantities]


def failures(quantities: Quantities) -> set[str]:
    """Names of the claims whose check in the YAML fails."""
    summary = {"estimates": {n: {"mean": q.value, "error": q.error, "z": q.z} for n, q in quantities.items()}}
    assert isinstance(EXPECTED, list)
    mine = [item for item in EXPECTED if item["quantity"].split(".")[1] in quantities]
    checks = check(mine, summary, {}, None)
    return {c["name"].split(".")[1] for c in checks if not c["passed"]}


CLAIMS: dict[str, Claim] = {claim.__name__: partial(claim, PROBLEM) for claim in identities.CLAIMS}
DRAWN = {"report_001_estimators", "report_004"}
"""Reports whose numbers are drawn: with few draws they may miss their tolerance."""


@pytest.mark.parametrize("claim", [name for name in CLAIMS if name not in DRAWN])
def test_a_claim_holds(claim: str) -> None:
    """Five standard errors where something is drawn: one false alarm in 40,000 over all claims."""
    torch.manual_seed(0)
    assert failures(CLAIMS[claim]()) == set()


def plus(original: Callable[..., Tensor], amount: float) -> Callable[..., Tensor]:
    """A function that is off by a constant."""
    return lambda *args: original(*args) + amount


def times(original: Callable[..., Tensor], factor: float) -> Callable[..., Tensor]:
    """A function that is off by a factor."""
    return lambda *args: original(*args) * factor


def scaled(original: Callable[..., Estimate], factor: float) -> Callable[..., Estimate]:
    """An estimator whose gradient is off by a factor."""

    def forward(*args: object) -> Estimate:
        estimate = original(*args)
        return estimate._replace(surrogate=factor * estimate.surrogate)

    return forward


def attached(self: StickingTheLanding, *args: object) -> Estimate:
    """Sticking the landing with the score left in."""
    return Pathwise(num_samples=self.num_samples)(*args)  # pyright: ignore[reportArgumentType]


def wrong_scores(*args: object) -> tuple[Tensor, Tensor]:
    """Per-sample scores with the wrong sign in one component: equation 14 of report 000."""
    log_q, scores = score_function.per_sample_scores(*args)  # pyright: ignore[reportArgumentType]
    return log_q, scores + 2 * torch.tensor([0, 0, 1.0, 0]).reshape(4, *(1,) * (scores.dim() - 1))


def slope_of_f(self: object, f: Tensor, h: Tensor) -> Tensor:
    """Cov(f, h)/Var(f) where the coefficient divides by Var(h)."""
    return 1 / coefficients.LeaveOneOut.__call__(self, h, f)  # pyright: ignore[reportArgumentType]


def wrong_update(original: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """Coordinate updates whose tau forgets the term of mu's prior."""

    def update(self: NormalGamma, block: str, *args: object) -> dict[str, Tensor]:
        right = original(self, block, *args)
        return right if block == "mu" else right | {"concentration": right["concentration"] - 0.5}

    return update


def wide_update(original: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """Coordinate updates whose mu is a tenth too wide."""

    def update(self: NormalGamma, block: str, *args: object) -> dict[str, Tensor]:
        right = original(self, block, *args)
        return right if block == "tau" else right | {"scale": 1.1 * right["scale"]}

    return update


def half_scores(*args: object) -> tuple[Tensor, Tensor]:
    """Per-sample scores off by a factor."""
    log_q, scores = score_function.per_sample_scores(*args)  # pyright: ignore[reportArgumentType]
    return log_q, scores / 2


def heavier(original: Callable[..., Factors]) -> Callable[..., Factors]:
    """Factors whose prior of tau is not normalised."""

    def factors(*args: object) -> Factors:
        right = original(*args)
        return right | {"prior_tau": (right["prior_tau"][0] + 1e-6, right["prior_tau"][1])}

    return factors


def softer(self: Softplus, raw: Tensor) -> Tensor:
    """Softplus with another slope at the same value."""
    value = torch.nn.functional.softplus(raw)
    return value.detach() + 0.9 * (value - value.detach())


def log_weights_as_printed(components: one_pass.Components, places: Tensor, counts: Tensor) -> Tensor:
    """The exponents in place of their softmax."""
    return one_pass.log_weights(components, one_pass.squared_distances(components, places), counts)


def wrong_scope(original: Callable[..., Factors]) -> Callable[..., Factors]:
    """Factors where mu's prior forgets that it mentions tau."""

    def factors(*args: object) -> Factors:
        right = original(*args)
        return right | {"prior_mu": (right["prior_mu"][0], frozenset({"mu"}))}

    return factors


UPDATE, KL_NORMAL, NORMALIZER = NormalGamma.update, kl_normal, natural.gamma_log_normalizer
LIKELIHOOD = plus(NormalGamma._log_likelihood, 1e-3)
BROKEN = [
    ("densities", NormalGamma, "_log_likelihood", staticmethod(LIKELIHOOD), "log_likelihood"),
    ("densities", NormalGamma, "exact", lambda self, x: {"log_evidence": -185.937}, "bayes_rule"),
    ("decomposition", NormalGamma, "expected_bound", plus(NormalGamma.expected_bound, 1e-6), "evidence_decomposition"),
    ("decomposition", NormalGamma, "expected_bound", plus(NormalGamma.expected_bound, 1e-6), "elbo_of_the_posterior"),
    ("densities", NormalGamma, "factors", heavier(NormalGamma.factors), "log_prior"),
    ("decomposition", NormalGamma, "expected_bound", plus(NormalGamma.expected_bound, 1e-6), "elbo_closed_form"),
    ("decomposition", NormalGamma, "kl", times(NormalGamma.kl, 1.001), "elbo_split"),
    ("optimum", NormalGamma, "update", wrong_update(UPDATE), "optimal_factor[tau]"),
    ("optimum", NormalGamma, "update", wrong_update(UPDATE), "gradient_at_the_optimum"),
    ("optimum", NormalGamma, "update", wide_update(UPDATE), "optimal_factor[mu]"),
    ("iwelbo", IWELBO, "__call__", plus(IWELBO.__call__, 0.05), "iwelbo[1]"),
    ("iwelbo", IWELBO, "__call__", plus(IWELBO.__call__, 0.05), "iwelbo[50]"),
    ("iwelbo", ELBO, "__call__", plus(ELBO.__call__, 0.05), "elbo"),
    ("iwelbo", IWELBO, "__call__", lambda self, log_w: log_w.mean(dim=0), "iwelbo[2]"),
    ("iwelbo", NormalGamma, "log_joint", plus(NormalGamma.log_joint, 0.1), "mean_weight"),
    ("divergences", bounds, "kl_normal", lambda q, p: KL_NORMAL(p, q), "kl_normal"),
    ("divergences", bounds, "kl_gamma", lambda q, p: kl_gamma(p, q), "kl_gamma"),
    ("divergences", Gamma, "entropy", plus(Gamma.entropy, 1e-6), "entropy_gamma"),
    ("scores", gradients, "per_sample_scores", wrong_scores, "score[concentration]"),
    ("scores", gradients, "per_sample_scores", wrong_scores, "mean_score[concentration]"),
    ("scores", gradients, "per_sample_scores", half_scores, "score[precision]"),
    ("divergences", Normal, "entropy", plus(Normal.entropy, 1e-6), "entropy_normal"),
    ("estimators", ScoreFunction, "forward", scaled(ScoreFunction.forward, -1.0), "score_function[loc]"),
    ("estimators", ScoreFunction, "forward", scaled(ScoreFunction.forward, 1.2), "score_function[rate]"),
    ("estimators", StickingTheLanding, "forward", scaled(StickingTheLanding.forward, 0.8), "sticking_the_landing[loc]"),
    ("estimators", ClosedFormKL, "forward", scaled(ClosedFormKL.forward, 0.5), "closed_form_kl[rate]"),
    ("estimators", Pathwise, "forward", scaled(Pathwise.forward, 0.5), "pathwise[rate]"),
    ("estimators", Exact, "forward", scaled(Exact.forward, 1.0001), "exact_gradient[loc]"),
    ("estimators", coefficients.LeaveOneOut, "__call__", coefficients.InSample.__call__, "control_variate[rate]"),
    ("landing", StickingTheLanding, "forward", attached, "landing"),
    ("score_left_out", StickingTheLanding, "forward", attached, "score_left_out"),
    ("control_variate", coefficients.InSample, "__call__", slope_of_f, "coefficient[loc]"),
    ("rao_blackwell", NormalGamma, "factors", wrong_scope(NormalGamma.factors), "rao_blackwell[concentration]"),
    ("exponential_family", natural, "gamma_log_normalizer", times(NORMALIZER, 1.01), "gamma_mean_log"),
    ("exponential_family", natural, "gamma_log_normalizer", times(NORMALIZER, 1.01), "gamma_mean"),
    ("natural_gradient", GammaLikelihood, "log_joint", times(GammaLikelihood.log_joint, 1.01), "gamma_gradient[shape]"),
    ("exponential_family", Normal, "fisher", times(Normal.fisher, 2.0), "fisher_normal"),
    ("natural_gradient", GammaLikelihood, "fisher", times(GammaLikelihood.fisher, 1.1), "natural_gradient[shape]"),
    ("first_steps", GammaLikelihood, "fisher", times(GammaLikelihood.fisher, 1.1), "natural_gradient_step[scale]"),
    ("first_steps", GammaLikelihood, "fisher", times(GammaLikelihood.fisher, 1.1), "curvature[shallow]"),
    ("first_steps", GammaLikelihood, "log_joint", times(GammaLikelihood.log_joint, 1.01), "gradient_step[shape]"),
    ("report_000", Softplus, "__call__", softer, "report_000_softplus_slope"),
    ("report_003", reports, "responsibilities", log_weights_as_printed, "report_003_responsibilities"),
    ("report_003", reports, "steps_per_epoch", lambda points, size: points // size - 1, "report_003_epoch_average"),
    ("report_003", Normal, "log_prob", plus(Normal.log_prob, 0.1), "report_003_density"),
    ("report_003", Normal, "log_prob", plus(Normal.log_prob, 0.1), "report_003_normaliser"),
    ("report_003", Exponential, "rsample", times(Exponential.rsample, 2.0), "report_003_inverse_cdf"),
    ("natural_step", NaturalMeanField, "fisher", times(NaturalMeanField.fisher, 1.1), "natural_step"),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "owner", "name", "broken", "caught"), BROKEN, ids=[f"{b[2]}-{b[4]}" for b in BROKEN])
def test_a_broken_library_is_caught(
    claim: str, owner: object, name: str, broken: object, caught: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(owner, name, broken)
    assert caught in failures(CLAIMS[claim]())


def test_every_quantity_has_a_check_and_every_claim_a_mutation() -> None:
    """A claim is a quantity without its index; reports' formulas are put right by the test below."""
    quantities = set().union(*(claim() for claim in CLAIMS.values()))
    assert isinstance(EXPECTED, list)
    assert quantities == {item["quantity"].split(".")[1] for item in EXPECTED}
    claims = {name.split("[")[0] for name in quantities if not name.startswith("report_")}
    assert claims <= {caught.split("[")[0] for *_, caught in BROKEN}


def test_a_formula_put_right_is_not_reported_as_wrong() -> None:
    """Each report_... check sees the report's number: the right one, in its place, fails it."""
    torch.manual_seed(0)
    wrong = {name: q for claim in CLAIMS if claim.startswith("report_") for name, q in CLAIMS[claim]().items()}
    right = {name: q._replace(value=q.exact) for name, q in wrong.items() if q.exact is not None}
    assert failures(right) == set(wrong)


def test_the_quadrature_is_exact_enough() -> None:
    """Its moments against those of the Normal and the Gamma."""
    rule, (loc, scale, a, b) = Rule(), Rule().values
    assert rule.mean(rule.mu**2) == pytest.approx(loc**2 + scale**2, rel=1e-12)
    assert rule.mean(rule.tau**3) == pytest.approx(a * (a + 1) * (a + 2) / b**3, rel=1e-12)

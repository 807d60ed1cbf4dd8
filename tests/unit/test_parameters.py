"""Parameters of laws at draws from the prior: what is refused, what is said, and what is left alone.

The draws are the same for each seed, so that none of these tests can fail by chance.
"""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import distributions as laws
from torch.distributions import Bernoulli, Beta, HalfNormal, MultivariateNormal, Normal, Poisson, constraints

import vi_core
from vi_core.errors import ConfigError, LabError
from vi_core.models.bayesian.parameters import DRAWS, outside_of, parameters_of

N = 6
DATA = {"x": torch.linspace(-1, 1, N), "y": torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])}
Law = Callable[[Any, Any], Any]


def observed(prior: dict[str, Any], law: Law) -> vi_core.BayesianModel:
    """A model of these latents that has seen the data."""

    class Own(vi_core.BayesianModel):
        def prior(self, data: Any) -> Any:
            return list(prior.items())

        def likelihood(self, z: Any, data: Any) -> Any:
            return law(z, data)

    model = Own()
    model.observe(DATA, N)
    return model


REAL, HALF = {"s": Normal(0.0, 1.0)}, {"s": HalfNormal(1.0)}
CASES: dict[str, tuple[dict[str, Any], Law, dict[str, Any], Law, str]] = {
    # the mistake, its twin without it, and what the line holds
    "constant prior": (
        {"s": Normal(0.0, -1.0, validate_args=False)},
        lambda z, d: Normal(z["s"], 1.0),
        REAL,
        lambda z, d: Normal(z["s"], 1.0),
        r"Own.prior: scale of Normal for 's' is -1, and must be positive\.",
    ),
    "one element of a prior": (
        {"s": Normal(torch.zeros(2), torch.tensor([1.0, -1.0]), validate_args=False)},
        lambda z, d: Normal(z["s"].sum(), 1.0),
        {"s": Normal(torch.zeros(2), 1.0)},
        lambda z, d: Normal(z["s"].sum(), 1.0),
        r"is -1 at \[1\]",
    ),
    "prior by an earlier latent": (
        {**REAL, "mu": lambda z: Normal(0.0, z["s"])},
        lambda z, d: Normal(z["mu"], 1.0),
        {**HALF, "mu": lambda z: Normal(0.0, z["s"])},
        lambda z, d: Normal(z["mu"], 1.0),
        r"Own.prior: scale of Normal for 'mu' .* draws from the prior, .* HalfNormal",
    ),
    "scale": (
        REAL,
        lambda z, d: Normal(0.0, z["s"]),
        HALF,
        lambda z, d: Normal(0.0, z["s"]),
        r"Own.likelihood: scale of Normal for 'y' .* HalfNormal, .* softplus",
    ),
    "constant probability": (
        REAL,
        lambda z, d: Bernoulli(2.0 + 0 * z["s"]),
        REAL,
        lambda z, d: Bernoulli(0.5 + 0 * z["s"]),
        r"probs of Bernoulli for 'y' is 2, and must be between 0 and 1\.",
    ),
    "probability": (
        HALF,
        lambda z, d: Bernoulli(z["s"]),
        {"s": Beta(1.0, 1.0)},
        lambda z, d: Bernoulli(z["s"]),
        "use logits= in place of probs=",
    ),
    "linear rate": (
        REAL,
        lambda z, d: Poisson(z["s"] * d["x"]),
        REAL,
        lambda z, d: Poisson((z["s"] * d["x"]).exp()),
        rf"in {DRAWS} of {DRAWS} draws from the prior, and must be at least 0",
    ),
    "scale of zero": (
        REAL,
        lambda z, d: Normal(z["s"], 0.0),
        REAL,
        lambda z, d: Normal(z["s"], 1e-30),
        "is 0, and must be positive",
    ),
    "scale in the data": (
        REAL,
        lambda z, d: Normal(z["s"], d["x"]),
        REAL,
        lambda z, d: Normal(z["s"], d["x"].abs()),
        r"is -1 at \[0\]",
    ),
    "logarithm of a negative number": (
        REAL,
        lambda z, d: Normal(z["s"].log(), 1.0),
        HALF,
        lambda z, d: Normal(z["s"].log(), 1.0),
        "loc of Normal for 'y' is nan .* logarithm",
    ),
    "inside of others": (
        REAL,
        lambda z, d: laws.Independent(Normal(torch.zeros(N), z["s"]), 1),
        HALF,
        lambda z, d: laws.Independent(Normal(torch.zeros(N), z["s"]), 1),
        "scale of Normal for 'y'",
    ),
    "covariance": (
        REAL,
        lambda z, d: MultivariateNormal(torch.zeros(N), z["s"] * torch.eye(N)),
        REAL,
        lambda z, d: MultivariateNormal(torch.zeros(N), z["s"].exp() * torch.eye(N)),
        "positive-definite.*multiple of the identity",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_parameter_is_named_and_its_twin_is_right(name: str, caplog: pytest.LogCaptureFixture) -> None:
    prior, law, right_prior, right_law, message = CASES[name]
    with pytest.raises(LabError, match=message) as caught:
        observed(prior, law)
    assert "\n" not in str(caught.value)
    observed(right_prior, right_law)
    assert not caplog.records


def test_the_tails_of_a_prior_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """1.5 + z is negative with probability 0.07, here in 1 to 3 of the draws; 6 + z with 1e-9."""
    with caplog.at_level(logging.WARNING):
        observed(REAL, lambda z, d: Normal(0.0, 6 + z["s"]))
        assert not caplog.records
        observed(REAL, lambda z, d: Normal(0.0, 1.5 + z["s"]))
    assert len(caplog.records) == 1
    assert "scale of Normal for 'y'" in caplog.text
    assert f"of {DRAWS} draws" in caplog.text
    with pytest.raises(ConfigError, match="scale of Normal"):
        observed(REAL, lambda z, d: Normal(0.0, 0.3 + z["s"]))


def test_what_rounds_to_zero_or_overflows_is_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    """exp(1000 z) is 0 or infinite in nearly half of the draws; a sum of probabilities may pass 1 by rounding."""
    observed(REAL, lambda z, d: Normal(0.0, (1000 * z["s"]).exp()))
    observed(REAL, lambda z, d: Bernoulli(z["s"].sigmoid() + (-z["s"]).sigmoid() * (1 + 1e-7)))
    assert not caplog.records


def test_every_seed_has_the_same_answer() -> None:
    """At a parameter that is wrong with probability 0.25, as often refused as not by chance."""
    answers = set()
    for seed in range(6):
        torch.manual_seed(seed)
        try:
            observed(REAL, lambda z, d: Normal(0.0, 0.67 + z["s"]))
        except LabError as error:
            answers.add(str(error))
        else:
            answers.add("")
    assert len(answers) == 1


def test_parameters_are_found_in_laws_of_laws() -> None:
    mixture = laws.MixtureSameFamily(laws.Categorical(torch.ones(2)), Normal(torch.zeros(2), 1.0))
    found = {
        mixture: {"probs of Categorical", "loc of Normal", "scale of Normal"},
        laws.LogNormal(0.0, 1.0): {"loc of LogNormal", "scale of LogNormal"},
        Bernoulli(logits=torch.zeros(2)): {"logits of Bernoulli"},
    }
    for law, places in found.items():
        assert {place for place, _, _ in parameters_of(law)} >= places


def test_outside_is_by_more_than_rounding() -> None:
    constraint = constraints.unit_interval
    value = torch.tensor([-1e-3, -1e-9, 0.5, 1 + 1e-7, 1.1, torch.nan])
    assert outside_of(constraint, value).tolist() == [True, False, False, False, True, True]

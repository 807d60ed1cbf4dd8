"""Every bound and every estimator of conf/ is right, found by looking; and the checks that find it so reject wrong
ones.

`tests/discovery.py` has the checks. A new file in conf/bound or conf/estimator is held against them without being
named. False alarms: `oracles.limit`, one in a million runs of the whole suite. Power: a gradient of the opposite sign
is caught in every combination, in the parameters of q and in those of the model, by construction: each check asserts
it. A gradient that is off by the factor K/(K + 1) = 6/7 is caught for each kind of estimator below.
"""

import pytest
import torch

from tests import fakes
from tests.contracts.test_config import composed, names
from tests.discovery import bound_faults, conf_estimator, estimator_faults, models, pairs, trained_families
from vi_core.bounds.base import Bound
from vi_core.estimators.base import Estimator
from vi_core.schema import construct


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("bound"))
def test_every_bound(name: str) -> None:
    bound: Bound = construct(composed(f"bound/{name}"), "bound")
    assert bound.name == name
    assert bound_faults(bound) == []


BROKEN_BOUNDS = [
    fakes.SignalOfELBO, fakes.SignalWithoutWeights, fakes.LinearSpace, fakes.MeanOfLogarithms, fakes.SumOfWeights,
    fakes.NegativeBound,
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN_BOUNDS, ids=lambda kind: kind.__name__)
def test_a_broken_bound_is_caught(broken: type[Bound]) -> None:
    assert bound_faults(broken())


# --- estimators -----------------------------------------------------------------------------------------------------


def test_pairs_hold_every_model_and_every_family() -> None:
    """What no other part accepts is tested with nothing."""
    named = [one.name.split(" x ") for one in pairs()]
    assert {model for model, _ in named} == set(models())
    assert {family for _, family in named} == set(trained_families())


@pytest.mark.parametrize("name", names("estimator"))
def test_every_estimator(name: str) -> None:
    """On every model, family and bound that it accepts, of which there is at least one."""
    found = estimator_faults(conf_estimator(name))
    assert found
    assert {combination: faults for combination, faults in found.items() if faults} == {}


@pytest.mark.parametrize("name", ["exact", "detached_latent", "detached_mean", "diffusion_simple"])
def test_an_estimator_with_its_sign_flipped_is_caught(name: str) -> None:
    """A new estimator, unbiased or not, in every combination; the others are told from their negative above."""
    found = estimator_faults(Flipped(conf_estimator(name)))
    assert found and all(found.values())


class Flipped(fakes.Scaled):
    """An estimator that descends, with what the right one says of itself."""

    def __init__(self, right: Estimator):
        super().__init__(right, -1.0)
        self.check, self.bias = right.check, right.bias  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["closed_form_kl", "diffusion_variational", "exact"])
def test_a_gradient_divided_by_one_sample_more_is_caught(name: str) -> None:
    right = conf_estimator(name)
    wrong = fakes.Scaled(right, 6 / 7)
    wrong.check = right.check  # type: ignore[method-assign]
    found = estimator_faults(wrong)
    assert any(any("biased" in fault for fault in faults) for faults in found.values())

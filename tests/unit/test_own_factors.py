"""Mistakes of a model of the user's own: the shape of each factor, and what keeps its steps from being replayed."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tests import fakes
from vi_core.datasets.base import Data
from vi_core.errors import Unsupported
from vi_core.execution.functional import Watching
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.problem import check_factors, fits
from vi_core.training.batches import Batches

VALUES = {"loc": 1.7, "scale": 0.6, "concentration": 5.0, "rate": 12.0}
SHAPES = {
    "summed over replicates": (lambda value: value.sum(dim=1), r"\(2, 1\)"),
    "a number": (lambda value: value.sum(), r"\(\)"),
    "no tensor": (lambda value: 3.0, "float"),
    "an event axis": (lambda value: value.unsqueeze(-1), r"\(2, 3, 1, 1\)"),
}


def batches(model: NormalGamma) -> Batches:
    data = Data(torch.tensor([0.3, 1.2, -0.4], dtype=torch.float64), "three numbers")
    return Batches(data, model, None, torch.Generator())


@pytest.mark.parametrize("wrong", SHAPES)
def test_a_factor_of_a_wrong_shape_is_named(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, the model passes; the random stream does not move."""
    model, family = NormalGamma(), fakes.normal_gamma_family(VALUES, 3)
    before = torch.get_rng_state()
    check_factors(model, family, batches(model), 2)
    assert torch.equal(before, torch.get_rng_state())
    change, shown = SHAPES[wrong]
    genuine = NormalGamma.factors

    def factors(self: NormalGamma, z: Any, x: Any) -> Any:
        found = genuine(self, z, x)
        return found | {"prior_mu": (change(found["prior_mu"][0]), found["prior_mu"][1])}

    monkeypatch.setattr(NormalGamma, "factors", factors)
    with pytest.raises(Unsupported, match=f"'prior_mu' is {shown}.*\\(2, 3, 1\\) is needed"):
        check_factors(model, family, batches(model), 2)


def test_a_factor_of_shared_latents_has_no_axis_of_points() -> None:
    assert fits(torch.Size((2, 3, 1)), torch.Size((2, 3, 7))) and fits(torch.Size((2, 3, 7)), torch.Size((2, 3, 7)))
    assert not fits(torch.Size((2, 1, 7)), torch.Size((2, 3, 7)))


def test_checks_of_torchs_laws_are_named_as_what_looks_at_a_value() -> None:
    def density(loc: Tensor, checked: bool) -> Tensor:
        return Normal(loc, 1.0, validate_args=checked).log_prob(torch.zeros(()))

    with Watching():
        density(torch.zeros(3), checked=False)
    with pytest.raises(RuntimeError, match=r"looks at a value.*validate_args=False"), Watching():
        density(torch.zeros(3), checked=True)
    with pytest.raises(RuntimeError) as caught, Watching():
        torch.ones(()).item()
    assert "validate_args" not in str(caught.value)

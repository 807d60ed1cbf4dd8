"""The exact ELBO and its exact gradient, without samples.

The oracle that other estimators are tested against, and the objective of coordinate ascent and of natural-gradient
steps. Requires a model with a closed-form ELBO for the family.
"""

from typing import Any, cast

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.estimators.base import ELBOEstimator, Estimate
from vi_core.families.base import Family
from vi_core.models.base import HasExpectedBound, Model


class Exact(ELBOEstimator):
    """The closed-form ELBO, differentiated by autograd."""

    differentiates_draws = False
    name, needs, lacking = "exact", HasExpectedBound, "ELBO in closed form; use estimator=pathwise"

    def __init__(self):
        super().__init__()

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        value = cast(HasExpectedBound, model).expected_bound(family.variational(x), x)
        return Estimate(value.detach(), value, None, {})

    @torch.no_grad()
    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        return self(model, family, bound, x).bound

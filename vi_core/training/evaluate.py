"""Values of bounds, with no gradient: held-out data while training, and the final q with many fresh samples."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.datasets.base import Data
from vi_core.estimators.base import Estimator
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.training.checkpoint import random_state, restore_random_state, same_draws_after
from vi_core.types import Latents

PREDICTIVE_DRAWS = 100  # of q, for the predictive density while training
POINTS_AT_ONCE = 1000  # data points in a call, for the sake of memory


def log_weights(model: Model, family: Family, x: Any, num_samples: int) -> Tensor:
    """Return log-weights of fresh draws from q, without gradients.

    Args:
        x: A batch as the model sees it.
        num_samples: K.

    Returns:
        log p(x, z_k) − log q(z_k) for z_1..z_K ~ q(z | x), with shape (K, *batch).
    """
    with torch.no_grad():
        q = family.distribution(family.variational(x))
        z = q.sample(num_samples)
        return model.log_joint(z, x) - q.log_prob(z)


class HasPoints(Protocol):
    """A model with a likelihood for each data point, given latents that all share."""

    def log_likelihood_of_points(self, z: Latents, x: Any) -> Tensor:
        """Return log p(y_n | z), (K, R, 1, B)."""
        ...


def log_predictive(model: HasPoints, family: Family, x: Any, draws: int = PREDICTIVE_DRAWS) -> Tensor:
    """Return log E_q[p(y_n | z)] of each data point, (R, B), from draws of q."""
    with torch.no_grad():
        z = family.distribution(family.variational()).sample(draws)
        return (model.log_likelihood_of_points(z, x).logsumexp(dim=0) - math.log(draws)).squeeze(1)


def held_out_density(model: HasPoints, family: Family, data: Data) -> Tensor:
    """Return the log predictive density per data point on the held-out part, or on all data, (R,).

    The random stream is put back afterwards.
    """
    points = data.train if data.test is None else data.test
    with same_draws_after(points.device):
        parts = [log_predictive(model, family, data.decode(stored)).sum(-1) for stored in points.split(POINTS_AT_ONCE)]
    return torch.stack(parts).sum(dim=0) / len(points)


def held_out_bound(estimator: Estimator, model: Model, family: Family, bound: Bound, data: Data) -> Tensor:
    """Return the bound per data point averaged over the held-out part, or over all data where there is none.

    The random stream is put back afterwards: evaluating does not change what training draws.

    Returns:
        (R,) one number for each replicate.
    """
    points = data.train if data.test is None else data.test
    state = random_state(points.device)
    try:
        batches = [
            estimator.value(model, family, bound, data.decode(stored)).sum(dim=1)
            for stored in points.split(POINTS_AT_ONCE)
        ]
    finally:
        restore_random_state(state, points.device)
    return torch.stack(batches).sum(dim=0) / len(points)

"""Supports of latent variables, each with its smooth bijection from unconstrained space.

A density p(z) on a support becomes a density on all of R^n by z = T(u), with the log-determinant of the change of
variables: log p(u) = log p(T(u)) + log|det ∂T/∂u|. Full-rank and flow families live in that space. The maps T are

    real                  z = u
    positive              z = exp(u)
    unit interval         z = sigmoid(u)
    bounded               z = low + (high − low) sigmoid(u)
    ordered               z_1 = u_1,  z_k = z_{k−1} + exp(u_k)
    simplex               z_k = v_k Π_{j<k} (1 − v_j),  v_k = sigmoid(u_k − log(n − k + 1)),  for n + 1 coordinates
    correlation Cholesky  L_ij = r_ij √Π_{k<j} (1 − r_ik²),  r = tanh(u),  the factor of a correlation matrix L Lᵀ

A one-hot vector is discrete and has no such map. Constraints and most maps are those of `torch.distributions`; its
log-determinants of the last two are written anew in terms of u alone, because those in terms of z are infinite where
rounding puts z on the boundary. Stan Reference Manual, chapter "Constraint Transforms".
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import CorrCholeskyTransform, StickBreakingTransform
from torch.nn import functional as F

from vi_core.errors import Unsupported, require


@dataclass(frozen=True)
class Support:
    """A set of values, with the bijection from unconstrained space onto its interior; two are equal by their names.

    Leading axes of u and z are batch axes: all methods work elementwise over them, and under `torch.func.vmap`.

    Args:
        name: What messages call the support.
        constraint: Test of membership, `constraint.check(z)`.
        bijection: The map from unconstrained space; None for a discrete support.
    """

    name: str
    constraint: constraints.Constraint = field(compare=False, repr=False)
    bijection: Transform | None = field(compare=False, repr=False)

    @property
    def discrete(self) -> bool:
        """Whether the values are isolated points, which gradients cannot move."""
        return self.bijection is None

    @property
    def event_dims(self) -> int:
        """Number of axes of one value: 0 for numbers, 1 for vectors, 2 for matrices."""
        return self.constraint.event_dim

    def transform(self, u: Tensor) -> Tensor:
        """Map unconstrained u, (..., *unconstrained_shape), to values z on the support, (..., *shape)."""
        return self._smooth(u)

    def inverse(self, z: Tensor) -> Tensor:
        """Map values z inside the support, (..., *shape), to unconstrained u, (..., *unconstrained_shape)."""
        return self._smooth.inv(z)

    def log_abs_det_jacobian(self, u: Tensor, z: Tensor) -> Tensor:
        """Return log|det ∂z/∂u| of each value, at u and z = transform(u): (...), without the axes of one value."""
        return self._smooth.log_abs_det_jacobian(u, z)

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of u for values z with a shape; ValueError where no value has that shape."""
        return tuple(self._smooth.inverse_shape(shape))

    @property
    def _smooth(self) -> Any:  # torch does not annotate what transforms return
        if self.bijection is None:
            raise Unsupported(f"a latent with {self.name} support is discrete and has no unconstrained space.")
        return self.bijection


class _StickBreaking(StickBreakingTransform):
    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_k log v_k + (n − k + 1) log(1 − v_k): each stick v_k shortens itself and the n − k after it."""
        left = torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device)
        logits = x - left.log()
        return (F.logsigmoid(logits) + left * F.logsigmoid(-logits)).sum(dim=-1)


class _CorrelationCholesky(CorrCholeskyTransform):
    def _call(self, x: Tensor) -> Tensor:
        """Put r = tanh(u) below the diagonal by its places; torch does it by a mask, with which no step is replayed."""
        count, eps = x.shape[-1], torch.finfo(x.dtype).eps
        size = round((1 + math.sqrt(1 + 8 * count)) / 2)
        places = torch.full((size, size), count, device=x.device)  # of the zero that follows the numbers
        row, column = torch.tril_indices(size, size, offset=-1, device=x.device)
        places[row, column] = torch.arange(count, device=x.device)
        numbers = F.pad(x.tanh().clamp(-1 + eps, 1 - eps), (0, 1))
        r = numbers.index_select(-1, places.flatten()).unflatten(-1, (size, size))
        left = (1 - r.square()).sqrt().cumprod(dim=-1)
        return (r + torch.eye(size).to(r)) * F.pad(left[..., :-1], (1, 0), value=1.0)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor, intermediates: None = None) -> Tensor:
        """Σ_ij (1 + (i − 1 − j)/2) log(1 − r_ij²) over rows i and columns j < i, counted from 0."""
        row, column = torch.tril_indices(y.shape[-2], y.shape[-1], offset=-1, device=x.device)
        return ((row - column + 1) * (math.log(2) - torch.logaddexp(x, -x))).sum(dim=-1)


class _Increasing(constraints.Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value.diff(dim=-1) > 0).all(dim=-1)


class _CumulatedSteps(Transform):
    domain, codomain, bijective = constraints.real_vector, _Increasing(), True

    def _call(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., :1], x[..., 1:].exp()], dim=-1).cumsum(dim=-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.cat([y[..., :1], y.diff(dim=-1).log()], dim=-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x[..., 1:].sum(dim=-1)


def bounded(low: float, high: float) -> Support:
    """Return the support of numbers between two finite bounds; `ConfigError` unless low < high."""
    require(-math.inf < low < high < math.inf, f"bounded({low}, {high}) must have finite bounds, the lower one first.")
    interval = constraints.interval(low, high)
    return Support(f"bounded({low}, {high})", interval, biject_to(interval))


real = Support("real", constraints.real, biject_to(constraints.real))
positive = Support("positive", constraints.positive, biject_to(constraints.positive))
unit_interval = Support("unit-interval", constraints.unit_interval, biject_to(constraints.unit_interval))
simplex = Support("simplex", constraints.simplex, _StickBreaking())
ordered = Support("ordered", _CumulatedSteps.codomain, _CumulatedSteps())
correlation_cholesky = Support("correlation-Cholesky", constraints.corr_cholesky, _CorrelationCholesky())
one_hot = Support("one-hot", constraints.one_hot, None)

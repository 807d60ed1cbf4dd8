"""Laws of `torch.distributions` as parts of a model: their supports, how densities are mapped, and values by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Geometric,
    Independent,
    Multinomial,
    MultivariateNormal,
    Normal,
    biject_to,
    constraints,
)
from torch.nn.functional import logsigmoid

from vi_core.distributions import supports
from vi_core.distributions.supports import Support
from vi_core.errors import DataError, Unsupported, did_you_mean
from vi_core.types import sum_last

Values = dict[str, Tensor]  # one value of each latent, or the columns of the data, by name
Prior = Distribution | Callable[[Values], Distribution]  # a law, or a function of the latents that were declared before

NAMED = {
    type(constraints.real): supports.real,
    type(constraints.simplex): supports.simplex,
    type(constraints.corr_cholesky): supports.correlation_cholesky,
}
HALF_LINES = (type(constraints.positive), type(constraints.nonnegative), type(constraints.greater_than(0.0)))


@contextmanager
def unvalidated() -> Iterator[None]:
    """Context manager: laws made inside check neither parameters nor values, which mapped code cannot do."""
    before = getattr(Distribution, "_validate_args")  # noqa: B009  no public function returns it
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def log_density(law: Distribution, value: Tensor) -> Tensor:
    """Return `law.log_prob(value)`, of three laws in a form that `torch.func.vmap` maps well, with logits η:

        Bernoulli      (y − 1) η + log sigmoid(η)
        Geometric      y log sigmoid(−η) + log sigmoid(η)
        Multinomial    log (Σ_i y_i)! − Σ_i log y_i! + Σ_i y_i η_i,  with 0 η_i = 0

    Mapped, torch's own form of the first takes twice as long, a fifth of a step of a logistic regression. Those of the
    others put numbers in place of some by a mask, which cannot be mapped.
    """
    if type(law) is Independent:
        return sum_last(log_density(law.base_dist, value), law.reinterpreted_batch_ndims)
    if type(law) is Bernoulli and "logits" in vars(law):
        return (value - 1) * law.logits + logsigmoid(law.logits)
    if type(law) is Geometric:
        return value * logsigmoid(-law.logits) + logsigmoid(law.logits)
    if type(law) is Multinomial:
        orders = torch.lgamma(value.sum(dim=-1) + 1) - torch.lgamma(value + 1).sum(dim=-1)
        return orders + torch.where(value == 0, 0.0, value * law.logits).sum(dim=-1)
    return law.log_prob(value)


def observations(value: Tensor, z: Values) -> Tensor:
    """Return observed values, also whole numbers, in the floating type of the latents, which densities need."""
    return value if value.is_floating_point() else value.to(next(iter(z.values())).dtype)


def as_normal(law: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return the mean m and a lower triangular W of a law N(m, (WᵀW)⁻¹) of D numbers; None for another law.

    m is (D,), in the order of a flattened draw, and W is (D,), its diagonal, or (D, D).
    """
    if type(law) is Independent:
        return as_normal(law.base_dist)
    if type(law) is Normal:
        return law.loc.flatten(), law.scale.reciprocal().flatten()
    if type(law) is MultivariateNormal:
        factor, identity = law.scale_tril, torch.eye(law.event_shape[0]).to(law.scale_tril)
        inverses = torch.linalg.solve_triangular(factor, identity, upper=False)
        return law.loc.flatten(), torch.block_diag(*inverses.reshape(-1, *identity.shape))
    return None


def kind_of(law: Distribution) -> str:
    """Return the name of a law, for messages: of one of independent numbers that of a number's."""
    return kind_of(law.base_dist) if isinstance(law, Independent) else type(law).__name__


def side_by_side(normals: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return m and W of independent laws that `as_normal` describes, as of one."""
    means, roots = zip(*normals, strict=True)
    if all(root.dim() == 1 for root in roots):
        return torch.cat(means), torch.cat(roots)
    return torch.cat(means), torch.block_diag(*(root.diag() if root.dim() == 1 else root for root in roots))


def support_of(law: Distribution, name: str) -> Support:
    """Return the support of a latent with a continuous law.

    Args:
        law: Its prior, with constant bounds.
        name: Of the latent, for messages.

    Raises:
        Unsupported: For a discrete law, or one without a bijection from unconstrained space.
    """
    constraint: Any = law.support
    while hasattr(constraint, "base_constraint"):  # of independent components, or of a mixture's
        constraint = constraint.base_constraint
    if constraint is None or constraint.is_discrete:
        raise Unsupported(
            f"the prior of '{name}' is the discrete law {type(law).__name__}, and gradients need a continuous one; "
            "sum the latent out in the likelihood."
        )
    if isinstance(constraint, HALF_LINES) and bool(_bound(constraint) == 0):
        return supports.positive
    if type(constraint) is type(constraints.unit_interval):  # one class for every interval, told apart by its bounds
        return _interval(constraint)
    known = NAMED.get(type(constraint))
    if known is not None:
        return known
    try:
        return Support(f"{constraint} of {name}", constraint, biject_to(constraint))
    except NotImplementedError:
        message = f"the prior of '{name}' has the support {constraint}, which no bijection reaches."
        raise Unsupported(f"{message} Use another parametrisation.") from None


def _bound(constraint: constraints.Constraint) -> float:
    bound: Any = getattr(constraint, "lower_bound", float("nan"))
    return float(bound) if not hasattr(bound, "numel") or bound.numel() == 1 else float("nan")


def _interval(constraint: constraints.Constraint) -> Support:
    low, high = getattr(constraint, "lower_bound"), getattr(constraint, "upper_bound")  # noqa: B009  torch has no types
    scalars = all(not hasattr(bound, "numel") or bound.numel() == 1 for bound in (low, high))
    if scalars and (float(low), float(high)) == (0.0, 1.0):
        return supports.unit_interval
    if scalars:
        return supports.bounded(float(low), float(high))
    return Support(f"between {low} and {high}", constraint, biject_to(constraint))


class Named(dict[str, Tensor]):
    """Values by name that note which are read, and refuse a name that is missing in one line.

    Args:
        values: Tensors by name.
        what: What the names are of, for the message: `latent` or `data`.
    """

    def __init__(self, values: Mapping[str, Tensor], what: str):
        super().__init__(values)
        self.what, self.read = what, set[str]()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()  # with a method of its own, `**z` and `dict(z)` read by __getitem__

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401  this is that method

    def values(self) -> Any:
        return [self[name] for name in self]

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def __missing__(self, name: str) -> Tensor:
        known = ", ".join(self) or "none"
        raise DataError(f"there is no {self.what} called '{name}'.{did_you_mean(name, self)} Known: {known}.")

"""What a `torch.distributions` law says about a latent variable: its support, and how its densities are mapped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributions import Distribution, biject_to, constraints

from vi_core.distributions import supports
from vi_core.distributions.supports import Support
from vi_core.errors import Unsupported

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

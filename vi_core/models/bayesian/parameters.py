"""Parameters of a model's laws, looked at once at draws from its prior.

Mapped code cannot check parameters: there a Normal of scale −1 has a density, and a fit of it looks like any other. So
prior and likelihood are called one by one at 16 draws from the prior, the same for each seed of a run, and each
parameter is held against the constraint that its law declares. The rule:

* A parameter that no latent moves must satisfy its constraint. Else the model is refused.
* A parameter that latents move is wrong at a draw where it is NaN, or lies outside of its constraint by more than 1e-6.
  Wrong at 4 draws or more, the model is refused: its prior puts mass where there is no law, and a posterior of what is
  left is not that of the model. Wrong at 1 to 3 draws, in the tails of the prior, it is fitted with a warning.
* A scale that rounds to 0 or overflows is no mistake: so does the exponential function of a latent with a wide prior.
* A matrix must have a Cholesky factor at every draw, as one of a batch without fails the batch.
"""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import lazy_property

from vi_core.errors import ConfigError

log = logging.getLogger(__name__)
DRAWS = 16  # from the prior
REFUSED = 4  # draws of them at which a parameter is wrong, from which on a model is refused
ROUNDING = 1e-6  # by which a parameter may lie outside of its bounds; torch allows as much of the sum of a simplex


class Parameter:
    """What was seen of one parameter of a law.

    Args:
        place: What messages call it, such as `scale of Normal for 'y'`.
        constraint: Of the law.
        value: At the first draw.
    """

    def __init__(self, place: str, constraint: Any, value: Tensor):
        self.place, self.constraint, self.first = place, constraint, value
        self.looks, self.wrong, self.moves, self.valid = 0, 0, False, True
        self.shown = ""

    def look(self, constraint: Any, value: Tensor) -> bool:
        """Note the value at a draw; return whether it is right, up to rounding."""
        same = value.shape == self.first.shape and torch.equal(value.nan_to_num(), self.first.nan_to_num())
        outside, invalid = outside_of(constraint, value), ~constraint.check(value)
        is_wrong = bool(outside.any())
        if not self.shown and bool(invalid.any()) and (self.valid or is_wrong):
            self.shown = first_element(value, outside if is_wrong else invalid)
        self.looks, self.wrong = self.looks + 1, self.wrong + is_wrong
        self.moves, self.valid = self.moves or not same, self.valid and not bool(invalid.any())
        return not is_wrong

    def complaint(self) -> str:
        """Return what is wrong with it, and what to do; empty where nothing is."""
        name, words = self.place.partition(" ")[0], wanted(self.constraint)
        if not self.moves:
            return "" if self.valid else f"{self.place} is {self.shown}, and must be {words}."
        if not self.wrong:
            return ""
        where = f"in {self.wrong} of {self.looks} draws from the prior"
        return f"{self.place} is {self.shown} {where}, and must be {words}; {remedy(name, self)}."


class Parameters:
    """The parameters of the laws that a method returns, at several draws.

    Args:
        owner: The method, for messages, such as `Logistic.likelihood`.
    """

    def __init__(self, owner: str):
        self.owner, self.seen = owner, dict[str, Parameter]()

    def look(self, name: str, law: Distribution) -> bool:
        """Look at the law of a latent or of an observed variable; return whether it is one, up to rounding."""
        right = True
        for place, constraint, value in parameters_of(law):
            place = f"{place} for '{name}'"
            known = self.seen.setdefault(place, Parameter(place, constraint, value))
            right &= known.look(constraint, value)
        return right

    def judge(self) -> None:
        """Raise `ConfigError` for the first parameter that is refused; warn of those that are wrong in the tails."""
        for parameter in self.seen.values():
            complaint = parameter.complaint()
            if complaint and (not parameter.moves or parameter.wrong >= REFUSED):
                raise ConfigError(f"{self.owner}: {complaint}")
            if complaint:
                log.warning("%s: %s", self.owner, complaint)


def parameters_of(law: Distribution) -> Iterator[tuple[str, Any, Tensor]]:
    """Yield what messages call each parameter, its constraint and its value; of a law made of others, theirs."""
    try:
        accepted: dict[str, Any] = dict(law.arg_constraints)
    except NotImplementedError:  # a law of the user's own that says nothing
        accepted = {}
    if not accepted:
        for inner in vars(law).values():
            if isinstance(inner, Distribution):
                yield from parameters_of(inner)
    for name, constraint in accepted.items():
        derived = name not in vars(law) and isinstance(getattr(type(law), name, None), lazy_property)
        if not derived and not constraints.is_dependent(constraint) and not is_matrix(constraint):
            yield f"{name} of {type(law).__name__}", constraint, torch.as_tensor(getattr(law, name)).detach()


def is_matrix(constraint: Any) -> bool:
    """Whether a parameter is a covariance or precision matrix, whose factor the law has computed already."""
    return isinstance(constraint, type(constraints.positive_definite))


def outside_of(constraint: Any, value: Tensor) -> Tensor:
    """Return where a parameter is NaN or violates a constraint by more than rounding."""
    bare = without_axes(constraint)
    low, high = (getattr(bare, bound, None) for bound in ("lower_bound", "upper_bound"))
    if bare.is_discrete or (low is None and high is None):
        return ~constraint.check(value)
    outside = value.isnan()
    if low is not None:
        outside = outside | (value < low - ROUNDING)
    return outside if high is None else outside | (value > high + ROUNDING)


def without_axes(constraint: Any) -> Any:
    """Return the constraint of single elements."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint


def first_element(value: Tensor, where: Tensor) -> str:
    """Return the first element of a value at which `where` holds; of a vector that is wrong as a whole, its numbers."""
    if not where.dim():
        return f"{value.item():g}" if value.numel() == 1 else str([round(v, 4) for v in value.flatten().tolist()[:6]])
    place = where.nonzero()[0]
    found = value[tuple(place)]
    return f"{first_element(found, where.new_ones(()))} at {place.tolist()}"


def wanted(constraint: Any) -> str:
    """Return a constraint in words."""
    bare = without_axes(constraint)
    low, high = (bound_in_words(getattr(bare, bound, None)) for bound in ("lower_bound", "upper_bound"))
    named = {
        type(constraints.simplex): "probabilities, of which none is negative",
        type(constraints.positive): "positive" if low == "0" else f"above {low}",
        type(constraints.nonnegative): f"at least {low}",
        type(constraints.real): "a number",
        type(constraints.lower_cholesky): "lower triangular with a positive diagonal",
        type(constraints.less_than(0.0)): f"below {high}",
        type(constraints.unit_interval): f"between {low} and {high}",
        type(constraints.half_open_interval(0.0, 1.0)): f"at least {low} and below {high}",
        type(constraints.nonnegative_integer): f"a whole number, at least {low}",
    }
    return named.get(type(bare), f"as {bare} says")


def bound_in_words(bound: Any) -> str:
    """Return a bound, a number or a tensor of them."""
    return f"{float(bound):g}" if bound is not None and torch.as_tensor(bound).numel() == 1 else str(bound)


def remedy(name: str, parameter: Parameter) -> str:
    """Return the usual way out for a parameter that latents move."""
    if "nan" in parameter.shown:
        return "look for the logarithm or root of a negative number, and for a division by zero"
    if name == "probs":
        return "use logits= in place of probs=, or a prior on probabilities, such as Beta or Dirichlet"
    if getattr(without_axes(parameter.constraint), "lower_bound", None) == 0:
        return "use a positive prior, such as HalfNormal, or compute it by torch.exp or softplus"
    return "use a prior with these bounds, or a transform onto them"

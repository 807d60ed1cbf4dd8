"""Contract of an algorithm: one iteration of a fit.

A step returns its metrics before the update, the bound first, each (R,). It never synchronises with the device: a
replicate whose bound or gradient is not finite is frozen by a mask, and the values of that moment are kept for the
error message.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.types import flatten

MOST_NAMED = 100  # parameters of a replicate that a history records one by one
Metrics = dict[str, Tensor]  # what a step reports, by name, each (R,)


class Step(nn.Module, ABC):
    """One iteration of an algorithm on R replicates; its state is `state_dict()` and torch's random state.

    Args:
        model: The target, whose own parameters move too.
        family: The variational family, with R replicates.
        bound: The objective.
        witnesses: Names of the W columns of `witness`, the bound first.

    Attributes:
        alive: Mask (R,) of the replicates that still move.
        good_steps: Number of steps that each replicate has made, (R,).
        start_gradients: Evaluations of the density, with a gradient, that the start of a replicate took.
        remedy: What to do where a replicate diverges, for messages.
        witness: Values (R, W) of the last step of each live replicate, and of the first non-finite step of the others.
    """

    alive: Tensor
    good_steps: Tensor
    witness: Tensor
    start_gradients = 0
    remedy = "Use a smaller optimizer.lr, or trainer.on_nonfinite=skip."

    def __init__(self, model: Model, family: Family, bound: Bound, witnesses: list[str]):
        super().__init__()
        self.model, self.family, self.bound, self.witnesses = model, family, bound, witnesses
        if not self.moving:
            raise Unsupported(f"neither {type(model).__name__} nor {type(family).__name__} has parameters to move.")
        like, replicates = self.moving[0].detach(), family.replicates
        self.register_buffer("alive", torch.ones(replicates, dtype=torch.bool, device=like.device))
        self.register_buffer("good_steps", torch.zeros(replicates, dtype=torch.long, device=like.device))
        self.register_buffer("witness", like.new_zeros(replicates, len(witnesses)))

    @abstractmethod
    def forward(self, x: Any) -> Metrics:
        """Update on data x; return the metrics before the update, the bound first, each (R,)."""

    @property
    def grad_norm(self) -> Tensor | None:
        """(R,) norm of the last gradient in unconstrained parameters, or None where there is none."""
        return None

    @property
    def moving(self) -> list[nn.Parameter]:
        """The unconstrained tensors that the algorithm moves."""
        return [*self.family.parameters(), *self.model.parameters()]

    def begin(self, x: Any) -> None:
        """Set the initial parameters from the whole data set x, where they are not those of the family."""

    def within(self, steps: int) -> None:
        """Prepare for a budget that ends training after so many steps, sooner than the settings do."""

    def kept(self, bounds: Tensor) -> Tensor:
        """Return the mask (R,) of the replicates that count as results, given their final bounds (R,)."""
        return self.alive

    def check(self) -> None:
        """Raise `LabError` where an invariant of the algorithm is violated; synchronises, called now and then."""

    def watch(self, seen: Tensor) -> None:
        """Copy `seen` (R, W) to `witness` for live replicates, and freeze those where it is not finite."""
        self.witness.copy_(torch.where(self.alive.unsqueeze(-1), seen, self.witness))
        self.alive.logical_and_(seen.isfinite().all(dim=-1))


def over_batch(value: Tensor) -> Tensor:
    """Average (R, B) over the batch, without arithmetic where B is 1."""
    return value.squeeze(1) if value.shape[1] == 1 else value.mean(dim=1)


def trace_parameters(step: Step) -> Tensor:
    """Return q's constrained parameters as (R, P) where the data points share them, else (R, 0).

    Where there are more than 100 they are too many to name, and the norm of each tensor stands for its elements.
    """
    if step.model.has_local:
        return step.witness.new_empty(len(step.alive), 0)
    with torch.no_grad():
        values = [value.flatten(1) for value in flatten(step.family.variational())]
        named = sum(value.shape[1] for value in values) <= MOST_NAMED
        return torch.cat(values if named else [value.norm(dim=1, keepdim=True) for value in values], dim=-1)


def recorded_parameters(step: Step) -> Tensor:
    """Return q's parameters and the norm of the last gradient, NaN where there is none, (R, P + 1)."""
    norm = step.grad_norm
    last = step.witness.new_full((len(step.alive),), torch.nan) if norm is None else norm
    return torch.cat([trace_parameters(step), last.unsqueeze(-1)], dim=-1)

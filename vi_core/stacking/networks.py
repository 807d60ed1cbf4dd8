"""Several runs with networks as one: weights are stacked, and every operation is done for all runs at once.

A network has one set of weights, so that its family takes no replicates. J problems of one form become one of J
replicates in another way: each parameter and buffer gets the runs as its first axis, and the estimate of one run is
mapped over it by `torch.func.vmap`. Each run has its own minibatches, in the order that it would have alone.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vi_core.algorithms.base import Metrics
from vi_core.algorithms.gradient import GradientStep, estimate
from vi_core.bounds.base import Bound
from vi_core.estimators.base import Estimator
from vi_core.execution.recording import tracing
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.optimizers.base import Optimizer
from vi_core.training.batches import Batches


class Parts(nn.Module):
    """What an estimate takes, as one module."""

    def __init__(self, model: Model, family: Family, estimator: Estimator, bound: Bound):
        super().__init__()
        self.model, self.family, self.estimator, self.bound = model, family, estimator, bound

    def forward(self, x: Any) -> tuple[Tensor, Metrics]:
        """Return what ascends, and the metrics."""
        return estimate(self.model, self.family, self.estimator, self.bound, x)

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name: each place where one is kept once, though two may keep the same."""
        alone: Any = {"recurse": False, "remove_duplicate": False}
        return {
            f"{path}.{name}": tensor
            for path, module in self.named_modules()
            for name, tensor in (*module.named_parameters(**alone), *module.named_buffers(**alone))
        }


class StackedStep(GradientStep):
    """A step of J problems of one form, whose networks have weights of their own.

    Args:
        steps: Of the single problems. Their parameters and buffers become views of the stacked ones, so that whatever
            looks at a single problem finds it as it is.
        optimizer: For all of them, not yet bound.
        shared: Whether all see the same data, instead of a batch each.
    """

    def __init__(self, steps: Sequence[GradientStep], optimizer: Optimizer, shared: bool):
        parts = stack([Parts(step.model, step.family, step.estimator, step.bound) for step in steps])
        parts.family.replicates = len(steps)
        super().__init__(parts.model, parts.family, parts.bound, parts.estimator, optimizer)
        self.along = None if shared else 0

    def estimate(self, x: Any) -> tuple[Tensor, Metrics]:
        parts = Parts(self.model, self.family, self.estimator, self.bound)

        def of_one(tensors: dict[str, Tensor], own: Any) -> tuple[Tensor, Metrics]:
            return torch.func.functional_call(parts, tensors, (own,), tie_weights=False)

        mapped = torch.func.vmap(of_one, in_dims=(0, self.along), randomness="different")
        with tracing():  # fused kernels know no axis of runs
            objectives, metrics = mapped(parts.tensors(), x)
        return objectives.sum(), {name: value.squeeze(1) for name, value in metrics.items()}


def stack(singles: Sequence[Parts]) -> Parts:
    """Return a copy of the first, with the tensors of all stacked; those of the single ones become views of it."""
    whole, single = deepcopy(singles[0]), [each.tensors() for each in singles]
    done: dict[int, Tensor] = {}  # by the tensor of the first: one that is kept in two places stays one
    for name, tensor in single[0].items():
        if id(tensor) not in done:
            together = torch.stack([each[name].detach() for each in single])
            for each, view in zip(single, together, strict=True):
                each[name].data = view
            done[id(tensor)] = nn.Parameter(together) if isinstance(tensor, nn.Parameter) else together
        owner, _, last = name.rpartition(".")
        setattr(whole.get_submodule(owner), last, done[id(tensor)])
    return whole


class StackedBatches(Batches):
    """The batches of J problems with the same data, each in its own order, stacked along a new first axis.

    Where a step sees all data, they are the same for all and not stacked.
    """

    def __init__(self, singles: Sequence[Batches]):
        vars(self).update(vars(singles[0]))  # data, sizes and decode are those of each
        self.singles = list(singles)

    def next_stored(self) -> tuple[Any, int]:
        if self.full is not None:
            return self.full, 1
        (first, size), *others = (each.next_stored() for each in self.singles)
        return torch.stack([first, *(stored for stored, _ in others)]), size

    def full_ahead(self, count: int) -> bool:
        return self.singles[0].full_ahead(count)

    def example(self) -> Any:
        return self.full if self.full is not None else torch.stack([each.example() for each in self.singles])

    def state_of(self, run: int) -> dict[str, Any]:
        return self.singles[run].state_dict()

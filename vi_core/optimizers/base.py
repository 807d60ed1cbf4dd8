"""The contract of an optimizer: tensors in, tensors moved, with a learning rate per replicate.

Gradients *ascend*. With R > 1 replicates every parameter has R as its first axis; a replicate that has diverged is dead
and no longer moves. State lives in buffers, so that `state_dict()` resumes a run bit for bit; the learning rate is a
setting and not state, and a `Schedule` may multiply it by a factor of the step. `torch.optim` knows no replicates; each
rule here is tested step by step against it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vi_core.errors import ConfigError, require
from vi_core.optimizers.schedules import Schedule

Rate = float | Sequence[float]
Metric = Callable[[], Tensor]
"""Returns the Fisher information on the stored parameters, (R, P, P), at their present values."""
Confine = Callable[[Tensor], Tensor]
"""Cuts a step of the first parameter, (R, 1, P), where it would leave the domain of what is stored there."""


class Optimizer(nn.Module, ABC):
    """A first-order rule λ ← λ + rate_t · direction_t, elementwise and per replicate.

    Args:
        lr: One learning rate, or one for each replicate.
        schedule: What multiplies it in the course of the run; None for nothing.
    """

    lr: Tensor
    metric: Metric | None = None
    confine: Confine | None = None

    def __init__(self, *, lr: Rate, schedule: Schedule | None = None):
        super().__init__()
        rates = torch.tensor(lr, dtype=torch.float64)
        valid = rates.numel() > 0 and bool((rates > 0).all()) and bool(rates.isfinite().all())
        require(valid, f"optimizer.lr={lr} must be positive and finite: one number, or one for each replicate.")
        self.register_buffer("lr", rates, persistent=False)
        self.schedule = schedule

    def bind(
        self,
        parameters: Sequence[Tensor],
        replicates: int,
        metric: Metric | None = None,
        confine: Confine | None = None,
    ) -> None:
        """Allocate state for `parameters`, whose first axis is R if `replicates` > 1; most rules ignore `metric`."""
        self.metric, self.confine = metric, confine
        if self.lr.dim() == 1 and len(self.lr) != replicates:
            raise ConfigError(
                f"optimizer.lr has {len(self.lr)} values for replicates={replicates}; "
                "give one value, or one for each replicate."
            )
        self.to(parameters[0].device, parameters[0].dtype)
        self.allocate(parameters)

    def allocate(self, parameters: Sequence[Tensor]) -> None:
        """Register a rule's own state; none by default."""

    @abstractmethod
    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the direction of each parameter, and advance the rule's state by a step."""

    def rate(self) -> Tensor:
        """Return the step size of the step that `directions` has begun, a scalar or (R,); asked once a step."""
        return self.lr if self.schedule is None else self.lr * self.schedule.next()

    def forward(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], alive: Tensor) -> None:
        """Move `parameters` in place along ascending `gradients`, where `alive` (R,) holds."""
        self.move(parameters, self.directions(gradients), alive)

    def move(self, parameters: Sequence[Tensor], directions: Sequence[Tensor], alive: Tensor) -> None:
        """Add rate · direction to each parameter in place, where `alive` (R,) holds."""
        rate = self.rate()
        for index, (parameter, direction) in enumerate(zip(parameters, directions, strict=True)):
            step = over_replicates(rate, parameter) * direction
            if self.confine is not None and index == 0:
                step = self.confine(step)
            parameter.add_(torch.where(over_replicates(alive, parameter), step, 0))

    def state(self, name: str, parameters: Sequence[Tensor]) -> None:
        """Register a zero buffer `<name>_<i>` for each parameter."""
        for index, parameter in enumerate(parameters):
            self.register_buffer(f"{name}_{index}", torch.zeros_like(parameter, requires_grad=False))

    def states(self, name: str, count: int) -> list[Tensor]:
        """Return the buffers that `state` registered."""
        return [self.get_buffer(f"{name}_{index}") for index in range(count)]


def over_replicates(value: Tensor, parameter: Tensor) -> Tensor:
    """Shape a scalar or (R,) tensor so that it broadcasts over `parameter` (R, ...)."""
    return value if value.dim() == 0 else value.reshape(-1, *(1,) * (parameter.dim() - 1))

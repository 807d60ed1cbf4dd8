"""Contract of an optimizer, which moves tensors in place with a learning rate for each replicate.

Steps *ascend* along gradients. With R > 1 replicates every parameter has R as its first axis; a diverged replicate is
masked and no longer moves. State is in buffers, so that `state_dict()` resumes a run bit for bit. The learning rate is
a setting and not state; a `Schedule` may multiply it by a factor of the step. `torch.optim` has no replicates; each
rule here is tested step by step against it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vi_core.optimizers.averaging import Averaging
from vi_core.optimizers.schedules import Schedule
from vi_core.per_replicate import PerReplicate, require_count, require_each

Information = Callable[[], Tensor]  # the Fisher information on the stored parameters at present, (R, P, P)
Confine = Callable[[Tensor], Tensor]  # cuts a step of the first parameter, (R, 1, P), at the border of its domain


class Optimizer(nn.Module, ABC):
    """A first-order rule λ ← λ + rate_t · direction_t, elementwise and per replicate.

    Args:
        lr: Learning rate; positive, one number or one for each replicate.
        schedule: Factors of the learning rate over the steps; None for a constant rate.
        averaging: What puts averages of iterates in the place of parameters; None for nothing.

    Attributes:
        information: Fisher information on the parameters, for rules that precondition with it.
        singular: Whether that is singular by nature, so that it has no inverse.
        confine: Projection of steps of the first parameter, for parameters that are constrained.
    """

    lr: Tensor
    information: Information | None = None
    singular: bool = False
    confine: Confine | None = None

    def __init__(self, *, lr: PerReplicate, schedule: Schedule | None = None, averaging: Averaging | None = None):
        super().__init__()
        self.schedule, self.averaging = schedule, averaging
        self.settings: list[str] = []
        self.setting("lr", lr, lambda rate: 0 < rate < math.inf, "must be positive and finite")

    def setting(self, name: str, number: PerReplicate, valid: Callable[[float], bool], words: str) -> None:
        """Store a setting as a buffer, a scalar or (R,), that is not in `state_dict()`.

        Args:
            name: Name of the setting and of the buffer.
            number: One number, or one for each replicate.
            valid: Whether a number is in range.
            words: The range, for the message of the `ConfigError` that is raised otherwise.
        """
        require_each(valid, number, f"optimizer.{name}={number} {words}: one number, or one for each replicate.")
        self.register_buffer(name, torch.tensor(number, dtype=torch.float64), persistent=False)
        self.settings.append(name)

    def bind(
        self,
        parameters: Sequence[Tensor],
        replicates: int,
        information: Information | None = None,
        confine: Confine | None = None,
        singular: bool = False,
    ) -> None:
        """Allocate state for parameters.

        Args:
            parameters: Tensors (R, ...), or of any shape for R = 1.
            replicates: R.
            information: Fisher information on the parameters, all in one tensor (R, 1, P).
            confine: Projection of steps of the first parameter.
            singular: Whether the information is singular by nature.
        """
        self.information, self.confine, self.singular = information, confine, singular
        for name in self.settings:
            value = self.get_buffer(name)
            if value.dim():
                require_count(len(value), replicates, f"optimizer.{name}")
        self.to(parameters[0].device, parameters[0].dtype)
        self.allocate(parameters)
        if self.averaging is not None:
            self.averaging.bind(parameters)

    def allocate(self, parameters: Sequence[Tensor]) -> None:
        """Register the state of a rule; none by default."""

    @abstractmethod
    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the direction of each parameter, and advance the rule's state by a step."""

    def rate(self) -> Tensor:
        """Return the step size, a scalar or (R,); called once a step, after `directions`."""
        return self.lr if self.schedule is None else self.lr * self.schedule.next()

    def forward(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], alive: Tensor) -> None:
        """Move `parameters` in place along ascending `gradients`, where `alive` (R,) holds."""
        self.move(parameters, self.directions(gradients), alive)

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Take in the parameters after a step, and put their average in their place where a stage ends."""
        if self.averaging is not None:
            self.averaging(parameters)

    def within(self, steps: int) -> None:
        """End schedule and averages after so many steps, where a budget ends the run sooner than they know."""
        for part in (self.schedule, self.averaging):
            if part is not None:
                part.within(steps)

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

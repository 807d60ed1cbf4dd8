"""Averages of iterates: at the end of a stage the parameters become the average of its last part.

A constant share of noise in each gradient keeps the iterates of a stochastic ascent moving around the optimum. Their
average is closer to it than any of them, by the root of their number in so far as they are independent (Polyak,
Juditsky 1992; for variational inference Dhaka et al. 2020, Welandawe, Andersen, Vehtari, Huggins 2022). Averages are
taken over unconstrained parameters: locations, logarithms of scales, entries of a Cholesky factor below its diagonal.

Stages are of doubling length, so that the last one is half of a run wherever that ends. All is a function of a counter
on the device, so that steps can be recorded and resumed.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vi_core.errors import require
from vi_core.optimizers.schedules import Schedule


def stage_ends(first: int, steps: int) -> list[int]:
    """Return the last step of each stage: stages of first, 2 first, 4 first, ... steps, the last one ending at `steps`.

    A last stage of less than half its length is a part of the one before.
    """
    ends = [first]
    while ends[-1] < steps:
        ends.append(2 * ends[-1] + first)
    ends = [end for end in ends if end < steps]
    if ends and 2 * (steps - ends[-1]) < ends[-1] + first:
        ends.pop()
    return [*ends, steps]


class Averaging(nn.Module, ABC):
    """Puts averages of iterates in the place of parameters, now and then."""

    @abstractmethod
    def bind(self, parameters: Sequence[Tensor]) -> None:
        """Allocate the averages."""

    @abstractmethod
    def forward(self, parameters: Sequence[Tensor]) -> None:
        """Take in the parameters after a step, and replace them in place where a stage ends."""

    @abstractmethod
    def within(self, steps: int) -> None:
        """End the last average after so many steps, where a budget ends the run there."""


class Tail(Averaging):
    """Averages the last part of each stage.

    Args:
        first: Steps of the first stage.
        steps: Steps of the run at most; the last stage ends there.
        share: Part of a stage that is averaged, in (0, 1].
    """

    ends: Tensor
    time: Tensor

    def __init__(self, *, first: int = 125, steps: int = 1000, share: float = 0.25):
        super().__init__()
        require(first >= 1, f"optimizer.averaging.first={first} must be at least 1.")
        require(steps >= 1, f"optimizer.averaging.steps={steps} must be at least 1.")
        require(0 < share <= 1, f"optimizer.averaging.share={share} must lie in (0, 1].")
        self.first, self.steps, self.share = first, steps, share
        self.register_buffer("ends", torch.tensor(stage_ends(first, steps)), persistent=False)
        self.register_buffer("time", torch.zeros((), dtype=torch.long))

    def bind(self, parameters: Sequence[Tensor]) -> None:
        for index, parameter in enumerate(parameters):
            self.register_buffer(f"average_{index}", torch.zeros_like(parameter, requires_grad=False))

    def within(self, steps: int) -> None:
        self.ends = torch.tensor(stage_ends(self.first, min(self.steps, steps)), device=self.ends.device)

    def forward(self, parameters: Sequence[Tensor]) -> None:
        self.time.add_(1)
        begin, end = stage(self.ends, self.time - 1)
        kept = ((end - begin) * self.share).ceil()
        count = (self.time - (end - kept)).clamp_min(1.0)  # of averaged iterates, 1 before the part begins
        for index, parameter in enumerate(parameters):
            average = self.get_buffer(f"average_{index}")
            average.lerp_(parameter, (1 / count).to(parameter.dtype))
            parameter.copy_(torch.where(self.time == end, average, parameter))


class Doubling(Schedule):
    """In each stage of doubling length the rate falls from lr to final · lr, by the same factor in each step.

    Args:
        first: Steps of the first stage.
        steps: Steps of the run at most; the last stage ends there.
        final: The factor at the end of a stage; positive.
    """

    ends: Tensor

    def __init__(self, *, first: int = 125, steps: int = 1000, final: float = 0.1):
        super().__init__()
        require(first >= 1, f"optimizer.schedule.first={first} must be at least 1.")
        require(steps >= 1, f"optimizer.schedule.steps={steps} must be at least 1.")
        require(final > 0, f"optimizer.schedule.final={final} must be positive.")
        self.first, self.steps, self.final = first, steps, final
        self.register_buffer("ends", torch.tensor(stage_ends(first, steps)), persistent=False)

    def within(self, steps: int) -> None:
        self.ends = torch.tensor(stage_ends(self.first, min(self.steps, steps)), device=self.ends.device)

    def factor(self, time: Tensor) -> Tensor:
        begin, end = stage(self.ends, time)
        return self.final ** ((time - begin) / (end - begin)).clamp_max(1.0)


def stage(ends: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return the steps before the stage of the step that follows `time` earlier ones, and those at its end, float64."""
    time, begins = time.unsqueeze(-1), torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])
    begin = torch.where(time >= begins, begins, 0).amax(dim=-1)
    return begin.double(), torch.where(time < ends, ends, ends[-1]).amin(dim=-1).double()

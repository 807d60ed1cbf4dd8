"""Learning-rate schedules: the rate of a step is lr times a factor.

The factor is a tensor on the device, computed from a counter of steps in `state_dict()`: a resumed run continues its
schedule, and a compiled or captured step reads the factor without being built anew.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vi_core.errors import require
from vi_core.per_replicate import require_positive

MOST_STAGES = 1000


class Schedule(nn.Module, ABC):
    """A sequence of factors, one for each step.

    Attributes:
        time: Number of steps that have begun, a scalar.
    """

    time: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("time", torch.zeros((), dtype=torch.long))

    def next(self) -> Tensor:
        """Return the factor of the next step, a scalar, and count the step."""
        factor = self.factor(self.time)
        self.time.add_(1)
        return factor

    @abstractmethod
    def factor(self, time: Tensor) -> Tensor:
        """Return the factors of the steps that follow `time` earlier steps, shaped as `time`."""

    def within(self, steps: int) -> None:
        """Reach the end after so many steps, where a budget ends the run there; nothing for rates without an end."""


class Staged(Schedule):
    """Stages i = 1..n of first · growth^(i−1) epochs, with the factor final^((i−1)/(n−1)); the last one goes on.

    The default is that of Burda, Grosse, Salakhutdinov 2015: 1, 3, 9, ..., 2187 epochs, 3,280 in all, with the rates
    lr · 10^(−(i−1)/7).

    Args:
        steps_per_epoch: Steps in a pass over the data; 1 where each step sees all of them. Known from the data.
        stages: n, from 2 to 1000.
        first: Epochs of the first stage; fractions are rounded to whole steps.
        growth: How many times longer each stage is than the one before.
        final: The factor of the last stage.
    """

    ends: Tensor
    factors: Tensor

    def __init__(
        self,
        steps_per_epoch: int = 1,
        /,
        *,
        stages: int = 8,
        first: float = 1.0,
        growth: float = 3.0,
        final: float = 0.1,
    ):
        super().__init__()
        require(
            2 <= stages <= MOST_STAGES,
            f"optimizer.schedule.stages={stages} must be at least 2, and at most {MOST_STAGES}.",
        )
        require_positive("optimizer.schedule", first=first, growth=growth, final=final)
        digits = math.log2(first) + (stages - 2) * max(0.0, math.log2(growth)) + math.log2(stages * steps_per_epoch)
        message = f"optimizer.schedule.first={first}, growth={growth} and stages={stages} give more than 2^62 steps."
        require(digits < 62, message)
        epochs = [sum(first * growth**i for i in range(stage)) for stage in range(1, stages)]
        ends = torch.tensor([round(total * steps_per_epoch) for total in epochs])
        factors = torch.tensor([final ** (stage / (stages - 1)) for stage in range(stages)], dtype=torch.float64)
        self.register_buffer("ends", ends, persistent=False)
        self.register_buffer("factors", factors, persistent=False)

    def factor(self, time: Tensor) -> Tensor:
        stage = (time.unsqueeze(-1) >= self.ends).sum(dim=-1)
        return self.factors.index_select(0, stage.reshape(-1)).reshape(stage.shape)  # take() cannot be compiled


class Decay(Schedule):
    """A rate that falls by the same factor in every step: final^(t/steps), and `final` after the last of them.

    Args:
        steps: Steps over which the rate falls; at least 1.
        final: The last factor; positive.
    """

    def __init__(self, *, steps: int = 10_000, final: float = 0.1):
        super().__init__()
        require(steps >= 1, f"optimizer.schedule.steps={steps} must be at least 1.")
        require_positive("optimizer.schedule", final=final)
        self.steps, self.final = steps, final

    def within(self, steps: int) -> None:
        self.steps = min(self.steps, steps)

    def factor(self, time: Tensor) -> Tensor:
        return self.final ** (time.double() / self.steps).clamp_max(1.0)

"""Rules that end a run before its last step.

A rule looks at the run every `window` steps and says for which replicates it holds; the run has converged when it holds
for all live ones. A single small step says nothing of convergence, so every rule measures over its window.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vi_core.errors import require


class StoppingRule(nn.Module, ABC):
    """A rule with its state in buffers, so that it resumes.

    Args:
        window: Steps between two looks; None never looks.
    """

    def __init__(self, window: int | None):
        super().__init__()
        require(window is None or window >= 1, f"trainer.stopping.window={window} must be at least 1.")
        self.window = window

    def bind(self, parameters: Sequence[Tensor], replicates: int) -> None:
        """Allocate state for the unconstrained `parameters` of R replicates."""

    def observe(self, bound: Tensor) -> None:
        """Take in the bound (R,) of one step; no synchronisation."""

    @abstractmethod
    def holds(self, parameters: Sequence[Tensor]) -> Tensor:
        """Return (R,) whether the rule holds at the end of a window, and begin the next one."""


class Fixed(StoppingRule):
    """Run all steps."""

    def __init__(self):
        super().__init__(None)

    def holds(self, parameters: Sequence[Tensor]) -> Tensor:
        raise AssertionError("a rule without a window is never asked")


class ParameterChange(StoppingRule):
    """Stop when no unconstrained parameter has moved by `tolerance` over `window` steps.

    The rule of Ranganath, Gerrish, Blei 2014, algorithms 1 and 2 ("until change of λ is less than 0.01"), on a window.

    Args:
        window: Steps over which the change is measured.
        tolerance: Largest absolute change of any parameter.
    """

    last: Tensor

    def __init__(self, *, window: int = 1000, tolerance: float = 0.01):
        super().__init__(window)
        require(tolerance > 0, f"trainer.stopping.tolerance={tolerance} must be positive.")
        self.tolerance = tolerance

    def bind(self, parameters: Sequence[Tensor], replicates: int) -> None:
        self.replicates = replicates
        self.register_buffer("last", flat(parameters, replicates))

    def holds(self, parameters: Sequence[Tensor]) -> Tensor:
        now = flat(parameters, self.replicates)
        change = (now - self.last).abs().amax(dim=1)
        self.last = now
        return change < self.tolerance


class Plateau(StoppingRule):
    """Stop when the bound, averaged over a window, has not risen by `tolerance` for `patience` windows.

    Args:
        window: Steps that are averaged.
        patience: Windows without a new best.
        tolerance: Nats by which a new best must exceed the old one.
    """

    total: Tensor
    best: Tensor
    stale: Tensor

    def __init__(self, *, window: int = 500, patience: int = 3, tolerance: float = 0.01):
        super().__init__(window)
        require(patience >= 1, f"trainer.stopping.patience={patience} must be at least 1.")
        require(tolerance >= 0, f"trainer.stopping.tolerance={tolerance} must not be negative.")
        self.span, self.patience, self.tolerance = window, patience, tolerance

    def bind(self, parameters: Sequence[Tensor], replicates: int) -> None:
        start = torch.zeros(replicates, dtype=parameters[0].dtype, device=parameters[0].device)
        self.register_buffer("total", start)
        self.register_buffer("best", torch.full_like(start, -torch.inf))
        self.register_buffer("stale", torch.zeros_like(start, dtype=torch.long))

    def observe(self, bound: Tensor) -> None:
        self.total = self.total + bound

    def holds(self, parameters: Sequence[Tensor]) -> Tensor:
        mean = self.total / self.span
        better = mean > self.best + self.tolerance
        self.best = torch.where(better, mean, self.best)
        self.stale = torch.where(better, 0, self.stale + 1)
        self.total = torch.zeros_like(self.total)
        return self.stale >= self.patience


class Settled(StoppingRule):
    """Stop at the end of a stage that moved neither the bound nor any parameter, in stages of doubling length.

    Where parameters are averages of iterates, and a stage is twice as long as the one before, what the next stage would
    gain is at most about what the last one gained (Welandawe, Andersen, Vehtari, Huggins 2022 predict it likewise).

    Args:
        window: Steps of the first stage.
        gain: Nats by which the bound may have risen over the stage; the bound is averaged over its last `window` steps.
        movement: Largest change of any unconstrained parameter, between the ends of the last two stages.
    """

    looks: Tensor
    last: Tensor
    bound: Tensor
    total: Tensor

    def __init__(self, *, window: int = 125, gain: float = 0.05, movement: float = 0.1):
        super().__init__(window)
        require(gain > 0, f"trainer.stopping.gain={gain} must be positive.")
        require(movement > 0, f"trainer.stopping.movement={movement} must be positive.")
        self.span, self.gain, self.movement = window, gain, movement

    def bind(self, parameters: Sequence[Tensor], replicates: int) -> None:
        like = parameters[0].detach()
        self.register_buffer("looks", torch.zeros((), dtype=torch.long))
        self.register_buffer("total", like.new_zeros(replicates))
        self.register_buffer("bound", like.new_full((replicates,), -torch.inf))
        self.register_buffer("last", flat(parameters, replicates))

    def observe(self, bound: Tensor) -> None:
        self.total = self.total + bound

    def holds(self, parameters: Sequence[Tensor]) -> Tensor:
        mean, self.total, self.looks = self.total / self.span, torch.zeros_like(self.total), self.looks + 1
        looks = int(self.looks)
        if looks & (looks + 1):  # stages end after 1, 3, 7, 15, ... windows
            return torch.zeros_like(mean, dtype=torch.bool)
        now = flat(parameters, len(mean))
        held = ((now - self.last).abs().amax(dim=1) < self.movement) & (mean - self.bound < self.gain)
        self.last, self.bound = now, mean
        return held


def flat(parameters: Sequence[Tensor], replicates: int) -> Tensor:
    """Return the parameters of each replicate in one row, (R, P)."""
    return torch.cat([p.detach().reshape(replicates, -1) for p in parameters], dim=1)

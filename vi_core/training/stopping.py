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
        self.register_buffer("last", self._flat(parameters))

    def holds(self, parameters: Sequence[Tensor]) -> Tensor:
        now = self._flat(parameters)
        change = (now - self.last).abs().amax(dim=1)
        self.last = now
        return change < self.tolerance

    def _flat(self, parameters: Sequence[Tensor]) -> Tensor:
        return torch.cat([p.detach().reshape(self.replicates, -1) for p in parameters], dim=1)


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

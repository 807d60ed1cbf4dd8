"""The trainer's settings, and what they come to for a given problem."""

from dataclasses import dataclass
from itertools import count
from typing import Literal

from vi_core.errors import require
from vi_core.training.stopping import StoppingRule

Mode = Literal["auto", "eager", "replay", "cuda_graph", "compiled"]  # how steps are made: see vi_core.execution
MOST_ROWS = 100_000
MOST_DRAWS = 1_000_000  # of a gradient, one after the other, before the first step
CHECKPOINTS = 10


@dataclass(frozen=True)
class Plan:
    """Numbers of steps, all resolved."""

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int

    @property
    def rows(self) -> int:
        """Rows that the trace can have, with one for a last partial interval."""
        return self.steps // self.log_every + 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """How long to train, and what to do on the way.

    Args:
        steps: Number of steps, or None to count in epochs.
        epochs: Number of passes over the data, or None to count in steps.
        limit: Stop after at most this many steps, whatever `steps` or `epochs` say.
        max_gradients: Stop before a replicate has taken more gradients of the density than this, its start included;
            None for no limit.
        max_seconds: End training after this time, as Ctrl-C does; None for no limit.
        log_every: Steps in a row of the trace, or `auto`: as few as keep the trace within 100,000 rows.
        eval_every: Epochs between evaluations on held-out data; 0 for none. Full-batch runs have none.
        checkpoint_every: Steps between checkpoints, or `auto`: ten in a run.
        on_nonfinite: What to do when a bound or gradient is not finite: `raise`, `stop`, or `skip` (freeze it).
        final_samples: Draws from which the final bound is estimated where it has no closed form, and its diagnostics.
        likelihood_samples: Importance samples per held-out point that estimate its log p(x) at the end; 0 for none.
        gradient_draws: Gradient estimates whose noise is measured at the first and at the last parameters, and at
            checkpoints; 0 for none.
        execution: How steps are made: `eager` by Python, `replay` from a list of their operations (on a processor),
            `cuda_graph` from a graph of kernels (on a CUDA device), `compiled` to machine code; `auto` replays or takes
            a CUDA graph in all but short runs, and machine code where an earlier run has stored it.
        stopping: When to end before the last step.
    """

    steps: int | None = 10_000
    epochs: int | None = None
    limit: int | None = None
    max_gradients: int | None = None
    max_seconds: float | None = None
    log_every: int | Literal["auto"] = "auto"
    eval_every: int = 1
    checkpoint_every: int | Literal["auto"] = "auto"
    on_nonfinite: Literal["raise", "stop", "skip"] = "raise"
    final_samples: int = 1000
    likelihood_samples: int = 0
    gradient_draws: int = 0
    execution: Mode = "auto"
    stopping: StoppingRule

    def __post_init__(self) -> None:
        require(
            (self.steps is None) != (self.epochs is None),
            f"trainer.steps={self.steps} and trainer.epochs={self.epochs}: set one of them, and the other to null.",
        )
        for name in ("steps", "epochs", "limit", "max_gradients", "final_samples"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"trainer.{name}={value} must be at least 1.")
        seconds = self.max_seconds
        require(seconds is None or seconds > 0, f"trainer.max_seconds={seconds} must be positive.")
        for name in ("log_every", "checkpoint_every"):
            every = getattr(self, name)
            require(isinstance(every, str) or every >= 1, f"trainer.{name}={every} must be at least 1, or auto.")
        draws = self.gradient_draws
        valid = draws == 0 or 2 <= draws <= MOST_DRAWS
        require(valid, f"trainer.gradient_draws={draws} must be 0, for none, or from 2 to {MOST_DRAWS}.")
        for name in ("eval_every", "likelihood_samples"):
            require(getattr(self, name) >= 0, f"trainer.{name}={getattr(self, name)} must not be negative.")

    def plan(self, steps_per_epoch: int, replicates: int, spent: int = 0, each: int = 1) -> Plan:
        """Resolve every number of steps.

        Args:
            steps_per_epoch: Known from the data.
            replicates: R.
            spent: Gradients that the start of a replicate has taken.
            each: Gradients of a replicate in a step.
        """
        steps = self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch
        steps = min(steps, self.limit or steps)
        if self.max_gradients is not None:
            steps = min(steps, max(1, (self.max_gradients - spent) // each))
        every, saving = self.log_every, self.checkpoint_every
        log_every = _interval(steps, replicates, steps_per_epoch) if every == "auto" else every
        eval_every = self.eval_every * steps_per_epoch if steps_per_epoch > 1 else 0
        return Plan(steps, log_every, eval_every, max(1, steps // CHECKPOINTS) if saving == "auto" else saving)


def _interval(steps: int, replicates: int, steps_per_epoch: int) -> int:
    """Return the least interval that keeps the trace within `MOST_ROWS` rows.

    It is one of 1, 2, 5, 10, ..., or with minibatches a divisor or a multiple of an epoch.
    """
    least = max(1, -(-steps * replicates // MOST_ROWS))
    if steps_per_epoch > 1:
        divisor = next((d for d in range(least, steps_per_epoch) if steps_per_epoch % d == 0), None)
        return divisor or -(-least // steps_per_epoch) * steps_per_epoch
    return next(m * 10**e for e in count() for m in (1, 2, 5) if m * 10**e >= least)

"""Several runs in one loop: each has a share of the replicates, and ends where it would have ended alone.

The loop drives all replicates as one batch and knows of no shares. A `Shares` stands between them as its stopping rule,
its progress and its reason to end: whenever the loop looks, the runs that have converged or diverged, were interrupted
or are through are cut out of its state. What is cut out is the content of the checkpoint of a run of its own, from
which another `Loop` goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vi_core.training.loop import Loop, Status
from vi_core.training.recorder import Recorder
from vi_core.training.stopping import StoppingRule

State = Mapping[str, Tensor]


class End(NamedTuple):
    """How and with what a run ended; the rows of its trace are still with the others'."""

    status: Status
    done: int
    rows: int
    step: State
    stopping: State
    sums: Tensor | None
    """(metrics, replicates of the run), of the interval that was open."""
    weight: int
    batches: dict[str, Any]


@dataclass
class Share:
    """One of the runs.

    Attributes:
        replicates: Which of the batch's are its own.
        step, stopping: The states of its own step and rule, bound to its own replicates: they say what is cut, and how.
        end: Set when it ends.
    """

    replicates: slice
    step: State
    stopping: State
    end: End | None = None


class Shares(StoppingRule):
    """The runs of a batch, which ends when all of them have.

    Args:
        rule: Says when a run has converged; bound to all replicates.
        shares: The runs.
        on_nonfinite: Of each run. With `skip` one ends when all its replicates have diverged, else with the first.
        requested: Whether to interrupt all runs.
    """

    loop: Loop

    def __init__(self, rule: StoppingRule, shares: Sequence[Share], on_nonfinite: str, requested: Callable[[], bool]):
        super().__init__(rule.window)
        self.rule, self.shares, self.on_nonfinite, self.requested = rule, list(shares), on_nonfinite, requested

    def bind(self, parameters: Sequence[Tensor], replicates: int) -> None:
        self.rule.bind(parameters, replicates)

    def observe(self, bound: Tensor) -> None:
        self.rule.observe(bound)

    def holds(self, parameters: Sequence[Tensor]) -> Tensor:
        held = self.rule.holds(parameters)
        self._look(held.cpu())
        return torch.full_like(held, self._all_ended())

    def progress(self, done: int, recorder: Recorder) -> None:
        """End the runs that have diverged, and at the last step all that are left."""
        self._look(torch.zeros(self._replicates, dtype=torch.bool))
        if done == self.loop.plan.steps:
            self._end_all("completed")

    def interrupted(self) -> bool:
        """End all runs that are left if that is requested; return whether none is left.

        A run that raises does so at its next checkpoint, if that comes before the next look.
        """
        if self.on_nonfinite == "raise" and self.loop.done % self.loop.plan.checkpoint_every == 0:
            self._look(torch.zeros(self._replicates, dtype=torch.bool))
        if self.requested():
            self._end_all("interrupted")
        return self._all_ended()

    def contents(self) -> list[tuple[Status, dict[str, Any]]]:
        """Return how each run ended, and its checkpoint but for the random state; after the end of the loop."""
        self._end_all("diverged")  # the loop ends by itself when no replicate is left
        recorded = self.loop.recorder.state_dict()
        return [self._content(share, recorded) for share in self.shares]

    @property
    def _replicates(self) -> int:
        return len(self.loop.step.alive)

    def _all_ended(self) -> bool:
        return all(share.end for share in self.shares)

    def _end_all(self, status: Status) -> None:
        for share in self.shares:
            share.end = share.end or self._cut_out(share, status)

    def _look(self, held: Tensor) -> None:
        """End the runs that have diverged or, where `held` (R,) holds for their live replicates, converged."""
        alive = self.loop.step.alive.cpu()
        for share in (share for share in self.shares if share.end is None):
            live, ready = alive[share.replicates], held[share.replicates]
            lost = not bool(live.any()) if self.on_nonfinite == "skip" else not bool(live.all())
            if lost or bool((ready | ~live).all()):
                share.end = self._cut_out(share, "diverged" if lost else "converged")

    def _cut_out(self, share: Share, status: Status) -> End:
        loop, recorder = self.loop, self.loop.recorder
        step = cut(loop.step.state_dict(), share.step, share.replicates)
        stopping = cut(self.rule.state_dict(), share.stopping, share.replicates)
        sums = None if recorder.sums is None else recorder.sums[:, share.replicates].clone()
        batches = loop.batches.state_of(self.shares.index(share))
        return End(status, loop.done, recorder.rows, step, stopping, sums, recorder.weight, batches)

    def _content(self, share: Share, recorded: dict[str, Any]) -> tuple[Status, dict[str, Any]]:
        assert share.end is not None
        end, rows, own = share.end, slice(0, share.end.rows), share.replicates
        return end.status, {
            "done": end.done,
            "ended": end.status if end.status in ("converged", "diverged") else None,
            "checksum": self.loop.checksum,
            "seconds": self.loop.seconds / len(self.shares),
            "step": end.step,
            "stopping": end.stopping,
            "recorder": recorded
            | {
                "values": recorded["values"][rows, :, own].clone(),
                "parameters": recorded["parameters"][rows, own].clone(),
                "held_out": recorded["held_out"][: end.rows + 1, own].clone(),
                "steps": recorded["steps"][rows].clone(),
                "seconds": recorded["seconds"][rows].clone(),
                "sums": end.sums,
                "weight": end.weight,
            },
            "batches": end.batches,
            "execution": self.loop.execution.state_dict(),
        }


def cut(state: State, like: State, replicates: slice) -> dict[str, Tensor]:
    """Return a copy of `state` with `replicates` alone, wherever `like`, a state of so many replicates, has fewer.

    What is stacked has an axis more than in `like`, where a run has one replicate.
    """
    return {
        name: (value if value.shape == like[name].shape else value[replicates].reshape(like[name].shape)).clone()
        for name, value in state.items()
    }

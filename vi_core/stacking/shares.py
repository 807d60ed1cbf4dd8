"""Several runs in one loop: each has a share of the replicates, and ends where it would have ended alone.

The loop drives all replicates as one batch. The callback `Shares` cuts the runs that have converged or diverged, were
interrupted or are complete out of the loop's state, whenever the loop looks at the device. What is cut out is the
content of the checkpoint of a run of its own, from which another `Loop` goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vi_core.training.callbacks import Callback
from vi_core.training.loop import Loop, Status

State = Mapping[str, Tensor]


class End(NamedTuple):
    """How and with what a run ended; the rows of its history are still with the others'.

    Attributes:
        sums: (metrics, replicates of the run), of the interval that was open.
    """

    status: Status
    done: int
    rows: int
    step: State
    stopping: State
    sums: Tensor | None
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


class Shares(Callback):
    """The runs of a batch, whose loop freezes replicates that diverge and ends when `all_ended`.

    Args:
        shares: The runs.
        on_nonfinite: Of each run. With `skip` one ends when all its replicates have diverged, else with the first.
    """

    def __init__(self, shares: Sequence[Share], on_nonfinite: str):
        self.shares, self.on_nonfinite = list(shares), on_nonfinite

    def on_rows(self, loop: Loop, rows: slice) -> None:
        self._look(loop)

    def on_checkpoint(self, loop: Loop) -> None:
        """End the runs that raise now, as alone they do at a checkpoint; when training has ended, all that are left."""
        if self.on_nonfinite == "raise":
            self._look(loop)
        if loop.status is not None:
            for share in self.shares:
                share.end = share.end or self._cut_out(loop, share, loop.status)

    def all_ended(self) -> bool:
        """Whether no run is left."""
        return all(share.end for share in self.shares)

    def contents(self, loop: Loop) -> list[tuple[Status, dict[str, Any]]]:
        """Return how each run ended, and the content of its checkpoint but for the random state.

        Args:
            loop: After its end. Its seconds are divided among the runs.
        """
        recorded = loop.recorder.state_dict()
        return [self._content(loop, share, recorded) for share in self.shares]

    def _look(self, loop: Loop) -> None:
        """End the runs that have diverged or, where the rule holds for their live replicates, converged."""
        alive = loop.step.alive.cpu()
        held = torch.zeros_like(alive) if loop.held is None else loop.held.cpu()
        for share in (share for share in self.shares if share.end is None):
            live, ready = alive[share.replicates], held[share.replicates]
            lost = not bool(live.any()) if self.on_nonfinite == "skip" else not bool(live.all())
            if lost or bool((ready | ~live).all()):
                share.end = self._cut_out(loop, share, "diverged" if lost else "converged")

    def _cut_out(self, loop: Loop, share: Share, status: Status) -> End:
        recorder = loop.recorder
        step = cut(loop.step.state_dict(), share.step, share.replicates)
        stopping = cut(loop.stopping.state_dict(), share.stopping, share.replicates)
        sums = None if recorder.sums is None else recorder.sums[:, share.replicates].clone()
        batches = loop.batches.state_of(self.shares.index(share))
        return End(status, loop.done, recorder.rows, step, stopping, sums, recorder.weight, batches)

    def _content(self, loop: Loop, share: Share, recorded: dict[str, Any]) -> tuple[Status, dict[str, Any]]:
        assert share.end is not None
        end, rows, own = share.end, slice(0, share.end.rows), share.replicates
        return end.status, {
            "done": end.done,
            "ended": end.status if end.status in ("converged", "diverged") else None,
            "checksum": loop.checksum,
            "seconds": loop.seconds / len(self.shares),
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
            "execution": loop.execution.state_dict(),
        }


def cut(state: State, like: State, replicates: slice) -> dict[str, Tensor]:
    """Return a copy of `state` with `replicates` alone, wherever `like`, a state of so many replicates, has fewer.

    What is stacked has an axis more than in `like`, where a run has one replicate.
    """
    return {
        name: (value if value.shape == like[name].shape else value[replicates].reshape(like[name].shape)).clone()
        for name, value in state.items()
    }

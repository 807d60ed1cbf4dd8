"""Several runs in one loop: each has a share of the replicates, and ends where it would have ended alone.

The loop drives all replicates as one batch. The callback `Shares` cuts the runs that have converged or diverged, were
interrupted or are complete out of the loop's state, whenever the loop looks at the device. What is cut out is the
content of the checkpoint of a run of its own, from which another `Loop` goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vi_core.training.callbacks import Callback
from vi_core.training.loop import Loop, Status

State = Mapping[str, Tensor]


@dataclass
class Share:
    """One of the runs.

    Attributes:
        replicates: Which of the batch's are its own.
        step, stopping: The states of its own step and rule, bound to its own replicates: they say what is cut, and how.
        end: Set when it ends: why, and the content of its checkpoint, but for what `Shares.contents` adds.
    """

    replicates: slice
    step: State
    stopping: State
    end: tuple[Status, dict[str, Any]] | None = None


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
        seconds, found = loop.seconds / len(self.shares), [share.end for share in self.shares if share.end]
        common = {"checksum": loop.checksum, "seconds": seconds, "execution": loop.execution.state_dict()}
        return [(status, content | common) for status, content in found]

    def _look(self, loop: Loop) -> None:
        """End the runs that have diverged or, where the rule holds for their live replicates, converged."""
        alive = loop.step.alive.cpu()
        held = torch.zeros_like(alive) if loop.held is None else loop.held.cpu()
        for share in (share for share in self.shares if share.end is None):
            live, ready = alive[share.replicates], held[share.replicates]
            lost = not bool(live.any()) if self.on_nonfinite == "skip" else not bool(live.all())
            if lost or bool((ready | ~live).all()):
                share.end = self._cut_out(loop, share, "diverged" if lost else "converged")

    def _cut_out(self, loop: Loop, share: Share, status: Status) -> tuple[Status, dict[str, Any]]:
        return status, {
            "done": loop.done,
            "ended": status if status in ("converged", "diverged") else None,
            "step": cut(loop.step.state_dict(), share.step, share.replicates),
            "stopping": cut(loop.stopping.state_dict(), share.stopping, share.replicates),
            "recorder": loop.recorder.state_dict(share.replicates),
            "batches": loop.batches.state_of(self.shares.index(share)),
        }


def cut(state: State, like: State, replicates: slice) -> dict[str, Tensor]:
    """Return a copy of `state` with `replicates` alone, wherever `like`, a state of so many replicates, has fewer.

    What is stacked has an axis more than in `like`, where a run has one replicate.
    """
    return {
        name: (value if value.shape == like[name].shape else value[replicates].reshape(like[name].shape)).clone()
        for name, value in state.items()
    }

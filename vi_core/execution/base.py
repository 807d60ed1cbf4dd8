"""The protocol of executors, the record of the steps that one has made, and the plainest executor: eager steps."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vi_core.algorithms.base import Metrics, Step
from vi_core.training.batches import Batches
from vi_core.training.checkpoint import same_draws_after


class Rows(NamedTuple):
    """Metrics and parameters of some steps, for the trace.

    Attributes:
        names: Names of the M metrics.
        metrics: Metrics before each update, with shape (steps, M, R).
        parameters: q's parameters after the last update of each row of the trace, and the gradient's norm, with shape
            (rows, R, P + 1); empty where a row is longer than the steps.
    """

    names: list[str]
    metrics: Tensor
    parameters: Tensor


class NotStored(Exception):
    """No earlier run has left machine code of these steps."""


class Executor(Protocol):
    """A way to make steps: it changes the state of the step in place and returns what the trace records.

    Attributes:
        count: Steps in a call.
    """

    count: int

    def __call__(self, batches: Sequence[Any]) -> Rows:
        """Make one step on each of the stored batches, whose number is a multiple of `count`."""
        ...


class EagerSteps:
    """Eager steps: Python calls every tensor operation, one step in a call, on a batch of any size.

    Args:
        step: The algorithm.
        batches: Decodes a stored batch.
    """

    count = 1

    def __init__(self, step: Step, batches: Batches):
        self.step, self.decode = step, batches.decode

    def __call__(self, batches: Sequence[Any]) -> Rows:
        (stored,) = batches
        found = self.step(self.decode(stored))
        metrics = torch.stack(list(found.values())).unsqueeze(0)
        return Rows(list(found), metrics, metrics.new_empty(0))


def rehearse(step: Step, batches: Batches) -> Metrics:
    """Make one step and put state and random streams back; return its metrics.

    Tables that parts of the program build in their first step are in place afterwards.
    """
    state = {name: value.clone() for name, value in step.state_dict().items()}
    with same_draws_after(step.alive.device):
        try:
            return step(batches.decode(batches.example()))
        finally:
            step.load_state_dict(state)

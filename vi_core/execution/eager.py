"""Eager steps: Python calls every tensor operation, one step in a call."""

from collections.abc import Sequence
from typing import Any

import torch

from vi_core.algorithms.base import Step
from vi_core.execution.base import Rows
from vi_core.training.batches import Batches


class EagerSteps:
    """One eager step in a call, on a batch of any size.

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

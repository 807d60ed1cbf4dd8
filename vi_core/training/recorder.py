"""The trace of a run: rows of metrics in buffers on the device, read once at the end.

A row closes an interval of steps: metrics before the update, averaged over the interval and weighted by batch size;
parameters and gradient norm after its last update. Recording costs one addition per step and never synchronises.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.algorithms.base import Step, recorded_parameters
from vi_core.execution.base import Rows
from vi_core.training.history import History
from vi_core.types import column_names, flatten, unflatten


class Recorder:
    """Collect rows for at most `capacity` intervals.

    Args:
        step: The algorithm that is recorded.
        capacity: Rows to reserve.
    """

    def __init__(self, step: Step, capacity: int):
        self.step, self.rows = step, 0
        self.metrics: list[str] = []
        self.sums: Tensor | None = None
        self.weight = 0
        witness = step.witness
        self.parameters = witness.new_full((capacity, *recorded_parameters(step).shape), torch.nan)
        self.values: Tensor | None = None
        self.capacity = capacity
        self.held_out = witness.new_full((capacity, len(witness)), torch.nan)
        self.steps = np.zeros(capacity, dtype=np.int64)
        self.seconds = np.zeros(capacity)
        self.started = time.perf_counter()

    def observe_rows(self, rows: Rows, size: int, first: int) -> None:
        """Add several steps at once: whole rows, or a part of one.

        Args:
            rows: Metrics with shape (steps, M, R), and parameters with shape (rows, R, P + 1).
            size: Data points of each batch.
            first: Steps made before.
        """
        metrics, parameters, values = rows.metrics, rows.parameters, self._values(rows)
        steps, count = metrics.shape[0], parameters.shape[0]
        if not count:
            self.sums, self.weight = total(metrics.unbind(), size, self.sums), self.weight + steps * size
            return
        row, every = self.rows, steps // count
        if every > 1:
            metrics = total(metrics.unflatten(0, (count, every)).unbind(1), size) / (every * size)
        values.narrow(0, row, count).copy_(metrics)
        self.parameters.narrow(0, row, count).copy_(parameters)
        self.rows, counted = row + count, np.arange(1, count + 1)
        self.steps[row : self.rows] = every * counted + first
        before, now = self.seconds.item(row - 1) if row else 0.0, time.perf_counter() - self.started
        self.seconds[row : self.rows] = (now - before) / count * counted + before

    def _values(self, rows: Rows) -> Tensor:
        """Return where rows are kept, reserved when the first metrics come."""
        if self.values is None:
            self.metrics, like = rows.names, rows.metrics[0]
            self.values = like.new_full((self.capacity, *like.shape), torch.nan)
        return self.values

    def close_row(self, step: int) -> None:
        """End the interval at `step`."""
        assert self.sums is not None and self.values is not None
        row = self.rows
        self.values[row] = self.sums / self.weight
        self.parameters[row] = recorded_parameters(self.step)
        self.steps[row], self.seconds[row] = step, time.perf_counter() - self.started
        self.sums, self.weight, self.rows = None, 0, row + 1

    def record_held_out(self, value: Tensor) -> None:
        """Attach a held-out bound (R,) to the last row, or to the open one if its interval has begun."""
        self.held_out[self.rows if self.weight else self.rows - 1] = value

    def latest(self) -> Tensor:
        """Return the bound (R,) of the last row."""
        assert self.values is not None
        return self.values[self.rows - 1, 0]

    def trace(self, rows: slice = slice(None)) -> History:
        """Copy rows to the host, with names, and the expectations that the parameters imply.

        Args:
            rows: Which of the closed rows; all by default.

        Returns:
            T rows of R replicates; `held_out` is among the columns where one of the rows has an evaluation.
        """
        rows, values = slice(*rows.indices(self.rows)), self.values
        assert values is not None
        columns = {name: values[rows, i] for i, name in enumerate(self.metrics)}
        if self.parameters.shape[-1] > 1:
            columns |= self._named(self.parameters[rows, :, :-1])
        if self.step.grad_norm is not None:
            columns["grad_norm"] = self.parameters[rows, :, -1]
        if not bool(self.held_out[rows].isnan().all()):
            columns["held_out"] = self.held_out[rows]
        arrays = {name: value.cpu().numpy() for name, value in columns.items()}
        return History(self.metrics[0], self.steps[rows].copy(), self.seconds[rows].copy(), arrays)

    def _named(self, recorded: Tensor) -> dict[str, Tensor]:
        """Split recorded parameters (T, R, P) into named columns (T, R), elements numbered; or name norms."""
        with torch.no_grad():
            like = self.step.family.variational()
            if recorded.shape[-1] < sum(value[0].numel() for value in flatten(like)):
                return {f"norm({name})": recorded[..., i] for i, name in enumerate(column_names(like))}
            pieces = recorded.split([value.flatten(1).shape[1] for value in flatten(like)], dim=-1)
            shaped = [p.reshape(*recorded.shape[:2], *v.shape[2:]) for p, v in zip(pieces, flatten(like), strict=True)]
            params = unflatten([piece.unsqueeze(2) for piece in shaped], like)
            q = self.step.family.distribution(params)
            moments = q.moments() if self.step.model.reports_latents else {}
        named = dict(zip(column_names(like), shaped, strict=True))
        named |= {f"E[{latent}]": mean.squeeze(2) for latent, (mean, _) in moments.items()}
        return {name: value for base, tensor in named.items() for name, value in _elements(base, tensor)}

    def state_dict(self, own: slice = slice(None), first: int = 0) -> dict[str, Any]:
        """Return copies of the closed rows from number `first` on and of the open one, of the replicates `own`."""
        rows = slice(first, self.rows)
        return {
            "metrics": self.metrics,
            "values": None if self.values is None else self.values[rows, :, own].clone(),
            "parameters": self.parameters[rows, own].clone(),
            "held_out": self.held_out[first : self.rows + 1, own].clone(),
            "steps": torch.from_numpy(self.steps[rows].copy()),
            "seconds": torch.from_numpy(self.seconds[rows].copy()),
            "sums": None if self.sums is None else self.sums[:, own].clone(),
            "weight": self.weight,
            "elapsed": time.perf_counter() - self.started,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = len(state["steps"])
        rows = slice(0, self.rows)
        device = self.parameters.device
        self.metrics, self.weight = state["metrics"], state["weight"]
        self.sums = None if state["sums"] is None else state["sums"].to(device)
        if state["values"] is not None:
            recorded = state["values"].to(device)
            empty = recorded.new_full((self.capacity - self.rows, *recorded.shape[1:]), torch.nan)
            self.values = torch.cat([recorded, empty])
        self.parameters[rows] = state["parameters"]
        self.held_out[: self.rows + 1] = state["held_out"]
        self.steps[rows], self.seconds[rows] = state["steps"].numpy(), state["seconds"].numpy()
        self.started = time.perf_counter() - state["elapsed"]


def total(metrics: Sequence[Tensor], size: int, before: Tensor | None = None) -> Tensor:
    """Add up metrics of batches of `size`, one after the other, so that no way of making steps rounds differently."""
    for value in metrics:
        before = value * size if before is None else torch.add(before, value, alpha=size)
    assert before is not None
    return before


def _elements(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """Return (name, (T, R)) for a scalar, or one pair for each element of an event."""
    if value.dim() == 2:
        return [(name, value)]
    flat = value.flatten(2)
    return [(f"{name}[{i}]", flat[..., i]) for i in range(flat.shape[-1])]

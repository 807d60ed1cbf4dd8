"""Batches: what a step sees, the whole data set in its summary or minibatches drawn by indexing on the device.

Each epoch is one random permutation of the data, cut into batches; the last batch of an epoch may be smaller. There is
no loader process and no work per image.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch

from vi_core.datasets.base import Data, Typed
from vi_core.errors import Unsupported
from vi_core.models.base import Model


def steps_per_epoch(num_points: int, batch_size: int | None) -> int:
    """Return the number of batches in a pass over the data; 1 where a batch is all of them."""
    return 1 if batch_size is None else math.ceil(num_points / min(batch_size, num_points))


def converted(summary: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a summary of the data, a tensor or a named tuple of them, on another device and in another type."""
    if isinstance(summary, torch.Tensor):
        return summary.to(device, dtype) if summary.is_floating_point() else summary.to(device)
    if isinstance(summary, dict):
        return {name: converted(part, device, dtype) for name, part in summary.items()}
    return type(summary)(*(converted(part, device, dtype) for part in summary))


class Batches:
    """An endless stream of batches with a state that resumes.

    Args:
        data: Tensors on their device.
        model: Summarises a full data set; decides whether minibatches have a meaning.
        batch_size: None for the whole data set at each step.
        generator: Orders the minibatches.
        wide: Training points as they were read, in float64 on the CPU, where `data` has them in a narrower type.

    Attributes:
        full: What each step sees where that is the whole data set, else None.
        exact: The same in float64, from the points as they were read: exact answers are computed from it.
    """

    def __init__(
        self,
        data: Data,
        model: Model,
        batch_size: int | None,
        generator: torch.Generator,
        wide: torch.Tensor | None = None,
    ):
        self.data, self.generator = data, generator
        self.size = len(data.train) if batch_size is None else min(batch_size, len(data.train))
        self.steps_per_epoch = steps_per_epoch(len(data.train), batch_size)
        self.full: Any = None
        self.exact: Any = None
        model.check_data(data.decode(data.train[: self.size]))
        if batch_size is None:
            self.full = self.exact = model.summarize(data.decode(data.train))
            if wide is not None:
                self.exact = model.summarize(self._decode(wide, torch.float64))
                self.full = converted(self.exact, data.train.device, data.train.dtype)
        elif not model.has_points:
            raise Unsupported(
                f"dataset.batch_size={batch_size} needs a model whose density is a product over data points; "
                "use dataset.batch_size=null."
            )
        self.order = torch.empty(0, dtype=torch.long)
        self.position = 0

    def _decode(self, stored: torch.Tensor, dtype: torch.dtype) -> Any:
        decode = self.data.decode
        return (decode.with_dtype(dtype) if isinstance(decode, Typed) else decode)(stored)

    def whole(self, model: Model) -> Any:
        """Return the whole data set, as the model summarizes it, whatever a step sees."""
        return model.summarize(self.data.decode(self.data.train)) if self.full is None else self.full

    def sample(self, rows: int) -> Any:
        """Return data points at random, drawn from torch's default stream, as a step sees a batch of them."""
        if rows >= len(self.data.train):
            return self.data.decode(self.data.train)
        index = torch.randperm(len(self.data.train))[:rows].to(self.data.train.device)
        return self.data.decode(self.data.train.index_select(0, index))

    def blocks(self, rows: int) -> Iterator[tuple[Any, float]]:
        """Yield all data in batches of `rows` points, each with its share of the points."""
        for stored in self.data.train.split(rows):
            yield self.data.decode(stored), len(stored) / len(self.data.train)

    def next(self) -> tuple[Any, int]:
        """Return the next batch and its number of data points."""
        stored, size = self.next_stored()
        return self.decode(stored), size

    def decode(self, stored: Any) -> Any:
        """Return what a step sees of a stored batch; may draw random numbers."""
        return stored if self.full is not None else self.data.decode(stored)

    def next_stored(self) -> tuple[Any, int]:
        """Return the next batch as it is stored, with shape (B, *point), and its number of data points B.

        A summary of all data counts as one point.
        """
        if self.full is not None:
            return self.full, 1
        if self.position >= len(self.order):
            self.order = torch.randperm(len(self.data.train), generator=self.generator).to(self.data.train.device)
            self.position = 0
        index = self.order[self.position : self.position + self.size]
        self.position += len(index)
        return self.data.train.index_select(0, index), len(index)

    def full_ahead(self, count: int) -> bool:
        """Whether the next `count` batches are of full size and of one epoch."""
        left = len(self.order) - self.position
        return self.full is not None or (left or len(self.data.train)) >= count * self.size

    @property
    def weight(self) -> int:
        """Data points that count for a full batch: one for a summary of all."""
        return self.size if self.full is None else 1

    def example(self) -> Any:
        """Return a stored batch of full size, without moving on."""
        return self.data.train[: self.size] if self.full is None else self.full

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order.cpu(), "position": self.position, "generator": self.generator.get_state()}

    def state_of(self, run: int) -> dict[str, Any]:
        """Return the state for one of several runs that see these batches."""
        return self.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order = state["order"].to(self.data.train.device)
        self.position = state["position"]
        self.generator.set_state(state["generator"])

"""What a data set is: tensors, where they come from, and a checksum.

A `Dataset` holds the settings of one configuration file and reads or draws its tensors in `load`; the `Data` it returns
is all that the rest of the library sees. Batches are rows of `Data.train` passed through `Data.decode`, so images stay
bytes on the device until a batch of them is needed.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

POINTS_AT_ONCE = 1000
"""Data points decoded at once."""

Decode = Callable[[Tensor], Tensor]
"""A stored batch, with shape (B, *stored), to the batch that the model sees, with shape (B, *event)."""


@runtime_checkable
class Typed(Protocol):
    """A decode that chooses the floating type of its result, because what is stored is not floating."""

    def with_dtype(self, dtype: torch.dtype) -> Decode:
        """Return the same decode with results of type `dtype`."""
        ...


@runtime_checkable
class Random(Protocol):
    """A decode that draws what the model sees."""

    def expected(self, batch: Tensor) -> Tensor:
        """Return the expectation of the decode of a stored batch, (B, *event), with no draw."""
        ...


def identity(batch: Tensor) -> Tensor:
    """Return `batch` itself, with shape (B, *event): the decode of plain numbers."""
    return batch


@dataclass(frozen=True, eq=False)
class Data:
    """The tensors of one data set.

    train: x_1, ..., x_N, with shape (N, *stored): numbers as they are, images as uint8 with shape (N, pixels).
    test: held-out points in the same layout, or None.
    truth: generating parameters by latent name, {} where unknown.
    provenance: one line that says where the numbers come from.
    decode: a stored batch to what the model sees, on the batch's own device.
    image_shape: (rows, columns) of an image, or None.
    labels: the mixture component that each training point was drawn from, (N,), or None where unknown.
    columns: what the numbers of a point are called, for axes; () where they have no names.
    """

    train: Tensor
    test: Tensor | None
    truth: dict[str, float]
    provenance: str
    decode: Decode
    image_shape: tuple[int, int] | None
    labels: Tensor | None = None
    columns: tuple[str, ...] = ()

    @property
    def checksum(self) -> str:
        """First 16 hexadecimal digits of SHA-256 over dtype, shape and bytes of `train`; a cast by `to` changes it."""
        digest = hashlib.sha256(f"{self.train.dtype} {tuple(self.train.shape)} ".encode())
        digest.update(self.train.cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def mean(self) -> Tensor:
        """Return the mean of what the model sees of `train`, (*event), in expectation where `decode` draws it."""
        decode = self.decode.expected if isinstance(self.decode, Random) else self.decode
        total = sum(decode(rows).double().sum(dim=0) for rows in self.train.split(POINTS_AT_ONCE))
        assert isinstance(total, Tensor)
        return total / len(self.train)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Data":
        """Return the same data on `device`; floats, and the floats that `decode` gives, become `dtype`."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, dtype) if x.is_floating_point() else x.to(device)

        return replace(
            self,
            train=move(self.train),
            test=None if self.test is None else move(self.test),
            labels=None if self.labels is None else move(self.labels),
            decode=self.decode.with_dtype(dtype) if isinstance(self.decode, Typed) else self.decode,
        )


class Dataset(ABC):
    """Settings of one data set: the constructor's keywords are the keys of its YAML file.

    batch_size: rows in a step, or None for the whole data set at each step.
    """

    batch_size: int | None
    images: ClassVar[bool] = False
    """Whether the points are images: networks and float32 rather than small problems and float64."""

    @abstractmethod
    def load(self) -> Data:
        """Read or draw the tensors, on the CPU; the same settings give the same tensors."""

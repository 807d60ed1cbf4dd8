"""Base classes of data sets: `Dataset` holds settings, `Data` holds tensors with their provenance and a checksum.

A `Dataset` has the settings of one configuration file and reads or draws its tensors in `load`; the `Data` it returns
is all that the rest of the library sees. Batches are rows of `Data.train` passed through `Data.decode`, so images stay
bytes on the device until a batch of them is needed.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

import torch
from torch import Tensor

from vi_core.errors import ConfigError, Unsupported, require

POINTS_AT_ONCE = 1000  # data points decoded in one piece by `Data.mean`, which bounds its memory
RANGES = {"num_points": (1, None), "num_test": (1, None), "seed": (0, 2**63 - 1), "batch_size": (1, None)}
Decode = Callable[[Tensor], Any]  # a stored batch (B, *stored) -> what the model sees, (B, *event) or several by name


@runtime_checkable
class Typed(Protocol):
    """A decode with a choice of the floating type of its result, because what is stored are integers."""

    def with_dtype(self, dtype: torch.dtype) -> Decode:
        """Return the same decode with results of type `dtype`."""
        ...


@runtime_checkable
class Random(Protocol):
    """A stochastic decode: each call draws anew what the model sees, as dynamic binarization does."""

    def expected(self, batch: Tensor) -> Tensor:
        """Return the expectation of the decode of a stored batch, (B, *event), with no draw."""
        ...


@runtime_checkable
class WithConstants(Protocol):
    """A decode that adds tensors by name, which are the same for all rows."""

    constants: dict[str, Tensor]


def described(value: Tensor) -> bytes:
    """Return type and shape of a tensor as text."""
    return f"{value.dtype} {tuple(value.shape)} ".encode()


def identity(batch: Tensor) -> Tensor:
    """Return `batch` itself, with shape (B, *event): the decode of data that are stored as the model sees them."""
    return batch


@dataclass(frozen=True, eq=False)
class Data:
    """The tensors of one data set, and what is known about them.

    Attributes:
        train: Training points x_1, ..., x_N, with shape (N, *stored): numbers as they are, images as uint8 (N, pixels).
        provenance: One line that says where the numbers come from.
        test: Held-out points in the same layout, or None.
        truth: Generating parameters by latent name; empty where they are unknown.
        decode: Map from a stored batch to what the model sees, on the batch's own device.
        image_shape: (rows, columns) of a grey image, (rows, columns, 3) of a coloured one, or None for other data.
        levels: How many values a pixel can have after `decode`, or None for other data.
        labels: Mixture component that each training point was drawn from, (N,), or None where unknown.
        columns: Names of the numbers of a point, for the axes of figures; empty where they have none.
        features: Names of the columns of `x`, in their order, which the elements of a vector of slopes belong to.
        left_out: Names of columns of text, which the model does not see.
    """

    train: Tensor
    provenance: str
    test: Tensor | None = None
    truth: dict[str, float] = field(default_factory=dict)
    decode: Decode = identity
    image_shape: tuple[int, ...] | None = None
    levels: int | None = None
    labels: Tensor | None = None
    columns: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def checksum(self) -> str:
        """First 16 hexadecimal digits of SHA-256 over dtype, shape and bytes of `train`; a cast by `to` changes it.

        Constants that the decode adds by name are in it too.
        """
        digest = hashlib.sha256(described(self.train))
        digest.update(self.train.cpu().contiguous().view(torch.uint8).numpy().data)
        constants = self.decode.constants if isinstance(self.decode, WithConstants) else {}
        for name, value in sorted(constants.items()):
            digest.update(f"{name} ".encode() + described(value) + value.cpu().contiguous().numpy().tobytes())
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
    """Settings of one data set; `load` reads or draws its tensors.

    The constructor's keywords are the keys of the YAML file in conf/dataset. Data sets of this library are dataclasses,
    whose settings are checked here: those that many share (`num_points`, `num_test`, `seed`, `batch_size`) against
    `RANGES`, and others by the rule in their annotation, such as `Positive`.

    Attributes:
        batch_size: Rows in a step, or None for the whole data set at each step.
        images: Whether the points are images, which are modelled by networks in float32; other data are small problems
            in float64.
    """

    batch_size: int | None
    images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            if name in RANGES and not (getattr(self, name) is None and hint == int | None):
                whole(name, getattr(self, name), *RANGES[name])
            check(name, getattr(self, name), hint)

    @abstractmethod
    def load(self) -> Data:
        """Read or draw the tensors, on the CPU; the same settings give the same tensors.

        Raises:
            DataError: Where a file is missing, damaged or not what its checksum says.
        """

    def new_rows(self, path: Path) -> dict[str, Tensor]:
        """Return the rows of another file by name, in the form in which a model sees those of this data set.

        What a prediction needs is read, and the observed variable where the file has it.

        Raises:
            DataError: For a file that is not like the one of this data set, in one line.
            Unsupported: Where the data do not come from such a file.
        """
        raise Unsupported(f"{type(self).__name__} reads no other file; predictions need dataset=table, npz or json.")

    def classes(self) -> list[str] | None:
        """Return the class of each held-out point, or of each training point where none is held out, for figures.

        They are read at each call, as nothing that is trained sees them. None where the data have no classes.
        """
        return None


def check(name: str, value: Any, hint: Any) -> None:
    """Apply the rules in the annotation of a setting to its value, and to each element of a list."""
    options = get_args(hint)
    if get_origin(hint) is Annotated:
        for rule in options[1:]:
            rule(name, value)
    elif get_origin(hint) is Sequence:
        for element in value if isinstance(value, Sequence) else ():
            check(name, element, options[0])
    elif value is not None:
        for option in options:
            check(name, value, option)


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse `value` of `dataset.<name>` unless it is an integer from `least` to `most`.

    Raises:
        ConfigError: With the setting, its value and the bound that it breaks.
    """
    shown = f"dataset.{name}={value}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{shown} must be a whole number.")
    require(value >= least, f"{shown} must be at least {least}.")
    require(most is None or value <= most, f"{shown} must be at most {most}.")


def finite(name: str, value: object) -> None:
    """Refuse `value` of `dataset.<name>` with `ConfigError` unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"dataset.{name}={value} must be a finite number.")


def positive(name: str, value: float) -> None:
    """Refuse `value` of `dataset.<name>` with `ConfigError` unless it is a number above zero."""
    require(value > 0, f"dataset.{name}={value} must be above 0.")


Finite = Annotated[float, finite]
Positive = Annotated[float, finite, positive]

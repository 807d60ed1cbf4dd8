"""New rows for a fit: columns of the shapes and kinds that it had, and levels that it has seen."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from vi_core.errors import DataError, LabError


def as_in_the_fit(columns: Mapping[str, Tensor], fitted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return columns of new rows in the kinds of numbers, whole or floating, that the fit had.

    Args:
        columns: By name, (B, *shape).
        fitted: Those of the fit, (N, *shape).

    Raises:
        DataError: For another shape, fractions where there were whole numbers, or columns that differ in length.
    """
    rows = {name: _like(name, columns[name], like) for name, like in fitted.items() if name in columns}
    if len({len(value) for value in rows.values()}) > 1:
        shown = ", ".join(f"'{name}' {len(value)}" for name, value in rows.items())
        raise DataError(f"the new data differ in their numbers of rows: {shown}.")
    return rows


def _like(name: str, value: Tensor, like: Tensor) -> Tensor:
    """Return one column as the fit had it; raise `DataError` where it cannot be."""
    if value.dim() != like.dim() or value.shape[1:] != like.shape[1:]:
        wanted = ", ".join(["rows", *map(str, like.shape[1:])])
        comma = "" if like.dim() > 1 else ","
        raise DataError(
            f"new data '{name}' has shape {tuple(value.shape)}, and ({wanted}{comma}) is needed, as in the fit."
        )
    if like.is_floating_point():
        return value.double()
    if value.is_floating_point() and bool((value != value.round()).any()):
        raise DataError(f"new data '{name}' holds fractions, and the fit had whole numbers.")
    return value.long()


@contextmanager
def unseen_levels_named(rows: Mapping[str, Tensor], data: Mapping[str, Tensor]) -> Iterator[None]:
    """Context manager: where an index is out of bounds, the error names the level that the fit has not seen.

    Args:
        rows: New ones, by name.
        data: Those of the fit.
    """
    try:
        yield
    except LabError as error:
        for name, value in rows.items() if "out of bounds" in str(error) else ():
            seen = data.get(name)
            if seen is None or value.is_floating_point() or not bool((value > seen.max()).any()):
                continue
            place = (value > seen.max()).nonzero()[0].tolist()
            new, low, high = int(value[tuple(place)]), int(seen.min()), int(seen.max())
            raise DataError(
                f"new data '{name}' is {new} at {place}, and the fit has seen {low} to {high}: it knows nothing of "
                "others; leave these rows out, or fit with such rows."
            ) from error
        raise

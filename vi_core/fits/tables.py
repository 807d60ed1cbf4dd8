"""A table of numbers that a terminal and a notebook show."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Numbers by row and column, which a terminal and a notebook show.

    Attributes:
        columns: Their names.
        rows: Name -> numbers, in the order of the columns; None where there is none.
        title: A line above it.
    """

    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]
    title: str = ""

    def __getitem__(self, row: str) -> dict[str, float | None]:
        return dict(zip(self.columns, self.rows[row], strict=True))

    def _cells(self) -> list[list[str]]:
        def shown(value: float | None) -> str:
            return "" if value is None else f"{value:.4g}"

        return [["", *self.columns], *([name, *map(shown, row)] for name, row in self.rows.items())]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in cells
        ]
        return "\n".join([self.title, *lines] if self.title else lines)

    def _repr_html_(self) -> str:
        from html import escape

        head, *body = self._cells()
        heading = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        rows = ["".join([f"<th>{escape(row[0])}</th>", *(f"<td>{c}</td>" for c in row[1:])]) for row in body]
        lines = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><caption>{escape(self.title)}</caption><tr>{heading}</tr>{lines}</table>"

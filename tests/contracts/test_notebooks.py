"""The notebooks of docs/notebooks: their cells are run in order, without Jupyter, and hold no output.

A line that begins with `!vi-run` is the command line, and an object that a cell ends in is a figure or has a text.
"""

import ast
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from tests.conftest import ROOT, run_in

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def code_cells(notebook: dict[str, Any]) -> list[str]:
    """The sources of the cells of code."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, space: dict[str, Any], folder: Path) -> Any:
    """Run one cell in a folder; return what it ends in, as a notebook would show it, or None."""
    if source.startswith("!vi-run "):
        result = run_in(folder, *shlex.split(source.removeprefix("!vi-run ").replace("\\\n", " ")))
        assert (result.code, result.err) == (0, "")
        return None
    tree = ast.parse(source)
    last = tree.body[-1] if isinstance(tree.body[-1], ast.Expr) else None
    tree.body = tree.body[:-1] if last else tree.body
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(tree, "<cell>", "exec"), space)
        return eval(compile(ast.Expression(last.value), "<cell>", "eval"), space) if last else None


def run_notebook(notebook: dict[str, Any], folder: Path) -> list[Any]:
    """Run all cells in a folder; return what they end in."""
    space: dict[str, Any] = {"__name__": "__main__"}
    return [run_cell(source, space, folder) for source in code_cells(notebook)]


def untidy(notebook: dict[str, Any]) -> list[str]:
    """What a notebook should not hold: outputs, numbers of runs, and cells without an id."""
    cells = notebook["cells"]
    found = [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count") is not None]
    known = (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    unique = len({cell["id"] for cell in cells}) == len(cells)
    return found + ["format"] * (not known) + ["ids"] * (not unique)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    shown = run_notebook(json.loads(path.read_text()), tmp_path)
    assert sum(isinstance(one, Figure) for one in shown) >= 1
    for place, figure in enumerate(one for one in shown if isinstance(one, Figure)):
        figure.savefig(tmp_path / f"{place}.png")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_tidy_and_its_code_is_python(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert untidy(notebook) == []
    for source in code_cells(notebook):
        assert source.startswith("!vi-run ") or ast.parse(source)
    assert f"notebooks/{path.name}" in (ROOT / "docs" / "notebooks.md").read_text()


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"first_fit", "own_model", "own_images"}


def test_a_wrong_cell_and_an_untidy_notebook_are_caught(tmp_path: Path) -> None:
    code = {"cell_type": "code", "id": "a", "source": ["x = 2\n", "x"], "outputs": [], "execution_count": None}
    notebook = {"cells": [code], "nbformat": 4, "nbformat_minor": 5}
    assert (untidy(notebook), run_notebook(notebook, tmp_path)) == ([], [2])
    assert untidy(notebook | {"cells": [code | {"execution_count": 1}, code]}) == ["a", "ids"]
    with pytest.raises(AssertionError):
        run_notebook(notebook | {"cells": [code, code | {"source": ["assert x == 3"]}]}, tmp_path)

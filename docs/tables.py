"""The tables of parts and experiments in the documents, written from the YAML files and the docstrings.

`make docs-tables` writes them, between the comments `<!-- table: NAME -->` and `<!-- end of table -->` of each page,
and tests/contracts/test_documents.py fails where one is stale. So a new part is a Python file and a YAML file, and the
first lines of both are what its row says.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
NOT_PARTS = ("experiment", "plot", "recipe")
"""Groups with a table, or a place in a table, of their own."""
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def filled(text: str) -> str:
    """Return a page with its tables written anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def groups() -> str:
    """Return the table of groups, with the names of their parts."""
    chosen = {key: value for entry in _read(CONF / "config.yaml")["defaults"][1:] if isinstance(entry, dict)
              for key, value in entry.items()}  # fmt: skip
    rows = []
    for group, files in _groups().items():
        names = ", ".join(f"`{file.stem}`" for file in files)
        rows.append(
            (
                f"[`{group}`](parts.md#{_anchor(group)})",
                names,
                f"`{chosen[group] or 'null'}`" if group in chosen else "",
            )
        )
    return _table(("group", "parts", "default"), rows)


def parts() -> str:
    """Return a section for each group, with its parts, what they are, and their settings."""
    sections = []
    for group, files in _groups().items():
        rows = [(f"`{file.stem}`", _comment(file), _settings(_read(file))) for file in files]
        sections.append(f"## {group}\n\n{_table((f'`{group}=`', 'is', 'settings and their defaults'), rows)}")
    return "\n\n".join(sections)


def experiments() -> str:
    """Return the table of experiments in the order of the report page, those that are not on it last."""
    rows = [
        (f"`{name}`", _comment(_file(name)), _report(name).get("where", "–"), _duration(name)) for name in ordered()
    ]
    return _table(("`experiment=`", "is", "reproduces", "time on one core"), rows)


def reports() -> str:
    """Return the table of what the source reports have, with the command for each row."""
    cells = [
        (f"**{row['number']}** {row['where']}<br>{row['what']}", f"`{name}`", row["shows"], row["verdict"])
        for name, row in rows_of_reports()
    ]
    return _table(("report: question", "`experiment=`", "shows", "the report is"), cells)


TABLES: dict[str, Callable[[], str]] = {
    "groups": groups,
    "parts": parts,
    "experiments": experiments,
    "reports": reports,
}


def ordered() -> list[str]:
    """Return the names of the experiments in the order of the report page, those that are not on it last."""
    places = {path.stem: _report(path.stem).get("order") for path in CONF.glob("experiment/*.yaml")}
    return sorted(places, key=lambda name: (places[name] is None, places[name], name))


def rows_of_reports() -> list[tuple[str, dict[str, Any]]]:
    """Return what the source reports have, by number, each row with the name of the experiment that it is from."""
    found = [(name, row) for name in ordered() for row in _report(name).get("rows", [])]
    return sorted(found, key=lambda entry: entry[1]["number"])


def _groups() -> dict[str, list[Path]]:
    """Return the files of each group, `model` or `model/schedule`, in the order of conf/config.yaml."""
    order = [next(iter(entry)) for entry in _read(CONF / "config.yaml")["defaults"] if isinstance(entry, dict)]
    found: dict[str, list[Path]] = {}
    for path in sorted(CONF.glob("*/**/*.yaml")):
        found.setdefault(path.parent.relative_to(CONF).as_posix(), []).append(path)
    tops = {group: order.index(top) if (top := group.partition("/")[0]) in order else len(order) for group in found}
    return {group: found[group] for group in sorted(found, key=lambda g: (tops[g], g)) if group not in NOT_PARTS}


def _file(experiment: str) -> Path:
    return CONF / "experiment" / f"{experiment}.yaml"


def _report(experiment: str) -> dict[str, Any]:
    """Return the experiment's row on the report page."""
    return _read(_file(experiment)).get("report", {})


def _duration(experiment: str) -> str:
    """Return about how long an experiment takes, in the unit that fits."""
    minutes = _report(experiment).get("minutes", 0)
    if minutes < 1:
        return "under a minute" if _report(experiment).get("order") is not None else "–"
    amount, unit = next(
        (minutes / size, unit) for size, unit in ((1440, "days"), (60, "h"), (1, "min")) if minutes >= size
    )
    return f"{amount:.0f} {unit}"


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


def _comment(path: Path) -> str:
    """Return the comment at the top of a YAML file, or the first sentence of the docstring of the class it names."""
    lines = path.read_text().splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = " ".join(line.lstrip("# ") for line in lines[:end] if not line.startswith("# @package"))
    return text or _docstring(_read(path).get("_target_", "")).split("\n\n")[0].replace("\n", " ")


def _settings(part: dict[str, Any]) -> str:
    """Return the settings of a part, one a line: name, default, and what the constructor's docstring says of it."""
    meanings = _arguments(_docstring(part.get("_target_", "")))
    values = {name: value for name, value in part.items() if name not in ("_target_", "defaults")}
    chosen = (entry.items() for entry in part.get("defaults", []) if isinstance(entry, dict))
    nested = {name.removeprefix("override /"): choice for items in chosen for name, choice in items}
    own = {name: value for name, value in values.items() if name not in nested or value is not None}
    lines = [f"`{name}`: a part, `{choice or 'null'}`" for name, choice in nested.items()]
    return "<br>".join([*lines, *(_setting(name, value, meanings.get(name, "")) for name, value in own.items())])


def _setting(name: str, value: Any, meaning: str) -> str:
    """Return one setting; of a part inside a part its class."""
    if isinstance(value, dict) and "_target_" in value:
        return f"`{name}`: `{value['_target_'].rpartition('.')[2]}`"
    if isinstance(value, dict):
        return "<br>".join(_setting(f"{name}.{key}", inner, "") for key, inner in value.items())
    shown = "true" if value is True else "false" if value is False else "null" if value is None else value
    return f"`{name}` = {shown}" + (f": {meaning}" if meaning else "")


def _docstring(target: str) -> str:
    """Return the docstring of the class with a dotted name, read from its source, which is not imported."""
    module, _, name = target.rpartition(".")
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        return ""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
    return ""


def _arguments(docstring: str) -> dict[str, str]:
    """Return what the section `Args:` of a docstring says about each argument."""
    section = re.search(r"^Args:\n((?: +.*\n?|\n)*)", docstring, re.MULTILINE)
    entries = re.split(r"\n {4}(?=\S)", "\n" + section[1]) if section else []
    found = (re.match(r"([\w, ]+): (.*)", entry, re.DOTALL) for entry in entries)
    return {name.strip(): " ".join(m[2].split()) for m in found if m for name in m[1].split(",")}


def _anchor(group: str) -> str:
    """Return the anchor that Markdown gives a heading."""
    return group.replace("/", "")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown; a bar within a cell is escaped."""
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Write every table of the documents."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text()
        if filled(text) != text:
            path.write_text(filled(text))
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()

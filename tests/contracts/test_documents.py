"""The documents against the program: links lead somewhere, and every part and experiment is named where readers look.

Each rule is a function of a text, so that a text that breaks it is caught by the same function.
"""

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import tables
from tests.conftest import ROOT

CONF = ROOT / "conf"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def dead_links(text: str, folder: Path) -> list[str]:
    """Relative targets of links and images in a page of `folder` that do not exist."""
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text)
    return [target for target in targets if "://" not in target and not (folder / target).exists()]


def unknown_experiments(text: str) -> set[str]:
    """Names in commands of a page that are no experiments."""
    return set(re.findall(r"\bexperiment=(\w+)", text)) - set(tables.ordered())


def stale_tables(text: str) -> bool:
    """Whether a table of a page is not what `make docs-tables` would write now."""
    return tables.filled(text) != text


def make_targets(text: str) -> set[str]:
    """Targets in the commands `make <target>` of a page or a file of settings."""
    return set(re.findall(r"(?:`|run: |entry: |^)make ([a-z-]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page.read_text(), page.parent) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_experiments(page: Path) -> None:
    assert unknown_experiments(page.read_text()) <= {"short", "NAME"}  # examples of names of one's own


def test_readme_links_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [page.relative_to(ROOT).as_posix() for page in PAGES if page.name != "README.md"]
    assert [page for page in pages if f"]({page})" not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_sources(page: Path) -> None:
    assert not stale_tables(page.read_text()), "run `make docs-tables`"


def test_tables_hold_every_part_and_experiment() -> None:
    text = "".join(page.read_text() for page in PAGES if page.parent.name == "docs")
    groups = {f"## {path.parent.relative_to(CONF)}" for path in CONF.glob("*/**/*.yaml")} - {
        "## experiment",
        "## plot",
        "## recipe",
    }
    assert {group for group in groups if f"\n{group}\n" not in text} == set()
    names = [path.stem for path in CONF.glob("*/**/*.yaml") if path.parent.name not in ("plot", "recipe")]
    assert [name for name in names if f"\n| `{name}` |" not in text] == []


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", ".github/workflows/ci.yml", ".pre-commit-config.yaml"]
)
def test_make_has_the_targets_that_are_named(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert make_targets((ROOT / name).read_text()) <= targets


# --- docs/reports.md, which is written from the experiments' YAML ----------------------------------------------------

ROWS = 72
"""Systems, figures, tables and claims that were found in the reports."""
ELSEWHERE = {"blankets", "data:", "epoch_bound"}
"""Names in the rows that are no quantities under `estimates`: entries of summary.json, and a line of the terminal."""
Rows = list[tuple[str, dict[str, Any]]]


@cache
def rows_of_reports() -> Rows:
    return tables.rows_of_reports()


@cache
def checked(experiment: str) -> set[str]:
    """Quantities that an experiment checks."""
    expected = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text()).get("expected", [])
    return {item["quantity"].removeprefix("estimates.").rpartition(".")[0] for item in expected}


def row_faults(rows: Rows) -> list[str]:
    """Numbers missing or double, empty cells, names that no check or experiment has, figures without a text."""
    numbers, experiments = [row["number"] for _, row in rows], {path.stem for path in CONF.glob("experiment/*.yaml")}
    outputs = (ROOT / "docs" / "outputs.md").read_text()
    faults = [f"{n} is there {numbers.count(n)} times" for n in range(1, ROWS + 1) if numbers.count(n) != 1]
    for name, row in rows:
        faults += [
            f"{row['number']}: {cell} is empty" for cell in ("where", "what", "shows", "verdict") if not row[cell]
        ]
        text = f"{row['shows']} {row['verdict']}"
        figures = "".join(found[0] for found in re.finditer(r"figures? `\w+`((, | and )`\w+`)*", text))
        drawn = [
            each for each in re.findall(r"`(\w+)`", figures) if not re.search(rf"`(plots/)?{each}(\.png)?`", outputs)
        ]
        faults += [f"{row['number']}: figure `{each}`" for each in drawn]
        named = set(re.findall(r"`([^`]+)`", text)) - set(re.findall(r"`(\w+)`", figures))
        known = set().union(*(checked(each) for each in {name, *named} & experiments))
        faults += [f"{row['number']}: {each}" for each in sorted(named - known - experiments - ELSEWHERE)]
    return faults


def test_every_row_of_the_reports_has_its_command() -> None:
    assert row_faults(rows_of_reports()) == []


def test_a_row_that_is_missing_or_names_nothing_is_caught() -> None:
    rows = copy.deepcopy(rows_of_reports())
    assert row_faults(rows[1:]) == ["1 is there 0 times"]
    rows[0][1]["shows"] = "`evidence_decompositoin`, as in `bbvi_naiv`; figures `bound` and `buond`"
    assert row_faults(rows) == ["1: figure `buond`", "1: bbvi_naiv", "1: evidence_decompositoin"]


def test_changelog_names_every_experiment() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert [name for name in tables.ordered() if f"`{name}`" not in text] == []


def test_what_is_wrong_is_caught() -> None:
    text = "[a](README.md) [b](docs/none.md) ![c](docs/figures/none.png) [d](https://none.org) [e](none.md#part)"
    assert dead_links(text, ROOT) == ["docs/none.md", "docs/figures/none.png", "none.md"]
    assert unknown_experiments("python run.py experiment=bbvi; experiment=bvbi") == {"bvbi"}
    parts = (ROOT / "docs" / "parts.md").read_text()
    assert stale_tables(parts.replace("| `iwelbo` |", "| `iwelob` |"))
    assert make_targets("`make lint`, run: make tset\nmake docs ARGS=") == {"lint", "tset", "docs"}

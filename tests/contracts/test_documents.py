"""The documents against the program: links lead somewhere, and every part and experiment is named where readers look.

Each rule is a function of a text, so that a text that breaks it is caught by the same function.
"""

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

CONF = ROOT / "conf"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NOT_PARTS = {"experiment", "plot"}
"""Groups whose files configuration.md does not list."""


def dead_links(text: str, folder: Path) -> list[str]:
    """Relative targets of links and images in a page of `folder` that do not exist."""
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text)
    return [target for target in targets if "://" not in target and not (folder / target).exists()]


def tabulated(text: str) -> list[str]:
    """Names of the experiments in README's table, one for each row that starts with a name, in its order."""
    table = text.partition("| `experiment=` |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)


def unknown_experiments(text: str) -> set[str]:
    """Names in commands of a page that are no experiments."""
    return set(re.findall(r"\bexperiment=(\w+)", text)) - set(experiments())


def experiments() -> list[str]:
    """Names of the experiments in the order of the report page, those that are not on it last."""
    order = {path.stem: yaml.safe_load(path.read_text())["report"]["order"] for path in CONF.glob("experiment/*.yaml")}
    return sorted(order, key=lambda name: (order[name] is None, order[name], name))


def unlisted(text: str) -> list[str]:
    """Parts of conf/ that the table of groups in configuration.md does not name."""
    table = set(re.findall(r"`([^`]+)`", text.partition("| group | parts |")[2].partition("\n\n")[0]))
    named = table | {name.partition("=")[2] for name in table}
    parts = [path.relative_to(CONF).with_suffix("") for path in sorted(CONF.glob("*/**/*.yaml"))]
    return [part.as_posix() for part in parts if part.parts[0] not in NOT_PARTS and part.name not in named]


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


def test_readme_has_a_row_for_every_experiment_in_the_order_of_the_page() -> None:
    assert tabulated((ROOT / "README.md").read_text()) == experiments()


def test_configuration_lists_every_part() -> None:
    assert unlisted((ROOT / "docs" / "configuration.md").read_text()) == []


def test_changelog_names_every_experiment() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert [name for name in experiments() if f"`{name}`" not in text] == []


def test_what_is_wrong_is_caught() -> None:
    text = "[a](README.md) [b](docs/none.md) ![c](docs/figures/none.png) [d](https://none.org) [e](none.md#part)"
    assert dead_links(text, ROOT) == ["docs/none.md", "docs/figures/none.png", "none.md"]
    assert unknown_experiments("python run.py experiment=bbvi; experiment=bvbi") == {"bvbi"}
    readme = (ROOT / "README.md").read_text()
    assert tabulated(readme.replace("| `iwae` |", "| `iwea` |")) != experiments()
    configuration = (ROOT / "docs" / "configuration.md").read_text()
    assert unlisted(configuration.replace("`two_moons`", "`two_suns`")) == ["dataset/two_moons"]

"""Hooks of the documentation site: pages that are written elsewhere or generated.

README.md, CONTRIBUTING.md and CHANGELOG.md stay at the root of the repository, where readers of the sources look for
them. The site shows copies of them, with links that fit. Each package of `vi_core` gets a page of its modules'
docstrings, so that a new module needs no entry in mkdocs.yml.
"""

import re
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
AT_THE_ROOT = {
    "README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE", "CITATION.cff": "CITATION.cff",
}  # fmt: skip


class Stars(griffe.Extension):
    """Escapes the star of shapes such as (K, *batch) in docstrings, which Markdown would read as emphasis."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Escape the stars in the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(\(|, )\*(?=[A-Za-z])", r"\1\\*", obj.docstring.value)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the library to the navigation."""
    library = [{name: page_of(name)} for name in packages()]
    assert config.nav is not None
    config.nav.append({"Library": library})
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    for source, target in AT_THE_ROOT.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, target, content=text if target == source else moved(text)))
    for name, modules in packages().items():
        text = "\n".join([f"# {name}\n", *(f"::: {module}\n" for module in modules)])
        files.append(File.generated(config, page_of(name), content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that lead from docs/ to the root of the repository lead to the copy on the site."""
    return re.sub(r"\]\(\.\./([\w.]+)", lambda found: f"]({AT_THE_ROOT.get(found[1], found[0])}", markdown)


def moved(text: str) -> str:
    """Return a page of the root with links that fit a page in docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\]\(([A-Z]+\.md)", lambda found: f"]({AT_THE_ROOT[found[1]]}", text)


def page_of(package: str) -> str:
    """Return the page of a package, `vi_core` or one below it."""
    return f"library/{package}.md"


def packages() -> dict[str, list[str]]:
    """Return the public modules of `vi_core` itself and of each folder in it, by the folder's dotted name."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "vi_core").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") for part in parts):
            package = ".".join(parts[: min(2, len(parts) - 1)])
            found.setdefault(package, []).append(".".join(parts))
    return dict(sorted(found.items()))

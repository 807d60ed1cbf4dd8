"""`task=docs_figures`: write the figures that README.md and docs/ show, from full runs of their experiments.

A document that shows docs/figures/<experiment>_<figure>.png gets plots/<figure>.png of that experiment's run or sweep.
The runs are those of the report page: what is finished there is not run again.
"""

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from vi_core.errors import DataError

from ..config.messages import part_names
from .plan import plans
from .reproduce import FOLDER
from .runner import Main, complaint, run_all

log = logging.getLogger(__name__)
FIGURES = Path("docs/figures")


def run(cfg: DictConfig, given: Sequence[str], main: Main) -> bool:
    """Write every figure that the documents in the working directory show.

    Args:
        cfg: The program's configuration; `reproduce.parallel` runs at a time.
        given: Overrides for all experiments that know them.
        main: The program's entry point, which runs one command.

    Returns:
        Whether every experiment ended well.

    Raises:
        DataError: Where no document shows a figure, or an experiment does not draw the one that is shown.
    """
    named = shown_figures(Path())
    runs = FOLDER / "runs" / "full"
    chosen = plans("full", sorted({experiment for experiment, _ in named}), given)
    log.info("%d figures of %d experiments", len(named), len(chosen))
    run_all(main, chosen, runs, cfg.reproduce.parallel, lambda plan, s: log.info("%-38s %5.0f s", plan.name, s))
    failed = {plan.name: why for plan in chosen if (why := complaint(plan, runs))}
    for name, why in failed.items():
        log.error("error: %s: %s", name, why)
    for experiment, figure in named:
        if experiment not in failed:
            source, target = runs / experiment / "plots" / f"{figure}.png", FIGURES / f"{experiment}_{figure}.png"
            if not source.is_file():
                raise DataError(f"{target} cannot be made: experiment={experiment} draws no figure called {figure}.")
            shutil.copyfile(source, target)
            log.info("figure  %s", target)
    return not failed


def shown_figures(root: Path) -> list[tuple[str, str]]:
    """Return (experiment, figure) of each figure that README.md and docs/*.md below `root` show."""
    pages = [path for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))) if path.is_file()]
    shown = r"!\[[^]]*\]\((?:docs/)?figures/([\w-]+)\.png\)"
    names = {name for page in pages for name in re.findall(shown, page.read_text())}
    if not names:
        raise DataError("no README.md or docs/*.md here shows a figure; start this task in the program's own folder.")
    return [split_name(name) for name in sorted(names)]


def split_name(name: str) -> tuple[str, str]:
    """Return experiment and figure out of <experiment>_<figure>; names of experiments have underscores, too."""
    fitting = [known for known in part_names("experiment") if name.startswith(f"{known}_")]
    if not fitting:
        raise DataError(f"docs/figures/{name}.png does not begin with the name of an experiment.")
    experiment = max(fitting, key=len)
    return experiment, name.removeprefix(f"{experiment}_")

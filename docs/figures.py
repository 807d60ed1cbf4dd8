"""The figures that README.md and docs/ show, from full runs of their experiments: `python -m docs.figures`.

`make docs-figures` writes them. A page that shows docs/figures/<experiment>_<figure>.png gets plots/<figure>.png of
that experiment's run or sweep. The runs are those of the report page: what is finished there is not run again.
Arguments are overrides for all experiments that know them, and `reproduce.parallel=N` runs N at a time.
"""

import re
import shutil
import sys
from pathlib import Path

from experiments import cli
from experiments.config import hydra_adapter
from experiments.config.messages import part_names
from experiments.config.schema import Reproduce
from experiments.report.plan import plans
from experiments.report.reproduce import FOLDER
from experiments.report.runner import complaint, run_all
from vi_core.errors import DataError, LabError, require

ROOT = Path(__file__).resolve().parent.parent
RUNS = FOLDER / "runs" / "full"
PARALLEL = "reproduce.parallel="


def write(arguments: list[str]) -> bool:
    """Run the experiments whose figures the documents show, and copy the figures; return whether all ended well."""
    own = [a.removeprefix(PARALLEL) for a in arguments if a.startswith(PARALLEL)]
    parallel = own[-1] if own else str(Reproduce().parallel)
    require(parallel.isdigit() and int(parallel) > 0, f"{PARALLEL}{parallel} must be a whole number, at least 1.")
    named = shown_figures(ROOT)
    chosen = plans("full", sorted({name for name, _ in named}), [a for a in arguments if not a.startswith(PARALLEL)])
    cli.start_log(None)
    print(f"{len(named)} figures of {len(chosen)} experiments", flush=True)
    run_all(cli.main, chosen, RUNS, int(parallel), lambda plan, s: print(f"{plan.name:38s} {s:5.0f} s", flush=True))
    failed = {plan.name: why for plan in chosen if (why := complaint(plan, RUNS))}
    for name, why in failed.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    for experiment, figure in named:
        if experiment not in failed:
            copy(RUNS, experiment, figure)
    return not failed


def copy(runs: Path, experiment: str, figure: str) -> None:
    """Copy a figure of a finished run below `runs` to docs/figures/; raise `DataError` where the run has none."""
    source, target = runs / experiment / "plots" / f"{figure}.png", ROOT / "docs/figures" / f"{experiment}_{figure}.png"
    if not source.is_file():
        raise DataError(f"{target.name} cannot be made: experiment={experiment} draws no figure called {figure}.")
    shutil.copyfile(source, target)
    print("figure ", target.relative_to(ROOT))


def shown_figures(root: Path) -> list[tuple[str, str]]:
    """Return (experiment, figure) of each figure that README.md and docs/*.md below `root` show."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    shown = r"!\[[^]]*\]\((?:docs/)?figures/([\w-]+)\.png\)"
    return [split_name(name) for name in sorted({n for page in pages for n in re.findall(shown, page.read_text())})]


def split_name(name: str) -> tuple[str, str]:
    """Return experiment and figure out of <experiment>_<figure>; names of experiments have underscores, too."""
    fitting = [known for known in part_names("experiment") if name.startswith(f"{known}_")]
    if not fitting:
        raise DataError(f"docs/figures/{name}.png does not begin with the name of an experiment.")
    experiment = max(fitting, key=len)
    return experiment, name.removeprefix(f"{experiment}_")


if __name__ == "__main__":
    hydra_adapter.install()
    try:
        sys.exit(0 if write(sys.argv[1:]) else 1)
    except LabError as error:
        sys.exit(f"error: {error}")

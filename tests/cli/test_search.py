"""The search with optuna: it maximises what runs report, counts its trials, and goes on where it was interrupted."""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from experiments.sweeps.launching import returned
from tests.cli.test_sweeps import table
from tests.conftest import CommandLine

pytestmark = [
    pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is not installed"),
    pytest.mark.filterwarnings("ignore"),  # of optuna's store, on its way through SQLAlchemy
]
Launch = Callable[[Sequence[Sequence[str]], int], list[JobReturn]]


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Any]:
    """Make a search in the test's folder, whose launcher is a function from a rate and a family to an objective."""
    from experiments.sweeps.search import Search

    def make(objective: Callable[[float, str], float], **settings: Any) -> Any:
        def launch(jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
            made.launched += [(first + number, list(job)) for number, job in enumerate(jobs)]
            given = [dict(text.split("=") for text in job) for job in jobs]
            return [returned([], objective(float(each["lr"]), each["family"])) for each in given]

        made: Any = Search(**settings)
        made.launched = []
        made.context = SimpleNamespace(config_loader=None)
        made.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
        made.launcher = SimpleNamespace(launch=launch)
        return made

    return make


SPACE = ["lr=tag(log,interval(1e-4,1.0))", "family=choice(mean_field,structured)", "seed=3"]


def hill(rate: float, family: str) -> float:
    """Largest, 1, at a rate of 0.01 with `structured`."""
    return (family == "structured") - (math.log10(rate) + 2) ** 2


def test_it_maximises(search: Callable[..., Any]) -> None:
    """Among 25 trials one is near the top; what is not searched is given to all jobs, which have numbers in order."""
    made = search(hill, n_trials=25, at_once=3)
    assert made.sweep(SPACE) > 0.9
    assert [number for number, _ in made.launched] == list(range(25))
    assert all(job[0] == "seed=3" for _, job in made.launched)
    families = [job[2] for _, job in made.launched]
    assert families.count("family=structured") > 15  # half of them, were it to look away from what it is told


def test_it_reports_the_largest_of_what_it_has_seen(search: Callable[..., Any]) -> None:
    """The best of four trials is not the worst of them, and one that failed is none."""
    values = iter([-3.0, float("nan"), -1.0, -2.0])
    assert search(lambda rate, family: next(values), n_trials=4).sweep(SPACE) == -1.0
    assert search(lambda rate, family: float("nan"), n_trials=5).sweep(SPACE) == -1.0


def test_it_goes_on(search: Callable[..., Any]) -> None:
    """What was running when the sweep ended is asked again with the same values; the trials are as many as wanted."""

    def interrupted(rate: float, family: str) -> float:
        if len(first.launched) == 4:
            raise SystemExit(143)
        return hill(rate, family)

    first = search(interrupted, n_trials=10)
    with pytest.raises(SystemExit):
        first.sweep(SPACE)
    again = search(hill, n_trials=10)
    best = again.sweep(SPACE)
    assert again.launched[0][1] == first.launched[-1][1]
    assert len(again.launched) == 10 - 3
    every = [job for _, job in (*first.launched[:3], *again.launched)]
    assert best == max(hill(float(job[1][3:]), job[2][7:]) for job in every)
    assert len({job[1] for job in every}) == 10, "a resumed sampler repeats what it has asked"


@pytest.mark.parametrize("wrong", ["family=glob(*)", "lr=0.1"])
def test_what_cannot_be_searched_is_refused(wrong: str, cli: CommandLine) -> None:
    result = cli("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", wrong.replace("lr", "optimizer.lr"))
    assert result.code == 1
    assert "search" in result.err and len(result.err.splitlines()) == 1


@pytest.mark.slow
def test_a_search_of_runs(cli: CommandLine, tmp_path: Path) -> None:
    """From the command line, and resumed with more trials; the best is that of the table."""
    command = ("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", "experiment=bbvi", "replicates=2",
               "trainer.steps=50", "trainer.final_samples=10", "trainer.execution=eager", "plot.enabled=false",
               "optimizer.lr=tag(log,interval(1e-3,1e-1))")  # fmt: skip
    assert cli(*command, "hydra.sweeper.n_trials=3").code == 0
    result = cli(*command, "hydra.sweeper.n_trials=5", "sweep.resume=sweep")
    assert result.code == 0
    rows = table(tmp_path / "sweep")
    assert [row["job"] for row in rows] == ["0", "1", "2", "3", "4"]
    best = max(rows, key=lambda row: float(row["objective"]))
    assert f"best of 5 trials: {float(best['objective']):.9g} with optimizer.lr={best['optimizer.lr']}" in result.out

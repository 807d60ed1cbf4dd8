"""Hostile settings: whatever a typed setting is given, the run begins, or one line refuses it.

The settings are those of the schema and of the parts' constructors, found by looking, in a few runs that between them
have most parts. Each run ends after its first step, so that numbers of steps may be as large as they like. A sample of
the trials, with a fixed seed, is in `make test`; all are slow.

Large integers, which are right by their type, are tried in processes with little memory and little time.
"""

import contextlib
import inspect
import io
import os
import random
import resource
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.cli import failures, run_job
from experiments.config.messages import one_line
from experiments.config.schema import Root
from experiments.run.jobs import Job
from tests.conftest import configuration, unchanged_process
from tests.faults import tally
from vi_core.errors import LabError
from vi_core.schema import keyword_arguments, locate

VALUES = {
    "negative": -1, "zero": 0, "huge": 1e30, "huge integer": 10**30, "tiny": 1e-300, "nan": float("nan"),
    "infinite": float("inf"), "text": "text", "list": [1, 2, 3], "empty list": [], "null": None, "empty": "",
    "boolean": True, "mapping": {"a": 1},
}  # fmt: skip
LARGE = {"10^9": 10**9, "10^12": 10**12, "10^18": 10**18}
MEMORY, SECONDS = 2**30, 30
"""Bytes that a trial with a large integer may have beside those of the process that it starts from, and its time."""
SHORT = ("trainer=smoke", "plot.enabled=false", "trainer.final_samples=20")
SMALL = ("model.hidden=[4]", "family.hidden=[4]", "dataset.batch_size=20")
QUICK = {
    "bbvi": (*SHORT, "replicates=2"),
    "coordinate ascent": (*SHORT, "experiment=cavi_normal_gamma", "trainer/stopping=plateau"),
    "earthquakes": (*SHORT, "experiment=earthquakes_cavi", "replicates=2", "dataset.num_points=20"),
    "vae": (*SHORT, *SMALL, "experiment=vae_digits"),
    "csv": (*SHORT, "dataset=csv", "dataset.path={here}/x.csv", "optimizer=sgd", "optimizer/schedule=staged"),
}
MORE = {
    "catalogue": (*SHORT, "experiment=earthquakes_cavi", "dataset=catalogue", "dataset.path={here}/events.csv"),
    "natural gradient": (*SHORT, "experiment=natural_gradient_vi"),
    "categorical vae": (*SHORT, *SMALL, "experiment=categorical_vae_digits"),
    "diffusion": (*SHORT, "experiment=ddpm_two_moons", "dataset.num_points=40", "model.num_steps=25"),
    "network": (
        *SHORT,
        "model=gaussian_network",
        "dataset=gaussian_network",
        "optimizer=adagrad",
        "estimator=pathwise",
    ),
    "study": ("experiment=gamma_fisher", "study.num_samples=100", "plot.enabled=false"),
}
RUNS = QUICK | MORE
SAMPLE, LARGE_SAMPLE = 12, 2
"""Trials of each quick run in `make test`; the same each time."""
NEVER = {"overrides"}
"""What the program notes itself."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data files that the runs name."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "x.csv").write_text("x\n1\n2\n4\n")
    (folder / "events.csv").write_text("long,lat,stations\n1,2,3\n2,1,4\n5,6,7\n6,5,9\n7,7,8\n")
    return folder


def settings_of_part(config: dict[str, Any], path: str) -> Iterator[str]:
    """The paths of the settings of a part and of the parts inside it."""
    for key in keyword_arguments(locate(config["_target_"], path)):
        if isinstance(config.get(key), dict):
            yield from settings_of_part(config[key], f"{path}.{key}")
        else:
            yield f"{path}.{key}"


def settings_of_node(config: dict[str, Any], schema: type, prefix: str = "") -> Iterator[str]:
    """The paths of the typed settings of a node of the schema, and of the parts and nodes inside it."""
    for each in fields(schema):
        value, path = config.get(each.name), f"{prefix}{each.name}"
        nodes = [kind for kind in (each.type, *get_args(each.type)) if inspect.isclass(kind) and is_dataclass(kind)]
        if isinstance(value, dict) and "_target_" in value:
            yield from settings_of_part(value, path)
        elif isinstance(value, dict) and nodes:
            yield from settings_of_node(value, nodes[0], f"{path}.")
        else:
            yield path


def composed(name: str, here: Path) -> DictConfig:
    """The configuration of one of the runs."""
    return configuration(*(argument.replace("{here}", str(here)) for argument in RUNS[name]))


def trials(name: str, here: Path, values: Iterable[str] = VALUES) -> list[tuple[str, str]]:
    """(setting, name of a value) of each trial of a run."""
    plain: Any = OmegaConf.to_container(composed(name, here))
    return [(path, value) for path in settings_of_node(plain, Root) if path not in NEVER for value in values]


def attempt(config: DictConfig, path: str, value: Any, folder: Path) -> str:
    """What a run with this setting writes to standard error: nothing where it accepts it."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), warnings.catch_warnings(), unchanged_process():
        warnings.simplefilter("ignore")
        try:
            changed = config.copy()
            OmegaConf.update(changed, path, value, merge=False)
        except Exception as refusal:  # OmegaConf's own, by its type
            return f"error: {one_line(refusal)}\n"
        run_job(Job(changed, folder, [f"{path}=..."], []))
        assert (len(failures) > 0) == bool(error.getvalue())
    return error.getvalue()


def confined(config: DictConfig, path: str, value: Any, folder: Path) -> str:
    """What `attempt` returns, from a child process; where that ends by itself, how."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            spent = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
            for limit, most in ((resource.RLIMIT_AS, here + MEMORY), (resource.RLIMIT_CPU, spent + SECONDS)):
                resource.setrlimit(limit, (most, most))
            os.write(writing, attempt(config, path, value, folder)[-4000:].encode())
            os._exit(0)
        os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        written = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return written if status == 0 else f"it ended with {status}"


def faults(name: str, chosen: list[tuple[str, str]], here: Path, tmp_path: Path) -> dict[str, str]:
    """The trials of a run that end neither with a result nor with one line."""
    config, found = composed(name, here), {}
    for index, (path, kind) in enumerate(chosen):
        folder = tmp_path / str(index)
        folder.mkdir()
        large = kind in LARGE
        written = confined(config, path, LARGE[kind], folder) if large else attempt(config, path, VALUES[kind], folder)
        right = not written or (written.startswith("error: ") and written.count("\n") == 1 and len(written) < 1500)
        tally("hostile settings", "right" if right else "wrong")
        if not right:
            found[f"{path}: {kind}"] = written[-400:]
    return found


@pytest.fixture(autouse=True)
def one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are interrupted after their first step."""
    monkeypatch.setattr("experiments.run.interrupt.Interrupt.requested", lambda self: True)


@pytest.mark.parametrize("name", QUICK)
def test_a_sample_of_hostile_settings(name: str, here: Path, tmp_path: Path) -> None:
    chosen = random.Random(name).sample(trials(name, here), SAMPLE)
    assert faults(name, chosen, here, tmp_path) == {}


@pytest.mark.parametrize("name", QUICK)
def test_a_sample_of_large_integers(name: str, here: Path, tmp_path: Path) -> None:
    chosen = random.Random(name).sample(trials(name, here, LARGE), LARGE_SAMPLE)
    assert faults(name, chosen, here, tmp_path) == {}


def test_what_python_has_no_memory_for(here: Path, tmp_path: Path) -> None:
    """Its error has no words; and numbers of draws that would take days are refused."""
    chosen = [("model.components", "10^18"), ("trainer.gradient_draws", "10^9"), ("threads", "10^9")]
    assert faults("earthquakes", chosen, here, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_large_integer(name: str, here: Path, tmp_path: Path) -> None:
    assert faults(name, trials(name, here, LARGE), here, tmp_path) == {}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_what_the_trials_start_from_runs(name: str, here: Path, tmp_path: Path) -> None:
    """Negative control: with settings that are right nothing is written to standard error."""
    assert attempt(composed(name, here), "note", "right", tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_hostile_setting(name: str, here: Path, tmp_path: Path) -> None:
    assert faults(name, trials(name, here), here, tmp_path) == {}


def test_settings_are_found(here: Path) -> None:
    """Those of the top level, of nodes, of parts, and of the parts inside them."""
    plain: Any = OmegaConf.to_container(composed("bbvi", here))
    found = set(settings_of_node(plain, Root))
    assert {"seed", "plot.smoothing", "optimizer.lr", "family.loc", "trainer.steps", "dataset.num_points"} <= found
    assert "estimator.coefficient" not in found and len(found) > 50


def test_a_traceback_is_caught(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a constructor that lets an error of another kind through; and a right value runs."""
    assert faults("bbvi", [("seed", "zero"), ("model.rate", "tiny")], here, tmp_path) == {}

    def broken(*_: Any) -> None:
        raise OverflowError("too large")

    monkeypatch.setenv("VI_FAULTS_TALLY", "")  # this trial is no trial of the program
    monkeypatch.setattr("experiments.run.settings.validate", broken)
    (tmp_path / "again").mkdir()
    assert faults("bbvi", [("seed", "zero")], here, tmp_path / "again")
    assert not issubclass(OverflowError, LabError)

"""Runs that version 0.1 has written: every task reads them, and users' own files may keep the names of that version."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import vi_core
from experiments.results.expectations import present
from tests.conftest import ROOT, SMOKE, CommandLine, summary_of
from vi_core.storage.renamed import TARGETS
from vi_core.training.history import read_history

RUNS = ("run_of_0_1", "vae_run_of_0_1")


@pytest.fixture(params=RUNS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a stored run, as `old` in the test's folder."""
    shutil.copytree(ROOT / "tests" / "data" / request.param, tmp_path / "old")
    return tmp_path / "old"


def test_they_are_old(old: Path) -> None:
    """Or else this file tests nothing: some of their names are names no more."""
    text = (old / "config.yaml").read_text()
    assert sum(f"vi_core.{name}\n" in text for name in TARGETS) >= 1


def test_load(old: Path) -> None:
    """The model and q are those of the run: a few moments or weights are finite, and the trace ends where it did."""
    run = vi_core.load(old)
    assert run.trace.step[-1] == run.entries["timing"]["iterations"]
    assert run.config["model"]["_target_"].count(".") == 4
    if not run.problem.model.has_local:
        mean, _ = run.q.moments()["mu"]
        np.testing.assert_allclose(mean.mean().item(), run.entries["estimates"]["mu"]["mean"], rtol=1e-6)
        written = json.loads((old / "summary.json").read_text())["estimates"]["mu"]
        row = run.entries["estimates"]["mu"]
        assert (row["sd"], row["mc_error"]) == (written["std"], written["se"])
        assert present("estimates.mu.std") == "estimates.mu.sd"


def test_resume(old: Path, cli: CommandLine, tmp_path: Path) -> None:
    """With more steps: rows that were there stay, and the whole is what a run of that length gives."""
    before = read_history(old / "trace.csv")
    more = "trainer.limit=9" if "limit: 6" in (old / "config.yaml").read_text() else "trainer.steps=60"
    result = cli("resume=old", more)
    assert (result.code, result.err) == (0, "")
    after, last = read_history(old / "trace.csv"), int(more.partition("=")[2])
    assert after.step[-1] == last
    np.testing.assert_array_equal(after.columns[after.bound][: len(before.step)], before.columns[before.bound])
    overrides = [text for text in summary_of(old)["overrides"] if not text.startswith(more.partition("=")[0])]
    assert cli("--run", *overrides, more, "hydra.run.dir=new").code == 0
    new = read_history(tmp_path / "new" / "trace.csv")
    np.testing.assert_allclose(after.columns[after.bound], new.columns[new.bound], rtol=1e-4)
    assert "vi_core.models.normal_gamma." not in (old / "config.yaml").read_text()


@pytest.mark.parametrize("task", ["plot", "report"])
def test_tasks_on_a_run(task: str, old: Path, cli: CommandLine) -> None:
    result = cli(f"task={task}", "run=old")
    assert (result.code, result.err) == (0, "")
    assert list(old.glob("plots/*.png" if task == "plot" else "report.html"))


def test_collect(cli: CommandLine, tmp_path: Path) -> None:
    """A sweep of two jobs of that version, one of which was killed."""
    for number in "01":
        shutil.copytree(ROOT / "tests" / "data" / "run_of_0_1", tmp_path / "sweep" / number)
    config = tmp_path / "sweep" / "1" / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0\nreplicates", "seed: 1\nreplicates"))
    (tmp_path / "sweep" / "1" / "summary.json").unlink()
    result = cli("task=collect", "run=sweep")
    assert (result.code, result.err) == (1, "")
    lines = (tmp_path / "sweep" / "sweep.csv").read_text().splitlines()
    assert len(lines) == 3 and "completed" in lines[1] and "killed" in lines[2]


def test_a_sweep_goes_on(cli: CommandLine, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "run_of_0_1", tmp_path / "sweep" / "0")
    result = cli("-m", *SMOKE[1:], "seed=1,2", "sweep.resume=sweep")
    assert (result.code, result.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == ["0", "1", "2"]


def test_a_users_own_file_with_an_old_name(cli: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "model"
    folder.mkdir(parents=True)
    content = yaml.safe_load((ROOT / "conf" / "model" / "normal_gamma.yaml").read_text())
    text = yaml.safe_dump(content | {"_target_": "vi_core.models.normal_gamma.NormalGamma"})
    (folder / "mine.yaml").write_text(text)
    result = cli("--config-dir", str(tmp_path / "mine"), *SMOKE, "model=mine", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    told = [line for line in result.out.splitlines() if "has been renamed" in line]
    assert len(told) == 1
    assert "vi_core.models.normal_gamma.NormalGamma has been renamed: write vi_core.models.conjugate." in told[0]
    assert cli("task=report", "run=run").code == 0
    assert vi_core.load(tmp_path / "run").trace.step[-1] == 20


@pytest.mark.parametrize(
    ("by_hand", "expected"), [((), "eager"), (("trainer.execution=replay",), "replay")], ids=["file", "command line"]
)
def test_a_users_own_file_with_an_old_setting(
    by_hand: tuple[str, ...], expected: str, cli: CommandLine, tmp_path: Path
) -> None:
    """`trainer.compile` of an experiment counts more than the default, and less than the command line."""
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\ndefaults: [bbvi, _self_]\nname: mine\ntrainer: {compile: 'off'}\n"
    (folder / "mine.yaml").write_text(text)
    arguments = ("experiment=mine", *SMOKE[1:], *by_hand, "hydra.run.dir=run")
    result = cli("--config-dir", str(tmp_path / "mine"), *arguments)
    assert (result.code, result.err) == (0, "")
    told = [line for line in result.out.splitlines() if "has been renamed" in line]
    assert len(told) == 1 and "trainer.compile has been renamed: write trainer.execution" in told[0]
    trainer = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]
    assert trainer["execution"] == expected and "compile" not in trainer

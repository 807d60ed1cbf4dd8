"""A resumed run stays a run of one problem: what may change, what is noted of it, and what is refused."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vi_core
from experiments.config.schema import role_of
from experiments.run.resuming import leaves
from tests.conftest import SMOKE, run_in, summary_of, trace_text
from tests.faults import tally
from vi_core.errors import DataError, Unsupported
from vi_core.training import checkpoint

VAE = (
    "--run", "experiment=vae_digits", "trainer.epochs=1", "dataset.batch_size=400", "model.hidden=[8]",
    "family.hidden=[8]", "plot.enabled=false", "trainer.final_samples=2", "threads=1", "hydra.run.dir=run",
)  # fmt: skip


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of 20 steps."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def config_of(run: Path) -> dict[str, Any]:
    """The content of a run's config.yaml."""
    return yaml.safe_load((run / "config.yaml").read_text())


def refused(folder: Path, *arguments: str) -> str:
    """The one line that refuses to resume the run there; nothing is written."""
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.suffix not in ("", ".log")}
    result = run_in(folder, "resume=run", *arguments)
    assert result.code == 1 and result.err.count("\n") == 1, result
    assert {path: path.read_bytes() for path in before} == before
    return result.err


def other(value: Any) -> str:
    """Another value of the same kind, as an override."""
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, (int, float)):
        return str(value + 1)
    return {"auto": "float32"}.get(value, "other") if isinstance(value, str) else "1"


def test_every_setting_of_the_problem_is_refused(run: Path) -> None:
    """Each leaf of the settings that no role frees, changed by hand."""
    settings = dict(leaves(config_of(run)))
    parts = ("model", "family", "bound", "estimator", "optimizer", "dataset")
    fixed = {path for path in settings if path.split(".")[0] in parts and path != "optimizer.lr"}
    fixed |= {"seed", "dtype", "replicates", "matmul", "device.name"}
    free = ("dataset.root", "dataset.path", "dataset.download")
    assert len(fixed) > 20
    for path in sorted(fixed - set(free)):
        assert not role_of(path).resume
        if path.endswith("._target_") or settings[path] == []:
            continue
        value = {"device.name": "auto", "matmul": "bfloat16"}.get(path, other(settings[path]))
        right = refused(run.parent, f"{path}={value}").startswith("error: ")
        tally("setting changed on resume", "right" if right else "wrong")
        assert right


def test_another_batch_size(tmp_path: Path) -> None:
    assert run_in(tmp_path, *VAE).code == 0
    line = refused(tmp_path, "trainer.epochs=3", "dataset.batch_size=200")
    assert "dataset.batch_size=200" in line and "new run" in line
    assert run_in(tmp_path, "resume=run", "trainer.epochs=3").code == 0
    assert summary_of(tmp_path / "run")["timing"]["iterations"] == 3 * 4
    assert len(summary_of(tmp_path / "run")["epoch_bound"]) == 3


def test_a_changed_learning_rate_is_noted(run: Path, tmp_path: Path) -> None:
    """With its step, in one line and in the identity, which a run has not that began with it."""
    before = summary_of(run)["config_hash"]
    result = run_in(tmp_path, "resume=run", "optimizer.lr=0.5", "trainer.limit=22")
    assert (result.code, result.err) == (0, "")
    assert len(re.findall(r"from step 20 on: .*optimizer\.lr=0\.5 \(it was ", result.out)) == 1
    assert run_in(tmp_path, *SMOKE, "optimizer.lr=0.5", "trainer.limit=22", "hydra.run.dir=straight").code == 0
    hashes = {summary_of(run)["config_hash"], summary_of(tmp_path / "straight")["config_hash"], before}
    assert len(hashes) == 3
    assert [change["step"] for change in config_of(run)["changes"]] == [20]
    assert checkpoint.read(run / "checkpoint.pt")["identity"] == summary_of(run)["config_hash"]
    assert run_in(tmp_path, "resume=run").code == 0
    assert summary_of(run)["config_hash"] in hashes
    assert run_in(tmp_path, "resume=run", "optimizer.lr=0.25", "trainer.limit=24").code == 0
    assert [change["step"] for change in config_of(run)["changes"]] == [20, 22]
    assert summary_of(run)["config_hash"] not in hashes


def test_what_changes_nothing_leaves_no_note(run: Path, tmp_path: Path) -> None:
    before = summary_of(run)["config_hash"]
    assert run_in(tmp_path, "resume=run", "plot.format=pdf", "threads=1", "model.loc=1").code == 0
    assert summary_of(run)["config_hash"] == before
    assert config_of(run)["changes"] == []


@pytest.mark.parametrize("edit", ["lr: 0.5", "limit: 40"])
def test_an_edited_configuration_is_noticed(edit: str, run: Path) -> None:
    path, key = run / "config.yaml", edit.partition(":")[0]
    path.write_text(re.sub(rf"\b{key}: \S+", edit, path.read_text(), count=1))
    line = refused(run.parent)
    tally("setting changed on resume", "right")
    assert "config.yaml" in line and "edited" in line


def test_an_edit_of_what_has_no_part_in_the_numbers(run: Path) -> None:
    """Negative control: a note may be edited."""
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("\nnote: ", "\nnote: mine ", 1))
    assert run_in(run.parent, "resume=run").code == 0


def test_killed_between_the_settings_and_the_next_checkpoint(run: Path, tmp_path: Path) -> None:
    """config.yaml has the change already and the checkpoint not: the run goes on, with and without it."""
    shutil.copytree(run, tmp_path / "copy")
    assert run_in(tmp_path, "resume=copy", "optimizer.lr=0.5", "trainer.limit=22").code == 0
    shutil.copy(tmp_path / "copy" / "config.yaml", run / "config.yaml")
    assert run_in(tmp_path, "resume=run").code == 0
    assert trace_text(run) == trace_text(tmp_path / "copy")
    assert summary_of(run)["config_hash"] == summary_of(tmp_path / "copy")["config_hash"]


def test_other_data_in_the_file(tmp_path: Path) -> None:
    """The path may change, as files move; what is in the file may not."""
    (tmp_path / "a.csv").write_text("x\n1\n2\n4\n")
    (tmp_path / "b.csv").write_text("x\n1\n2\n5\n")
    csv = ("dataset=csv", "dataset.path=a.csv", "dataset.column=x")
    assert run_in(tmp_path, *SMOKE, *csv, "hydra.run.dir=run").code == 0
    assert "checksum" in refused(tmp_path, "dataset.path=b.csv")
    (tmp_path / "a.csv").rename(tmp_path / "c.csv")
    assert run_in(tmp_path, "resume=run", "dataset.path=c.csv").code == 0


# --- the search for a mode ------------------------------------------------------------------------------------------

OWN = (
    "--run", "experiment=own", "model=logistic_regression", "dataset=table", "dataset.path=a.csv", "dataset.target=y",
    "trainer=smoke", "trainer.steps=20", "replicates=2", "plot.enabled=false", "threads=1",
)  # fmt: skip
"""A run whose family is placed at a mode, which a search finds."""


@pytest.fixture(scope="module")
def whitened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 20 steps, `straight`, and one of 10, `run`; copy it before changing it."""
    folder = tmp_path_factory.mktemp("whitened")
    (folder / "a.csv").write_text("x,y\n-2,0\n-1,0\n-0.5,1\n0.5,0\n1,1\n2,1\n")
    for name, limit in (("straight", 20), ("run", 10)):
        result = run_in(folder, *OWN, f"trainer.limit={limit}", f"hydra.run.dir={name}")
        assert (result.code, result.err) == (0, "")
    return folder


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The searches for a mode from now on, none of which finds anything."""
    made: list[object] = []

    def fails(family: object, model: object, x: object) -> None:
        made.append(model)
        raise Unsupported("no mode")

    monkeypatch.setattr("vi_core.algorithms.gradient.whiten", fails)
    return made


def test_a_resumed_run_searches_no_mode(whitened: Path, searches: list[object], tmp_path: Path) -> None:
    """It ends bit for bit as if it had not been cut: origin and preconditioner come from the checkpoint."""
    shutil.copytree(whitened, tmp_path / "place")
    place = tmp_path / "place"
    result = run_in(place, "resume=run", "trainer.limit=20")
    assert (result.code, result.err, searches) == (0, "", [])
    assert trace_text(place / "run") == trace_text(whitened / "straight")
    assert summary_of(place / "run")["final"] == summary_of(whitened / "straight")["final"]
    with np.load(place / "run" / "samples.npz") as found, np.load(whitened / "straight" / "samples.npz") as right:
        assert all((found[name] == right[name]).all() for name in right)
    assert run_in(place, *OWN, "hydra.run.dir=new").code == 1
    assert len(searches) == 1


def test_a_loaded_run_searches_no_mode(whitened: Path, searches: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whitened)
    loaded = vi_core.load("straight").problem
    stored = checkpoint.read(whitened / "straight" / "checkpoint.pt")["step"]
    assert searches == []
    for name, value in loaded.step.state_dict().items():
        assert torch.equal(value, stored[name]), name
    assert bool(stored["family.origin"].any()) and not bool((stored["family.factor"] == 0).all())


@pytest.mark.parametrize("name", ["family.origin", "family.factor"])
def test_a_checkpoint_without_coordinates_is_refused(
    name: str, whitened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be those of no search at all."""
    shutil.copytree(whitened, tmp_path / "place")
    genuine = checkpoint.load

    def without(path: Path) -> dict[str, Any]:
        content = genuine(path)
        return content | {"step": {key: value for key, value in content["step"].items() if key != name}}

    monkeypatch.setattr("vi_core.training.checkpoint.load", without)
    line = run_in(tmp_path / "place", "resume=run", "trainer.limit=20").err
    assert line.count("\n") == 1 and "does not fit" in line
    monkeypatch.chdir(tmp_path / "place")
    with pytest.raises(DataError, match="does not fit"):
        vi_core.load("run")


def test_the_noise_of_the_first_gradient_is_that_of_an_uncut_run(whitened: Path, tmp_path: Path) -> None:
    """It is measured at the first parameters, for which the search is made again."""
    (tmp_path / "a.csv").write_text((whitened / "a.csv").read_text())
    measured = (*OWN, "trainer.gradient_draws=4")
    for name, limit in (("straight", 20), ("run", 10)):
        assert run_in(tmp_path, *measured, f"trainer.limit={limit}", f"hydra.run.dir={name}").code == 0
    assert run_in(tmp_path, "resume=run", "trainer.limit=20").code == 0
    noise = [summary_of(tmp_path / name)["diagnostics"]["gradient"] for name in ("straight", "run")]
    # in the course of a run it is measured at checkpoints, which runs of other lengths have elsewhere
    assert [each.pop("along")[-1]["step"] for each in noise] == [18, 18]
    assert noise[0] == noise[1]
    assert trace_text(tmp_path / "run") == trace_text(tmp_path / "straight")

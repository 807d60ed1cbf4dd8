"""Stan programs on the command line: names of the program in all that a run writes, a copy of the program, resuming."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vi_core
from tests.conftest import configuration, run_in
from tests.unit.test_stan import DATA, SCHOOLS
from vi_core.fits.fitted import Fit
from vi_core.storage.archive import read_config

OWN = ("--run", "experiment=own", "model=stan", "model.path=my.stan", "dataset=json", "dataset.path=my.json")
FEW = ("trainer.steps=30", "replicates=2", "trainer.final_samples=20", "trainer.log_every=5", "plot.enabled=false")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program, its data, and its finished run `run`, which was drawn too."""
    folder = tmp_path_factory.mktemp("stan")
    (folder / "my.stan").write_text(SCHOOLS)
    (folder / "my.json").write_text(json.dumps(DATA))
    result = run_in(folder, *OWN, *FEW, "model.transformed_parameters=true", "plot.enabled=true", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    assert (folder / "run" / "plots" / "bound.png").exists()
    assert "theta[7]" in result.out
    assert "elbo up to the program's dropped constants, last tenth" in result.out
    return folder


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def test_a_run_speaks_of_the_programs_variables(place: Path) -> None:
    found = summary(place / "run")
    names = ["mu", "tau", *(f"{name}[{i}]" for name in ("raw", "theta") for i in range(8))]
    assert list(found["estimates"]) == names
    assert found["up_to"] == "the program's dropped constants"
    assert (found["final"]["log_evidence"], found["final"]["kl_to_posterior"]) == (None, None)
    assert found["timing"]["execution"] == "eager"
    with np.load(place / "run" / "samples.npz") as samples:
        assert {name: samples[name].shape[2:] for name in samples} == {"mu": (), "tau": (), "raw": (8,), "theta": (8,)}
        assert samples["tau"].min() > 0
        row, tau = found["estimates"]["tau"], samples["tau"]
        assert row["mean"] == pytest.approx(tau.mean(), abs=4 * tau.std() / tau.size**0.5)
        assert row["sd"] == pytest.approx(tau.std(), rel=0.2)
    assert "E[" not in (place / "run" / "trace.csv").read_text().partition("\n")[0]


def test_a_loaded_run_is_a_fit_and_is_exported(place: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        fit = vi_core.load("run")
    assert isinstance(fit, Fit) and "up to the program's dropped constants" in repr(fit)
    assert fit.draws(50)["theta"].shape == (50, 8)
    arviz = pytest.importorskip("arviz")
    result = run_in(place, "task=export", "run=run")
    assert (result.code, result.err) == (0, "")
    assert arviz.from_netcdf(str(place / "run" / "posterior.nc")).posterior["tau"].shape == (1, 2000)


def test_the_copy_is_used_and_its_content_is_the_identity(place: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(place / "run", tmp_path / "moved")
    shutil.copy(place / "my.json", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        archive = vi_core.load(moved)
    assert list(archive.problem.model.latents) == ["mu", "tau", "raw"]
    assert run_in(tmp_path, "task=report", "run=moved").code == 0
    assert "final ELBO up to the program&#39;s dropped constants" in (moved / "report.html").read_text()
    (tmp_path / "other.stan").write_text(SCHOOLS)
    same = (*OWN[:3], "model.path=other.stan", *OWN[4:], *FEW, "model.transformed_parameters=true")
    assert run_in(tmp_path, *same, "hydra.run.dir=same").code == 0
    assert summary(tmp_path / "same")["config_hash"] == summary(moved)["config_hash"]
    copy = moved / "my.stan"
    copy.write_text(SCHOOLS.replace("normal(0, 5)", "normal(0, 6)"))
    refused = run_in(tmp_path, "resume=moved", "trainer.steps=40")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "my.stan has changed" in refused.err


def test_a_resumed_run_is_the_uninterrupted_one(place: Path) -> None:
    assert run_in(place, *OWN, *FEW, "hydra.run.dir=straight").code == 0
    assert run_in(place, *OWN, *FEW, "trainer.limit=13", "hydra.run.dir=resumed").code == 0
    result = run_in(place, "resume=resumed", "trainer.limit=null")
    assert (result.code, result.err) == (0, "")
    straight, resumed = (summary(place / run) for run in ("straight", "resumed"))
    assert resumed["timing"]["iterations"] == 30
    assert resumed["estimates"] == straight["estimates"]
    assert resumed["final"] == straight["final"]


def test_mistakes_are_one_line(place: Path) -> None:
    (place / "lacking.json").write_text('{"J": 2, "y": [1, 2]}')
    (place / "wrong.stan").write_text(SCHOOLS.replace("real mu;", "real mu"))
    for changed, said in (
        ("dataset.path=lacking.json", "needs data 'sigma'"),
        ("model.path=wrong.stan", "wrong.stan: Syntax error in line 3"),
        ("model.path=nowhere.stan", "nowhere.stan does not exist"),
        ("dataset.batch_size=2", "dataset.batch_size=2 needs a model"),
    ):
        result = run_in(place, *OWN, *FEW, changed)
        assert (result.code, result.err.count("\n"), said in result.err) == (1, 1, True), result.err


def test_a_program_of_the_library_brings_its_data() -> None:
    chosen = configuration("model=lotka_volterra")
    assert len(chosen.dataset["values"]["hare"]) == 21 and chosen.parts["family"] == "full_rank_normal"


def test_a_program_brings_the_parts_that_fit_it(place: Path) -> None:
    """Without experiment=own; without data it says what it needs."""
    result = run_in(place, "--run", *OWN[2:], *FEW, "hydra.run.dir=alone")
    assert (result.code, result.err) == (0, "")
    parts = read_config(place / "alone")["parts"]
    assert (parts["family"], parts["estimator"]) == ("full_rank_normal", "sticking_the_landing")
    refused = run_in(place, "model=stan", "model.path=my.stan")
    assert (refused.code, "needs data: add" in refused.err) == (1, True)

"""Models and data of one's own on the command line: written, fitted, resumed, reopened and reported from a copy."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch

import vi_core
from experiments import cli
from experiments.config import hydra_adapter
from experiments.config.places import CONF
from experiments.results.verdict_lines import WORDS
from experiments.sweeps.differences import beside, settings_in
from tests.conftest import ROOT, Result, run_in
from vi_core.fits.fitted import Fit
from vi_core.fits.trust import verdict
from vi_core.storage.archive import read_config

OWN = ("experiment=own", "model=file", "dataset=table", "dataset.path=my.csv", "dataset.target=y")
FEW = ("trainer.steps=40", "replicates=2", "trainer.final_samples=50")
WIDE = """
import torch
from torch.distributions import Independent, Normal
from vi_core import BayesianModel

class Wide(BayesianModel):
    def prior(self, data):
        yield "slopes", Independent(Normal(torch.zeros(30), torch.ones(30)), 1)
        yield "intercept", Normal(0.0, 1.0)

    def likelihood(self, z, data):
        return Normal(z["intercept"] + data["x"][:, :1] @ z["slopes"][:1], 1.0)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a model that the program wrote, and its finished run `run`.

    The run says which element of a vector belongs to which column, and that it leaves text out.
    """
    folder = tmp_path_factory.mktemp("own")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=generator)
    y = (x @ torch.tensor([2.0, -1.0]) + torch.randn(60, generator=generator) > 0).long()
    lines = ["a,b,town,y", *(f"{a:.5f},{b:.5f},Ulm,{c}" for (a, b), c in zip(x.tolist(), y.tolist(), strict=True))]
    (folder / "my.csv").write_text("\n".join(lines) + "\n")
    assert run_in(folder, "task=new_model", "path=my_model.py").code == 0
    result = fitted(folder, "my_model.py:Logistic", "model.settings.scale=2.0", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    assert "\nfeatures: 0 a, 1 b\ncolumns of text left out: town\n" in result.out
    return folder


def fitted(folder: Path, path: str, *arguments: str) -> Result:
    """Fit the model at a path to the table, in few steps."""
    return run_in(folder, "--run", *OWN, *FEW, f"model.path={path}", *arguments)


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def test_a_run_has_estimates_samples_and_figures(place: Path) -> None:
    found = summary(place / "run")
    own = {"intercept", "slopes[0]", "slopes[1]"}
    assert set(found["estimates"]) == own | {"odds_ratio[0]", "odds_ratio[1]"}
    assert (found["data"]["features"], found["data"]["left_out"]) == (["a", "b"], ["town"])
    assert found["estimates"]["slopes[0]"]["mean"] > 0.5 > -0.2 > found["estimates"]["slopes[1]"]["mean"]
    with np.load(place / "run" / "samples.npz") as samples:
        assert samples["slopes"].shape == (2, 500, 2)
    assert {path.stem for path in (place / "run" / "plots").iterdir()} >= {"bound", "expectations", "predictive"}


def test_settings_reach_the_model_and_the_copy_is_used(place: Path, tmp_path: Path) -> None:
    """A run that was moved is reopened from its own copy, when the file that it was made from has gone."""
    moved = shutil.copytree(place / "run", tmp_path / "moved")
    shutil.copy(place / "my.csv", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        archive: Any = vi_core.load(moved)
    model: Any = archive.problem.model
    assert (type(model).__name__, model.scale) == ("Logistic", 2.0)
    means = archive.q.moments()["slopes"][0].flatten(0, 1).mean(dim=0).tolist()
    estimates = archive.entries["estimates"]
    assert means == pytest.approx([estimates[f"slopes[{i}]"]["mean"] for i in range(2)], rel=1e-6)
    said = run_in(tmp_path, "task=report", "run=moved")
    words = summary(moved)["verdict"]["line"].partition("  ")[0]
    page = (moved / "report.html").read_text().partition("<body")[2]
    assert words in WORDS.values() and said.out.startswith(f"{words} my_model\n") and "NOT JUDGED" not in page
    assert run_in(tmp_path, "task=plot", "run=moved").code == 0
    assert page.index(words) < page.index("What we got") < page.index("0 a, 1 b")


def test_copies_of_a_model_in_other_folders_do_not_differ(place: Path, tmp_path: Path) -> None:
    """Nor has a sweep a column of them; a copy with another name or content is another model."""
    same, other = (shutil.copytree(place / "run", tmp_path / name) for name in ("0", "1"))
    assert beside([settings_in(same), settings_in(other)], []) == []
    (other / "my_model.py").rename(other / "yours.py")
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("my_model.py:", "yours.py:"))
    assert beside([settings_in(same), settings_in(other)], []) == ["model.path"]


def test_resume_uses_the_copy_and_keeps_the_identity(place: Path, tmp_path: Path) -> None:
    resumed = shutil.copytree(place / "run", tmp_path / "resumed")
    shutil.copy(place / "my.csv", tmp_path)
    result = run_in(tmp_path, "resume=resumed", "trainer.steps=60")
    assert (result.code, result.err) == (0, "")
    assert summary(resumed)["timing"]["iterations"] == 60
    assert [path.name for path in resumed.glob("*.py")] == ["my_model.py"]
    assert run_in(tmp_path, "resume=resumed", "trainer.steps=60").code == 0
    copy = resumed / "my_model.py"
    copy.write_text(copy.read_text().replace("5.0", "6.0"))
    refused = run_in(tmp_path, "resume=resumed", "trainer.steps=80")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "my_model.py has changed" in refused.err


@pytest.mark.slow
def test_identity_is_the_content_and_not_the_place(place: Path, tmp_path: Path) -> None:
    first = summary(place / "run")["config_hash"]
    shutil.copy(place / "my.csv", tmp_path)
    text = (place / "my_model.py").read_text()
    (tmp_path / "other.py").write_text(text)
    assert fitted(tmp_path, "other.py:Logistic", "model.settings.scale=2.0", "hydra.run.dir=same").code == 0
    (tmp_path / "other.py").write_text(text.replace("5.0", "6.0"))
    assert fitted(tmp_path, "other.py:Logistic", "model.settings.scale=2.0", "hydra.run.dir=changed").code == 0
    assert summary(tmp_path / "same")["config_hash"] == first
    assert summary(tmp_path / "changed")["config_hash"] != first
    assert "6.0" in (tmp_path / "changed" / "other.py").read_text()


def test_more_than_a_hundred_parameters(place: Path) -> None:
    (place / "wide.py").write_text(WIDE)
    result = fitted(place, "wide.py", "hydra.run.dir=wide", "dataset.batch_size=20", "dataset.test_fraction=0.2")
    assert (result.code, result.err) == (0, "")
    found = summary(place / "wide")
    assert len(found["estimates"]) == 31
    assert found["final"]["mean"] is not None
    held_out = found["diagnostics"]["held_out"]  # of the last row of the trace, at the same parameters
    assert held_out["mean"] < 0 and f"{held_out['points']} points" in result.out
    assert "norm(u.loc)" in (place / "wide" / "trace.csv").read_text().partition("\n")[0]
    assert run_in(place, "task=report", "run=wide").code == 0


def test_new_model_overwrites_nothing(place: Path) -> None:
    before = (place / "my_model.py").read_text()
    result = run_in(place, "task=new_model", "path=my_model.py")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "exists already" in result.err
    assert (place / "my_model.py").read_text() == before
    assert "must end in .py" in run_in(place, "task=new_model", "path=my_model.txt").err
    assert "needs path=" in run_in(place, "task=new_model").err


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("x = 1\n", "wrong.py", "defines no model"),
        ("x = 1\n\ny = 1 / 0\n", "wrong.py", "wrong.py, line 3: ZeroDivisionError"),
        ("def (\n", "wrong.py", "wrong.py, line 1: SyntaxError"),
        (WIDE, "wrong.py:Wild", "Did you mean 'Wide'?"),
        (WIDE + WIDE.replace("Wide", "Second"), "wrong.py", "several models; choose one"),
        (WIDE.replace("def likelihood", "def other"), "wrong.py", "Wide lacks the method likelihood"),
        (WIDE.replace('data["x"]', 'data["z"]'), "wrong.py", "no data called 'z'"),
        (WIDE, "nowhere.py", "nowhere.py does not exist"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text: str, path: str, message: str, place: Path) -> None:
    (place / "wrong.py").write_text(text)
    result = fitted(place, path)
    assert (result.code, result.err.count("\n")) == (1, 1), result.err
    assert message in result.err


def test_settings_that_a_model_does_not_have(place: Path) -> None:
    assert "Did you mean 'scale'?" in fitted(place, "my_model.py", "model.settings.scal=2.0").err


def test_a_model_in_a_file_brings_the_parts_that_fit_it(place: Path, tmp_path: Path) -> None:
    """Without experiment=own, and filed under the name of the file."""
    for name in ("my.csv", "my_model.py"):
        shutil.copy(place / name, tmp_path)
    result = run_in(tmp_path, "model=file", "model.path=my_model.py", *OWN[2:], *FEW, "plot.enabled=false")
    assert (result.code, result.err) == (0, "")
    (run,) = (tmp_path / "outputs" / "my_model").iterdir()
    found = summary(run)
    assert (found["experiment"], found["checks"], found["checks_skipped"]) == ("my_model", [], "")
    parts = read_config(run)["parts"]
    assert (parts["family"], parts["estimator"]) == ("full_rank_normal", "sticking_the_landing")


@pytest.fixture(scope="module")
def schools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run of `model=eight_schools`, and what it said."""
    folder = tmp_path_factory.mktemp("schools")
    result = run_in(folder, "model=eight_schools", *FEW, "plot.enabled=false")
    assert (result.code, result.err) == (0, "")
    (run,) = (folder / "outputs" / "eight_schools").iterdir()
    return run, result.out


def test_a_model_runs_on_its_own_data(schools: tuple[Path, str]) -> None:
    """With the recipe of experiment=own, and without what bbvi says of its data."""
    run, out = schools
    found, config = summary(run), read_config(run)
    assert (found["experiment"], config["parts"]["dataset"]) == ("eight_schools", "eight_schools")
    assert (found["checks"], found["checks_skipped"], config["report"]["says"]) == ([], "", "")
    assert {f"theta[{i}]" for i in range(8)} < found["estimates"].keys()
    assert found["data"]["numbers"]["y"]["mean"] == pytest.approx(8.75)
    with np.load(run / "samples.npz") as samples:
        assert samples["theta"].shape == (2, 500, 8)
    assert "theta[7]" in out and "8 points" in out


def test_a_loaded_run_is_a_fit(schools: tuple[Path, str]) -> None:
    fit, found = vi_core.load(schools[0]), summary(schools[0])
    assert isinstance(fit, Fit)
    judged = verdict(fit.problem, fit._weighed, np.ones(found["replicates"], bool))
    assert judged.line == found["verdict"]["line"]  # the same draws of the same q
    assert judged.k_hat == found["verdict"]["k_hat"]
    row = fit.summary()["mu"]
    assert abs(row["mean"] - found["estimates"]["mu"]["mean"]) < found["estimates"]["mu"]["sd"]  # after few steps
    predicted: Any = fit.predict({"sigma": torch.ones(8)}, 10)
    assert predicted.shape == (10, 8)
    for thing in (fit, fit.run, fit.problem):
        assert repr(thing).count("\n") < 10 and len(repr(thing)) < 1000


def test_export_writes_draws_for_arviz(schools: tuple[Path, str], finished_run: Path, tmp_path: Path) -> None:
    arviz = pytest.importorskip("arviz")
    result = run_in(schools[0].parent, "task=export", f"run={schools[0]}")
    assert (result.code, result.err) == (0, "")
    assert arviz.from_netcdf(str(schools[0] / "posterior.nc")).posterior["theta"].shape == (1, 2000, 8)
    conjugate = shutil.copytree(finished_run, tmp_path / "conjugate")
    assert run_in(tmp_path, "task=export", f"run={conjugate}").code == 0
    found = arviz.from_netcdf(str(conjugate / "posterior.nc"))
    assert found.groups() == ["posterior", "sample_stats"] and found.posterior["tau"].shape == (1, 2000)
    refused = run_in(tmp_path, "task=export", f"run={ROOT / 'tests' / 'data' / 'vae_run_of_0_1'}")
    assert (refused.code, refused.err.count("\n")) == (1, 1) and "samples.npz" in refused.err


def test_rows_of_another_table_are_predicted(place: Path, finished_run: Path) -> None:
    """P(y = 1) of each row is the mean of σ(η) over draws of q, to five standard errors; columns go by name."""
    (place / "new.csv").write_text("b,more,a\n0.5,x,2.0\n1.0,y,-1.0\n")
    texts = []
    for _ in range(2):
        result = run_in(place, "task=predict", "run=run", "path=new.csv")
        assert (result.code, result.err) == (0, "") and "2 rows predicted by 4000 draws" in result.out
        texts.append((place / "run" / "predictions" / "new.csv").read_text())
    assert texts[0] == texts[1]
    rows = list(csv.DictReader(texts[0].splitlines()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        draws: Any = vi_core.load("run").draws(20_000)
    eta = draws["intercept"].unsqueeze(1) + draws["slopes"] @ torch.tensor(
        [[2.0, -1.0], [0.5, 1.0]], dtype=torch.float64
    )
    for row, wanted in zip(rows, eta.sigmoid().mean(dim=0).tolist(), strict=True):
        assert (row["variable"], row["observed"]) == ("y", "")
        assert float(row["mean"]) == pytest.approx(wanted, abs=5 * 0.5 * (1 / 4000 + 1 / 20_000) ** 0.5)
    (place / "known.csv").write_text("a,b,y\n2.0,0.5,1\n")
    result = run_in(place, "task=predict", "run=run", "path=known.csv")
    assert result.code == 0 and "1 of 1 observed numbers lie" in result.out and "nats a row" in result.out
    assert (place / "run" / "predictions" / "known.csv").read_text().endswith(",1.0\n")
    (place / "lacking.csv").write_text("a,y\n2.0,1\n")
    for run, path, wrong in [
        ("run", "lacking.csv", "features=b is not in"),
        ("run", "nowhere.csv", "is no file"),
        (finished_run, "new.csv", "for models of prior and likelihood"),
    ]:
        refused = run_in(place, "task=predict", f"run={run}", f"path={path}")
        assert (refused.code, refused.err.count("\n")) == (1, 1) and wrong in refused.err
    assert sorted(path.name for path in (place / "run" / "predictions").iterdir()) == ["known.csv", "new.csv"]
    assert "needs path=" in run_in(place, "task=predict", "run=run").err


def test_other_data_replace_the_background_of_an_experiment(place: Path) -> None:
    """Another data set under bbvi drops title, checks and folder name; the experiment's own data keep them."""
    few = ("trainer.steps=5", "replicates=2", "plot.enabled=false")
    assert run_in(place, "dataset=gamma", *few, "model.loc=1").code == 0
    (run,) = (place / "outputs" / "normal_gamma").iterdir()
    assert (summary(run)["checks_skipped"], read_config(run)["report"]["says"]) == ("", "")
    assert run_in(place, "dataset=normal", *few).code == 0
    (run,) = (place / "outputs" / "bbvi").iterdir()
    assert "settings differ" in summary(run)["checks_skipped"] and read_config(run)["report"]["says"]


@pytest.mark.parametrize(
    ("optimizer", "recipe", "brings"),
    [
        ("adam", "auto", ("Tail", "Doubling", "Settled")),
        ("adam,sgd", "auto", (None, "Doubling", "Settled")),
        ("natural_gradient", "auto", (None, "Doubling", "Settled")),
        ("natural_gradient", "none", (None, "Decay", "Fixed")),
        ("robbins_monro", "auto", (None, None, "Fixed")),
    ],
)
def test_the_recipe_fits_the_optimizer(optimizer: str, recipe: str, brings: tuple[str | None, ...]) -> None:
    """An optimizer without averages, or without a schedule, trains by what it has."""
    given = {"model": "eight_schools", "optimizer": optimizer, "recipe": recipe}
    overrides = cli.with_recipe(given, [f"{key}={value.split(',')[-1]}" for key, value in given.items()], [])
    hydra_adapter.register_schema()
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        cfg = hydra.compose("config", overrides)
    parts = (cfg.optimizer.get("averaging"), cfg.optimizer.get("schedule"), cfg.trainer.get("stopping"))
    assert tuple(part and part["_target_"].rpartition(".")[2] for part in parts) == brings
    assert cfg.family["_target_"].endswith("FullRankNormal") and cfg.replicates == 4


def test_a_model_without_data_says_what_it_needs(place: Path) -> None:
    result = run_in(place, "model=linear_regression")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "needs data: add dataset=table" in result.err


def test_the_prior_and_its_data(place: Path) -> None:
    """Of the eight schools: quantiles of mu ~ N(0, 5²) and tau ~ HalfCauchy(5) to five standard errors of 2,000 draws.

    Given tau, the mean of y is N(0, 25 + tau²/8 + Σ sigma²/64) under the prior, which is drawn from here.
    """
    result = run_in(place, "task=prior_predictive", "model=eight_schools", "hydra.run.dir=prior")
    assert (result.code, result.err) == (0, "")
    found = summary(place / "prior")
    mu, tau = (found["estimates"][name] for name in ("mu", "tau"))
    assert abs(mu["median"]) < 5 * 5 * 1.253 / np.sqrt(2000) and mu["mean"] is None and "sd" not in mu
    assert mu["q95"] == pytest.approx(5 * 1.645, abs=5 * 5 * 2.11 / np.sqrt(2000))
    shares = [2 / np.pi * np.arctan(tau[key] / 5) for key in ("q05", "median", "q95")]
    np.testing.assert_allclose(shares, [0.05, 0.5, 0.95], atol=5 * 0.5 / np.sqrt(2000))
    y, normal = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.random.default_rng(0).normal
    sigma = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    tau_drawn = 5 * np.abs(np.random.default_rng(1).standard_cauchy(2000))
    sd = np.sqrt(25 + tau_drawn**2 / 8 + (sigma**2).sum() / 64)  # of the mean of y, given tau
    means = sd * normal(size=2000)
    row = found["observed"]["mean of y"]
    assert {words: each["observed"] for words, each in found["observed"].items()} == pytest.approx(
        {"min of y": -3.0, "mean of y": y.mean(), "sd of y": y.std(), "max of y": 28.0}
    )
    assert (means < row["q95"]).mean() == pytest.approx(0.95, abs=5 * np.sqrt(0.05 * (1 / 500 + 1 / 2000)))
    assert (means < row["median"]).mean() == pytest.approx(0.5, abs=5 * np.sqrt(0.25 * (1 / 500 + 1 / 2000)))
    heads = [line.split() for line in result.out.splitlines() if line.split()[:1] == ["median"]]
    assert heads == [["median", "5", "%", "95", "%"], ["median", "5", "%", "95", "%", "observed"]]
    assert (place / "prior" / "plots" / "prior_predictive.png").is_file()
    assert run_in(place, "task=report", "run=prior").code == 0
    refused = run_in(place, "task=prior_predictive", "hydra.run.dir=none")
    assert (refused.code, refused.err.count("\n")) == (1, 1) and "NormalGamma is none" in refused.err


# --- families that do not start from nothing ------------------------------------------------------------------------


def test_laplace_trains_nothing_and_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fitted(place, "my_model.py:Logistic", "family=laplace", "hydra.run.dir=laplace")
    found = summary(place / "laplace")
    assert (result.code, result.err) == (0, "")
    assert "nothing is trained" in result.out and "completed after 1 steps" in result.out
    assert (found["trained"], found["timing"]["iterations"], found["status"]) == (False, 1, "completed")
    monkeypatch.chdir(place)
    loaded = vi_core.load("laplace")
    assert loaded.q.moments()["slopes"][0].shape == (2, 1, 2)


def test_a_fit_goes_on_from_a_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Origin and covariance of the best replicate of `run`, in all replicates; reopened without the earlier folder."""
    chosen = ("model.settings.scale=2.0", "family.start=run:run", "family=full_rank_normal", "trainer.steps=1")
    shutil.copytree(place / "run", place / "earlier")
    chosen = tuple(a.replace("run:run", "run:earlier") for a in chosen)
    result = fitted(place, "my_model.py:Logistic", *chosen, "hydra.run.dir=later")
    assert (result.code, result.err) == (0, "")
    monkeypatch.chdir(place)
    earlier, best = vi_core.load("run"), int(np.argmax(summary(place / "run")["final"]["values"]))
    q: Any = earlier.q
    mean, covariance = q.coordinate_moments()
    shutil.rmtree(place / "earlier")
    family: Any = vi_core.load("later").problem.family
    for r in range(2):
        torch.testing.assert_close(family.origin[r], mean[best])
        factor = family.factor[r, 0]
        torch.testing.assert_close(factor @ factor.T, covariance[best, 0], rtol=1e-6, atol=1e-8)
    assert not torch.equal(mean[best], mean[1 - best])


@pytest.mark.parametrize(
    ("start", "wrong"),
    [
        ("run:nothing", "family.start=run:nothing cannot be read: nothing is not the folder of a finished run"),
        ("run:mean", "family.start=run:mean has family=mean_field, which is not on unconstrained space; give a run of"),
        pytest.param(
            "run:other",
            "family.start=run:other has the latents slopes (real (30,)), intercept (real), and this model",
            marks=pytest.mark.slow,
        ),
        ("run:", "family.start=run: must be random, mode, or run:<folder>"),
        ("middle", "family.start=middle must be random, mode, or run:<folder>"),
    ],
)
def test_a_start_that_is_no_such_run_is_one_line(place: Path, start: str, wrong: str) -> None:
    if start == "run:mean" and not (place / "mean").exists():
        assert fitted(place, "my_model.py:Logistic", "family=mean_field", "hydra.run.dir=mean").code == 0
    if start == "run:other" and not (place / "other").exists():
        (place / "wide_start.py").write_text(WIDE)
        chosen = ("family=mean_field_normal", "family.start=random", "family.preconditioner=none")
        assert fitted(place, "wide_start.py:Wide", *chosen, "hydra.run.dir=other").code == 0
    result = fitted(place, "my_model.py:Logistic", f"family.start={start}", "hydra.run.dir=refused")
    assert result.code == 1 and result.err.startswith(f"error: {wrong}") and result.err.count("\n") == 1


TWO = """
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal
from vi_core import BayesianModel

class Two(BayesianModel):
    def prior(self, data):
        yield "a", MixtureSameFamily(Categorical(torch.tensor([0.7, 0.3])), Normal(torch.tensor([-9.0, 9.0]), 1.0))

    def likelihood(self, z, data):
        return Normal(0 * z["a"] + 0 * data["y"], 1.0)
"""


def test_modes_combined_by_evidence_are_estimates_and_verdict(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of 0.7 N(-9, 1) + 0.3 N(9, 1) is -3.6, its deviation 8.31."""
    (place / "two.py").write_text(TWO)
    settings = ("replicates=6", "combine=evidence", "plot.enabled=false", "trainer.steps=130", "hydra.run.dir=two")
    result = fitted(place, "two.py:Two", *settings)
    assert (result.code, result.err) == (0, "")
    found = summary(place / "two")
    assert found["estimates"]["a"]["mean"] == pytest.approx(-3.6, abs=0.1)
    assert found["estimates"]["a"]["sd"] == pytest.approx(8.31, abs=0.1)
    assert found["verdict"]["trust"] == "good"
    assert "2 modes combined" in result.out
    monkeypatch.chdir(place)
    assert vi_core.load("two").draws(20_000)["a"].mean().item() == pytest.approx(-3.6, abs=0.1)


def test_image_models_have_no_evidence_to_combine_by(tmp_path: Path) -> None:
    result = run_in(tmp_path, "experiment=vae_digits", "trainer.epochs=1", "combine=evidence", "hydra.run.dir=run")
    assert result.code == 1 and result.err.startswith("error: combine=evidence weights replicates by draws of q")


@pytest.mark.slow
def test_the_kl_of_an_own_model_is_chosen_by_name(place: Path) -> None:
    """Its trace has the KL, and ELBO = −rate − distortion; a flow is refused in a line."""
    chosen = ("my_model.py:Logistic", "estimator=closed_form_kl", "hydra.run.dir=kl")
    assert fitted(place, *chosen).code == 0
    trace = np.genfromtxt(place / "kl" / "trace.csv", delimiter=",", names=True)
    np.testing.assert_allclose(trace["elbo"], -trace["rate"] - trace["distortion"], rtol=1e-5)
    refused = fitted(place, *chosen, "family=mixture_of_normals", "hydra.run.dir=none")
    assert refused.code == 1 and "MixtureOfNormals has no KL from a Normal prior in closed form; use" in refused.err

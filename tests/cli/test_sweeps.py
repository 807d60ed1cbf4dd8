"""Sweeps: one folder and one row for each job, failures that do not stop the others, and going on where one stopped."""

import csv
import itertools
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.sweeps.differences import swept_keys
from experiments.sweeps.figures import grouping, labels_of
from tests.conftest import CommandLine, run_in, summary_of, trace_text
from vi_core.estimators.base import Estimate
from vi_core.estimators.exact import Exact

QUICK = ("experiment=cavi_normal_gamma", "trainer.steps=3", "plot.enabled=false", "hydra.sweep.dir=sweep")
FAILING = ("-m", *QUICK, "replicates=2,0", "seed=0,1")
"""Four jobs; the last two are refused."""


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of sweep.csv."""
    with (folder / "sweep.csv").open() as lines:
        return list(csv.DictReader(lines))


def is_stamp(name: str) -> bool:
    """Whether a folder is called <date>_<time>, to the microsecond, so that two never meet."""
    return re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}", name) is not None


def finished_at(folder: Path) -> dict[str, int]:
    """When each job of a sweep wrote its summary."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}


@pytest.fixture(scope="module")
def failed_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep two of whose four jobs failed; copy it before changing it."""
    folder = tmp_path_factory.mktemp("sweeps")
    result = run_in(folder, *FAILING)
    assert result.code == 1
    assert result.err == 2 * "error: replicates=0 must be at least 1.\n"
    return folder / "sweep"


@pytest.fixture
def sweep(failed_sweep: Path, tmp_path: Path) -> Path:
    """A copy of the sweep in the test's own folder."""
    return shutil.copytree(failed_sweep, tmp_path / "sweep")


def test_a_row_for_each_job(failed_sweep: Path) -> None:
    rows = table(failed_sweep)
    assert [(row["job"], row["replicates"], row["seed"]) for row in rows] == [
        ("0", "2", "0"), ("1", "2", "1"), ("2", "0", "0"), ("3", "0", "1"),
    ]  # fmt: skip
    assert [row["status"] for row in rows] == ["completed", "completed", "failed", "failed"]
    assert list(rows[0])[:4] == ["job", "replicates", "seed", "status"]
    for row in rows[:2]:
        summary = summary_of(failed_sweep / row["job"])
        assert float(row["objective"]) == summary["objective"]["mean"]
        assert float(row["final"]) == summary["final"]["mean"]
        assert float(row["E[mu]"]) == summary["estimates"]["mu"]["mean"]
        assert float(row["seconds"]) > 0
    for row in rows[2:]:
        assert row["objective"] == ""
        assert row["error"] == "replicates=0 must be at least 1."


def test_a_failed_job_is_recorded(failed_sweep: Path) -> None:
    assert summary_of(failed_sweep / "2")["status"] == "failed"
    assert not (failed_sweep / "2" / "trace.csv").exists()


def test_a_job_of_a_sweep_is_the_same_run_alone(failed_sweep: Path, cli: CommandLine, tmp_path: Path) -> None:
    assert cli(*QUICK[:-1], "replicates=2", "seed=1").code == 0
    (run,) = (tmp_path / "outputs" / "cavi_normal_gamma").iterdir()
    assert is_stamp(run.name)
    assert trace_text(run) == trace_text(failed_sweep / "1")


def test_range_and_figure(cli: CommandLine, tmp_path: Path) -> None:
    """Two keys, one of them seed=range(2); the overlay is drawn, and the jobs' own figures are not asked for."""
    result = cli("-m", *QUICK, "seed=range(2)", "model.rate=1.0,2.0", "replicates=1")
    assert (result.code, result.err) == (0, "")
    rows = table(tmp_path / "sweep")
    assert [(row["seed"], row["model.rate"]) for row in rows] == [
        ("0", "1.0"),
        ("0", "2.0"),
        ("1", "1.0"),
        ("1", "2.0"),
    ]
    assert not (tmp_path / "sweep" / "plots").exists()
    drawn = cli("task=collect", "run=sweep", "plot.group_by=model.rate")
    assert (drawn.code, drawn.err) == (0, "")
    assert (tmp_path / "sweep" / "plots" / "bound.png").read_bytes().startswith(b"\x89PNG")
    assert table(tmp_path / "sweep") == rows


def test_swept_keys_are_those_that_differ() -> None:
    jobs: list[dict[str, Any]] = [{"overrides": ["a=1", "+b.c=x", f"seed={seed}", "d=[1,2]"]} for seed in range(2)]
    assert swept_keys(jobs) == ["seed"]
    assert swept_keys([*jobs, {"overrides": ["seed=0"]}]) == ["a", "b.c", "seed", "d"]


def test_one_key_colours_and_another_dashes_but_the_seed_does_neither() -> None:
    """The key with more values colours; all keys together where there are three, the first where colours are few."""
    swept = itertools.product(("pathwise", "exact"), ("0.1", "0.2", "0.3"), range(3))
    jobs: list[dict[str, Any]] = [
        {"overrides": [f"estimator={e}", f"optimizer.lr={r}", f"seed={s}"], "settings": {}} for e, r, s in swept
    ]
    keys = swept_keys(jobs)
    assert grouping(jobs, keys, None) == [["optimizer.lr"], ["estimator"]]
    assert grouping(jobs, keys, "seed") == [["seed"]]
    assert grouping(jobs, ["seed"], None) == [["seed"]]
    assert grouping([job for job in jobs if "0.3" not in str(job)], [*keys, "more"], None) == [[*keys[:2], "more"]]
    many: list[dict[str, Any]] = [{"overrides": [f"a={i % 2}", f"b={i}"], "settings": {}} for i in range(8)]
    assert grouping(many, ["a", "b"], None) == [["a"]]
    seeds: list[dict[str, Any]] = [{"overrides": [f"seed={i}"], "settings": {}} for i in range(8)]
    assert (grouping(seeds, ["seed"], None), grouping(seeds, ["seed"], "seed")) == ([[]], [["seed"]])
    assert labels_of(seeds[0], [[]], []) == ("all seeds",)


@pytest.mark.parametrize("task", ["sweep", "collect"])
def test_a_key_that_was_not_swept_is_one_line(task: str, cli: CommandLine, sweep: Path) -> None:
    if task == "collect":
        result = cli("task=collect", f"run={sweep}", "plot.group_by=sed")
    else:
        arguments = ("seed=0,1", "replicates=1", "plot.group_by=sed", "plot.enabled=true", "hydra.sweep.dir=other")
        result = cli("-m", *QUICK[:-2], *arguments)
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert [word for word in ("error: plot.group_by=sed", "Did you mean 'seed'") if word not in result.err] == []


def test_collect_reads_what_is_there(cli: CommandLine, sweep: Path) -> None:
    """A killed job has no summary; its row says so."""
    rows = table(sweep)
    (sweep / "sweep.csv").unlink()
    result = cli("task=collect", f"run={sweep}")
    assert result.code == 1
    assert table(sweep) == rows
    (sweep / "1" / "summary.json").unlink()
    cli("task=collect", f"run={sweep}")
    assert [(row["job"], row["status"]) for row in table(sweep)][:2] == [("0", "completed"), ("1", "killed")]
    assert table(sweep)[1]["seed"] == "1"


# --- what differs, and many jobs -----------------------------------------------------------------------------------


def test_a_setting_of_a_swept_part_goes_to_all_that_have_it(cli: CommandLine, tmp_path: Path) -> None:
    """The exact estimator has no K, which is no error, but a misspelt setting is."""
    arguments = ("-m", *QUICK[1:], "estimator=pathwise,exact", "replicates=2")
    result = cli(*arguments, "estimator.num_samples=7")
    assert (result.code, result.err) == (0, "")
    assert "WARNING" not in result.out and "estimator=exact has no num_samples" in result.out
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["completed"] * 2
    assert "estimator.num_samples" not in table(tmp_path / "sweep")[0]
    wrong = cli(*arguments, "estimator.num_sample=7", "hydra.sweep.dir=wrong")
    assert (wrong.code, wrong.err.count("\n")) == (1, 1) and "Did you mean 'estimator.num_samples'?" in wrong.err


@pytest.mark.slow
def test_a_sweep_without_a_finished_job_has_a_table(cli: CommandLine, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    settings = ("dataset=csv", "dataset.path=absent.csv", "dataset.column=x", "optimizer.lr=0.1,0.2", "seed=0,1")
    result = cli("-m", *settings, f"hydra.sweep.dir={sweep}")
    assert result.code == 1
    assert {line.split("absent.csv")[-1] for line in result.err.splitlines()} == {
        " does not exist; name another file with dataset.path=<file.csv>."
    }
    assert (sweep / "sweep.csv").read_text().count("failed") == 4


def test_k_that_differs_without_having_been_swept_is_shown_and_warned_of(cli: CommandLine, tmp_path: Path) -> None:
    result = cli("-m", *QUICK[1:], "estimator=score_function,pathwise,exact", "replicates=2")
    (warning,) = [line for line in result.out.splitlines() if line.startswith("WARNING")]
    assert "estimator.num_samples" in warning and "50 for score_function; 1 for pathwise" in warning
    assert [row["estimator.num_samples"] for row in table(tmp_path / "sweep")] == ["50", "1", ""]


@pytest.mark.slow
def test_experiments_share_one_folder_and_one_table(cli: CommandLine, tmp_path: Path) -> None:
    result = cli("-m", "experiment=cavi_normal_gamma,bbvi", "replicates=2", "trainer.steps=2", "plot.enabled=false")
    assert (result.code, result.err) == (0, "")
    (folder,) = (tmp_path / "outputs").glob("*/multirun/*")
    assert folder.parent.parent.name == "cavi_normal_gamma+bbvi"
    rows = table(folder)
    assert [(row["experiment"], row["optimizer"]) for row in rows] == [
        ("cavi_normal_gamma", "coordinate_ascent"), ("bbvi", "adam"),
    ]  # fmt: skip


def test_many_jobs_say_little_and_are_averaged_over_seeds(cli: CommandLine, tmp_path: Path) -> None:
    """Twelve jobs: their tables stand in run.log alone, and two groups of six seeds have means and standard errors."""
    arguments = ("-m", "sweep.batched=true", "replicates=1", "trainer.steps=2", "plot.enabled=false")
    arguments += ("hydra.sweep.dir=sweep", "optimizer.lr=1e-2,1e-1", "seed=range(6)")
    result = cli(*arguments)
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) <= 8
    assert "KL(q || posterior)" in (tmp_path / "sweep" / "7" / "run.log").read_text()
    finals = np.array([float(row["final"]) for row in table(tmp_path / "sweep")]).reshape(2, 6)
    with (tmp_path / "sweep" / "groups.csv").open() as lines:
        groups = list(csv.DictReader(lines))
    assert [(row["optimizer.lr"], row["jobs"], row["status"]) for row in groups] == [
        ("0.01", "6", "completed"), ("0.1", "6", "completed"),
    ]  # fmt: skip
    np.testing.assert_allclose([float(row["final"]) for row in groups], finals.mean(axis=1), rtol=1e-12)
    errors = finals.std(axis=1, ddof=1) / 6**0.5
    np.testing.assert_allclose([float(row["final.se"]) for row in groups], errors, rtol=1e-9)
    assert f"{finals[0].mean():.6g} ± {errors[0]:.2g}" in result.out


# --- going on -------------------------------------------------------------------------------------------------------


def test_resume_redoes_what_failed(cli: CommandLine, sweep: Path) -> None:
    """The same grid again: the finished jobs are found by their hash, the failed ones fail again."""
    before = finished_at(sweep)
    result = cli(*FAILING, "sweep.resume=sweep")
    assert result.code == 1
    assert result.out.count("is finished already") == 2
    after = finished_at(sweep)
    assert {job: after[job] for job in before} == before
    assert [(row["replicates"], row["seed"], row["status"]) for row in table(sweep)] == [
        ("2", "0", "completed"), ("2", "1", "completed"), ("0", "0", "failed"), ("0", "1", "failed"),
    ]  # fmt: skip


def test_resume_of_another_grid(cli: CommandLine, sweep: Path) -> None:
    """Reordered, extended and without what failed: two jobs are found, the new one is run and joins the table."""
    before = finished_at(sweep)
    result = cli("-m", *QUICK[:-1], "seed=1,0,2", "replicates=2", "sweep.resume=sweep")
    assert result.out.count("is finished already") == 2
    new = finished_at(sweep).keys() - before.keys()
    assert len(new) == 1
    assert summary_of(sweep / new.pop())["environment"]["seed"] == 2
    finished = [row["seed"] for row in table(sweep) if row["status"] == "completed"]
    assert sorted(finished) == ["0", "1", "2"]


def test_another_setting_is_another_job(cli: CommandLine, sweep: Path) -> None:
    """Negative control: the hash sees every setting that changes a number, and no other."""
    resume = ("-m", *QUICK[:-1], "replicates=2", "seed=0", "sweep.resume=sweep")
    assert cli(*resume, "strict=true", "plot.smoothing=3").out.count("is finished already") == 1
    assert cli(*resume, "model.rate=1.5").out.count("is finished already") == 0


def test_resume_finds_jobs_whose_settings_were_left_out(cli: CommandLine, tmp_path: Path) -> None:
    """Experiment bbvi sets optimizer.lr, which coordinate ascent has not."""
    arguments = ("-m", "optimizer=coordinate_ascent", "estimator=exact", "trainer.steps=3", "plot.enabled=false")
    arguments += ("replicates=1", "seed=0")
    assert cli(*arguments, "hydra.sweep.dir=sweep").code == 0
    result = cli(*arguments, "sweep.resume=sweep")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("is finished already") == 1
    assert {path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()} == {"0"}


def test_a_signal_ends_the_whole_sweep(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the first job: it is written, the second is not begun, and sweep.resume does both."""
    genuine, calls = Exact.forward, []

    def forward(self: Exact, *inputs: Any) -> Estimate:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return genuine(self, *inputs)

    arguments = ("-m", *QUICK[:-1], "optimizer=adam", "replicates=1", "seed=0,1")
    with monkeypatch.context() as patch:
        patch.setattr(Exact, "forward", forward)
        assert cli(*arguments, "hydra.sweep.dir=sweep").code == 130
    assert summary_of(tmp_path / "sweep" / "0")["status"] == "interrupted"
    assert not (tmp_path / "sweep" / "1").exists()
    result = cli(*arguments, "sweep.resume=sweep")
    assert (result.code, result.err) == (0, "")
    assert [(row["seed"], row["status"]) for row in table(tmp_path / "sweep")] == [
        ("0", "completed"),
        ("1", "completed"),
    ]


# --- experiments that are sweeps ------------------------------------------------------------------------------------


def test_an_experiment_that_is_a_sweep(cli: CommandLine, tmp_path: Path) -> None:
    """Without -m: hydra.mode is in the experiment. What it sweeps is no changed setting."""
    conf = tmp_path / "conf" / "experiment"
    conf.mkdir(parents=True)
    (conf / "grid.yaml").write_text(
        "# @package _global_\ndefaults:\n  - cavi_normal_gamma\n  - _self_\n"
        "expected:\n"
        "  - {quantity: final.median, value: -185.942036, tolerance: 1.0e-5, when: {dataset.num_points: 100}}\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      dataset.num_points: 10,100\n"
    )
    result = cli("--config-dir=conf", "experiment=grid", "plot.enabled=false")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("PASS    final.median") == 1
    (folder,) = (tmp_path / "outputs" / "grid" / "multirun").iterdir()
    assert is_stamp(folder.name)
    assert (folder / "1" / ".hydra" / "overrides.yaml").exists()
    assert [row["dataset.num_points"] for row in table(folder)] == ["10", "100"]
    assert [(row["checks_passed"], row["checks"]) for row in table(folder)] == [("0", "0"), ("1", "1")]


def test_a_resumed_job_of_an_experiment_that_sweeps_is_judged(cli: CommandLine, tmp_path: Path) -> None:
    """What the experiment sweeps by itself is no other experiment, after an interruption as before."""
    command = ("experiment=gamma_gd_vs_ngd", "optimizer=natural_gradient", "plot.enabled=false")
    assert cli(*command, "hydra.sweep.dir=sweep").code == 0
    before = summary_of(tmp_path / "sweep" / "0")["checks"]
    assert before
    assert cli("resume=sweep/0").code == 0
    assert summary_of(tmp_path / "sweep" / "0")["checks"] == before
    assert cli("resume=sweep/0", "trainer.on_nonfinite=stop").code == 0
    assert "trainer.on_nonfinite" in summary_of(tmp_path / "sweep" / "0")["checks_skipped"]

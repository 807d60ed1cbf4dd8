"""What a run writes, and that it is true: the trace is recomputed with the library, the summary against the trace."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

import vi_core
from experiments.run.interrupt import Interrupt
from experiments.run.process import prepare
from tests.conftest import ROOT, SMOKE, CommandLine, summary_of, trace_text
from vi_core.errors import LabError
from vi_core.estimators.base import Estimate
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.fits.fitted import Fit
from vi_core.models.base import HasExpectedBound
from vi_core.problem import Problem, assemble
from vi_core.storage.archive import read_config
from vi_core.training.history import History, read_history
from vi_core.training.stopping import Fixed
from vi_core.training.trainer import Trainer

CAVI = ("experiment=cavi_normal_gamma", "plot.enabled=false")
PARAMETERS = ["mu.loc", "mu.scale", "tau.concentration", "tau.rate"]
SUMMARY = {
    "schema", "experiment", "status", "objective", "estimates", "final", "checks", "diagnostics", "timing",
    "environment",
}  # fmt: skip
TIMING = {"total_s", "loop_s", "compile_s", "execution", "iterations", "gradients"}
TIMING |= {"us_per_iteration", "us_per_replicate_iteration"}
ENVIRONMENT = {"python", "torch", "hydra", "platform", "device", "threads", "git_commit", "git_dirty", "seed", "dtype"}


def rebuild(run: Path) -> Problem:
    """The problem of a run at its start, with the random streams where the run had them."""
    config = read_config(run)
    return assemble(config, *prepare(config))


def steps_again(run: Path, count: int) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """For each step of a run its bound (R,) before the update, and the parameters (R,) after it."""
    problem = rebuild(run)
    for _ in range(count):
        bound = problem.step(problem.batches.next()[0])[problem.bound.name]
        params = problem.family.variational()
        named = {
            f"{z}.{name}": value.detach().numpy()[:, 0].copy()
            for z, group in params.items()
            for name, value in group.items()
        }
        yield bound.numpy(), named


def equal(actual: np.ndarray, expected: np.ndarray, rtol: float = 6e-9) -> bool:
    """Whether numbers agree, by default to the nine digits of a trace."""
    return bool(np.allclose(actual, expected, rtol=rtol, atol=0))


# --- the trace ------------------------------------------------------------------------------------------------------


def test_columns_and_rows_of_the_trace(finished_run: Path) -> None:
    header, *rows = (finished_run / "trace.csv").read_text().splitlines()
    assert header.split(",") == [
        "step", "replicate", "elbo", *PARAMETERS, "E[mu]", "E[tau]", "grad_norm", "seconds",
    ]  # fmt: skip
    assert [row.split(",")[:2] for row in rows] == [[str(t), str(r)] for t in range(1, 21) for r in range(2)]
    seconds = [float(row.rpartition(",")[2]) for row in rows]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < seconds[-1]


def test_a_row_averages_bounds_and_ends_with_parameters(cli: CommandLine, tmp_path: Path) -> None:
    """Seven steps in rows of three: the last row is an interval of one."""
    assert cli(*SMOKE, "trainer.limit=7", "trainer.log_every=3", "hydra.run.dir=run").code == 0
    trace = read_history(tmp_path / "run" / "trace.csv")
    steps = list(steps_again(tmp_path / "run", 7))
    assert trace.step.tolist() == [3, 6, 7]
    for row, interval in enumerate([steps[0:3], steps[3:6], steps[6:7]]):
        assert equal(trace.columns["elbo"][row], np.mean([bound for bound, _ in interval], axis=0))
        for name, value in interval[-1][1].items():
            assert equal(trace.columns[name][row], value)
    assert equal(trace.columns["E[tau]"], trace.columns["tau.concentration"] / trace.columns["tau.rate"])


def bounds_of_parameters(run: Path, trace: History) -> np.ndarray:
    """The exact ELBO (T, R) of the parameters in each row."""
    problem = rebuild(run)
    assert isinstance(problem.model, HasExpectedBound)
    columns = {name: torch.from_numpy(trace.columns[name]).unsqueeze(-1) for name in PARAMETERS}
    params: dict[str, dict[str, Tensor]] = {"mu": {}, "tau": {}}
    for name, value in columns.items():
        latent, _, parameter = name.partition(".")
        params[latent][parameter] = value
    return problem.model.expected_bound(params, problem.batches.full).squeeze(-1).numpy()


def test_the_bound_is_before_the_update_and_the_parameters_after_it(cli: CommandLine, tmp_path: Path) -> None:
    """With the exact estimator, each bound is that of the parameters one row above, and not of its own row."""
    assert cli(*SMOKE, "estimator=exact", "optimizer.lr=0.1", "hydra.run.dir=run").code == 0
    trace = read_history(tmp_path / "run" / "trace.csv")
    exact = bounds_of_parameters(tmp_path / "run", trace)
    assert equal(trace.columns["elbo"][1:], exact[:-1], rtol=1e-7)
    assert not equal(trace.columns["elbo"], exact, rtol=1e-3)


def test_minibatches_count_by_their_size(cli: CommandLine, tmp_path: Path) -> None:
    """1,500 images in batches of 400, 400, 400 and 300: an epoch's row, and the summary's, count each image once."""
    arguments = (
        "--run",
        "experiment=vae_digits",
        "plot.enabled=false",
        "dataset.batch_size=400",
        "trainer.epochs=2",
        "threads=1",
    )
    for log_every in (1, 4):
        assert cli(*arguments, f"trainer.log_every={log_every}", f"hydra.run.dir=every{log_every}").code == 0
    steps, epochs = (read_history(tmp_path / f"every{n}" / "trace.csv") for n in (1, 4))
    weights = np.array([400, 400, 400, 300]) / 1500
    expected = steps.columns["elbo"].reshape(2, 4) @ weights
    assert np.allclose(epochs.columns["elbo"][:, 0], expected, rtol=1e-6)
    assert np.allclose(summary_of(tmp_path / "every1")["epoch_bound"], expected, rtol=1e-6)
    assert np.isfinite(epochs.columns["held_out"]).all()
    assert equal(steps.columns["held_out"][3::4], epochs.columns["held_out"])
    assert np.isnan(steps.columns["held_out"][[0, 1, 2, 4, 5, 6]]).all()
    terms = epochs.columns["rate"] + epochs.columns["distortion"]
    assert np.allclose(-terms, epochs.columns["elbo"], rtol=1e-5)


@pytest.mark.parametrize("replicates", [1, 7, 64, 5000])
@pytest.mark.parametrize(
    ("steps", "steps_per_epoch"), [(1, 1), (99_999, 1), (10_000_000, 1), (3_000_001, 15), (600, 600)]
)
def test_the_trace_has_at_most_100_000_rows(steps: int, steps_per_epoch: int, replicates: int) -> None:
    plan = Trainer(steps=steps, stopping=Fixed()).plan(steps_per_epoch, replicates)
    assert steps // plan.log_every * replicates <= 100_000
    assert plan.log_every == 1 or steps // (plan.log_every // 10 or 1) * replicates > 10_000
    assert steps_per_epoch == 1 or steps_per_epoch % plan.log_every == 0 or plan.log_every % steps_per_epoch == 0


# --- the summary ----------------------------------------------------------------------------------------------------


def finite_numbers_only(text: str) -> Any:
    """Parse JSON, refusing NaN and Infinity, which other readers refuse."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_summary_has_the_documented_keys(finished_run: Path) -> None:
    summary = finite_numbers_only((finished_run / "summary.json").read_text())
    assert summary.keys() >= SUMMARY
    assert (summary["schema"], summary["experiment"], summary["status"]) == (2, "bbvi", "completed")
    assert summary["timing"].keys() == TIMING
    assert summary["timing"]["iterations"] == 20
    assert summary["environment"].keys() == ENVIRONMENT
    assert summary["objective"].keys() >= {"name", "mean", "se"}
    assert summary["final"].keys() >= {"median", "mean", "se", "values", "kl_to_posterior"}
    assert summary["estimates"].keys() == {"mu", "tau"}
    for row in summary["estimates"].values():
        assert row.keys() >= {"mean", "sd", "q05", "q95", "mc_error", "truth", "exact", "exact_sd"}
    assert summary["checks"] == []


def test_summary_agrees_with_the_trace(finished_run: Path) -> None:
    summary, trace = summary_of(finished_run), read_history(finished_run / "trace.csv")
    late = trace.columns["elbo"][18:]  # the last tenth of 20 steps
    assert np.isclose(summary["objective"]["mean"], late.mean())
    assert np.isclose(summary["objective"]["se"], late.mean(axis=0).std(ddof=1) / 2**0.5)
    assert np.isclose(summary["estimates"]["mu"]["mean"], trace.columns["E[mu]"][-1].mean())
    exact = bounds_of_parameters(finished_run, trace)[-1]
    assert np.allclose(summary["final"]["values"], exact, rtol=1e-7)
    assert np.isclose(summary["final"]["kl_to_posterior"], summary["final"]["log_evidence"] - exact.mean(), rtol=1e-6)


# --- checks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def expecting(cli: CommandLine, tmp_path: Path) -> CommandLine:
    """Run an experiment of coordinate ascent that expects E[mu] = 0.89 and, in `wrong`, also another final bound."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    right = "  - {quantity: estimates.mu.mean, value: 0.890227, tolerance: 1.0e-5}\n"
    wrong = "  - {quantity: final.median, value: -100.0, tolerance: 1.0}\n"
    absent = "  - {quantity: estimates.mu.median, value: 0.0, tolerance: 1.0}\n"
    elsewhere = "  - {quantity: final.median, value: 0.0, tolerance: 1.0, when: {dataset.num_points: 10}}\n"
    head = "# @package _global_\ndefaults:\n  - cavi_normal_gamma\n  - _self_\ntrainer:\n  steps: 20\nexpected:\n"
    for name, entries in {"right": right + elsewhere, "wrong": right + wrong, "absent": absent}.items():
        (folder / f"{name}.yaml").write_text(head + entries)
    return lambda name, *rest: cli(
        "--run", "--config-dir=conf", f"experiment={name}", "plot.enabled=false", "hydra.run.dir=run", *rest
    )


def test_checks_pass(expecting: CommandLine, tmp_path: Path) -> None:
    result = expecting("right", "strict=true", "seed=3", "trainer.checkpoint_every=5")
    assert (result.code, result.err) == (0, "")
    assert "PASS    estimates.mu.mean = 0.890227" in result.out
    (check,) = summary_of(tmp_path / "run")["checks"]
    assert check == {**check, "name": "estimates.mu.mean", "expected": 0.890227, "tolerance": 1e-5, "passed": True}


@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 1)])
def test_a_failing_check_changes_the_exit_code_when_strict(
    strict: str, code: int, expecting: CommandLine, tmp_path: Path
) -> None:
    result = expecting("wrong", f"strict={strict}")
    assert result.code == code
    assert result.err.count("\n") == code
    assert ("final.median" in result.err) == bool(code)
    assert "PASS    estimates.mu.mean" in result.out
    assert "FAIL    final.median = -185.942" in result.out
    summary = summary_of(tmp_path / "run")
    assert [check["passed"] for check in summary["checks"]] == [True, False]
    assert summary["status"] == "completed"


def test_a_check_of_nothing_fails(expecting: CommandLine, tmp_path: Path) -> None:
    """After a run of hours, a misspelt quantity does not lose its results."""
    result = expecting("absent", "strict=true")
    assert result.code == 1
    assert "FAIL    estimates.mu.median = missing" in result.out
    assert (tmp_path / "run" / "trace.csv").exists()


@pytest.mark.parametrize("changed", ["trainer.steps=21", "dtype=float32", "model.rate=2.0", "family/positive=softplus"])
def test_checks_do_not_apply_to_other_settings(changed: str, expecting: CommandLine, tmp_path: Path) -> None:
    result = expecting("wrong", "strict=true", changed)
    assert (result.code, result.err) == (0, "")
    assert f"checks not applied: settings differ from the experiment's ({changed})" in result.out
    assert summary_of(tmp_path / "run")["checks"] == []


# --- what is not finite ---------------------------------------------------------------------------------------------

DIVERGING = (*SMOKE, "trainer.limit=150", "optimizer=sgd", "optimizer.lr=[1e9,1e-6]", "hydra.run.dir=run")


def test_raise_names_step_replicate_and_parameter(cli: CommandLine, tmp_path: Path) -> None:
    result = cli(*DIVERGING)
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert [
        word for word in ("error: step 2, replicate 0", "elbo", "mu.loc", "optimizer.lr") if word not in result.err
    ] == []
    assert summary_of(tmp_path / "run")["status"] == "diverged"
    assert summary_of(tmp_path / "run")["error"] in result.err


def test_stop_ends_the_run_and_writes_it(cli: CommandLine, tmp_path: Path) -> None:
    result = cli(*DIVERGING, "trainer.on_nonfinite=stop")
    assert result.code == 1
    summary = summary_of(tmp_path / "run")
    assert (summary["status"], summary["diverged_replicates"]) == ("diverged", 1)
    assert read_history(tmp_path / "run" / "trace.csv").step[-1] < 150


def test_skip_freezes_the_replicate_and_counts_it(cli: CommandLine, tmp_path: Path) -> None:
    result = cli(*DIVERGING, "trainer.on_nonfinite=skip")
    assert (result.code, result.err) == (0, "")
    assert "1 of 2 replicates diverged" in result.out
    summary = summary_of(tmp_path / "run")
    assert (summary["status"], summary["diverged_replicates"]) == ("completed", 1)
    assert summary["objective"]["mean"] is not None
    trace = read_history(tmp_path / "run" / "trace.csv")
    assert trace.step[-1] == 150
    frozen, moving = np.stack([trace.columns[name] for name in PARAMETERS])[:, 1:].transpose(2, 1, 0)
    assert (frozen == frozen[0]).all()
    assert (moving[1:] != moving[:-1]).any(axis=1).all()
    assert np.isfinite(trace.columns["elbo"][:, 1]).all()


@pytest.mark.parametrize("batched", [False, True])
def test_what_auto_chose_is_written(batched: bool, cli: CommandLine, tmp_path: Path) -> None:
    """A resumed run must sum in the same order, so that it needs the same number of threads."""
    sweep = ("-m", "seed=1,2", "sweep.batched=true", "hydra.sweep.dir=run")
    assert cli(*SMOKE[1:], *(sweep if batched else ("--run", "hydra.run.dir=run"))).code == 0
    folder = tmp_path / "run" / "0" if batched else tmp_path / "run"
    written = OmegaConf.load(folder / "config.yaml")
    assert written.threads == 1
    assert ("seed=1" in written.overrides) == batched


def test_the_last_good_checkpoint_stays(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN in replicate 1 at step 35 of 50 is named; resumed without it, the run is the one that never had it."""
    arguments = (
        *SMOKE,
        "trainer.limit=50",
        "trainer.checkpoint_every=10",
        "trainer.execution=eager",
    )  # calls are counted
    assert cli(*arguments, "hydra.run.dir=good").code == 0
    genuine, calls = ScoreFunction.forward, iter(range(1, 10_000))

    def broken(self: ScoreFunction, *inputs: Any) -> Estimate:
        estimate = genuine(self, *inputs)
        fault = torch.tensor([[1.0], [torch.nan if next(calls) == 35 else 1.0]])
        return estimate._replace(surrogate=estimate.surrogate * fault)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreFunction, "forward", broken)
        result = cli(*arguments, "hydra.run.dir=run")
    assert result.code == 1
    assert "step 35, replicate 1: not finite: mu.loc" in result.err
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["done"] == 30
    assert cli("resume=run").code == 0
    assert trace_text(tmp_path / "run") == trace_text(tmp_path / "good")
    assert summary_of(tmp_path / "run")["status"] == "completed"


# --- stopping rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "last"),
    [
        (("trainer/stopping=plateau", "trainer.stopping.window=10", "trainer.stopping.patience=2"), 30),
        (("trainer/stopping=parameter_change", "trainer.stopping.window=25"), 25),
    ],
    ids=["plateau", "parameter_change"],
)
def test_a_rule_ends_the_run(rule: tuple[str, ...], last: int, cli: CommandLine, tmp_path: Path) -> None:
    """Nothing moves by 1000, so the rule holds at once; resuming a run that has converged changes nothing."""
    arguments = ("trainer.stopping.tolerance=1000", "trainer.limit=90", "trainer.log_every=7", "hydra.run.dir=run")
    result = cli(*SMOKE, *rule, *arguments)
    assert (result.code, result.err) == (0, "")
    assert f"converged after {last} steps" in result.out
    summary, trace = summary_of(tmp_path / "run"), trace_text(tmp_path / "run")
    assert summary["status"] == "converged"
    assert read_history(tmp_path / "run" / "trace.csv").step[-1] == last
    assert cli("resume=run").code == 0
    assert summary_of(tmp_path / "run")["status"] == "converged"
    assert trace_text(tmp_path / "run") == trace


def test_a_rule_that_does_not_hold_lets_the_run_go_on(cli: CommandLine, tmp_path: Path) -> None:
    rule = ("trainer/stopping=parameter_change", "trainer.stopping.window=5", "trainer.stopping.tolerance=1e-9")
    assert cli(*SMOKE, *rule, "hydra.run.dir=run").code == 0
    assert summary_of(tmp_path / "run")["status"] == "completed"


# --- settings that an experiment makes for another part --------------------------------------------------------------


def test_another_part_keeps_its_own_settings(cli: CommandLine, tmp_path: Path) -> None:
    """Experiment bbvi sets a learning rate for Adam, which SGD does not take over; what the user sets stays."""
    for folder, arguments in {"own": (), "set": ("optimizer.lr=1e-6",)}.items():
        assert cli(*SMOKE, "optimizer=sgd", *arguments, f"hydra.run.dir={folder}").code == 0
    rates = [OmegaConf.load(tmp_path / folder / "config.yaml").optimizer.lr for folder in ("own", "set")]
    assert rates == [OmegaConf.load(ROOT / "conf" / "optimizer" / "sgd.yaml").lr, 1e-6]


# --- reading a run again --------------------------------------------------------------------------------------------


IMAGES = (
    "experiment=vae_digits", "trainer.epochs=1", "model.hidden=[8]", "family.hidden=[8]",
    "trainer.likelihood_samples=5", "plot.enabled=false", "hydra.run.dir=run",
)  # fmt: skip


def test_likelihood_of_held_out_points(cli: CommandLine, tmp_path: Path) -> None:
    """Below the ELBO of the same q in its negative, as log p(x) is above it; on the terminal, too."""
    result = cli("--run", *IMAGES)
    assert (result.code, result.err) == (0, "")
    summary = summary_of(tmp_path / "run")
    found = summary["diagnostics"]["likelihood"]
    assert (found["samples"], found["points"]) == (5, 297)
    assert -summary["final"]["mean"] - 5 < found["nll"] < -summary["final"]["mean"]
    assert 0.2 <= found["ess"] <= 1
    assert f"{found['nll']:.6f}" in result.out


def test_an_interrupted_run_does_not_wait_for_its_likelihood(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interrupt, "requested", lambda self: True)
    assert cli("--run", *IMAGES).err == ""
    assert summary_of(tmp_path / "run")["diagnostics"] == {}


def test_load_reopens_a_run(finished_run: Path) -> None:
    torch.set_default_dtype(torch.float32)
    stream = torch.get_rng_state()
    run = vi_core.load(finished_run)
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), stream)
    assert run.config["replicates"] == 2
    assert run.entries == summary_of(finished_run)
    mean, std = run.q.moments()["tau"]
    assert mean.dtype == torch.float64
    assert np.isclose(float(mean.mean()), run.entries["estimates"]["tau"]["mean"])
    assert np.isclose(float(std.mean()), run.entries["estimates"]["tau"]["sd"])
    assert equal(run.trace.columns["E[tau]"][-1], mean[:, 0].numpy())


def test_a_loaded_run_is_a_fit_whatever_its_model(finished_run: Path) -> None:
    """Its numbers are those of summary.json and of the exact q; what a conjugate model lacks is said in one line."""
    fit = vi_core.load(finished_run)
    assert isinstance(fit, Fit) and repr(fit).startswith("NormalGamma: mean_field, control_variate; ELBO ")
    mean, std = (float(value[fit.best, 0]) for value in fit.q.moments()["tau"])
    row: Any = fit.summary()["tau"]
    assert abs(row["mean"] - mean) < 6 * std / 2000**0.5 and row["sd"] == pytest.approx(std, rel=0.3)
    assert fit.draws(7)["mu"].shape == (7,) and fit.history is fit.trace
    assert isinstance(fit.model, HasExpectedBound)
    exact = fit.model.expected_bound(fit.problem.family.variational(), fit.data).flatten().tolist()
    spread = fit._weighed.log_w.std(dim=0) / len(fit._weighed.log_w) ** 0.5
    assert (np.abs(fit.elbo - exact) < 6 * spread.numpy()).all()
    assert fit.verdict.line.split("  ")[0] == summary_of(finished_run)["verdict"]["line"].split("  ")[0]
    assert len(fit.plot().axes) == 4
    for call, words in (
        (lambda: fit.predict({}), "predict is for a vi_core.BayesianModel, .* this is a NormalGamma; use draws"),
        (lambda: fit.log_predictive({}), "log_predictive is for a vi_core.BayesianModel"),
        (lambda: fit.save("fit.npz"), "this is a NormalGamma; keep the folder of its run"),
    ):
        with pytest.raises(LabError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not Path("fit.npz").exists()


def test_a_loaded_point_has_no_verdict(cli: CommandLine, tmp_path: Path) -> None:
    point = ("model=gamma", "family=point_mass", "estimator=pathwise", "dataset=gamma", "trainer.steps=3")
    assert cli(*point, "replicates=2", "plot.enabled=false", "hydra.run.dir=run").code == 0
    fit = vi_core.load(tmp_path / "run")
    values = summary_of(tmp_path / "run")["final"]["values"]
    assert fit.elbo.tolist() == pytest.approx(values) and "log-likelihood per point" in repr(fit)
    assert fit.summary()["shape"]["mean"] == pytest.approx(float(fit.q.moments()["shape"][0][fit.best, 0]))
    for call in (lambda: fit.verdict, fit.corrected):
        with pytest.raises(LabError, match="needs a q with a density, and family=point_mass has none"):
            call()


def test_figures_are_drawn_again(cli: CommandLine, tmp_path: Path, finished_run: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    plots = tmp_path / "run" / "plots"
    plots.mkdir()
    (plots / "bound.png").write_text("old")
    result = cli("task=plot", "run=run")
    assert (result.code, result.err) == (0, "")
    assert {path.name for path in plots.iterdir()} == {
        "bound.png", "expectations.png", "parameters.png", "posterior.png", "density.png",
    }  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.iterdir())
    assert result.out.count("figure") == 5
    assert summary_of(tmp_path / "run") == summary_of(finished_run)


# --- seeds and state ------------------------------------------------------------------------------------------------


def test_the_seed_decides_the_trace(cli: CommandLine, tmp_path: Path, finished_run: Path) -> None:
    for folder, seed in (("same", 0), ("other", 1)):
        assert cli(*SMOKE, f"seed={seed}", f"hydra.run.dir={folder}").code == 0
    assert trace_text(tmp_path / "same") == trace_text(finished_run)
    assert trace_text(tmp_path / "other") != trace_text(finished_run)


def test_jobs_of_one_process_do_not_see_each_other(cli: CommandLine, tmp_path: Path, finished_run: Path) -> None:
    """After a job in float32 with another seed and threads, the first job again, in one sweep."""
    sweep = ("-m", *SMOKE[1:], "dtype=float32,auto", "hydra.sweep.dir=sweep", "threads=1")
    assert cli(*sweep).code == 0
    assert trace_text(tmp_path / "sweep" / "0") != trace_text(finished_run)
    assert trace_text(tmp_path / "sweep" / "1") == trace_text(finished_run)
    assert [summary_of(tmp_path / "sweep" / str(job))["environment"]["dtype"] for job in range(2)] == [
        "float32",
        "float64",
    ]


def test_what_is_outside_the_numbers_leaves_them_alone(cli: CommandLine, tmp_path: Path, finished_run: Path) -> None:
    """Looking at a run does not change it: checkpoints and the stopping rule that never holds."""
    arguments = ("trainer.checkpoint_every=3", "trainer/stopping=plateau", "trainer.stopping.window=4")
    assert cli(*SMOKE, *arguments, "hydra.run.dir=run").code == 0
    assert trace_text(tmp_path / "run") == trace_text(finished_run)


def test_expected_numbers_belong_to_their_data(cli: CommandLine, tmp_path: Path) -> None:
    """Where a file lies changes nothing; other contents do, and the run says so."""
    rows = [f"{170 + i % 7},{-20 - i % 5},{10 + i % 3}" for i in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["long,lat,stations", *rows]) + "\n")
    arguments = ("dataset.path=mine.csv", "model.components=2", "plot.enabled=false", "hydra.sweep.dir=sweep")
    assert cli("experiment=earthquakes_catalogue", *arguments).code == 0
    summary = summary_of(tmp_path / "sweep" / "0")
    assert summary["checks"] == []
    assert "data are others" in summary["checks_skipped"]

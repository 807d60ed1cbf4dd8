"""Batched sweeps: jobs that differ in numbers train together, and each ends as a run alone.

Without randomness (`estimator=exact`, equal starts) a batched sweep has the traces of the one-by-one sweep, the oracle
for values per replicate, for what is cut out of a batch and for when it is cut. With randomness the two agree in law:
12 two-sample tests and a correlation, each at 4.5 standard errors: a false alarm in 11,000 runs of this file.
"""

import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vi_core
from experiments.config.hydra_adapter import yaml_text
from experiments.results.summary import spread
from experiments.sweeps import batch
from experiments.sweeps.composing import sets_a_number
from tests.conftest import CommandLine, run_in, summary_of
from vi_core.datasets.synthetic import NormalDraws
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential
from vi_core.errors import ConfigError
from vi_core.estimators.base import Estimate
from vi_core.estimators.exact import Exact
from vi_core.families.mean_field import MeanField
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.optimizers.natural_gradient import NaturalGradient
from vi_core.optimizers.sgd import RobbinsMonro
from vi_core.per_replicate import column, each
from vi_core.problem import Problem
from vi_core.stacking.shares import cut
from vi_core.training.history import History, read_history
from vi_core.types import Latent, Params

EXACT = ("-m", "experiment=bbvi", "estimator=exact", "family.loc_std=0", "plot.enabled=false", "replicates=2")
"""Nothing random is left but the draws of samples.npz and of the diagnostics."""
BATCHED = "sweep.batched=true"
PRIOR = {
    "loc": [1.0, -0.5, 2.0],
    "precision_ratio": [0.1, 3.0, 1.0],
    "concentration": [1.0, 2.5, 4.0],
    "rate": [2.0, 0.7, 1.0],
}


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of sweep.csv."""
    with (folder / "sweep.csv").open() as lines:
        return list(csv.DictReader(lines))


def both_ways(folder: Path, *arguments: str, code: int = 0) -> tuple[Path, Path]:
    """Run a sweep one by one and batched; return its folders."""
    for name, mode in {"alone": "sweep.batched=false", "batched": BATCHED}.items():
        result = run_in(folder, *arguments, mode, f"hydra.sweep.dir={name}")
        assert result.code == code, result.err
        assert ("in one batch" in result.out) == (name == "batched")
    return folder / "alone", folder / "batched"


def difference(first: History, second: History) -> float:
    """The largest relative difference of two traces; infinite where their shapes differ."""
    if list(first.columns) != list(second.columns) or not np.array_equal(first.step, second.step):
        return np.inf
    pairs = ((first.columns[name], second.columns[name]) for name in first.columns)
    return max(relative(a, b) for a, b in pairs)


def relative(first: np.ndarray, second: np.ndarray) -> float:
    """The largest relative difference of two arrays, in which what is not finite has to be the same."""
    numbers = np.isfinite(first)
    if not np.array_equal(first[~numbers], second[~numbers], equal_nan=True):
        return np.inf
    return float(np.max(np.abs(first[numbers] - second[numbers]) / (1e-6 + np.abs(first[numbers])), initial=0))


def traces(folder: Path) -> list[History]:
    """The traces of a sweep's jobs, in their order."""
    return [read_history(path / "trace.csv") for path in sorted(folder.iterdir()) if path.name.isdigit()]


# --- numbers for each replicate -------------------------------------------------------------------------------------


def parameters(replicates: int) -> Params:
    """A mean-field q for each replicate."""
    torch.manual_seed(0)
    values = torch.rand(4, replicates, 1, dtype=torch.float64) + 0.5
    return {"mu": {"loc": values[0], "scale": values[1]}, "tau": {"concentration": values[2], "rate": values[3]}}


def of_replicate(params: Params, index: int) -> Params:
    """q of one replicate."""
    return {name: {key: v[index : index + 1] for key, v in group.items()} for name, group in params.items()}


def evaluate(model: NormalGamma, params: Params) -> torch.Tensor:
    """All that training asks of a model, (R, number of values)."""
    x = model.summarize(NormalDraws(num_points=20).load().train.double())
    z = {"mu": params["mu"]["loc"].unsqueeze(0), "tau": params["tau"]["rate"].unsqueeze(0)}
    found = [model.expected_bound(params, x), model.kl(params), model.log_joint(z, x).squeeze(0)]
    found += [value for value, _ in model.factors(z, x).values()]
    for block in model.latents:
        found += model.update(block, params, x).values()
    return torch.cat([value.reshape(-1, 1) for value in found], dim=1)


def test_each_replicate_has_its_own_prior() -> None:
    """Three priors in one model are three models; shifted by one replicate they are not."""
    torch.set_default_dtype(torch.float64)
    params = parameters(3)
    together = evaluate(NormalGamma(3, **PRIOR), params)
    alone = torch.cat(
        [
            evaluate(NormalGamma(**{key: values[i] for key, values in PRIOR.items()}), of_replicate(params, i))
            for i in range(3)
        ]
    )
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)
    shifted = evaluate(NormalGamma(3, **{key: values[1:] + values[:1] for key, values in PRIOR.items()}), params)
    moved = (shifted - alone).abs().amax(dim=0) > 1e-3
    assert moved.sum() == len(moved) - 1  # all but the likelihood


def test_priors_that_differ_have_no_single_exact_answer() -> None:
    model = NormalGamma(3, **PRIOR)
    assert model.exact(model.summarize(NormalDraws(num_points=20).load().train.double())) == {}


def test_a_prior_for_each_replicate_is_no_state() -> None:
    assert NormalGamma(3, **PRIOR).state_dict() == {}


def test_each_replicate_has_its_own_start() -> None:
    torch.set_default_dtype(torch.float64)
    latents = {"mu": Latent(supports.real), "tau": Latent(supports.positive)}
    arguments = {"loc": [0.0, 5.0, -5.0], "loc_std": [0.0, 0.0, 1.0], "scale": [1.0, 2.0, 3.0], "rate": 4.0}
    params = MeanField(latents, 3, positive=Exponential(), **arguments).variational()
    assert params["mu"]["loc"][:2].flatten().tolist() == [0.0, 5.0]
    assert params["mu"]["loc"][2].item() not in (-5.0, 0.0)
    torch.testing.assert_close(params["mu"]["scale"].flatten(), torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(params["tau"]["rate"].flatten(), torch.full((3,), 4.0))


def test_each_replicate_has_its_own_schedule() -> None:
    """Robbins–Monro steps with three offsets and powers are those of three optimizers."""
    lr, offset, power = [1.0, 2.0, 3.0], [0.0, 10.0, 5.0], [0.6, 0.8, 1.0]
    together = RobbinsMonro(lr=lr, offset=offset, power=power)
    where = torch.zeros(3, 1, 2)
    together.bind([where], 3)
    for _ in range(4):
        together([where], [torch.ones(3, 1, 2)], torch.ones(3, dtype=torch.bool))
    for i in range(3):
        own, alone = torch.zeros(1, 1, 2), RobbinsMonro(lr=lr[i], offset=offset[i], power=power[i])
        alone.bind([own], 1)
        for _ in range(4):
            alone([own], [torch.ones(1, 1, 2)], torch.ones(1, dtype=torch.bool))
        torch.testing.assert_close(where[i], own[0])


@pytest.mark.parametrize(
    "build",
    [
        lambda: NormalGamma(2, loc=[1.0, 2.0, 3.0]),
        lambda: MeanField({"mu": Latent(supports.real)}, 2, positive=Exponential(), scale=[1.0, 2.0, 3.0]),
        lambda: NaturalGradient(damping=[0.1, 0.2, 0.3]).bind([torch.zeros(2, 1, 2)], 2, lambda: torch.eye(2)),
    ],
)
def test_a_list_of_another_length_is_refused(build: Any) -> None:
    with pytest.raises(ConfigError, match="has 3 values for replicates=2; give one value, or one for each replicate"):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: NormalGamma(2, rate=[1.0, 0.0]),
        lambda: MeanField({"mu": Latent(supports.real)}, 2, positive=Exponential(), scale=[1.0, -2.0]),
        lambda: RobbinsMonro(power=[0.6, 0.5]),
        lambda: NaturalGradient(damping=[]),
    ],
)
def test_every_value_of_a_list_is_checked(build: Any) -> None:
    with pytest.raises(ConfigError, match=r"\w+\.\w+=\["):
        build()


def test_each_applies_to_numbers_and_lists() -> None:
    assert each(lambda a, b: a + b, 1.0, 2.0) == 3.0
    assert each(lambda a, b: a + b, [1.0, 2.0], 10.0) == [11.0, 12.0]
    assert column([1.0, 2.0], 2, "a").shape == (2, 1)


def test_a_share_of_a_state() -> None:
    state = {"parameters": torch.arange(6.0).reshape(6, 1), "clock": torch.tensor(7.0)}
    like = {"parameters": torch.zeros(2, 1), "clock": torch.tensor(0.0)}
    own = cut(state, like, slice(2, 4))
    assert own["parameters"].flatten().tolist() == [2.0, 3.0]
    assert own["clock"].item() == 7.0
    own["parameters"].zero_()
    assert state["parameters"].sum() == 15.0


# --- what may share a batch -----------------------------------------------------------------------------------------


def config_of(folder: Path, job: int) -> dict[str, Any]:
    """The configuration that a job wrote."""
    return yaml.safe_load((folder / str(job) / "config.yaml").read_text())


def test_numbers_of_a_constructor_may_differ(finished_run: Path) -> None:
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    paths = batch.batchable(config)
    assert {"seed", "optimizer.lr", "model.rate", "family.scale"} <= set(paths)
    assert not {"estimator.num_samples", "replicates", "optimizer.beta1", "dataset.num_points"} & set(paths)
    other = config | {"seed": 5, "optimizer": config["optimizer"] | {"lr": 0.5}, "overrides": ["x=1"]}
    assert batch.group_key(config) == batch.group_key(other)
    assert batch.group_key(config) != batch.group_key(config | {"replicates": 3})


def test_values_are_listed_only_where_they_differ(finished_run: Path) -> None:
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    other = config | {"optimizer": config["optimizer"] | {"lr": [0.5, 0.6]}}
    whole = batch.merged([config, other])
    assert whole["replicates"] == 4
    assert whole["optimizer"]["lr"] == [0.01, 0.01, 0.5, 0.6]
    assert whole["model"]["rate"] == 2.0
    assert config["optimizer"]["lr"] == 0.01


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("seed=3", True),
        ("optimizer.lr=1e-2", True),
        ("optimizer.lr=[1e-2,1e-3]", False),
        ("strict=true", False),
        ("experiment=bbvi", False),
        ("experiment=1", False),
        ("+seed=3", False),
        ("~seed", False),
        ("hydra.job.num=3", False),
    ],
)
def test_overrides_that_set_a_number(text: str, number: bool) -> None:
    assert sets_a_number(text) == number


def test_yaml_says_what_omegaconf_says(finished_run: Path) -> None:
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    awkward = {"a": "1e-3", "b": "yes", "c": "null", "d": None, "e": 1.0, "f": "x: y", "g": ["01", 2]}
    for content in (config, awkward):
        assert yaml.safe_load(yaml_text(content)) == content


# --- the same numbers where nothing is random -----------------------------------------------------------------------


def test_a_batched_sweep_is_the_sweep(tmp_path: Path) -> None:
    """Rates, priors and starts, eight jobs: traces, final bounds and exact answers of each job are its own."""
    grid = ("optimizer.lr=1e-2,5e-2", "model.rate=1,2", "family.scale=1,3", "trainer.steps=40")
    alone, batched = both_ways(tmp_path, *EXACT, *grid)
    pairs = list(zip(traces(alone), traces(batched), strict=True))
    assert max(difference(*pair) for pair in pairs) < 1e-7
    assert min(difference(pairs[0][0], second) for _, second in pairs[1:]) > 1e-3
    for job in map(str, range(8)):
        one, other = summary_of(alone / job), summary_of(batched / job)
        assert one["config_hash"] == other["config_hash"]
        assert other["final"]["values"] == pytest.approx(one["final"]["values"], rel=1e-9)
        assert other["final"]["log_evidence"] == one["final"]["log_evidence"]
        assert other["estimates"]["tau"]["exact"] == one["estimates"]["tau"]["exact"]
        assert other["batch"] == {"jobs": 8, "replicates": 16, "seed": other["batch"]["seed"]}
        assert other.keys() - one.keys() == {"batch"}
    assert [row["status"] for row in rows(batched)] == 8 * ["completed"]


def test_the_folder_is_that_of_a_run_alone(tmp_path: Path) -> None:
    """Same files, same configuration, same layout of the checkpoint; the fit reopens, resumes and is drawn."""
    alone, batched = both_ways(tmp_path, *EXACT, "seed=1,2", "trainer.steps=20")
    names = [{str(p.relative_to(run)) for p in run.rglob("*")} for run in (alone / "1", batched / "1")]
    assert names[0] - {"checkpoint.previous.pt"} == names[1]  # a batch writes one checkpoint of each job, at its end
    one, other = config_of(alone, 1), config_of(batched, 1)
    assert [key for key in one if one[key] != other[key]] == ["sweep", "overrides"]
    for name in ("config", "hydra", "overrides"):
        texts = [(run / "1" / ".hydra" / f"{name}.yaml").read_text() for run in (alone, batched)]
        same = texts[0].replace("batched=False", "batched=True").replace("batched: false", "batched: true")
        assert yaml.safe_load(
            same.replace("/alone", "/batched").replace("=alone", "=batched").replace("dir: alone", "dir: batched")
        ) == yaml.safe_load(texts[1])
    contents = [torch.load(run / "1" / "checkpoint.pt", weights_only=True) for run in (alone, batched)]
    assert contents[0].keys() == contents[1].keys()
    assert contents[0]["step"].keys() == contents[1]["step"].keys()
    run = vi_core.load(batched / "1")
    mean, _ = run.q.moments()["mu"]
    assert mean.flatten().tolist() == pytest.approx(run.trace.columns["E[mu]"][-1].tolist(), rel=1e-8)
    assert run_in(tmp_path, "task=plot", f"run={batched / '1'}").code == 0
    assert (batched / "1" / "plots" / "bound.png").is_file()
    for folder in (alone, batched):
        assert run_in(tmp_path, f"resume={folder / '1'}", "trainer.steps=30").code == 0
    assert difference(traces(alone)[1], traces(batched)[1]) < 1e-7
    assert traces(batched)[1].step[-1] == 30


@pytest.mark.slow
def test_batches_of_a_sane_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five jobs of two replicates, at most four replicates at once: two batches, and one job by itself."""
    monkeypatch.setattr(batch, "MOST_REPLICATES", 4)
    alone, batched = both_ways(tmp_path, *EXACT, "optimizer.lr=1e-2,2e-2,3e-2,4e-2,5e-2", "trainer.steps=10")
    assert [summary_of(batched / str(job)).get("batch", {}).get("jobs") for job in range(5)] == [2, 2, 2, 2, None]
    assert max(map(difference, traces(alone), traces(batched))) < 1e-7


def test_what_cannot_be_stacked_is_a_group_of_its_own(cli: CommandLine, tmp_path: Path) -> None:
    arguments = ("trainer.steps=5", "plot.enabled=false", "replicates=1", "hydra.sweep.dir=sweep")
    result = cli("-m", BATCHED, "estimator.num_samples=5,10", "seed=0,1", *arguments)
    assert (result.code, result.err) == (0, "")
    assert result.out.count("2 jobs of 1 replicates in one batch") == 2
    assert [row["estimator.num_samples"] for row in rows(tmp_path / "sweep")] == ["5", "5", "10", "10"]


def test_a_setting_that_follows_a_number(cli: CommandLine, tmp_path: Path) -> None:
    """An experiment whose data follow the seed has no template: every job has data of its own, and runs alone."""
    conf = tmp_path / "conf" / "experiment"
    conf.mkdir(parents=True)
    (conf / "follow.yaml").write_text(
        "# @package _global_\ndefaults:\n  - cavi_normal_gamma\n  - _self_\ndataset:\n  seed: ${seed}\n"
    )
    arguments = ("--config-dir=conf", "-m", "experiment=follow", "trainer.steps=3", "plot.enabled=false", "seed=1,2")
    assert cli(*arguments, BATCHED, "hydra.sweep.dir=sweep").code == 0
    assert [config_of(tmp_path / "sweep", job)["dataset"]["seed"] for job in (0, 1)] == [1, 2]


# --- ends -----------------------------------------------------------------------------------------------------------


def test_a_bad_point_fails_alone(tmp_path: Path) -> None:
    for mode, folder in (("sweep.batched=false", "alone"), (BATCHED, "batched")):
        result = run_in(
            tmp_path, *EXACT, "optimizer.lr=1e-2,-1", "seed=0,1", "trainer.steps=5", mode, f"hydra.sweep.dir={folder}"
        )
        assert result.code == 1
        assert (
            result.err
            == 2 * "error: optimizer.lr=-1 must be positive and finite: one number, or one for each replicate.\n"
        )
        assert [row["status"] for row in rows(tmp_path / folder)] == ["completed", "completed", "failed", "failed"]
    keys = ("status", "error", "error_type", "config_hash", "experiment", "schema")
    one, other = (summary_of(tmp_path / folder / "2") for folder in ("alone", "batched"))
    assert [one[key] for key in keys] == [other[key] for key in keys]


@pytest.mark.parametrize(
    "policy", ["raise", *(pytest.param(name, marks=pytest.mark.slow) for name in ("stop", "skip"))]
)
def test_a_point_that_diverges_ends_as_if_alone(policy: str, tmp_path: Path) -> None:
    """SGD with a rate that is far too large; the trace, the message and the status are those of the run alone."""
    grid = ("optimizer=sgd", "optimizer.lr=1e-4,1e3", "trainer.steps=250", f"trainer.on_nonfinite={policy}")
    alone, batched = both_ways(tmp_path, *EXACT, *grid, code=1)
    assert [row["status"] for row in rows(batched)] == ["completed", "diverged"]
    one, other = (summary_of(folder / "1") for folder in (alone, batched))
    assert one.get("error") == other.get("error")
    assert max(map(difference, traces(alone), traces(batched))) < 1e-7
    checkpoints = [(folder / "1" / "checkpoint.pt").exists() for folder in (alone, batched)]
    assert checkpoints == 2 * [policy != "raise"]


@pytest.mark.slow
def test_a_point_that_converges_ends_as_if_alone(tmp_path: Path) -> None:
    """A stopping rule holds for each job at its own time, and leaves it where it would have stopped."""
    rule = (
        "trainer/stopping=plateau",
        "trainer.stopping.window=20",
        "trainer.stopping.patience=1",
        "trainer.log_every=7",
    )
    alone, batched = both_ways(tmp_path, *EXACT, *rule, "optimizer.lr=2e-2,1e-1", "trainer.steps=2000")
    steps = [int(trace.step[-1]) for trace in traces(batched)]
    assert steps == [int(trace.step[-1]) for trace in traces(alone)]
    assert steps[0] > steps[1]
    assert [row["status"] for row in rows(batched)] == ["converged", "converged"]
    assert max(map(difference, traces(alone), traces(batched))) < 1e-7


def test_a_signal_ends_all_points(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a batch: every job is written as interrupted; resume= goes on with one, sweep.resume with all."""
    genuine, calls = Exact.forward, []

    def forward(self: Exact, *inputs: Any) -> Estimate:
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return genuine(self, *inputs)

    arguments = (*EXACT, BATCHED, "trainer.steps=20", "trainer.log_every=5")
    with monkeypatch.context() as patch:
        patch.setattr(Exact, "forward", forward)
        assert cli(*arguments, "optimizer.lr=1e-2,2e-2", "hydra.sweep.dir=sweep").code == 130
    assert [summary_of(tmp_path / "sweep" / job)["status"] for job in "01"] == ["interrupted", "interrupted"]
    assert [int(trace.step[-1]) for trace in traces(tmp_path / "sweep")] == [7, 7]
    assert cli("resume=sweep/0").code == 0
    result = cli(*arguments, "optimizer.lr=1e-2,2e-2,3e-2", "sweep.resume=sweep")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("is finished already") == 1
    assert "2 jobs of 2 replicates in one batch" in result.out
    assert [row["status"] for row in rows(tmp_path / "sweep")] == 3 * ["completed"]
    assert cli(*arguments, "optimizer.lr=1e-2,2e-2,3e-2", "hydra.sweep.dir=whole").code == 0
    resumed = sorted(traces(tmp_path / "sweep"), key=lambda trace: trace.columns["elbo"][-1, 0])
    whole = sorted(traces(tmp_path / "whole"), key=lambda trace: trace.columns["elbo"][-1, 0])
    assert max(map(difference, [t for t in resumed if t.step[-1] == 20], whole)) < 1e-7


def test_batched_without_a_sweep_is_one_line(cli: CommandLine) -> None:
    result = cli(BATCHED, "trainer=smoke")
    assert result.code == 1
    assert result.err == "error: sweep.batched=true trains the jobs of a sweep together: add -m and what it sweeps.\n"


# --- the same law where something is random -------------------------------------------------------------------------

RANDOM = ("-m", "experiment=bbvi", "trainer.steps=60", "plot.enabled=false", "replicates=300", "optimizer.lr=2e-2,1e-1")
COLUMNS = ("E[mu]", "E[tau]", "elbo")


def late(folder: Path) -> dict[tuple[int, str], np.ndarray]:
    """What each replicate of each job has come to, (R,)."""
    return {(job, name): trace.columns[name][-1] for job, trace in enumerate(traces(folder)) for name in COLUMNS}


def two_sample_z(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Differences of the means and of the variances of two samples, in standard errors."""

    def score(a: np.ndarray, b: np.ndarray) -> float:
        return float(abs(a.mean() - b.mean()) / np.sqrt(a.var() / len(a) + b.var() / len(b)))

    return score(first, second), score((first - first.mean()) ** 2, (second - second.mean()) ** 2)


@pytest.fixture(scope="module")
def random_sweeps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two jobs of 300 replicates with one seed, one by one and batched."""
    return both_ways(tmp_path_factory.mktemp("random"), *RANDOM)


def test_the_law_of_a_job_is_that_of_the_job_alone(random_sweeps: tuple[Path, Path]) -> None:
    """Means and variances over replicates; the two learning rates, exchanged, are told apart by the same test."""
    alone, batched = map(late, random_sweeps)
    scores = {key: two_sample_z(alone[key], batched[key]) for key in alone}
    assert max(max(pair) for pair in scores.values()) < 4.5
    exchanged = [max(two_sample_z(alone[0, name], batched[1, name])) for name in COLUMNS]
    assert min(exchanged) > 4.5


def test_noise_of_a_batch_is_measured_at_the_parameters_of_each_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters stand for the noise, which has none of its own without randomness: along the run they are the same."""

    def parameters(problem: Problem, count: int, alive: np.ndarray) -> dict[str, Any]:
        torch.rand(count)
        total = spread(problem.step.moving[0].detach().flatten(1).sum(dim=1).numpy(), alive)
        return {"total": total, "latents": {"mu": total["mean"]}, "bias": None}

    monkeypatch.setattr("experiments.results.noise.gradient_noise", parameters)
    monkeypatch.setattr("experiments.results.diagnostics.gradient_noise", parameters)
    settings = ("optimizer.lr=0.01,0.1", "trainer.steps=40", "trainer.checkpoint_every=10", "trainer.gradient_draws=3")
    alone, batched = both_ways(tmp_path, *EXACT, *settings)
    for job in "01":
        found, expected = (summary_of(folder / job)["diagnostics"]["gradient"] for folder in (batched, alone))
        assert [row["step"] for row in found["along"]] == [10, 20, 30]
        for row, other in zip(found["along"], expected["along"], strict=True):
            assert row["total"] == pytest.approx(other["total"], rel=1e-12)
        assert len({row["total"] for row in found["along"]}) == 3
        assert len((batched / job / "noise.csv").read_text().splitlines()) == 4
    assert summary_of(batched / "0")["diagnostics"] != summary_of(batched / "1")["diagnostics"]


def test_jobs_of_a_batch_share_no_noise(random_sweeps: tuple[Path, Path]) -> None:
    """Jobs of one seed start from the same values one by one, and from independent ones in a batch."""

    def correlation(folder: Path) -> float:
        first, second = (trace.columns["mu.loc"][0] for trace in traces(folder))
        return float(np.corrcoef(first, second)[0, 1])

    alone, batched = random_sweeps
    assert abs(correlation(batched)) < 4.5 / 300**0.5
    assert correlation(alone) > 0.9


def test_a_batch_is_its_seeds(cli: CommandLine, tmp_path: Path) -> None:
    """The same grid gives the same numbers again, other seeds give others."""
    arguments = ("-m", BATCHED, "trainer.steps=5", "plot.enabled=false", "replicates=2", "optimizer.lr=1e-2,1e-1")
    for folder, seeds in {"first": "0,1", "again": "0,1", "other": "2,3"}.items():
        assert cli(*arguments, f"seed={seeds}", f"hydra.sweep.dir={folder}").code == 0
    first, again, other = (traces(tmp_path / name) for name in ("first", "again", "other"))
    assert max(map(difference, first, again)) == 0.0
    assert min(map(difference, first, other)) > 1e-3

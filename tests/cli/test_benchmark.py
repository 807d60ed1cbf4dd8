"""The benchmark: contenders that compute the same, take turns, and are caught when they answer wrongly.

The reports' loops are held against this program: on images sample by sample, from the same weights and noise; on the
Normal–Gamma problem against replicates of the same algorithm, within six of their standard deviations (one false alarm
in some 10^8). Processes and turns are tested with `tests/contender.py`, which does what it is told.
"""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from experiments.benchmark import ours, report_000, report_001
from experiments.benchmark.conjugate import START_000, START_001, bbvi_large, optimum, overrides
from experiments.benchmark.docs import page, significant
from experiments.benchmark.entries import Entry, Place, Problem
from experiments.benchmark.fresh import extrapolated_sweep
from experiments.benchmark.images import StoredImages, synthetic, write_images
from experiments.benchmark.measure import Effort, measure, upwards
from experiments.benchmark.problems import CONTENDERS, PROBLEMS, TITLES
from experiments.benchmark.processes import Worker
from experiments.benchmark.protocol import Broken, Missing
from experiments.benchmark.results import Row, quantities, read_rows, write_rows
from experiments.benchmark.targets import judge
from experiments.benchmark.task import chosen_entries
from tests.conftest import ROOT, CommandLine, summary_of
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.errors import DataError
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.pathwise import Pathwise
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.models.autoencoders.vae import VAE

Broke = pytest.MonkeyPatch
EFFORT = Effort(repetitions=3, block_s=0.01)
SIGMAS = 6.0


def silent(text: str) -> None:
    """Say nothing."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder."""
    return Place(tmp_path, tmp_path / "images.npz", 2)


# --- the reports' loops compute what this program computes ----------------------------------------------------------


@cache
def spreads(steps: int, arguments: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of E[mu] and E[tau] over 32 replicates of this program."""
    run = ours.Run({"overrides": [*arguments, "replicates=32"], "threads": 1})
    run.run(steps)
    family = run.problem.family
    with torch.no_grad():
        moments = family.distribution(family.variational()).moments()
    return {name: (mean.mean().item(), mean.std().item()) for name, (mean, _) in moments.items()}


def distance(contender: Any, steps: int, arguments: tuple[str, ...]) -> float:
    """Largest distance of a contender's answer from the replicates, in their standard deviations."""
    expected = spreads(steps, arguments)
    contender.run(steps)
    found = contender.answer()
    return max(abs(found[name] - mean) / std for name, (mean, std) in expected.items())


def loop_000(place: Place) -> report_000.BlackBox:
    settings = {"data": place.points(100), "num_samples": 50, "lr": 1e-2, "start": START_000, "problem": "bbvi"}
    return cast(report_000.BlackBox, report_000.build(settings))


ARGUMENTS_000 = (*overrides(START_000, estimator="score_function", **{"family/positive": "softplus"}),)
ARGUMENTS_001 = (
    "experiment=bbvi_structured",
    "estimator.num_samples=10",
    *(f"family.{name}={value}" for name, value in START_001.items()),
)


def test_report_000_follows_the_same_path(place: Place) -> None:
    assert distance(loop_000(place), 100, ARGUMENTS_000) < SIGMAS


def test_a_loop_that_forgets_the_likelihood_is_caught(place: Place, monkeypatch: Broke) -> None:
    loop = loop_000(place)
    loop.x = loop.x[:1]
    assert distance(loop, 100, ARGUMENTS_000) > SIGMAS


def loop_001(place: Place) -> report_001.SampleBySample:
    settings = {"data": place.points(100), "num_samples": 10, "lr": 1e-5, "start": START_001}
    return cast(report_001.SampleBySample, report_001.build(settings))


def test_report_001_follows_the_same_path(place: Place) -> None:
    assert distance(loop_001(place), 50, ARGUMENTS_001) < SIGMAS


def test_a_loop_that_forgets_the_density_of_the_data_is_caught(place: Place) -> None:
    loop = loop_001(place)
    loop.x = loop.x[:1]
    assert distance(loop, 50, ARGUMENTS_001) > SIGMAS


def twins(num_samples: int, place: Place) -> tuple[report_000.Autoencoder, AmortizedNormal, VAE]:
    """The report's autoencoder, and this program's encoder and decoder with the same weights."""
    np.savez(place.images, images=synthetic(8))
    sizes = {
        "data": str(place.images),
        "batch_size": 4,
        "hidden": 7,
        "latent": 3,
        "num_samples": num_samples,
        "lr": 0.1,
    }
    loop = cast(report_000.Autoencoder, report_000.build({"problem": "vae" if num_samples == 1 else "iwae", **sizes}))
    model = VAE(784, latent_dim=3, hidden=(7, 7))
    family = AmortizedNormal(model.latents, 1, 784, hidden=(7, 7))
    encoder, decoder = loop.encoder, loop.decoder
    with torch.no_grad():
        heads = [torch.cat([getattr(encoder.mean, k), getattr(encoder.log_variance, k)]) for k in ("weight", "bias")]
        theirs = [*encoder.first.parameters(), *encoder.second.parameters(), *heads]
        for parameter, value in zip(family.encoder.parameters(), theirs, strict=True):
            parameter.copy_(value)
        theirs = [*decoder.first.parameters(), *decoder.second.parameters(), *decoder.output.parameters()]
        for parameter, value in zip(model.decoder.parameters(), theirs, strict=True):
            parameter.copy_(value)
    return loop, family, model


def difference(num_samples: int, place: Place, images: int, slope: float = 0.2) -> float:
    """Difference of the bounds of both, with the same noise; the report's rectifier may have another slope."""
    loop, family, model = twins(num_samples, place)
    loop.encoder.activation.negative_slope = slope
    x = (torch.from_numpy(synthetic(images)) > 127).float()
    torch.manual_seed(3)
    theirs = -loop.loss(x).item()
    torch.manual_seed(3)
    if num_samples == 1:
        mine = ClosedFormKL(num_samples=1)(model, family, ELBO(), x).bound.mean().item()
    else:
        mine = Pathwise(num_samples=num_samples)(model, family, IWELBO(), x).bound.mean().item()
    return abs(theirs - mine)


@pytest.mark.parametrize(("num_samples", "images"), [(1, 5), (6, 1)])
def test_report_000_has_the_same_bounds(num_samples: int, images: int, place: Place) -> None:
    """With one image, or one sample, both draw their noise in the same order."""
    assert difference(num_samples, place, images) < 2e-3  # of 543 nats, in float32
    assert difference(num_samples, place, images, slope=0.4) > 5e-3


def test_report_000_trains_on_images(place: Place) -> None:
    loop, *_ = twins(1, place)
    bounds = []
    for _ in range(2):
        assert loop.run(6) > 0
        bounds.append(loop.answer()["bound"])
    assert loop.seen == 24 and bounds[1] > bounds[0] + 50


def test_images_without_mnist(place: Place, monkeypatch: Broke) -> None:
    monkeypatch.setattr("experiments.benchmark.images.COUNT", 1000)
    assert "synthetic" in write_images(str(place.folder), place.images)
    data = StoredImages(path=str(place.images), batch_size=128).load()
    assert data.train.shape == (1000, 784)
    assert 0.05 < data.decode(data.train).mean() < 0.3


# --- this program as a contender ------------------------------------------------------------------------------------


def test_ours_makes_the_steps_that_are_asked_for(place: Place) -> None:
    run = ours.Run({"overrides": ["experiment=bbvi", "replicates=2"], "threads": 1})
    for steps in (3, 7):
        assert run.run(steps) > 0
    assert run.problem.step.good_steps.tolist() == [10, 10]
    assert run.answer().keys() == {"mu", "tau", "elbo"}


def test_a_mode_is_what_the_command_line_makes_of_it() -> None:
    """YAML takes `off` for false, and Hydra's command line does not."""
    assert ours.compose(["trainer.execution=eager"]).trainer.execution == "eager"


def test_the_bound_at_the_optimum_is_sharp(place: Place) -> None:
    """The check with many points: ten estimates there are within the tolerance, and those of other data are not."""
    best = optimum(1000)
    start = {name: best[name] for name in ("loc", "scale", "concentration", "rate")}
    settings = {"problem": "bbvi", "data": place.points(1000), "num_samples": 50, "lr": 1e-9, "start": start}
    loop = report_000.BlackBox(settings)
    loop.run(10)
    assert abs(loop.answer()["elbo"] - best["elbo"]) < 1
    loop.x = loop.x[:-1]
    loop.run(10)
    assert abs(loop.answer()["elbo"] - best["elbo"]) > 1


def test_answers_with_many_points(place: Place) -> None:
    (answer,) = {entry.answers["elbo"] for entry in bbvi_large(place).entries}
    assert answer[0] == pytest.approx(optimum(100_000)["elbo"])


# --- turns, answers, failures ---------------------------------------------------------------------------------------


def scripted(name: str, **settings: Any) -> Entry:
    """An entry of the test's contender."""
    answers = settings.pop("answers", {"mu": (1.0, 0.1)})
    return Entry(name, "", "tests.contender", {"name": name, **settings}, 1e3, answers)


def test_contenders_take_turns(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    entries = [scripted(name, log=log) for name in ("a", "b", "c")]
    rows = measure(Problem("p", "ms", entries, steps=10, tail=4), cast(Place, None), EFFORT, silent)
    calls = [line.split() for line in Path(log).read_text().splitlines()]
    assert [call[:2] for call in calls[:9]] == [[n, k] for n in "abc" for k in ("1", "5", "4")]
    assert [call[:2] for call in calls[9:]] == [[n, "10"] for _ in range(3) for n in "abc"]  # 10 ms at 1 ms each
    assert [(row.status, row.repetitions, row.median) for row in rows] == [("ok", 3, 1.0)] * 3


def test_statistics_are_over_repetitions() -> None:
    seconds = [9.0, 9.0, 9.0, 0.004, 0.001, 0.002, 0.005, 0.003]  # three calls before the first block
    problem = Problem("p", "ms", [scripted("a", seconds=seconds)], steps=10, tail=4)
    (row,) = measure(problem, cast(Place, None), Effort(5, 0.01), silent)
    assert (row.median, row.q1, row.q3, row.min) == (3.0, 2.0, 4.0, 1.0)
    assert (row.compile_s, row.unit, row.threads) == (9.0, "ms", 1)
    assert row.startup_s is not None and 0 < row.startup_s < 60


@pytest.mark.parametrize("answer", [{"mu": 1.2}, {"mu": math.nan}])
def test_a_wrong_answer_is_marked_and_not_timed(answer: dict[str, float], tmp_path: Path) -> None:
    log = tmp_path / "log"
    entries = [scripted("right"), scripted("wrong", answer=answer, log=str(log))]
    rows = measure(Problem("p", "ms", entries, steps=10, tail=4), cast(Place, None), EFFORT, silent)
    assert [row.status for row in rows] == ["ok", "wrong"]
    assert (rows[1].median, rows[1].repetitions, len(log.read_text().splitlines())) == (None, 0, 3)
    assert rows[1].note.startswith("mu = ")
    assert "ratio.p.wrong" not in quantities([replace(rows[0], contender="ours"), rows[1]])


def test_bounds_are_compared_with_the_median_of_all() -> None:
    entries = [
        scripted(name, answer={"bound": value}) for name, value in zip("abc", (-90.0, -91.0, -120.0), strict=True)
    ]
    rows = measure(Problem("p", "ms", entries, steps=10, tail=4, agree=5.0), cast(Place, None), EFFORT, silent)
    assert [row.status for row in rows] == ["ok", "ok", "wrong"]


def test_what_is_missing_or_breaks_is_reported() -> None:
    entries = [scripted("here"), scripted("gone", missing="it is not installed"), scripted("broken", crash=True)]
    entries.append(replace(scripted("nowhere"), module="no_such_module"))
    rows = measure(Problem("p", "ms", entries, steps=10, tail=4), cast(Place, None), EFFORT, silent)
    assert [row.status for row in rows] == ["ok", "missing", "failed", "failed"]
    assert rows[1].note == "it is not installed"
    assert rows[2].note == "its process ended (exit code 3)"
    assert "no_such_module" in rows[3].note


@pytest.mark.parametrize(("module", "package"), [("pyro_", "pyro"), ("numpyro_", "jax"), ("jax_scan", "jax")])
def test_without_the_extra_a_contender_is_missing(module: str, package: str, tmp_path: Path) -> None:
    """Even where it is installed: a package of that name without anything in it stands before it."""
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})\n")
    with pytest.raises(Missing, match=f"{package} is not installed: pip install"):
        Worker(module, [{}], 1, {"PYTHONPATH": f"{tmp_path}:{ROOT}"})


def test_points_of_a_curve_share_a_process() -> None:
    entries = [replace(scripted("a", seconds=[s]), at=at) for s, at in ((0.001, 1.0), (0.002, 2.0))]
    rows = measure(Problem("p", "ms", entries, steps=10, tail=4), cast(Place, None), EFFORT, silent)
    assert [(row.at, row.median) for row in rows] == [(1.0, 1.0), (2.0, 2.0)]
    assert rows[0].startup_s == rows[1].startup_s


def test_a_stride_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    problem = Problem("p", "ms", [scripted("a", log=str(log), stride=8)], steps=20, tail=4)
    measure(problem, cast(Place, None), EFFORT, silent)
    assert {int(line.split()[1]) % 8 for line in log.read_text().splitlines()} == {0}
    assert (upwards(0, 8), upwards(1, 8), upwards(16, 8), upwards(-3, 8)) == (0, 8, 16, 0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is only known on Linux")
def test_peak_memory_is_that_of_the_steps() -> None:
    worker = Worker("tests.contender", [{"name": "a", "bytes": 100 * 2**20}], 1, {})
    assert worker.ask(0, peak_mib=1)["peak_mib"] == pytest.approx(200, rel=0.1)  # the text, and the array of it
    worker.close()
    with pytest.raises(Broken):
        worker.ask(0, run=1)


def test_a_sweep_is_extrapolated(place: Place, monkeypatch: Broke) -> None:
    monkeypatch.setattr("experiments.benchmark.fresh.command", lambda arguments, *_: 2.0 + 3.0 * len(arguments))
    entry = Entry("one_by_one", "", "", {"few": ["job"] * 4, "one": ["job"], "points": 128})
    assert extrapolated_sweep(entry, place) == pytest.approx(2 + 3 * 128)


# --- the table, the targets, the page -------------------------------------------------------------------------------


def row(problem: str, contender: str, median: float | None, mode: str = "", **fields: Any) -> Row:
    """A row with one repetition."""
    status = "ok" if median is not None else "missing"
    found = Row(
        problem,
        contender,
        mode,
        None,
        status,
        1.5,
        0.25,
        median,
        median,
        median,
        median,
        "s",
        1,
        1,
        "a note, with commas",
    )
    return replace(found, **fields)


ROWS = [
    row("bbvi", "ours", 1000.0, "eager"),
    row("bbvi", "ours", 100.0, "compiled"),
    row("bbvi", "ours", None, "replay", note="no | compiler"),
    row("bbvi", "report_000", 900.0),
    row("bbvi", "numpyro_k1", None),
    row("vae", "ours", None, "eager"),
    row("vae", "report_000", 6.0),
    row("cost_n", "ours", 1.0, "eager", at=100.0),
    row("cost_n", "ours", 1.2, "eager", at=1e7),
    row("cost_n", "report_000", 9.0, at=1e7),
]


def target(quantity: str, at_least: float | None = None, at_most: float | None = None) -> dict[str, Any]:
    return {"quantity": quantity, "at_least": at_least, "at_most": at_most}


def test_quantities_use_the_fastest_mode_of_ours() -> None:
    found = quantities(ROWS)
    assert found["ratio.bbvi.report_000"] == 9.0
    assert found["time.bbvi.ours"] == 100.0
    assert found["flat.cost_n"] == pytest.approx(1.2)
    assert "ratio.vae.report_000" not in found


def test_targets() -> None:
    targets = [
        target("ratio.bbvi.report_000", at_least=8),
        target("ratio.bbvi.report_000", at_least=10),
        target("time.bbvi.ours", at_most=50),
        target("flat.cost_n", at_most=1.1),
        target("ratio.vae.report_000", at_least=5),  # ours is missing: a failure
        target("ratio.bbvi.numpyro_k1", at_least=4),  # the other is missing: nobody's
        target("ratio.iwae.report_000", at_least=1.5),  # not asked for
        target("ratio_bfloat16.vae.report_000", at_least=1),  # ours is not there
    ]
    checks, unjudged = judge(targets, ROWS)
    assert [check["passed"] for check in checks] == [True, False, False, False, False, False]
    assert checks[4]["value"] is None
    assert unjudged == "ratio.bbvi.numpyro_k1 (numpyro_k1 is missing); ratio.iwae.report_000 (not measured)"


def test_the_table_is_read_back(tmp_path: Path) -> None:
    write_rows(ROWS, tmp_path / "benchmark.csv")
    assert read_rows(tmp_path / "benchmark.csv") == ROWS
    (tmp_path / "benchmark.csv").write_text("problem,contender\nbbvi,ours\n")
    with pytest.raises(DataError, match="not the table of a benchmark"):
        read_rows(tmp_path / "benchmark.csv")


def test_the_page_is_made_of_the_table() -> None:
    checks, unjudged = judge([target("ratio.bbvi.report_000", at_least=8)], ROWS)
    summary = {
        "machine": {"processor": "a processor", "cores": "2", "images": ""},
        "checks": checks,
        "unjudged": unjudged,
        "environment": {"git_commit": None},
    }
    text = page(summary, ROWS, ["times.png"])
    assert text == page(summary, ROWS, ["times.png"])
    assert "| `ratio.bbvi.report_000` | 9.00 | at least 8 | PASS |" in text
    assert "missing: no / compiler" in text and "| a processor |" in text
    assert text.count("\n### ") == 3 and "curves.png" not in text
    other = page(summary, [replace(r, median=None if r.median is None else 7 * r.median) for r in ROWS], ["times.png"])
    assert {len(text.splitlines()), len(other.splitlines())} == {len(text.splitlines())} and text != other


def test_numbers_of_the_page() -> None:
    values = (None, 0.0123456, 1.5, 123.456, 12345.6)
    assert [significant(value) for value in values] == ["–", "0.0123", "1.50", "123", "12,300"]


def test_every_target_is_measured(place: Place) -> None:
    """No target of the experiment names what no problem has, and every problem and contender has its name."""
    from omegaconf import OmegaConf

    targets = OmegaConf.load(ROOT / "conf" / "experiment" / "benchmark.yaml").benchmark.targets
    small = {name: PROBLEMS[name] for name in PROBLEMS if name not in ("cost_n", "bbvi_large")}
    contenders = {name: {entry.contender for entry in build(place).entries} for name, build in small.items()}
    assert set().union(*contenders.values()) <= set(CONTENDERS) and PROBLEMS.keys() == TITLES.keys()
    for item in targets:
        kind, problem, *contender = item.quantity.split(".")
        assert problem in PROBLEMS
        assert kind == "flat" or contender[0] in contenders[problem]
    chosen = chosen_entries(PROBLEMS["bbvi"](place), ["bbvi", "pyro"])
    assert [entry.contender for entry in chosen.entries] == ["pyro"]


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_its_files(cli: CommandLine, tmp_path: Path) -> None:
    result = cli(
        "experiment=benchmark", "benchmark.only=[startup,help]", "benchmark.repetitions=1", "hydra.run.dir=run"
    )
    assert (result.code, result.err) == (0, "")
    (found,) = read_rows(tmp_path / "run" / "benchmark.csv")
    assert (found.contender, found.status, found.repetitions) == ("help", "ok", 1)
    summary = summary_of(tmp_path / "run")
    assert [check["name"] for check in summary["checks"]] == ["time.startup.help"]
    assert "ratio.bbvi.report_000 (not measured)" in summary["unjudged"]
    assert summary["machine"]["torch"] == torch.__version__
    assert f"at most {1:g}" in result.out and "results run" in result.out
    drawn = (tmp_path / "run" / "plots" / "times.png").read_bytes()
    assert cli("task=plot", "run=run").code == 0
    assert (tmp_path / "run" / "plots" / "times.png").read_bytes() == drawn
    assert cli("task=docs_benchmarks", "run=run").code == 0
    assert "`startup`" in (tmp_path / "docs" / "benchmarks.md").read_text()
    assert (tmp_path / "docs" / "benchmarks" / "times.png").read_bytes() == drawn


def test_an_interrupted_benchmark_goes_on(cli: CommandLine, tmp_path: Path, monkeypatch: Broke) -> None:
    """What was measured stays; what is not in the table is measured, and the summary is of all."""

    def timed(problem: Problem, *rest: Any) -> list[Row]:
        if problem.name == "startup" and not resumed:
            raise KeyboardInterrupt
        return [row(problem.name, "ours", 2.0 if resumed else 1.0)]

    resumed = False
    monkeypatch.setattr("experiments.benchmark.task.measure", timed)
    only = "benchmark.only=[command,startup]"
    assert cli("experiment=benchmark", only, "plot.enabled=false", "hydra.run.dir=run").code == 130
    assert not (tmp_path / "run" / "summary.json").exists()
    resumed = True
    result = cli("resume=run")
    assert (result.code, result.err) == (0, "")
    assert "command is measured already" in result.out
    found = {row.problem: row.median for row in read_rows(tmp_path / "run" / "benchmark.csv")}
    assert found == {"command": 1.0, "startup": 2.0}
    assert summary_of(tmp_path / "run")["status"] == "completed"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("benchmark.only=[bvbi]", "neither a problem nor a contender. Did you mean 'bbvi'?"),
        ("benchmark.repetitions=0", "benchmark.repetitions=0 must be at least 1"),
        ("benchmark.block_s=0", "benchmark.block_s=0.0 must be positive"),
        ("optimizer.lr=1", "optimizer.lr is not a setting of experiment=benchmark"),
        ("benchmark.onyl=[bbvi]", "benchmark.onyl is not a setting"),
    ],
)
def test_refusals(argument: str, message: str, cli: CommandLine) -> None:
    result = cli("experiment=benchmark", argument)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert message in result.err


def test_the_benchmark_sees_no_other_experiment(cli: CommandLine) -> None:
    result = cli("benchmark.repetitions=3", "trainer=smoke")
    assert (result.code, result.err.count("\n")) == (1, 1)


def test_figures_of_timings() -> None:
    from experiments.benchmark.timings import Timing, cost_figure, times_figure

    timings = [Timing("ours (eager)", at, 1.0 * at, 0.9 * at, 1.2 * at) for at in (1.0, 10.0)]
    figure = cost_figure({("K", "µs"): timings, ("n", "µs"): timings, ("threads", "ms"): timings})
    assert [axes.get_xlabel() for axes in figure.axes] == ["K", "n", "threads"]
    figure = times_figure({("bbvi", "µs per iteration"): timings})
    assert [axes.get_xlabel() for axes in figure.axes] == ["µs per iteration"]
    assert figure.axes[0].get_xscale() == "log"

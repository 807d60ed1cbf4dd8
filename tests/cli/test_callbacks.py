"""Callbacks: one Python file and one YAML file add one, which sees every event and changes no number."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, CommandLine, Result, summary_of, trace_text

SOURCE = '''
import json
import torch
from vi_core.training.callbacks import Callback


class Diary(Callback):
    """Writes each event as a line, and draws a random number at each."""

    def __init__(self, *, path: str = "diary.jsonl", fails: str = ""):
        self.path, self.fails = path, fails

    def note(self, event, **facts):
        torch.randn(3)
        with open(self.path, "a") as file:
            file.write(json.dumps({"event": event, **facts}) + "\\n")
        if event == self.fails:
            raise ValueError("no room\\nin the diary")

    def on_start(self, loop, config, folder):
        self.note("start", done=loop.done, lr=config["optimizer"]["lr"], folder=str(folder))

    def on_rows(self, loop, rows):
        history = loop.recorder.trace(rows)
        self.note("rows", done=loop.done, steps=history.step.tolist(), columns=list(history.columns))

    def on_evaluation(self, loop, bound):
        self.note("evaluation", done=loop.done, bound=bound.tolist())

    def on_checkpoint(self, loop):
        self.note("checkpoint", done=loop.done, keys=sorted(loop.state_dict()))

    def on_end(self, loop, summary):
        self.note("end", status=loop.status, mean=summary["final"]["mean"])

    def on_failure(self, loop, error):
        self.note("failure", error=type(error).__name__)
'''
BBVI = ("--run", "plot.enabled=false", "replicates=2", "trainer.steps=200", "trainer.checkpoint_every=100",
        "trainer.final_samples=10", "trainer.log_every=50", "trainer.execution=eager")  # fmt: skip


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """Arguments that choose the callback; its two files lie in the test's folder."""
    (tmp_path / "diaries.py").write_text(SOURCE)
    (tmp_path / "mine" / "callback").mkdir(parents=True)
    text = "# @package callbacks.{0}\n_target_: diaries.Diary\npath: {0}.jsonl\nfails: ''\n"
    for name in ("diary", "second"):
        (tmp_path / "mine" / "callback" / f"{name}.yaml").write_text(text.format(name))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "--config-dir", str(tmp_path / "mine"), "callback=diary"
    sys.modules.pop("diaries", None)


def events(path: Path) -> list[dict]:
    """What the callback has noted."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def order(path: Path) -> list[tuple[str, int | None]]:
    """Events with the steps done."""
    return [(each["event"], each.get("done")) for each in events(path)]


def succeeded(result: Result) -> None:
    assert (result.code, result.err) == (0, "")


def test_every_event_in_order_and_the_same_numbers(diary: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    """The draws of the callback are not those of the run, whose identity it does not enter."""
    succeeded(cli(*diary, *BBVI, "hydra.run.dir=watched"))
    succeeded(cli(*BBVI, "hydra.run.dir=alone"))
    seen = events(tmp_path / "diary.jsonl")
    assert order(tmp_path / "diary.jsonl") == [
        ("start", 0), ("rows", 100), ("checkpoint", 100), ("rows", 200), ("checkpoint", 200), ("rows", 200),
        ("end", None),
    ]  # fmt: skip
    assert [step for each in seen for step in each.get("steps", [])] == [50, 100, 150, 200]
    assert (seen[0]["lr"], seen[0]["folder"]) == (0.01, "watched")
    assert (seen[-1]["status"], seen[-1]["mean"]) == ("completed", summary_of(tmp_path / "watched")["final"]["mean"])
    assert trace_text(tmp_path / "watched") == trace_text(tmp_path / "alone")
    watched, alone = summary_of(tmp_path / "watched"), summary_of(tmp_path / "alone")
    assert (watched["final"], watched["config_hash"]) == (alone["final"], alone["config_hash"])


def test_evaluations(diary: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    succeeded(
        cli(*diary, "--run", "experiment=vae_digits", "trainer.epochs=2", "dataset.batch_size=700",
            "plot.enabled=false", "hydra.run.dir=run", "trainer.execution=eager", "trainer.final_samples=2")
    )  # fmt: skip
    found = [each for each in events(tmp_path / "diary.jsonl") if each["event"] == "evaluation"]
    assert [each["done"] for each in found] == [3, 6]
    assert all(len(each["bound"]) == 1 for each in found)


def test_a_failure(diary: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    """One that diverges: the failure comes last, and the trace up to there is kept."""
    result = cli(*diary, *BBVI, "hydra.run.dir=run", "optimizer=sgd", "optimizer.lr=1e9")
    assert result.code == 1
    seen = events(tmp_path / "diary.jsonl")
    assert (seen[0]["event"], seen[-1]) == ("start", {"event": "failure", "error": "NonFinite"})
    assert (tmp_path / "run" / "trace.csv").is_file()


def test_a_resumed_run(diary: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    """Callbacks start again after the steps that are done, and may be others than before."""
    succeeded(cli(*diary, *BBVI, "hydra.run.dir=run"))
    (tmp_path / "diary.jsonl").unlink()
    succeeded(cli("resume=run", "trainer.steps=300"))
    assert order(tmp_path / "diary.jsonl")[:2] == [("start", 200), ("rows", 300)]
    assert [step for each in events(tmp_path / "diary.jsonl") for step in each.get("steps", [])] == [250, 300]
    (tmp_path / "diary.jsonl").unlink()
    succeeded(cli("resume=run", "trainer.steps=400", "callback=[second]", *diary[:2]))
    assert order(tmp_path / "second.jsonl")[0] == ("start", 300)
    assert not (tmp_path / "diary.jsonl").exists()


def test_several_and_none(diary: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    succeeded(cli(*diary[:2], "callback=[diary,second]", *BBVI, "hydra.run.dir=run", "callbacks.second.path=2.jsonl"))
    assert order(tmp_path / "diary.jsonl") == order(tmp_path / "2.jsonl")
    succeeded(cli("resume=run", "trainer.steps=300", "callback=none"))
    assert len(events(tmp_path / "diary.jsonl")) == 7


@pytest.mark.parametrize("event", ["start", "rows", "checkpoint", "end"])
def test_a_callback_that_raises(event: str, diary: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    """One line names it, it is not called again, and the run has all its files and numbers."""
    result = cli(*diary, *BBVI, "hydra.run.dir=run", f"callbacks.diary.fails={event}")
    succeeded(result)
    lines = [line for line in result.out.splitlines() if "callbacks." in line]
    assert lines == [
        f"callbacks.diary failed in on_{event} (ValueError: no room in the diary); the run goes on without it"
    ]
    assert events(tmp_path / "diary.jsonl")[-1]["event"] == event
    assert summary_of(tmp_path / "run")["status"] == "completed"
    assert {"checkpoint.pt", "trace.csv", "samples.npz"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_jobs_of_a_batch(diary: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    """The events of each job come when its batch has been trained."""
    settings = ("hydra.sweep.dir=sweep", "sweep.batched=true", "seed=1,2")
    succeeded(cli(*diary, "-m", *BBVI[1:], *settings))
    seen = events(tmp_path / "diary.jsonl")
    assert [each["event"] for each in seen] == ["start", "checkpoint", "rows", "end"] * 2
    assert [each["steps"] for each in seen if each["event"] == "rows"] == [[50, 100, 150, 200]] * 2
    assert [each["folder"] for each in seen if each["event"] == "start"] == ["sweep/0", "sweep/1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("callbacks.diary.colour=red",), "callbacks.diary.colour"),
        (("callbacks.diary.path=3",), "callbacks.diary.path=3 must be a text"),
        (("+callbacks.more._target_=vi_core.bounds.elbo.ELBO",), "names no Callback"),
        (("experiment=gamma_fisher",), "callback is not a setting of study=gamma_fisher"),
    ],
)
def test_a_wrong_callback_is_refused(
    arguments: tuple[str, ...], words: str, diary: tuple[str, ...], cli: CommandLine
) -> None:
    result = cli(*diary, "--run", *arguments)
    assert result.code == 1
    assert words in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.slow
def test_a_file_beside_the_program(diary: tuple[str, ...], tmp_path: Path) -> None:
    """In a process of its own the class is found by PYTHONPATH."""
    command = [sys.executable, str(ROOT / "run.py"), *diary, *BBVI, "trainer.limit=2", "hydra.run.dir=run"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert order(tmp_path / "diary.jsonl")[0] == ("start", 0)

"""Trackers: what a run tells a plain file, TensorBoard and MLflow, read back by those programs' own readers.

The numbers are those of trace.csv; a run that is resumed has every step once, in one series.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest

from tests.conftest import CommandLine, Result, run_in, summary_of
from vi_core.trackers.base import flat, scalars
from vi_core.trackers.jsonl import forget_after
from vi_core.trackers.mlflow import allowed
from vi_core.training.history import History, read_history

BBVI = ("--run", "replicates=3", "trainer.steps=200", "trainer.checkpoint_every=100", "trainer.final_samples=10",
        "trainer.log_every=50", "trainer.execution=eager", "hydra.run.dir=run")  # fmt: skip


def needs(package: str) -> pytest.MarkDecorator:
    """Skip a test where a package is not installed."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def succeeded(result: Result) -> None:
    assert (result.code, result.err) == (0, "")
    assert "callbacks." not in result.out


def told(run: Path, name: str) -> dict[int, tuple[float, float, float]]:
    """Mean and band of a column of trace.csv by step, computed anew."""
    history = read_history(run / "trace.csv")
    rows = zip(history.step, history.columns[name], strict=True)
    return {int(step): (row.mean(), *np.quantile(row, (0.05, 0.95))) for step, row in rows}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the plain file; copy it before changing it."""
    folder = tmp_path_factory.mktemp("tracked")
    succeeded(run_in(folder, *BBVI, "plot.enabled=false", "callback=jsonl"))
    return folder / "run"


def test_lines_hold_settings_scalars_and_summary(written: Path) -> None:
    events = lines(written)
    assert [each["event"] for each in events] == ["start", *4 * ["row"], "end"]
    assert events[0]["config"]["optimizer"]["lr"] == 0.01
    assert events[-1]["summary"] == summary_of(written)
    expected = told(written, "elbo")
    assert [each["step"] for each in events[1:-1]] == list(expected)
    for each in events[1:-1]:
        found = [each["elbo"], each["elbo/low"], each["elbo/high"]]
        assert found == pytest.approx(expected[each["step"]], rel=1e-8)


def test_lines_go_on_with_a_resumed_run(written: Path, cli: CommandLine, tmp_path: Path) -> None:
    """Rows behind the checkpoint, and a line that was cut off, make room for those that the run makes again."""
    run = shutil.copytree(written, tmp_path / "run")
    with (run / "events.jsonl").open("a") as file:
        file.write('{"event": "row", "step": 250, "elbo": 0.0}\n{"event": "row", "st')
    succeeded(cli("resume=run", "trainer.steps=300"))
    rows = [each for each in lines(run) if each["event"] == "row"]
    assert [each["step"] for each in rows] == [50, 100, 150, 200, 250, 300]
    assert rows[4]["elbo"] == pytest.approx(told(run, "elbo")[250][0], rel=1e-8)


def test_a_new_run_in_the_folder_forgets_the_lines_of_a_failed_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "start", "step": 0}\n{"event": "row", "step": 50}\n{"event": "row", "step": 100}\n')
    forget_after(path, 50)
    assert path.read_text().count("\n") == 2


def test_scalars_leave_out_what_is_not_finite() -> None:
    """A replicate that diverged has no part in mean and band; a column without any finite value is missing."""
    columns = {"elbo": np.array([[1.0, np.nan, 3.0]]), "gone": np.full((1, 3), np.inf), "one": np.array([[2.0]])}
    history = History("elbo", np.array([10]), np.array([0.1]), columns)
    found = scalars(history, 0)
    assert found["elbo"] == 2.0
    assert (found["elbo/low"], found["elbo/high"]) == pytest.approx((1.1, 2.9))
    assert set(found) == {"elbo", "elbo/low", "elbo/high", "one"}


def test_settings_and_names_as_others_take_them() -> None:
    assert flat({"a": {"b": 1, "c": "x"}, "d": [1, None]}) == {"a.b": "1", "a.c": "x", "d": "[1, null]"}
    assert allowed("E[beta][0]") == "E_beta_0"


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_tensorboards_own_reader(cli: CommandLine, tmp_path: Path) -> None:
    """Means and bands of all steps, once each after a resume, bands as charts, figures and summary."""
    reading = import_module("tensorboard.backend.event_processing.event_accumulator")
    succeeded(cli(*BBVI, "callback=tensorboard", "trainer.steps=250"))
    run = tmp_path / "run"
    behind(run)
    succeeded(cli("resume=run", "trainer.steps=300"))
    reader = reading.EventAccumulator(str(run / "tensorboard")).Reload()
    expected = told(run, "elbo")
    for place, name in enumerate(("elbo", "elbo/low", "elbo/high")):
        found = {event.step: event.value for event in reader.Scalars(name)}
        assert found == pytest.approx({step: row[place] for step, row in expected.items()}, rel=1e-6)
        assert len(reader.Scalars(name)) == 6
    tags = reader.Tags()
    assert {"bound", "expectations"} <= set(tags["images"])
    assert any("custom_scalars" in name for name in tags["tensors"])
    (summary,) = reader.Tensors("summary/text_summary")[-1].tensor_proto.string_val
    assert json.loads(summary.decode().strip("`").removeprefix("json")) == summary_of(run)


def behind(run: Path) -> None:
    """Put a run back to the checkpoint before its last one, as a crash between the two leaves it."""
    (run / "checkpoint.previous.pt").replace(run / "checkpoint.pt")
    (run / "summary.json").unlink()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server with an SQLite store, on this machine."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", address.rpartition(":")[2],
               "--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", str(folder / "files"),
               "--workers", "1"]  # fmt: skip
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=quiet, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_for(f"{address}/health", process, folder / "log")
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            with urlopen(url, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_an_mlflow_server(server: str, cli: CommandLine, tmp_path: Path) -> None:
    """Settings, tags, each step once in one run after a resume, figures, summary and status."""
    mlflow = import_module("mlflow")
    given = ("callback=mlflow", f"callbacks.mlflow.uri={server}", "callbacks.mlflow.experiment=trial")
    succeeded(cli(*BBVI, *given, "trainer.steps=250"))
    run = tmp_path / "run"
    behind(run)
    succeeded(cli("resume=run", "trainer.steps=300"))
    client = mlflow.MlflowClient(server)
    group = client.get_experiment_by_name("trial")
    (found,) = client.search_runs([group.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.lr"] == "0.01"
    assert (found.data.tags["family"], found.data.tags["status"]) == ("mean_field", "completed")
    expected = told(run, "elbo")
    for place, name in enumerate(("elbo", "elbo/low", "elbo/high")):
        series = client.get_metric_history(found.info.run_id, name)
        assert [each.step for each in series] == list(expected)
        assert [each.value for each in series] == pytest.approx([row[place] for row in expected.values()], rel=1e-8)
    files = {each.path for each in client.list_artifacts(found.info.run_id)}
    figures = {each.path for each in client.list_artifacts(found.info.run_id, "plots")}
    assert {"summary.json", "config.yaml", "plots"} <= files
    assert {"plots/bound.png", "plots/expectations.png"} <= figures
    local = client.download_artifacts(found.info.run_id, "summary.json", str(tmp_path))
    assert json.loads(Path(local).read_text())["final"] == summary_of(run)["final"]


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_server_that_is_not_there_stops_no_run(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = cli(*BBVI, "plot.enabled=false", "callback=mlflow", "callbacks.mlflow.uri=http://127.0.0.1:9")
    assert result.code == 0
    assert result.out.count("callbacks.mlflow failed in on_start") == 1
    assert summary_of(tmp_path / "run")["status"] == "completed"


def test_a_missing_package_is_named(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    result = cli(*BBVI, "plot.enabled=false", "callback=mlflow")
    assert result.code == 1
    assert result.err == "error: mlflow is not installed; pip install 'vi-lab[mlflow]' adds it.\n"

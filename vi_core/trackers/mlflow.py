"""The course of a run for MLflow: settings as parameters, scalars as metrics, then figures and summary as artifacts.

Nothing of MLflow's present run or of its other state in a process is used, so that jobs of a sweep do not meet. The id
that the server gives a run is kept in `mlflow.json`, by which a resumed run goes on under it.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vi_core.errors import ConfigError
from vi_core.extras import needed
from vi_core.trackers.base import Row, Tracker, flat

FILE = "mlflow.json"
MOST_METRICS, MOST_PARAMETERS, MOST_LETTERS = 1000, 100, 6000  # that the server takes at once, and of a parameter
ENDS = {"completed": "FINISHED", "converged": "FINISHED", "interrupted": "KILLED"}


class MLflow(Tracker):
    """Sends a run to an MLflow server, or to the store that MLflow keeps on this machine.

    Args:
        uri: Of the server; null for what MLFLOW_TRACKING_URI says, or MLflow's own default.
        experiment: MLflow's name for runs that belong together; null for the name of the run's experiment.
    """

    def __init__(self, *, uri: str | None = None, experiment: str | None = None):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # what is sent goes to that server alone
        self.mlflow, self.uri, self.experiment = needed("mlflow", "mlflow"), uri, experiment

    def begin(self, config: Mapping[str, Any], done: int) -> None:
        self.client, self.told = self.mlflow.MlflowClient(self.uri), dict[str, int]()
        known = self.folder / FILE
        self.resumed = done > 0 and known.exists()
        if self.resumed:
            self.run = json.loads(known.read_text(encoding="utf-8"))["run_id"]
            self.client.update_run(self.run, status="RUNNING")
            return
        group = self.group(self.experiment or config["name"])
        self.run = self.client.create_run(group, run_name=self.folder.name, tags=tags(config)).info.run_id
        known.write_text(json.dumps({"run_id": self.run, "experiment_id": group}) + "\n", encoding="utf-8")
        settings = [(allowed(key), value[:MOST_LETTERS]) for key, value in flat(config).items()]
        for part in parts([self.mlflow.entities.Param(*setting) for setting in settings], MOST_PARAMETERS):
            self.client.log_batch(self.run, params=part)

    def group(self, name: str) -> str:
        """Return the id of one of MLflow's experiments, which is made where there is none; jobs may do so at once."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            with suppress(self.mlflow.exceptions.MlflowException):
                return self.client.create_experiment(name)
            found = self.client.get_experiment_by_name(name)
        if found is None:
            raise ConfigError(f"MLflow has no experiment {name}, and makes none.")
        return found.experiment_id

    def note_rows(self, rows: list[Row]) -> None:
        now, kind = int(1000 * time.time()), self.mlflow.entities.Metric
        new = [(name, value, step) for step, values in rows for name, value in values.items()]
        metrics = [kind(allowed(name), value, now, step) for name, value, step in new if step > self.last_told(name)]
        for part in parts(metrics, MOST_METRICS):
            self.client.log_batch(self.run, metrics=part)

    def last_told(self, name: str) -> int:
        """Return the last step of a metric that the server has from before a resume."""
        if self.resumed and name not in self.told:
            told = self.client.get_metric_history(self.run, allowed(name))
            self.told[name] = max((metric.step for metric in told), default=-1)
        return self.told.get(name, -1)

    def end(self, summary: Mapping[str, Any], figures: list[Path]) -> None:
        status = str(summary["status"])
        self.client.set_tag(self.run, "status", status)
        self.client.log_dict(self.run, json.loads(json.dumps(summary, default=str)), "summary.json")
        if (self.folder / "config.yaml").exists():
            self.client.log_artifact(self.run, str(self.folder / "config.yaml"))
        for path in figures:
            self.client.log_artifact(self.run, str(path), "plots")
        self.client.set_terminated(self.run, ENDS.get(status, "FAILED"))


def tags(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what runs are looked for by: the experiment and the names of its parts."""
    named = {part: name for part, name in (config.get("parts") or {}).items() if name}
    return {"experiment": config["name"], **named, "mlflow.note.content": config.get("note") or ""}


def allowed(name: str) -> str:
    """Return a name in letters that MLflow takes: `E[beta][0]` becomes `E_beta_0`."""
    return re.sub(r"[^\w\-. :/]+", "_", name.replace("]", ""))


def parts(entries: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    """Yield the entries in portions."""
    yield from (entries[first : first + most] for first in range(0, len(entries), most))

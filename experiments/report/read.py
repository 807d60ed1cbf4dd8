"""Reader of the folder of a run or a sweep, which returns the row of it on the report page."""

import base64
import re
import shlex
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from vi_core.archive import read_config
from vi_core.errors import DataError
from vi_core.training.history import read_history

from ..results.expectations import check
from ..results.files import read_json
from ..sweeps.collect import read_jobs, settings, swept_keys
from .records import MOST_FIGURES, Check, Figure, Job, Quantity, Row

# Figures that many runs have, the most telling first; figures that only one experiment has come before them.
CAPTIONS = {
    "bound": "the bound over the steps",
    "expectations": "posterior means over the steps",
    "density": "fitted density over the data",
    "reconstructions": "test images and their reconstructions",
    "generated": "images from noise",
    "parameters": "parameters of q over the steps",
}
STATISTICS = {"mean": "", "median": "median", "replicate_sd": "sd over replicates", "std": "posterior sd"}


def read_row(folder: Path, command: str = "") -> Row:
    """Return the row of a run or a sweep.

    Args:
        folder: Where the run or the sweep is.
        command: The command that made it; by default it is read from the folder.

    Raises:
        DataError: Where the folder holds neither.
    """
    if (folder / "config.yaml").is_file() or (folder / "summary.json").is_file():
        job = read_job(folder, {"settings": {}, "number": None})
        return _row(folder, (job,), command or command_of_run(folder))
    if not folder.is_dir():
        raise DataError(f"run={folder} is not a folder; give the folder of a run or of a sweep.")
    found = read_jobs(folder)
    keys = swept_keys(found)
    jobs = []
    for entry in found:
        chosen = {key: settings(entry).get(key, "") for key in keys}
        jobs.append(read_job(entry["folder"], {"number": entry["job"], "settings": chosen}))
    return _row(folder, tuple(jobs), command or command_of_sweep(folder), tuple(keys))


def _row(folder: Path, jobs: tuple[Job, ...], command: str, keys: tuple[str, ...] = ()) -> Row:
    each = max(1, MOST_FIGURES // len(jobs))
    config = next(filter(None, map(config_of, (folder, *sorted(folder.glob("[0-9]*"))))), {})
    report = config.get("report") or {}
    return Row(
        name=config.get("name") or folder.name,
        command=command,
        jobs=tuple(replace(job, figures=job.figures[:each]) for job in jobs),
        keys=keys,
        figures=tuple(figures(folder / "plots")) if keys else (),
        hidden_figures=sum(len(job.figures[each:]) for job in jobs),
        where=report.get("where", ""),
        says=report.get("says", ""),
        note=config.get("note", ""),
    )


def config_of(folder: Path) -> dict[str, Any]:
    """Return a run's resolved configuration; {} where it failed before it had one."""
    return read_config(folder) if (folder / "config.yaml").is_file() else {}


def read_job(folder: Path, place: dict[str, Any]) -> Job:
    """Return the job of the run in `folder`; `place` holds its number and settings in a sweep.

    A run without a summary was killed, and one whose summary has no checks failed.
    """
    if not (folder / "summary.json").is_file():
        return Job(**place, status="killed", error="The run left no summary: it was killed, or it is still running.")
    summary = read_json(folder / "summary.json")
    if "checks" not in summary:
        lacks_data = summary.get("error_type") == "DataError"
        return Job(**place, status=summary["status"], error=summary.get("error", ""), lacks_data=lacks_data)
    return Job(
        **place,
        status=summary["status"],
        subtitle=summary["subtitle"],
        unjudged=summary["checks_skipped"],
        checks=tuple(checks(folder, summary)),
        quantities=tuple(quantities(summary)),
        figures=tuple(figures(folder / "plots")),
        seconds=summary["timing"]["total_s"],
        environment=summary["environment"],
    )


def checks(folder: Path, summary: dict[str, Any]) -> list[Check]:
    """Return the run's checks; where they were not applied, numbers beside expected ones without a verdict."""
    found, judged = summary["checks"], True
    if summary["checks_skipped"]:
        config, path = config_of(folder), folder / "trace.csv"
        traced = any(item["quantity"].startswith("trace.") for item in config["expected"])
        trace = read_history(path) if traced and path.is_file() else None
        found, judged = check(config["expected"], summary, config, trace), False
    bound = summary.get("final", {}).get("name", "bound").upper()
    return [
        Check(
            quantity=item["name"],
            label=_comma(label(item["name"], bound, fitted="objective" in summary), item.get("sense", "")),
            value=item["value"] if isinstance(item["value"], (int, float)) else None,
            expected=item["expected"],
            tolerance=item["tolerance"],
            passed=item["passed"] if judged else None,
        )
        for item in found
    ]


def label(quantity: str, bound: str, fitted: bool) -> str:
    """Return words for a path in summary.json or trace.csv.

    Args:
        quantity: Such as `estimates.mu.mean` or `trace.elbo.100`.
        bound: Name of the run's bound, in capitals.
        fitted: Whether the run is a fit, whose estimates are posterior expectations.
    """
    head, _, rest = quantity.partition(".")
    name, _, statistic = rest.rpartition(".")
    if head == "estimates":
        shown = f"E[{name}]" if fitted else name
        return _comma(shown, STATISTICS.get(statistic, statistic))
    if head in ("final", "objective"):
        return _comma(bound, "training" if head == "objective" else "", STATISTICS.get(rest, rest.replace("_", " ")))
    if head == "trace":
        return f"{bound if name == bound.lower() else name}, step {statistic}"
    if head == "epoch_bound":
        return f"{bound}, epoch {rest}"
    return "held-out −log p(x)" if quantity == "diagnostics.likelihood.nll" else quantity


def _comma(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def quantities(summary: dict[str, Any]) -> list[Quantity]:
    """Return the estimates, and the bounds of a fit; the exact value of the final bound is the log evidence."""
    fitted = "objective" in summary
    found = [
        Quantity(f"E[{name}]" if fitted else name, row["mean"], row["se"], row["truth"], row["exact"])
        for name, row in summary["estimates"].items()
    ]
    if not fitted:
        return found
    trained, final = summary["objective"], summary["final"]
    per = f" per {trained['per']}" if trained["per"] else ""
    for when, row, exact in (("training", trained, None), ("final", final, final["log_evidence"])):
        found.append(Quantity(f"{when} {row['name'].upper()}{per}", row["mean"], row["se"], None, exact))
    return found


def figures(folder: Path) -> list[Figure]:
    """Return the PNG files of a `plots` folder, the most telling first."""
    ranks = {name: rank for rank, name in enumerate(CAPTIONS)}
    paths = sorted(folder.glob("*.png"), key=lambda path: (ranks.get(path.stem, -1), path.stem))
    return [figure(path) for path in paths]


def figure(path: Path) -> Figure:
    """Return a PNG file as a record, with its size in pixels, which the format has in bytes 16 to 23."""
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Figure(path.stem, CAPTIONS.get(path.stem, path.stem.replace("_", " ")), uri, width, height)


def command_of_run(folder: Path) -> str:
    """Return the command that repeats a run, without the folder that it wrote to."""
    return typed(config_of(folder).get("overrides", []))


def command_of_sweep(folder: Path) -> str:
    """Return the command that repeats a sweep; empty where Hydra has not noted it."""
    path = folder / "multirun.yaml"
    if not path.is_file():
        return ""
    overrides = yaml.safe_load(path.read_text())["hydra"]["overrides"]
    options = ["-m"] if "hydra.mode=MULTIRUN" in overrides["hydra"] else []
    return typed([*options, *overrides["task"]])


def typed(arguments: list[str]) -> str:
    """Return a command line as a user types it, without settings of Hydra and of resumed sweeps."""
    kept = [text for text in arguments if not re.match(r"[+~]*(hydra|sweep)\.", text)]
    return " ".join(["python run.py", *map(shlex.quote, kept)])

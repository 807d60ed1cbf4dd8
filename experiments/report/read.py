"""Reader of the folder of a run or a sweep, which returns the row of it on the report page."""

import base64
import json
import logging
import re
import shlex
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vi_core.errors import DataError
from vi_core.plots.drawing.series import quantiles
from vi_core.storage.archive import read_config, read_summary
from vi_core.storage.layout import Multirun, fault
from vi_core.storage.reading import damaged, read_yaml
from vi_core.storage.renamed import ESTIMATES
from vi_core.training.history import read_history

from ..results.expectations import check, limits
from ..results.table import numbered_features
from ..results.verdict_lines import WORDS
from ..sweeps.collect import read_jobs, table_lines
from ..sweeps.differences import beside, settings, swept_keys
from .records import MOST_FIGURES, Check, Figure, Job, Quantity, Row, Verdict

# Figures that many runs have, the most telling first; figures that only one experiment has come before them.
CAPTIONS = {
    "bound": "the bound over the steps",
    "expectations": "posterior means over the steps",
    "network": "the model as a Bayesian network, with a Markov blanket",
    "epochs": "the bound, averaged over each epoch",
    "interpolation": "from one test image to another, linearly in z",
    "latents": "posterior means of images in two latents, coloured by class",
    "methods": "estimates and bound of the methods over the steps",
    "records": "the bound as it was recorded, and its moving average",
    "paths": "ways over the likelihood, with the Fisher metric",
    "convergence": "how far the bounds are below the highest",
    "posterior": "q beside the exact posterior, where it is known",
    "density": "fitted density over the data",
    "predictive": "data that the model replicates beside the observed ones",
    "prior_predictive": "data drawn from the prior beside the observed ones",
    "reconstructions": "test images and their reconstructions",
    "generated": "images from noise",
    "parameters": "parameters of q over the steps",
}
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"  # how every PNG file begins
MOST_BYTES, MOST_PIXELS = 2**25, 2**28  # of a figure; the program's own are below 2^20 and 2^22
log = logging.getLogger(__name__)
STATISTICS = {
    "mean": "",
    "median": "median",
    "replicate_sd": "sd over replicates",
    "sd": "posterior sd",
}


def read_row(folder: Path, command: str = "") -> Row:
    """Return the row of a run or a sweep.

    Args:
        folder: Where the run or the sweep is.
        command: The command that made it; by default it is read from the folder.

    Raises:
        DataError: Where the folder holds neither.
    """
    if (folder / "config.yaml").exists() or (folder / "summary.json").exists():
        job = read_job(folder, {"settings": {}, "number": None})
        return _row(folder, (job,), command or command_of_run(folder))
    if not folder.is_dir():
        raise DataError(f"run={folder} is not a folder; give the folder of a run or of a sweep.")
    found = read_jobs(folder)
    keys = swept_keys(found)
    jobs = []
    for entry in found:
        inside(folder, entry["folder"].name)
        chosen = {key: settings(entry).get(key, "") for key in keys}
        jobs.append(read_job(entry["folder"], {"number": entry["job"], "settings": chosen}))
    lines = table_lines(found, keys, beside([entry["settings"] for entry in found], keys))
    return replace(
        _row(folder, tuple(jobs), command or command_of_sweep(folder), tuple(keys)), overview=tuple(map(tuple, lines))
    )


def _row(folder: Path, jobs: tuple[Job, ...], command: str, keys: tuple[str, ...] = ()) -> Row:
    each = max(1, MOST_FIGURES // len(jobs))
    config = next(filter(None, map(config_of, (folder, *sorted(folder.glob("[0-9]*"))))), {})
    report = config.get("report") or {}
    return Row(
        name=config.get("name") or folder.name,
        command=command,
        jobs=tuple(replace(job, figures=job.figures[:each]) for job in jobs),
        keys=keys,
        figures=tuple(figures(folder / "plots", "bound")) if keys else (),
        hidden_figures=sum(len(job.figures[each:]) for job in jobs),
        where=report.get("where", ""),
        says=report.get("says", ""),
        note=config.get("note", ""),
        settings=() if keys else settings_of(config),
        course="" if keys else course_of(folder),
    )


SHOWN = ("model", "family", "bound", "estimator", "optimizer", "dataset", "trainer", "study")  # settings on the page
ALONE = ("replicates", "seed", "dtype")
POINTS = 400  # of the course of the bound


def settings_of(config: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the settings of each part, and those at the top level that decide numbers, as text."""
    parts, found = config.get("parts") or {}, []
    for name in SHOWN:
        if own := config.get(name):
            values = ", ".join(f"{key}={value}" for key, value in own.items() if not key.startswith("_"))
            found.append(
                (name, f"{parts[name]}: {values}" if values and parts.get(name) else parts.get(name) or values)
            )
    return (*found, *((name, str(config[name])) for name in ALONE if name in config))


def diagnostics_of(summary: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what the summary says about q and about the run, as text."""
    own, timing, found = summary.get("diagnostics") or {}, summary["timing"], []
    words = {"pareto_k": "Pareto k-hat (below 0.7 is good)", "ess": "effective sample size, share of the draws"}
    for key, text in words.items():
        if (row := own.get(key)) and row["median"] is not None:
            found.append((text, f"{row['median']:.3g}"))
    if (kl := (summary.get("final") or {}).get("kl_to_posterior")) is not None:
        found.append(("KL(q || posterior)", f"{kl:.4g} nats"))
    if likelihood := own.get("likelihood"):
        found.append(("held-out −log p(x)", f"{likelihood['nll']:.6g} nats"))
    if "diverged_replicates" in summary:
        found.append(("replicates", f"{summary['replicates']}, of which {summary['diverged_replicates']} diverged"))
    for key, text in (("iterations", "steps"), ("us_per_iteration", "microseconds a step"), ("execution", "execution")):
        if key in timing:
            found.append((text, f"{timing[key]:.4g}" if isinstance(timing[key], float) else str(timing[key])))
    return tuple(found)


def verdict_of(summary: dict[str, Any]) -> Verdict | None:
    """Return the verdict on a fit; None of a run that has none."""
    trust = (summary.get("verdict") or {}).get("trust")
    return Verdict(WORDS[trust]) if trust in WORDS else None


def data_of(summary: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what the summary says of the data, as text."""
    found = summary.get("data") or {}
    texts = {
        "source": found.get("provenance", ""),
        "points": str(found.get("points", "")),
        "features, by index": ", ".join(numbered_features(found)),
        "columns of text left out": ", ".join(found.get("left_out", [])),
    }
    return tuple((name, text) for name, text in texts.items() if text)


def course_of(folder: Path) -> str:
    """Return the last half of a run's bound as JSON: steps, and medians over replicates; empty where there is none."""
    path = folder / "trace.csv"
    if path.is_symlink() or not path.is_file():
        return ""
    trace = read_history(path)
    rows = np.unique(np.linspace(len(trace.step) // 2, len(trace.step) - 1, POINTS).astype(int))
    values = quantiles(trace.columns[trace.bound][rows])[1]
    kept = np.isfinite(values)
    shown = [float(f"{value:.9g}") for value in values[kept]]
    return json.dumps([trace.step[rows][kept].tolist(), shown]) if len(shown) > 2 else ""


def inside(folder: Path, name: str) -> Path:
    """Return `folder`, whose file `name` must not be a link: a page shows what is in the folder, and no other file."""
    if (folder / name).is_symlink():
        raise DataError(f"{folder / name} is a link, which a report does not follow; put a copy in its place.")
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    """Return a run's resolved configuration; {} where it failed before it had one."""
    return read_config(inside(folder, "config.yaml")) if (folder / "config.yaml").exists() else {}


def read_job(folder: Path, place: dict[str, Any]) -> Job:
    """Return the job of the run in `folder`; `place` holds its number and settings in a sweep.

    A run without a summary was killed, and one whose summary has no checks failed.
    """
    if not (folder / "summary.json").exists():
        return Job(**place, status="killed", error="The run left no summary: it was killed, or it is still running.")
    summary = read_summary(inside(folder, "summary.json"))
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
        trust=(summary.get("verdict") or {}).get("line", ""),
        fit=verdict_of(summary),
        data=data_of(summary),
        diagnostics=diagnostics_of(summary),
        seconds=summary["timing"]["total_s"],
        environment=summary["environment"],
    )


def checks(folder: Path, summary: dict[str, Any]) -> list[Check]:
    """Return the run's checks; where they were not applied, numbers beside expected ones without a verdict."""
    found, judged = summary["checks"], True
    if summary["checks_skipped"]:
        config, path = config_of(folder), inside(folder, "trace.csv") / "trace.csv"
        expected = config.get("expected", [])  # of a run whose configuration is gone
        traced = any(item["quantity"].startswith("trace.") for item in expected)
        trace = read_history(path) if traced and path.exists() else None
        found, judged = check(expected, summary, config, trace), False
    bound = summary.get("final", {}).get("name", "bound").upper()
    return [
        Check(
            quantity=item["name"],
            label=_comma(label(item["name"], bound, fitted="objective" in summary), item.get("sense", "")),
            value=item["value"] if isinstance(item["value"], (int, float)) else None,
            expected=item["expected"],
            tolerance=item["tolerance"],
            passed=item["passed"] if judged else None,
            limits="" if " ± " in (asked := limits(item["name"], item["expected"], item["tolerance"])) else asked,
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
    statistic = ESTIMATES.get(statistic, statistic)
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
    keys = [each.name for each in fields(Quantity) if each.name != "label"]
    rows = {**summary["estimates"], **summary.get("observed", {})}
    found = [Quantity(name, **{key: row.get(key) for key in keys}) for name, row in rows.items()]
    if not fitted:
        return found
    trained, final = summary["objective"], summary["final"]
    per = f" per {trained['per']}" if trained["per"] else ""
    per += f" up to {summary['up_to']}" if summary.get("up_to") else ""
    for when, row, exact in (("training", trained, None), ("final", final, final["log_evidence"])):
        found.append(Quantity(f"{when} {row['name'].upper()}{per}", row["mean"], row["se"], exact=exact))
    return found


def figures(folder: Path, first: str = "") -> list[Figure]:
    """Return the PNG files of a `plots` folder, that called `first` before the others, then the most telling."""
    ranks = {name: rank for rank, name in enumerate(CAPTIONS)}
    ranks |= {first: -2}
    paths = sorted(folder.glob("*.png"), key=lambda path: (ranks.get(path.stem, -1), path.stem))
    return [found for path in paths if (found := figure(path)) is not None]


def figure(path: Path) -> Figure | None:
    """Return a PNG file as a record; None, and a line of the log, for a link or for what is no PNG by its signature.

    A PNG begins with its signature and a header, which has width and height in bytes 16 to 23.
    """
    content = b""
    if not path.is_symlink() and not path.parent.is_symlink() and path.is_file() and path.stat().st_size <= MOST_BYTES:
        content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24]) if len(content) >= 24 else (0, 0)
    if not content.startswith(PNG) or not 0 < width * height < MOST_PIXELS:
        log.warning("%s is left out: it is no PNG file, or a link; task=plot draws figures again", path)
        return None
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
    content = read_yaml(inside(folder, path.name) / path.name)
    if wrong := fault(content, Multirun):
        raise damaged(path, wrong)
    overrides = content["hydra"]["overrides"]
    options = ["-m"] if "hydra.mode=MULTIRUN" in overrides["hydra"] else []
    return typed([*options, *overrides["task"]])


def typed(arguments: list[str]) -> str:
    """Return a command line as a user types it, without settings of Hydra and of resumed sweeps."""
    kept = [text for text in arguments if not re.match(r"[+~]*(hydra|sweep)\.", text)]
    return " ".join(["python run.py", *map(shlex.quote, kept)])

"""In what the jobs of a sweep, or several runs, differ: what was swept, and what differs without having been swept.

`-m estimator=score_function,pathwise` compares K = 50 with K = 1, the defaults of the two YAML files. Such a setting
has a column of the table and a place in the legends, and a warning where it decides cost or noise.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from vi_core.errors import LabError
from vi_core.storage.archive import read_config

from ..config.schema import names
from ..config.validate import PARTS

Job = dict[str, Any]
Flat = dict[str, Any]  # settings by path
MODEL_FILE = "model.path"
COST_OR_NOISE = (
    "estimator.num_samples", "dataset.batch_size", "dataset.num_points",
    "trainer.steps", "trainer.epochs", "trainer.limit", "replicates", "dtype", "matmul",
)  # fmt: skip
"""Settings that decide what a step costs, how many there are, or how noisy a result is."""
CHANGE_TOGETHER = ("experiment", "variant", "study")
"""Groups whose files set several parts on purpose, so that what differs beside them is no surprise."""
SYMBOLS = {
    "estimator.num_samples": "K", "optimizer.lr": "lr", "dataset.num_points": "n", "dataset.batch_size": "B",
    "replicates": "R",
}  # fmt: skip


def settings(job: Job) -> dict[str, str]:
    """Return a job's overrides by key, without those that change no number: where it writes, what it draws."""
    pairs = (text.lstrip("+~").partition("=")[::2] for text in job["overrides"])
    aside = names("identity", False)
    return {key: value for key, value in pairs if key.partition(".")[0] not in aside}


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Return the override keys whose values differ between jobs, in the order of the command line.

    Args:
        jobs: As `read_jobs` returns them.
    """
    every = [settings(job) for job in jobs]
    keys = list(dict.fromkeys(key for job in every for key in job))
    return [key for key in keys if len({job.get(key) for job in every}) > 1]


def settings_in(folder: Path) -> Flat:
    """Return the settings of the run in a folder by path; {} where it failed before it had any.

    Of the model's file, which each run has a copy of, it is the name: `model.checksum` says whether copies differ.
    """
    with suppress(LabError, OSError, OmegaConfBaseException):
        found = flat(read_config(folder))
        if MODEL_FILE in found:
            found[MODEL_FILE] = Path(found[MODEL_FILE]).name
        return found
    return {}


def flat(config: dict[str, Any]) -> Flat:
    """Return the settings that decide numbers by path: each part by its name, and the plain values in it."""
    groups = (*PARTS, "study")
    found: Flat = {group: name for group, name in config.get("parts", {}).items() if name and group in groups}
    for group in (*groups, "replicates", "seed", "dtype", "matmul"):
        found |= leaves(config.get(group), group)
    return found


class Inner(str):
    """The class of a part inside a part, which the outer part decides where it is swept."""


def leaves(value: Any, path: str) -> Flat:
    """Return the plain values below a path; a part inside a part is known by its class."""
    if not isinstance(value, dict):
        return {} if value is None else {path: value}
    outer = path in PARTS or path == "study"  # whose name is known
    found: Flat = {} if outer or "_target_" not in value else {path: Inner(value["_target_"].rpartition(".")[2])}
    for key, inner in value.items():
        if key != "_target_":
            found |= leaves(inner, f"{path}.{key}")
    return found


def unequal(every: Sequence[Flat]) -> list[str]:
    """Return the paths that have different values in two of the settings; one that is in a single one has none."""
    paths = dict.fromkeys(path for each in every for path in each)
    return [path for path in paths if len({repr(each[path]) for each in every if path in each}) > 1]


def beside(every: Sequence[Flat], keys: Sequence[str]) -> list[str]:
    """Return the paths in which jobs differ although they were not swept.

    Args:
        every: Settings of the jobs.
        keys: The swept keys; what lies below one of them, such as a schedule, was swept with it.
    """
    inside = tuple(f"{key.replace('/', '.')}." for key in keys if "/" in key)
    swept = {key.replace("/", ".") for key in keys}
    found = [path for path in unequal(every) if path not in swept and not (inside and path.startswith(inside))]
    own = {path for each in every for path, value in each.items() if isinstance(value, Inner)}
    return [path for path in found if path not in own or path.partition(".")[0] not in swept]


def warnings(jobs: Sequence[Job], keys: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Return a line for each setting of `paths` that decides cost or noise and differs by the defaults of parts.

    Args:
        jobs: With `settings`.
        keys: The swept keys; none of them may be a group whose files change several parts together.
        paths: What differs beside them.
    """
    if set(keys) & set(CHANGE_TOGETHER):
        return []
    lines = []
    for path in (path for path in paths if path in COST_OR_NOISE):
        owners: dict[str, list[str]] = {}
        part = [key for key in keys if key == path.partition(".")[0]] or list(keys)
        for job in (job for job in jobs if path in job["settings"]):
            owners.setdefault(str(job["settings"][path]), []).append(label(job, part))
        shown = "; ".join(f"{value} for {', '.join(dict.fromkeys(who))}" for value, who in owners.items())
        lines.append(
            f"{path} was not swept and differs ({shown}), so that cost and noise are not comparable; "
            f"{path}=<value> gives all jobs the same."
        )
    return lines


def value_of(job: Job, key: str) -> str:
    """Return a job's value of a key as the command line or, where that is silent, the configuration has it.

    It is `none` where the command line sets it for other parts than the job's own.
    """
    path, given = key.replace("/", "."), settings(job).get(key)
    if given is None:
        return str(job["settings"].get(path, job["settings"].get(key, "default")))
    foreign = "." in key and job["settings"] and path not in job["settings"] and given != "null"
    return "none" if foreign and path.partition(".")[0] in settings(job) else given


def label(job: Job, keys: Sequence[str]) -> str:
    """Return words for a job's values of some keys, such as `pathwise, K = 5, lr = 0.01`."""
    return ", ".join(words(key, value_of(job, key)) for key in keys)


def words(key: str, value: str) -> str:
    """Return words for one setting: a part by its name alone, a number by its symbol in the field."""
    if "." not in key and key not in ("seed", "replicates", "dtype", "matmul"):
        return value
    return f"{SYMBOLS.get(key, key.rpartition('.')[2])} = {value}"

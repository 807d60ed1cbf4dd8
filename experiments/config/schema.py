# ruff: noqa: RUF009, as `setting` makes a field
"""The settings at the top level of the configuration: types, values, and what each decides beside its own subject.

`changes` is what the program itself notes: the settings that a resumed run had before, with the step until which it had
them. A new setting is one field of `Root`. The identity of a run, batches of jobs, resuming, checks against expected
numbers and validation read the field's `Role`. The settings of parts are typed by their constructors; what is
particular about a few of them is in `OTHERS`.
"""

import hashlib
import json
import operator
from dataclasses import dataclass, field, fields
from functools import reduce
from typing import Any

from omegaconf import MISSING

from vi_core.storage.files import file_and_name

FIDELITIES = ("full", "quick")


@dataclass(frozen=True)
class Role:
    """What a setting decides beside its own subject.

    Attributes:
        identity: It changes the numbers or names the experiment: runs that differ in it are different runs.
        resume: A resumed run may have another value, of the setting or of any key of the node.
        batch: Jobs of one batch may differ in it, as training does not look at it.
        expected: The expected numbers of an experiment stay in force where the command line sets it.
        choices: The values that it may have; any if empty.
        least: The least value; None for any.
    """

    identity: bool = True
    resume: bool = False
    batch: bool = False
    expected: bool = False
    choices: tuple[str, ...] = ()
    least: int | None = None


def setting(default: Any = MISSING, **role: Any) -> Any:
    """Return a dataclass field with a default, or what makes one, and a `Role` with these attributes."""
    start: dict[str, Any] = {"default_factory" if callable(default) else "default": default}
    return field(**start, metadata={"role": Role(**role)})


@dataclass
class Device:
    """Where tensors live: cpu, cuda, mps or auto."""

    name: str = setting("cpu", choices=("cpu", "cuda", "mps", "auto"))


@dataclass
class Plot:
    """What is drawn of a run or a sweep.

    `format` is that of the files; `style`, `width` in inches, `dpi` and `title` are those of
    `vi_core.plots.drawing.style`, null for those of the style; `only` names the figures that are written, all if empty;
    `network` adds the Bayesian network of the model, with the Markov blanket of the node `blanket`, null for the first
    latent; `smoothing` is the window of the moving average in the figure of the bound, in steps; `steps` is where the
    linear axis of a sweep's methods ends, null for the whole run; `group_by` is the swept key that colours a sweep's
    figures, null for all of them but the seed.
    """

    enabled: bool = True
    format: str = setting("png", choices=("png", "pdf", "svg"))
    style: str = setting("screen", choices=("screen", "paper", "slides"))
    width: float | None = None
    dpi: int | None = None
    title: str | None = None
    only: list[str] = field(default_factory=list)
    network: bool = False
    blanket: str | None = None
    smoothing: int = setting(50, least=1)
    steps: int | None = None
    group_by: str | None = None


@dataclass
class Sweep:
    """How a multirun goes on, `resume` names the folder of an earlier one, and whether its jobs train together."""

    resume: str | None = None
    batched: bool = False


@dataclass
class Expectation:
    """A number that an experiment must reach, within a tolerance; `when` restricts it to some settings."""

    quantity: str = MISSING
    value: float = MISSING
    tolerance: float = MISSING
    when: dict[str, Any] = field(default_factory=dict)


@dataclass
class Row:
    """A system, figure, table or claim of the source reports that an experiment covers: a row of docs/reports.md.

    `number` is its place there, `where` the report and the question, `what` is asked or claimed, `shows` is what the
    experiment has of it, and `verdict` what is right or wrong there.
    """

    number: int = MISSING
    where: str = MISSING
    what: str = MISSING
    shows: str = MISSING
    verdict: str = MISSING


@dataclass
class Report:
    """The experiment's row on the report page.

    `order` is its place there, null for none; `minutes` is about how long it takes on one core, where that is more than
    one: the longest start first; `where` names the figure or table of the source reports, `says` what that shows or
    prints, `quick` holds the overrides of a scaled-down run, and `rows` are those of docs/reports.md.
    """

    order: int | None = None
    minutes: int = 0
    where: str = ""
    says: str = ""
    quick: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


@dataclass
class Target:
    """A number that a benchmark must reach: `quantity` as in `experiments.benchmark.results`, and one of the limits."""

    quantity: str = MISSING
    at_least: float | None = None
    at_most: float | None = None


@dataclass
class Benchmark:
    """What `experiment=benchmark` measures.

    `only` names problems and contenders, all if empty; each contender gets `repetitions` blocks of about `block_s`
    seconds; `targets` are its checks.
    """

    only: Any = field(default_factory=list)
    repetitions: int = 50
    block_s: float = 0.05
    targets: list[Target] = field(default_factory=list)


@dataclass
class Reproduce:
    """What `task=reproduce` runs: the names in `only`, all experiments of the page if empty, `parallel` at a time."""

    only: Any = field(default_factory=list)
    parallel: int = 2


ASIDE: dict[str, Any] = {"identity": False, "resume": True}  # of settings without a part in the numbers


@dataclass
class Root:
    """Everything that a run is made of."""

    model: Any = MISSING
    family: Any = MISSING
    bound: Any = MISSING
    estimator: Any = MISSING
    optimizer: Any = MISSING
    dataset: Any = MISSING
    trainer: Any = setting(resume=True)
    study: Any = None
    benchmark: Benchmark | None = setting(None, resume=True)
    device: Device = setting(Device, expected=True)
    plot: Plot = setting(Plot, **ASIDE, batch=True, expected=True)
    callbacks: dict[str, Any] = setting(dict, **ASIDE, batch=True, expected=True)
    sweep: Sweep = setting(Sweep, **ASIDE, batch=True, expected=True)
    name: str = MISSING
    parts: dict[str, Any] = setting(dict)
    note: str = setting("", **ASIDE, batch=True)
    report: Report = setting(Report, **ASIDE, batch=True)
    task: str = setting("fit", **ASIDE, expected=True)
    fidelity: str = setting("full", **ASIDE, choices=FIDELITIES)
    reproduce: Reproduce = setting(Reproduce, **ASIDE)
    overrides: list[str] = setting(list, identity=False, batch=True)
    changes: list[Any] = setting(list)
    run: str | None = setting(None, **ASIDE)
    resume: str | None = setting(None, **ASIDE)
    seed: int = setting(0, expected=True)
    replicates: int = setting(1, least=1)
    threads: Any = setting("auto", **ASIDE, expected=True)
    combine: str = setting("none", **ASIDE, choices=("none", "evidence"))
    dtype: str = setting("auto", choices=("auto", "float32", "float64"))
    matmul: str = setting("auto", choices=("auto", "bfloat16", "tf32"))
    strict: bool = setting(False, **ASIDE, batch=True, expected=True)
    expected: list[Expectation] = setting(list, **ASIDE, batch=True)


FREE = Role(resume=True, expected=True)
OTHERS = {
    "optimizer.lr": Role(resume=True),
    "experiment": Role(expected=True),
    "callback": Role(**ASIDE, expected=True),
    "hydra": Role(**ASIDE, expected=True),
    **dict.fromkeys(("trainer.log_every", "trainer.checkpoint_every", "trainer.execution", "trainer.compile"), FREE),
    **dict.fromkeys(
        ("dataset.root", "dataset.path", "dataset.download", "study.root"), FREE
    ),  # what is in a file matters
}
"""Roles of what the command line sets and `Root` has no field for: groups without a node, and settings of parts."""


def names(attribute: str, value: bool = True) -> set[str]:
    """Return the settings whose role has this value of an attribute."""
    roles = {each.name: each.metadata.get("role", Role()) for each in fields(Root)} | OTHERS
    return {name for name, role in roles.items() if getattr(role, attribute) == value}


IDENTITY_VERSION = 2  # settings and parts of another version had other names, and hashes of both do not compare


def config_hash(config: Any) -> str:
    """Return the identity of a run, by which a sweep that goes on knows which of its jobs are finished.

    A resumed run knows by it that its settings are those of its checkpoint. A setting that changed when the run was
    resumed is in it with the step at which that happened.

    It is the version and 16 hexadecimal digits of SHA-256 over the resolved configuration's essential settings.
    """
    essential = essential_settings(config)
    model = essential.get("model")
    if isinstance(model, dict) and model.get("checksum"):  # what is in a file matters, and which class of it
        essential |= {"model": model | {"path": file_and_name(model["path"])[1]}, "name": "own"}
    digest = hashlib.sha256(json.dumps(essential, sort_keys=True, default=str).encode()).hexdigest()
    return f"{IDENTITY_VERSION}-{digest[:16]}"


def essential_settings(config: Any) -> dict[str, Any]:
    """Return the settings that the identity covers; `changes` is among them where there were some."""
    aside = names("identity", False) | (set() if config.get("changes") else {"changes"})
    return {key: value for key, value in config.items() if key not in aside}


def setting_at(settings: dict[str, Any], path: str) -> Any:
    """Return the setting at a dotted path, such as `optimizer.lr`; raise `KeyError` where there is none."""
    return reduce(operator.getitem, path.split("."), settings)


def set_setting(settings: dict[str, Any], path: str, value: Any) -> None:
    """Set the setting at a dotted path, in place.

    The dicts that lead to it must exist (`KeyError`); the setting itself need not.
    """
    *parents, last = path.split(".")
    reduce(operator.getitem, parents, settings)[last] = value


def role_of(path: str) -> Role:
    """Return the role of a setting by its path: its own, or that of the innermost node with one around it."""
    roles = {each.name: each.metadata.get("role", Role()) for each in fields(Root)} | OTHERS
    keys = path.split(".")
    around = (".".join(keys[:count]) for count in range(len(keys), 0, -1))
    return next((roles[name] for name in around if name in roles), Role())

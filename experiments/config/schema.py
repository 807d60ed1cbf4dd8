"""The types of the top level of the configuration. The parts are typed by their constructors."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

FIDELITIES = ("full", "quick")


@dataclass
class Device:
    """Where tensors live: cpu, cuda, mps or auto."""

    name: str = "cpu"


@dataclass
class Plot:
    """What is drawn of a run or a sweep."""

    enabled: bool = True
    format: str = "png"
    smoothing: int = 50
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
class Report:
    """The experiment's row on the report page.

    `order` is its place there, null for none; `minutes` is about how long it takes on one core, where that is more than
    one: the longest start first; `where` names the figure or table of the source reports, `says` what that shows or
    prints, and `quick` holds the overrides of a scaled-down run.
    """

    order: int | None = None
    minutes: int = 0
    where: str = ""
    says: str = ""
    quick: list[str] = field(default_factory=list)


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


@dataclass
class Root:
    """Everything that a run is made of."""

    model: Any = MISSING
    family: Any = MISSING
    bound: Any = MISSING
    estimator: Any = MISSING
    optimizer: Any = MISSING
    dataset: Any = MISSING
    trainer: Any = MISSING
    study: Any = None
    benchmark: Benchmark | None = None
    device: Device = field(default_factory=Device)
    plot: Plot = field(default_factory=Plot)
    sweep: Sweep = field(default_factory=Sweep)
    name: str = MISSING
    parts: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    report: Report = field(default_factory=Report)
    task: str = "fit"
    fidelity: str = "full"
    reproduce: Reproduce = field(default_factory=Reproduce)
    overrides: list[str] = field(default_factory=list)
    run: str | None = None
    resume: str | None = None
    seed: int = 0
    replicates: int = 1
    threads: Any = "auto"
    dtype: str = "auto"
    matmul: str = "auto"
    strict: bool = False
    expected: list[Expectation] = field(default_factory=list)

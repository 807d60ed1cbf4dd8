"""Layouts of a run's config.yaml and summary.json: what readers rely on, as types, and the check of a file's content.

docs/outputs.md describes every key. Keys that no reader needs, and keys of later versions, are not listed.
"""

from functools import cache
from typing import Any, Literal, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from vi_core.schema import conforms, describe

Number = float | None  # JSON has null for what is not finite or not known


class Part(TypedDict):
    """A part by its class; its settings are checked against the constructor."""

    _target_: str


class Expectation(TypedDict):
    """A number that an experiment must reach."""

    quantity: str
    value: float
    tolerance: float
    when: NotRequired[dict]


class ReportEntry(TypedDict):
    """The experiment's place in the source reports."""

    where: NotRequired[str]
    says: NotRequired[str]


class Settings(TypedDict):
    """config.yaml of every run."""

    name: str
    note: NotRequired[str]
    overrides: list[str]
    seed: int
    replicates: int
    expected: list[Expectation]
    report: NotRequired[ReportEntry | None]
    study: Part | None
    benchmark: NotRequired[dict | None]


class FitSettings(Settings):
    """config.yaml of a fit."""

    model: Part
    family: Part
    bound: Part
    estimator: Part
    optimizer: Part
    dataset: Part
    trainer: Part


class Overrides(TypedDict):
    """The command line of a sweep, as Hydra notes it."""

    hydra: list[str]
    task: list[str]


class HydraNode(TypedDict):
    """What readers use of Hydra's own settings."""

    overrides: Overrides


class Multirun(TypedDict):
    """multirun.yaml, which Hydra writes of a sweep."""

    hydra: HydraNode


class Spread(TypedDict):
    """Statistics over replicates."""

    mean: Number
    se: Number


class Objective(Spread):
    """The bound at the end of training."""

    name: str
    per: str


class Final(Spread):
    """The bound of the final q."""

    name: str
    values: list[Number]
    log_evidence: Number
    reference_log_evidence: NotRequired[Number]
    reference_error: NotRequired[Number]


class Estimate(TypedDict):
    """A quantity with its Monte Carlo error, the value that generated the data and the exact one."""

    mean: Number
    mc_error: Number
    truth: Number
    exact: Number
    sd: NotRequired[Number]
    q05: NotRequired[Number]
    q95: NotRequired[Number]
    exact_sd: NotRequired[Number]
    reference: NotRequired[Number]
    reference_sd: NotRequired[Number]
    reference_error: NotRequired[Number]


class Check(TypedDict):
    """A number beside the expected one."""

    name: str
    value: Any
    expected: float
    tolerance: float
    passed: bool


class TargetCheck(Check):
    """A number of a benchmark beside its limit, which is `at least` or `at most`."""

    value: Number
    sense: str


class Timing(TypedDict):
    """Seconds."""

    total_s: float


class Environment(TypedDict):
    """Versions and machine."""

    python: str
    torch: str
    hydra: str
    platform: str
    device: str
    threads: int
    dtype: Literal["float32", "float64"]
    seed: int
    git_commit: str | None
    git_dirty: bool | None


class Noise(TypedDict):
    """Noise of gradients at one place."""

    total: Spread
    latents: dict[str, Number]
    latents_se: NotRequired[dict[str, Number]]


class NoiseRow(TypedDict):
    """Noise of gradients in the course of a run."""

    step: int
    total: Number
    total_se: Number
    latents: dict[str, Number]


class GradientNoise(TypedDict):
    """Noise of gradients at the first and the last parameters, and at checkpoints."""

    start: Noise
    final: Noise
    along: NotRequired[list[NoiseRow]]


class Terms(TypedDict):
    """Terms of a diffusion model's bound, by step."""

    nats: list[Number]
    se: list[Number]
    affine: list[Number]


class Denoising(TypedDict):
    """Terms of a diffusion model's bound."""

    units: str
    by_step: Terms


class Diagnostics(TypedDict):
    """Diagnostics of q."""

    gradient: NotRequired[GradientNoise]
    denoising: NotRequired[Denoising]


class Failure(TypedDict):
    """summary.json of a job that failed, and what every summary has."""

    schema: Literal[2]
    experiment: str
    status: Literal["completed", "converged", "interrupted", "diverged", "failed"]
    overrides: list[str]
    config_hash: str
    error: NotRequired[str]
    error_type: NotRequired[str]


class Finding(Failure):
    """summary.json of a study or a benchmark, and of every run that ended well."""

    subtitle: str
    note: str
    estimates: dict[str, Estimate]
    checks: list[Check]
    checks_skipped: str
    timing: Timing
    environment: Environment


class FitFinding(Finding):
    """summary.json of a fit."""

    replicates: int
    objective: Objective
    best_replicate: int | None
    final: Final
    diagnostics: Diagnostics
    recovery: NotRequired[dict[str, Number]]
    misfit: NotRequired[dict[str, Number]]


class BenchmarkFinding(TypedDict):
    """What summary.json of a benchmark has beside what every finding has."""

    checks: list[TargetCheck]
    machine: dict[str, str]
    unjudged: str
    environment: Environment


def fault(content: Any, hint: Any, path: str = "") -> str:
    """Return what keeps content from having the type `hint`, with its place; empty where nothing does.

    Args:
        content: Plain values, such as JSON has them.
        hint: A type of `vi_core.schema.conforms`, a `TypedDict`, or a dict, list or union of such types. Keys that a
            `TypedDict` does not name are allowed.
        path: Place of the content.
    """
    options = [option for option in get_args(hint) or (hint,) if is_typeddict(option)]
    if get_origin(hint) in (dict, list):
        return _fault_of_elements(content, hint, path)
    if options and content is None and type(None) in get_args(hint):
        return ""
    if not options:
        return "" if conforms(content, hint) else f"{path} must be {describe(hint)}"
    (layout,) = options
    if not isinstance(content, dict):
        return f"{path or 'it'} must be a mapping"
    missing = sorted(layout.__required_keys__ - content.keys())
    if missing:
        return f"{path}.{missing[0]} is missing".lstrip(".")
    types = [(key, kind) for key, kind in types_of(layout).items() if key in content]
    return next(filter(None, (fault(content[key], kind, f"{path}.{key}".lstrip(".")) for key, kind in types)), "")


@cache
def types_of(layout: type) -> dict[str, Any]:
    """Return the types of a layout's keys, which a sweep asks for in every job."""
    return get_type_hints(layout)


def _fault_of_elements(content: Any, hint: Any, path: str) -> str:
    kind, inside = get_origin(hint), get_args(hint)[-1]
    if not isinstance(content, kind):
        return f"{path} must be {'a mapping' if kind is dict else 'a list'}"
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    return next(filter(None, (fault(value, inside, f"{path}.{key}") for key, value in pairs)), "")

"""Contracts of every part that has a YAML file in conf/, found by looking: a new file is tested without being named.

The constructor is the schema, so each file is compared with its class; then each folder's contract is run on the part;
then every combination of parts either runs or is refused in one line; then every experiment runs from end to end.
"""

import importlib
import inspect
import itertools
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.conftest import DATA, ROOT, CommandLine, needs_mnist, needs_quakes, summary_of
from vi_core.algorithms.anchor import Anchored
from vi_core.algorithms.base import Step
from vi_core.algorithms.coordinate_ascent import CoordinateAscent
from vi_core.bounds.base import Bound
from vi_core.datasets.base import Dataset
from vi_core.distributions.transforms import Positive
from vi_core.errors import LabError
from vi_core.estimators.base import Estimator
from vi_core.estimators.exact import Exact
from vi_core.families.amortized.categorical import Relaxation
from vi_core.families.base import Family, HasInformation
from vi_core.models.base import HasColumns, HasConstants, HasFisher, HasUpdates, Model
from vi_core.models.diffusion.process import ReverseVariance, Schedule
from vi_core.models.diffusion.reverse import Decoder, Denoiser
from vi_core.models.mixtures.hyperparameters import Hyperparameters
from vi_core.networks.convolutional import Features
from vi_core.networks.initialization import Initialization, OutputBias
from vi_core.optimizers.averaging import Averaging
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.natural_gradient import MOST_NUMBERS, NaturalGradient
from vi_core.optimizers.schedules import Schedule as RateSchedule
from vi_core.problem import Loaded, assemble, load_data
from vi_core.schema import construct, keyword_arguments, locate
from vi_core.studies.base import Study
from vi_core.studies.score_variance import StandardNormal
from vi_core.training.batches import Batches
from vi_core.training.stopping import StoppingRule
from vi_core.training.trainer import Trainer

CONF = ROOT / "conf"
KINDS: dict[str, tuple[type, ...]] = {
    "model": (Model,),
    "model/schedule": (Schedule,),
    "model/reverse_variance": (ReverseVariance,),
    "model/decoder": (Decoder,),
    "model/denoiser": (Denoiser,),
    "model/initialization": (Initialization,),
    "model/output_bias": (OutputBias,),
    "model/hyperparameters": (Hyperparameters,),
    "family": (Family,),
    "family/positive": (Positive,),
    "family/spread": (Positive,),
    "family/relaxation": (Relaxation,),
    "family/initialization": (Initialization,),
    "family/features": (Features,),
    "bound": (Bound,),
    "estimator": (Estimator,),
    "optimizer": (Optimizer, CoordinateAscent),
    "optimizer/schedule": (RateSchedule,),
    "optimizer/averaging": (Averaging,),
    "dataset": (Dataset,),
    "trainer": (Trainer,),
    "trainer/stopping": (StoppingRule,),
    "study": (Study,),
}
WITHOUT_TARGET = {"callback", "device", "experiment", "plot", "recipe", "variant"}
"""Folders whose files are values, not parts; `experiments.config.schema` types them."""
FILES = ("config.yaml", "run.log", "trace.csv", "summary.json", "samples.npz", "checkpoint.pt")


def names(group: str) -> list[str]:
    """Options of a group, from its folder."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> set[str]:
    """Folders of conf/ with YAML files in them."""
    return {path.parent.relative_to(CONF).as_posix() for path in CONF.glob("*/**/*.yaml")}


PARTS = [f"{group}/{name}" for group in sorted(groups() - WITHOUT_TARGET) for name in names(group)]


@cache
def _composed(part: str) -> str:
    GlobalHydra.instance().clear()
    with warnings.catch_warnings(), hydra.initialize_config_module("conf", version_base="1.3"):
        warnings.filterwarnings(
            "ignore", "In '.*': Defaults list is missing `_self_`"
        )  # it is no primary configuration
        cfg = hydra.compose(part)
    node = OmegaConf.select(cfg, part.rpartition("/")[0].replace("/", "."))
    return json.dumps(OmegaConf.to_container(node, resolve=True))


def composed(part: str) -> dict[str, Any]:
    """Compose one file of conf/ with the defaults that it names, by Hydra, as plain values."""
    return json.loads(_composed(part))


def plain(value: Any) -> Any:
    """A constructor's default as YAML has it."""
    return [plain(element) for element in value] if isinstance(value, tuple) else value


def differences(config: dict[str, Any]) -> list[str]:
    """How the keys of a part, and of the parts inside it, differ from its constructor's keyword-only arguments."""
    cls = locate(config["_target_"], "part")
    found = [f"{cls.__name__}.{key}" for key in (set(config) - {"_target_"}) ^ set(keyword_arguments(cls))]
    for value in config.values():
        found += differences(value) if isinstance(value, dict) and "_target_" in value else []
    return found


def changed_defaults(config: dict[str, Any]) -> list[str]:
    """Settings whose value is not the constructor's default, where it has one."""
    parameters = inspect.signature(locate(config["_target_"], "part")).parameters
    defaults = {name: plain(p.default) for name, p in parameters.items() if p.default is not p.empty}
    return [key for key, value in config.items() if key in defaults and value != defaults[key]]


def presets(part: str) -> set[str]:
    """Keys that a file changes on purpose: it starts from another file of its folder and says what differs."""
    content = OmegaConf.to_container(OmegaConf.load(CONF / f"{part}.yaml"))
    assert isinstance(content, dict)
    siblings = set(names(part.rpartition("/")[0]))
    inherits = any(entry in siblings for entry in content.get("defaults", []) if isinstance(entry, str))
    return set(map(str, content)) if inherits else set()


# --- the constructor is the schema ----------------------------------------------------------------------------------


def test_every_folder_has_a_contract() -> None:
    assert groups() <= KINDS.keys() | WITHOUT_TARGET


@pytest.mark.parametrize("part", PARTS)
def test_yaml_repeats_the_constructor(part: str) -> None:
    config = composed(part)
    cls = locate(config["_target_"], part)
    assert issubclass(cls, KINDS[part.rpartition("/")[0]])
    assert not inspect.isabstract(cls)
    assert differences(config) == []
    assert set(changed_defaults(config)) <= presets(part)


def test_a_yaml_that_lies_is_caught() -> None:
    config = composed("family/mean_field")
    assert differences({key: value for key, value in config.items() if key != "rate"}) == ["MeanField.rate"]
    assert differences(config | {"extra": 1}) == ["MeanField.extra"]
    inner = composed("trainer/stopping/plateau") | {"extra": 1}
    assert differences(composed("trainer/default") | {"stopping": inner}) == ["Plateau.extra"]
    assert changed_defaults(config | {"rate": 2.0}) == ["rate"]
    assert presets("trainer/smoke") >= {"limit", "final_samples"}


def concrete(kind: type) -> set[type]:
    """The library's classes of a kind that can be built."""
    package = kind.__module__.removesuffix(".base")
    folder = CONF.parent / package.replace(".", "/")
    for path in folder.glob("*.py") if folder.is_dir() else ():
        importlib.import_module(f"{package}.{path.stem}".removesuffix(".__init__"))
    below = {cls for child in kind.__subclasses__() for cls in concrete(child)}
    return {cls for cls in {kind, *below} if is_part(cls) and cls.__module__.startswith("vi_core.")}


def is_part(cls: type) -> bool:
    """Whether a class can be built from plain settings and context, unlike those that only the program makes."""
    kinds = {parameter.kind for parameter in inspect.signature(cls).parameters.values()}
    return not inspect.isabstract(cls) and inspect.Parameter.POSITIONAL_OR_KEYWORD not in kinds


@pytest.mark.parametrize("kinds", sorted(set(KINDS.values()), key=str), ids=lambda kinds: kinds[0].__name__)
def test_every_class_has_a_yaml(kinds: tuple[type, ...]) -> None:
    """A part that no file names could not be chosen on the command line."""
    folders = [group for group in KINDS if KINDS[group] == kinds]
    targets = {composed(f"{group}/{name}")["_target_"] for group in folders for name in names(group)}
    classes = set().union(*map(concrete, kinds)) - {Anchored, StandardNormal}  # of minibatches, and of a study
    assert {f"{cls.__module__}.{cls.__qualname__}" for cls in classes} == targets


# --- each folder's contract -----------------------------------------------------------------------------------------


def euclidean() -> torch.Tensor:
    """A Fisher information (R, P, P) for the rules that ask for one: that of the quadratic itself."""
    return torch.eye(3, dtype=torch.float64).expand(2, 3, 3)


def climb(optimizer: Optimizer, alive: list[bool], steps: int = 50) -> torch.Tensor:
    """Distances (R,) to the maximum of −½ Σ (λ − 3)² after each step from 0, with shape (steps + 1, R)."""
    parameter = torch.zeros(2, 1, 3, dtype=torch.float64)
    optimizer.bind([parameter], 2, euclidean)
    distances = [(parameter - 3).norm(dim=(1, 2))]
    for _ in range(steps):
        optimizer([parameter], [3 - parameter], torch.tensor(alive))
        distances.append((parameter - 3).norm(dim=(1, 2)))
    return torch.stack(distances)


@pytest.mark.parametrize("name", names("optimizer"))
def test_optimizer_climbs_and_leaves_a_dead_replicate(name: str) -> None:
    optimizer = construct(composed(f"optimizer/{name}"), "optimizer")
    if isinstance(optimizer, CoordinateAscent):
        pytest.skip("coordinate ascent follows no gradient; test_every_combination runs it")
    distances = climb(optimizer, [True, False])
    assert bool((distances[1:, 0] < distances[:-1, 0]).all())
    assert bool((distances[:, 1] == distances[0, 1]).all())


@pytest.mark.parametrize("name", names("optimizer"))
def test_optimizer_state_resumes(name: str) -> None:
    """Ten steps, or five, a state dict and five: the same numbers."""
    config = composed(f"optimizer/{name}")
    if not issubclass(locate(config["_target_"], name), Optimizer):
        pytest.skip("coordinate ascent has no state")
    parameter, moved = torch.zeros(2, 2, 1, 3, dtype=torch.float64)
    straight, first, second = (construct(config, "optimizer") for _ in range(3))
    for optimizer in (straight, first, second):
        optimizer.bind([parameter], 2, euclidean)
    alive = torch.tensor([True, True])
    for _ in range(10):
        straight([parameter], [3 - parameter], alive)
    for optimizer in (first, second):
        for _ in range(5):
            optimizer([moved], [3 - moved], alive)
        second.load_state_dict(first.state_dict())
    assert torch.equal(parameter, moved)


# --- combinations ---------------------------------------------------------------------------------------------------

NOUNS = ("model", "family", "dataset", "bound", "estimator", "optimizer")
SMALL = {
    "batch_size": 4, "num_samples": 3, "hidden": [5], "latent_dim": 2, "channels": [3], "groups": 2, "classes": 3,
    "num_steps": 25, "latent_dims": [3, 2], "widths": [[5], [4]], "start": "random", "preconditioner": "none",
    "transforms": 1, "components": 2,
}  # fmt: skip
"""Settings of any part that make two steps quick."""


def settings(noun: str, name: str) -> dict[str, Any]:
    """A part's configuration, made small."""
    config = composed(f"{noun}/{name}")
    return config | {key: value for key, value in SMALL.items() if isinstance(config.get(key), type(value))}


ONE_STEP = {"steps_per_epoch": 1}


def runs(model: str, family: str, dataset: str, bound: str, estimator: str, optimizer: str) -> bool:
    """Whether a combination has a meaning: what its parts say of each other when they are asked one by one.

    The family accepts the model's latents and the model the data, the estimator accepts the three, and coordinate
    ascent goes with a model's own updates and the exact bound alone, which no other optimizer needs.
    """
    parts = accepted(model, family, dataset)
    if parts is None:
        return False
    chosen: Estimator = construct(settings("estimator", estimator), "estimator")
    rule: Optimizer | CoordinateAscent = construct(
        settings("optimizer", optimizer), "optimizer", {"steps_per_epoch": 1}
    )
    try:
        chosen.check(parts.model, parts.family, construct(settings("bound", bound), "bound"))
    except LabError:
        return False
    if isinstance(rule, CoordinateAscent):
        return (
            isinstance(chosen, Exact) and isinstance(parts.model, HasUpdates) and parts.model.knows(parts.family.layout)
        )
    if parts.family.fixed:
        return family == "pathfinder" or model not in WITHOUT_MODE
    return any(True for _ in (*parts.model.parameters(), *parts.family.parameters())) and goes_with(rule, parts)


class Accepted(NamedTuple):
    """A model and a family that accept each other and the data."""

    model: Model
    family: Family


@cache
def accepted(model: str, family: str, dataset: str) -> Accepted | None:
    """Build model and family for a data set, and ask them; None where one refuses."""
    data, batch_size = loaded(dataset).data, construct(settings("dataset", dataset), "dataset").batch_size
    context = {
        "event_size": data.train[0].numel(),
        "image_shape": data.image_shape,
        "levels": data.levels,
        "num_points": len(data.train),
        "replicates": 1,
        "data_mean": data.mean,
    }
    try:
        described: Model = construct(settings("model", model), "model", context)
        if isinstance(described, HasColumns):
            described.observe(data.decode(data.train), len(data.train))
        Batches(data, described, batch_size, torch.Generator())
        context |= {"latents": described.latents, "process": getattr(described, "process", None)}
        return Accepted(described, construct(settings("family", family), "family", context))
    except LabError:
        return None


def goes_with(rule: Optimizer, parts: Accepted) -> bool:
    """Whether an optimizer finds the information that it asks for, and constants are not to be estimated by it.

    An information that is singular needs damping, of which the default has none.
    """
    estimates = isinstance(parts.model, HasConstants) and parts.model.estimates_constants
    point = set(parts.family.layout.values()) == {frozenset({"value"})}
    informed = isinstance(parts.family, HasInformation) or (point and isinstance(parts.model, HasFisher))
    few = sum(value.numel() for value in parts.family.parameters()) <= MOST_NUMBERS
    regular = not parts.family.singular
    return not estimates and ((informed and regular and few) or not isinstance(rule, NaturalGradient))


def assert_one_line(error: LabError) -> None:
    """Errors for the user are one line that ends a sentence."""
    assert "\n" not in str(error)
    assert str(error).endswith((".", "?"))


PAIRS = [(model, dataset) for model in names("model") for dataset in ("normal", "digits")]
PAIRS += [(model, dataset) for model in ("ddpm", "vae") for dataset in ("gaussian_2d", "two_moons")]
PAIRS += [(model, model) for model in names("model") if model in names("dataset")]
PAIRS += [("eight_schools_centered", "eight_schools")]
REGRESSIONS = {f"{kind}_regression" for kind in ("hierarchical", "linear", "logistic", "poisson")}
IMAGES = {name for name in names("model") if name.endswith("vae") or name == "ddpm"}
WITHOUT_MODE = {"eight_schools_centered", "gamma"}
"""Models whose density has no mode on these data, which Laplace's approximation refuses."""
NEED_COLUMNS = {"file", "gaussian_process", "lotka_volterra", "stan", *REGRESSIONS}
"""Models of columns by name, which no data set of conf/ has, or which need long to begin: tests/cli/test_own.py,
tests/unit/test_regression.py, tests/unit/test_stan.py."""


def is_first(model: str, dataset: str) -> bool:
    """Whether a data set is the one with which a model is tried in the short tests: its own, digits, or numbers."""
    return dataset == model or (
        model not in names("dataset") and dataset == ("digits" if model in IMAGES else "normal")
    )


@pytest.mark.parametrize("family", names("family"))
@pytest.mark.parametrize(
    ("model", "dataset"), [pytest.param(*pair, marks=() if is_first(*pair) else pytest.mark.slow) for pair in PAIRS]
)
def test_every_combination(model: str, family: str, dataset: str) -> None:
    """Two steps of each bound x estimator x optimizer, or a refusal in one line: never a traceback."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    fixed = locate(settings("family", family)["_target_"], "family").fixed  # no optimizer moves it
    for bound, estimator, optimizer in itertools.product(*map(names, NOUNS[3:])):
        few = ("adam",) if model in WITHOUT_MODE else ("adam", "coordinate_ascent")
        if fixed and (optimizer not in few or (model in WITHOUT_MODE and estimator != "pathwise")):
            continue  # a search for a mode, which takes seconds where there is none
        chosen = dict(zip(NOUNS, (model, family, dataset, bound, estimator, optimizer), strict=True))
        outcome = attempt({noun: settings(noun, name) for noun, name in chosen.items()}, loaded(dataset))
        wanted = runs(**chosen)
        assert wanted == isinstance(outcome, Step), f"{chosen}: {outcome}"
        # The default rates of the other rules are those of one problem: on another a parameter may overflow.
        settled = optimizer in ("adam", "coordinate_ascent")
        assert not isinstance(outcome, Step) or not settled or bool(outcome.alive.all()), chosen


def test_every_part_runs_with_some_others() -> None:
    """A part that refuses everything would be asked for nothing above."""
    torch.set_default_dtype(torch.float64)
    found = {noun: set[str]() for noun in NOUNS}
    for (model, dataset), family in itertools.product(PAIRS, names("family")):
        if accepted(model, family, dataset) is None:
            continue
        for bound, estimator, optimizer in itertools.product(*map(names, NOUNS[3:])):
            if runs(model, family, dataset, bound, estimator, optimizer):
                chosen = (model, family, dataset, bound, estimator, optimizer)
                for noun, name in zip(NOUNS, chosen, strict=True):
                    found[noun].add(name)
    found["model"] |= NEED_COLUMNS
    assert {noun: set(names(noun)) - found[noun] for noun in NOUNS if noun != "dataset"} == {
        noun: set() for noun in NOUNS if noun != "dataset"
    }


@cache
def loaded(dataset: str) -> Loaded:
    """A data set, drawn or read once."""
    return load_data({"dataset": settings("dataset", dataset)}, torch.device("cpu"), torch.float64)


def attempt(config: dict[str, Any], data: Loaded) -> Step | LabError:
    """Make two steps of a problem, or return the refusal."""
    try:
        problem = assemble(config | {"replicates": 1}, torch.device("cpu"), torch.float64, torch.Generator(), data)
    except LabError as error:
        assert_one_line(error)
        return error
    for _ in range(2):
        metrics = problem.step(problem.batches.next()[0])
        assert problem.bound.name in metrics
    return problem.step


# --- experiments ----------------------------------------------------------------------------------------------------


def says(name: str, text: str) -> bool:
    """Whether an experiment's file holds a text, or that of an experiment that it starts from."""
    content = (CONF / "experiment" / f"{name}.yaml").read_text()
    parents = [other for other in names("experiment") if f"\n  - {other}\n" in content]
    return text in content or any(says(parent, text) for parent in parents)


def on_mnist(name: str) -> bool:
    """Whether an experiment is on MNIST."""
    return says(name, "/dataset: mnist")


def is_study(name: str) -> bool:
    """Whether an experiment computes and does not train."""
    return "/study: " in (CONF / "experiment" / f"{name}.yaml").read_text()


def is_benchmark(name: str) -> bool:
    """Whether an experiment times others; `tests/cli/test_benchmark.py` runs it."""
    return "\nbenchmark:" in (CONF / "experiment" / f"{name}.yaml").read_text()


def needs(name: str) -> list[pytest.MarkDecorator]:
    """What skips an experiment whose data are not there."""
    return [needs_mnist] * on_mnist(name) + [needs_quakes] * (name in ON_QUAKES)


ON_QUAKES = {"earthquakes_catalogue"}
FITS = [name for name in names("experiment") if not is_study(name) and not is_benchmark(name)]
STUDIES = [name for name in names("experiment") if is_study(name)]
EXPERIMENTS = [pytest.param(name, marks=needs(name)) for name in FITS]
MANY_JOBS = {"compare_estimators"}
WITHOUT_IMAGES = [
    pytest.param(name, marks=needs(name) + [pytest.mark.slow] * (name in MANY_JOBS))
    for name in FITS
    if not on_mnist(name)
]


def run_experiment(name: str, cli: CommandLine, tmp_path: Path, *arguments: str) -> list[Path]:
    """Run a few steps of an experiment as it is; return the folders of its runs, each with every documented file."""
    root = [f"dataset.root={DATA}"] if on_mnist(name) else []
    root += [f"dataset.path={DATA / 'quakes' / 'quakes.csv'}", "model.components=2,3"] if name in ON_QUAKES else []
    few = ["trainer.gradient_draws=2"] if says(name, "gradient_draws:") else []
    few += ["trainer.likelihood_samples=2"] if says(name, "likelihood_samples:") else []
    result = cli(
        f"experiment={name}", "trainer=smoke", "trainer.limit=4", "trainer.final_samples=20", *few, *root, *arguments
    )
    assert (result.code, result.err) == (0, "")
    runs = sorted(path.parent for path in tmp_path.rglob("checkpoint.pt"))
    assert runs
    for run in runs:
        assert [file for file in FILES if not (run / file).stat().st_size] == []
        summary, expected = summary_of(run), OmegaConf.load(run / "config.yaml").expected
        assert (summary["experiment"], summary["status"], summary["checks"]) == (name, "completed", [])
        assert ("trainer=smoke" in summary["checks_skipped"]) == bool(expected)
    return runs


@pytest.mark.parametrize("name", WITHOUT_IMAGES)
def test_experiment_runs(name: str, cli: CommandLine, tmp_path: Path) -> None:
    for run in run_experiment(name, cli, tmp_path, "plot.enabled=false"):
        assert not (run / "plots").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_draws(name: str, cli: CommandLine, tmp_path: Path) -> None:
    for run in run_experiment(name, cli, tmp_path):
        assert {path.suffix for path in (run / "plots").iterdir()} == {".png"}


LONG_STUDIES = {"calibration", "report_000_figure_2", "report_001_tables"}
NEEDS_A_CLONE = {"posteriordb"}  # tests/unit/test_league.py


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LONG_STUDIES))
        for name in STUDIES
        if name not in NEEDS_A_CLONE
    ],
)
def test_study_passes(name: str, cli: CommandLine, tmp_path: Path) -> None:
    """A study ends in PASS in all its checks, with its numbers, records and figures, which it draws again."""
    result = cli(f"experiment={name}", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    summary = summary_of(tmp_path / "run")
    assert [check["name"] for check in summary["checks"] if not check["passed"]] == []
    assert summary["checks"] and summary["estimates"]
    plots = {path.name: path.read_bytes() for path in (tmp_path / "run" / "plots").iterdir()}
    assert plots
    assert cli("task=plot", "run=run").code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "plots").iterdir()} == plots


def test_study_refuses_the_parts_of_a_fit(cli: CommandLine) -> None:
    result = cli("experiment=gamma_fisher", "optimizer.lr=1")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "optimizer.lr is not a setting of study=gamma_fisher" in result.err


def test_default_experiment_draws(cli: CommandLine, tmp_path: Path) -> None:
    (run,) = run_experiment("bbvi", cli, tmp_path)
    drawn = {path.name for path in (run / "plots").iterdir()}
    assert drawn == {"bound.png", "expectations.png", "parameters.png", "posterior.png", "density.png"}

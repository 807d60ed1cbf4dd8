"""The shape of the sources: imports point one way, the library has no side effects, and everything public is explained.

Each rule is a function from a module's source to its violations, so that a synthetic module that breaks it is caught by
the same function.
"""

import ast
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

LEAVES = ("models", "families", "bounds", "optimizers", "datasets")
SHARED = (
    "types", "errors", "extras", "storage.files", "storage.reading", "per_replicate", "distributions", "networks",
    "execution.recording",
)  # fmt: skip
"""Modules and folders of vi_core that every part may use; they import only each other."""
CONTRACTS = tuple(f"{leaf}.base" for leaf in LEAVES)
ALLOWED = {
    **{leaf: (*SHARED, leaf) for leaf in LEAVES},
    "families": (*SHARED, "families", "models.diffusion.process"),  # the forward process is the model's own noise
    "estimators": (*SHARED, *CONTRACTS, "estimators"),
    "algorithms": (*SHARED, *CONTRACTS, "estimators.base", "estimators.exact", "algorithms"),
    "training": (*SHARED, *CONTRACTS, "estimators.base", "algorithms.base", "execution", "training"),
    "execution": (*SHARED, "algorithms.base", "training", "storage.renamed", "execution"),
    "trackers": (*SHARED, "training", "trackers"),
    "stacking": (*SHARED, *CONTRACTS, "estimators.base", "algorithms", "training", "stacking"),
    "diagnostics": (*SHARED, *CONTRACTS, "estimators.base", "diagnostics"),
    "plots": ("plots", "errors", "storage.files"),
}
"""What the modules of a folder of vi_core may import of vi_core; root modules that assemble may import everything."""
PLOTS_THIRD_PARTY = {"numpy", "matplotlib"}
SIDE_EFFECTS = {
    "print", "input", "breakpoint", "torch.manual_seed", "torch.seed", "torch.set_default_dtype", "torch.set_rng_state",
    "torch.set_default_device", "torch.set_num_threads", "torch.use_deterministic_algorithms",
    "torch.random.manual_seed",
    "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "torch.cuda.set_rng_state", "torch.mps.set_rng_state",
    "torch.set_grad_enabled", "np.random.seed", "numpy.random.seed", "random.seed", "sys.exit", "exit", "os.chdir",
}  # fmt: skip
EXEMPT = {
    "problem.py": {"torch.set_default_dtype"},  # a context manager, which puts it back
    "fits/trust.py": {"torch.manual_seed"},  # likewise
    "training/checkpoint.py": {"torch.set_rng_state", "torch.cuda.set_rng_state", "torch.mps.set_rng_state"},  # resume
}
"""Calls that a module documents and undoes, or that are its purpose."""
CALLED_BY_OTHERS = {"state_dict", "load_state_dict", "on_multirun_end"}
MOST_LINES = 400

Rule = Callable[[str, str], list[str]]
"""(path below vi_core, source) -> violations."""


def modules(package: str) -> list[Path]:
    """Every module of a top-level folder."""
    return sorted((ROOT / package).rglob("*.py"))


def imports(source: str) -> Iterator[str]:
    """Dotted names of what a module imports, anywhere in it; `from a import b` yields `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def within(name: str, allowed: str) -> bool:
    """Whether a dotted name is `allowed` or lies below it."""
    return name == allowed or name.startswith(f"{allowed}.")


def wrong_imports(path: str, source: str) -> list[str]:
    """Imports that point the wrong way."""
    return [name for name in imports(source) if not may_import(path, name)]


def may_import(path: str, name: str) -> bool:
    """Whether the module at `path` below vi_core may import `name`."""
    folder, top = path.partition("/")[0], name.partition(".")[0]
    if top in ("", "hydra", "omegaconf", "experiments", "conf", "tests"):
        return False
    if top != "vi_core":
        return folder != "plots" or top in PLOTS_THIRD_PARTY | set(sys.stdlib_module_names)
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    allowed = SHARED if any(within(module, shared) for shared in SHARED) else ALLOWED.get(folder, ("",))
    return any(within(name, f"vi_core.{inside}".rstrip(".")) for inside in allowed)


def side_effects(path: str, source: str) -> list[str]:
    """Calls that print, seed, exit or change torch globally."""
    calls = (ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call for call in calls if call in SIDE_EFFECTS - EXEMPT.get(path, set())]


def undocumented(path: str, source: str) -> list[str]:
    """Public functions, classes and methods without a docstring, and the module itself.

    A method of a class with bases may override a documented one of theirs; `overriders` finds those that do not.
    """
    tree = ast.parse(source)
    missing = [] if ast.get_docstring(tree) else [path]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                missing.append(node.name)
            if isinstance(node, ast.ClassDef):
                missing += [f"{node.name}.{m.name}" for m in public_methods(node) if not ast.get_docstring(m)]
    return missing


def public_methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Methods without a leading underscore."""
    return [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]


def explained_by_a_base(module: str, name: str) -> bool:
    """Whether a method without a docstring overrides one that has it: in a base class or a protocol of this project, or
    in torch's and Hydra's names for what they call themselves.
    """
    class_name, _, method = name.partition(".")
    cls = getattr(importlib.import_module(module), class_name)
    homes = [importlib.import_module(f"vi_core.{home}") for home in ("models.base", "families.base")]
    protocols = [protocol for home in homes for _, protocol in inspect.getmembers(home, inspect.isclass)]
    ours = [base for base in cls.__mro__[1:] if base.__module__.startswith(("vi_core", "experiments"))]
    return method in CALLED_BY_OTHERS or any(
        inspect.getdoc(vars(base)[method]) for base in [*ours, *protocols] if method in vars(base)
    )


@pytest.mark.parametrize("rule", [wrong_imports, side_effects], ids=lambda rule: rule.__name__)
def test_library(rule: Rule) -> None:
    found = {}
    for module in modules("vi_core"):
        path = module.relative_to(ROOT / "vi_core").as_posix()
        if violations := rule(path, module.read_text()):
            found[path] = violations
    assert found == {}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("models/m.py", "from vi_core.families.mean_field import MeanField"),
        ("models/m.py", "from vi_core.families.base import Family"),
        ("models/m.py", "from ..families import base"),
        ("families/f.py", "import vi_core.models.autoencoders.vae"),
        ("bounds/b.py", "from vi_core.estimators.base import Estimate"),
        ("optimizers/o.py", "from vi_core.training.loop import Loop"),
        ("datasets/d.py", "def load():\n    from vi_core.models.autoencoders.vae import VAE"),
        ("estimators/e.py", "from vi_core.families.mean_field import MeanField"),
        ("estimators/e.py", "from vi_core.bounds.elbo import ELBO"),
        ("estimators/e.py", "from vi_core.algorithms.base import Step"),
        ("training/t.py", "from vi_core.estimators.pathwise import Pathwise"),
        ("training/t.py", "from vi_core.optimizers.adam import Adam"),
        ("training/t.py", "from vi_core.plots.trajectories import bound_figure"),
        ("plots/p.py", "import torch"),
        ("plots/p.py", "from vi_core.training.history import History"),
        ("distributions/d.py", "from vi_core.models.base import Model"),
        ("execution/recording.py", "from vi_core.training.loop import Loop"),
        ("types.py", "from vi_core.models.base import Model"),
        ("problem.py", "from omegaconf import OmegaConf"),
        ("archive.py", "import hydra.core"),
        ("archive.py", "from experiments.cli import main"),
    ],
)
def test_an_import_that_points_the_wrong_way_is_caught(path: str, line: str) -> None:
    assert wrong_imports(path, line)


def test_imports_that_point_the_right_way_pass() -> None:
    assert not wrong_imports("models/m.py", "import math\nimport torch\nfrom vi_core.models.base import Model")
    assert not wrong_imports("estimators/e.py", "from vi_core.models.base import Model\nfrom scipy import stats")
    assert not wrong_imports("plots/p.py", "import numpy as np\nfrom matplotlib.figure import Figure\nimport math")


@pytest.mark.parametrize("call", ["print('x')", "torch.manual_seed(0)", "torch.set_default_dtype(d)", "sys.exit(1)"])
def test_a_side_effect_is_caught(call: str) -> None:
    assert side_effects("models/m.py", f"def f():\n    return [{call}]")


def test_problem_may_set_the_default_dtype_and_nothing_else() -> None:
    assert not side_effects("problem.py", "torch.set_default_dtype(d)")
    assert side_effects("problem.py", "torch.manual_seed(0)")


@pytest.mark.parametrize("package", ["vi_core", "experiments"])
def test_everything_public_has_a_docstring(package: str) -> None:
    missing = []
    for module in modules(package):
        dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for name in undocumented(dotted, module.read_text()):
            if "." not in name.removeprefix(dotted) or not explained_by_a_base(dotted, name):
                missing.append(f"{dotted}: {name}")
    assert missing == []


def test_a_missing_docstring_is_caught() -> None:
    source = 'class A:\n    """Doc."""\n    def f(self): ...\n    def _g(self): ...\n\ndef h(): ...\n\ndef _i(): ...\n'
    assert undocumented("m", source) == ["m", "A.f", "h"]


def test_an_override_is_told_from_a_new_method() -> None:
    assert explained_by_a_base("vi_core.bounds.elbo", "ELBO.signal")
    assert not explained_by_a_base("vi_core.families._packed", "PackedParameters.constrain")


@pytest.mark.parametrize("package", ["vi_core", "experiments", "conf"])
def test_a_file_nearly_fits_a_screen(package: str) -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in modules(package)}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_the_rules_walk_something() -> None:
    assert len(modules("vi_core")) > 40
    assert len(modules("experiments")) > 10


def test_public_names_are_what_they_say() -> None:
    import vi_core

    assert [getattr(vi_core, name).__name__ for name in vi_core.__all__] == vi_core.__all__
    with pytest.raises(AttributeError, match="no attribute 'Posterior'"):
        vi_core.Posterior  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]

"""Private interfaces of other packages have one room each, and nothing is replaced in another package.

`vi_core/execution` alone names private parts of torch, `experiments/config/hydra_adapter.py` alone those of Hydra and
OmegaConf. A rule is a function from a module's source to its violations; synthetic modules that break it are caught by
the same function. Names are followed through imports and their aliases, and read in texts too, where a module is
imported or a logger is found by name.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.contracts.test_structure import modules

EXECUTION, ADAPTER = "vi_core/execution/", "experiments/config/hydra_adapter.py"
PRIVATE = {"torch": EXECUTION, "hydra": ADAPTER, "omegaconf": ADAPTER}
"""Package -> the only place whose modules may name its private parts."""
EXCEPTIONS = {
    "torch._standard_gamma": "vi_core/distributions/gamma.py",  # torch.distributions.Gamma costs six times as much
}
"""Private name -> the only other module that may name it, and why; at most two."""
SWITCHES = {
    "torch.backends.cudnn.allow_tf32": "experiments/run/process.py",  # documented; no function sets it
    "logging.raiseExceptions": "experiments/run/streams.py",  # documented; what a full disk does to a log file
}
"""Documented switch of another package -> the only module that may set it."""
OURS = {"vi_core", "experiments", "conf", "tests"}


def aliases(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted name of what a module imports absolutely, anywhere in it."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def dotted(node: ast.AST, known: dict[str, str]) -> str | None:
    """The full name of an attribute of something imported, or None."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value, known)
        return inner and f"{inner}.{node.attr}"
    return known.get(node.id) if isinstance(node, ast.Name) else None


def documentation(tree: ast.AST) -> set[int]:
    """Identities of the nodes that are docstrings."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds)]
    return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def named(source: str) -> Iterator[str]:
    """Dotted names that a module imports, uses, or holds in a text that is nothing else."""
    tree = ast.parse(source)
    known, skipped = aliases(tree), documentation(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield dotted(node, known) or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value if re.fullmatch(r"[\w.]+", node.value) else ""


def is_private(name: str) -> bool:
    """Whether a dotted name has a component with one leading underscore."""
    return any(re.match(r"_[^_]", part) for part in name.split(".")[1:])


def private_names(path: str, source: str) -> list[str]:
    """Private parts of torch, Hydra and OmegaConf that the module at `path` names and may not."""
    found = {name for name in named(source) if name.partition(".")[0] in PRIVATE and is_private(name)}
    allowed = {name for name in found if path.startswith(PRIVATE[name.partition(".")[0]])}
    allowed |= {name for name in found if EXCEPTIONS.get(name) == path}
    return sorted(found - allowed)


def targets(node: ast.AST) -> list[ast.expr]:
    """What a statement assigns to or deletes."""
    if isinstance(node, (ast.Assign, ast.Delete)):
        return list(node.targets)
    return [node.target] if isinstance(node, (ast.AugAssign, ast.AnnAssign)) else []


def replacements(path: str, source: str) -> list[str]:
    """Attributes of other packages that a module assigns, by a statement or by `setattr`."""
    if path.startswith(ADAPTER):
        return []
    tree = ast.parse(source)
    known, found = aliases(tree), []
    for node in ast.walk(tree):
        flat = [
            element
            for target in targets(node)
            for element in (target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target])
        ]
        names = [dotted(target, known) for target in flat if isinstance(target, ast.Attribute)]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
            names.append(dotted(node.args[0], known))
        found += [name for name in names if name and name.partition(".")[0] not in OURS]
    return sorted(name for name in found if SWITCHES.get(name) != path)


def violations(rule: str) -> dict[str, list[str]]:
    check = {"private": private_names, "replaced": replacements}[rule]
    paths = [path for package in ("vi_core", "experiments") for path in modules(package)] + [ROOT / "run.py"]
    found = {
        path.relative_to(ROOT).as_posix(): check(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths
    }
    return {path: names for path, names in found.items() if names}


def test_private_interfaces_stay_in_their_rooms() -> None:
    assert violations("private") == {}


def test_nothing_is_replaced_in_another_package() -> None:
    assert violations("replaced") == {}


def test_exceptions_are_few_and_used() -> None:
    assert len(EXCEPTIONS) <= 2
    for name, path in EXCEPTIONS.items():
        assert name in set(named((ROOT / path).read_text()))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("vi_core/optimizers/o.py", "import torch\ntorch._fused_adam_([])"),
        ("vi_core/optimizers/o.py", "import torch as t\nt._foreach_norm([])"),
        ("vi_core/models/m.py", "from torch import _dynamo"),
        ("vi_core/models/m.py", "import torch._inductor.config"),
        ("vi_core/models/m.py", "from torch.utils._pytree import tree_map"),
        ("vi_core/models/m.py", "from torch.utils import _pytree as pytree"),
        ("vi_core/models/m.py", "import torch\ndef f(): return torch._C.Graph()"),
        ("vi_core/models/m.py", "from torch import nn\nnn.modules.module._global_forward_hooks"),
        ("vi_core/models/m.py", "import logging\nlogging.getLogger('torch._inductor.ir')"),
        ("vi_core/models/m.py", "import torch\ntorch._standard_gamma"),
        ("experiments/run/r.py", "from importlib import import_module\nimport_module('torch._dynamo')"),
        ("experiments/sweeps/s.py", "from hydra._internal.config_loader_impl import get_overrides_dirname"),
        ("experiments/results/r.py", "from omegaconf._utils import get_omega_conf_dumper"),
        ("experiments/config/paths.py", "import hydra\nhydra._internal"),
        ("vi_core/execution/e.py", "import hydra._internal"),
    ],
)
def test_a_private_name_is_caught(path: str, source: str) -> None:
    assert private_names(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("vi_core/execution/replay.py", "import torch\ntorch._C.Graph()"),
        ("vi_core/distributions/gamma.py", "import torch\ntorch._standard_gamma(x)"),
        (ADAPTER, "from hydra._internal.core_plugins.basic_sweeper import BasicSweeper"),
        ("vi_core/models/m.py", "import torch\ntorch.__version__"),
        ("vi_core/models/m.py", '"""As torch._C does."""\nimport torch\nself._own = torch.ones(1)'),
        ("vi_core/models/m.py", "from vi_core.families._packed import Entry\nfrom ._own import part"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert not private_names(path, source)


@pytest.mark.parametrize(
    "source",
    [
        "from hydra.core.plugins import Plugins\nPlugins.instantiate_sweeper = f",
        "import argparse\nargparse.ArgumentParser.error = f",
        "import argparse as a\na.ArgumentParser.error, x = f, g",
        "from omegaconf import OmegaConf\nsetattr(OmegaConf, 'load', f)",
        "import torch\ndel torch.nn.Module.forward",
        "from hydra.core.config_store import ConfigNode\nConfigNode.__deepcopy__ = lambda self, memo: self",
        "import sys\nsys.stdout = None",
    ],
)
def test_a_replacement_is_caught(source: str) -> None:
    assert replacements("experiments/cli.py", source)


def test_what_is_ours_may_be_assigned() -> None:
    assert not replacements("experiments/cli.py", "from vi_core.models.base import Model\nModel.y = 1")
    assert not replacements("experiments/cli.py", "import torch\ndef f(self): self.x = torch.ones(1)")
    assert not replacements("experiments/cli.py", "import os\nos.environ['A'] = 'b'")
    assert not replacements(ADAPTER, "from hydra.core.plugins import Plugins\nPlugins.instantiate_sweeper = f")

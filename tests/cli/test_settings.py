"""Settings: one field makes a new one, parts from elsewhere keep theirs, one module knows Hydra's insides."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.config import schema
from experiments.config.hydra_adapter import part_settings
from experiments.config.messages import configuration_groups
from experiments.config.schema import config_hash
from experiments.config.validate import plain_values, validate
from experiments.results.expectations import changed_settings
from experiments.sweeps.batch import group_key
from tests.conftest import ROOT, SMOKE, CommandLine, configuration
from tests.contracts.test_private import SWITCHES
from vi_core.errors import ConfigError

ADAPTER = "experiments/config/hydra_adapter.py"


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings with two new ones, each made by one field: `colour`, which changes numbers, and `remark`."""
    shades = schema.setting("red", choices=("red", "blue"))
    remark = schema.setting(0, least=0, identity=False, resume=True, batch=True, expected=True)
    fields = [("colour", str, shades), ("remark", int, remark)]
    monkeypatch.setattr(schema, "Root", make_dataclass("Root", fields, bases=(schema.Root,)))
    monkeypatch.setattr("experiments.config.validate.Root", schema.Root)
    return plain_values(configuration()) | {"colour": "red", "remark": 0}


def test_a_new_setting_is_one_field(grown: dict[str, Any]) -> None:
    """Its values are checked, and identity, batches, resuming and expected numbers know it."""
    validate(grown)
    with pytest.raises(ConfigError, match=r"colour=rde must be one of red, blue\. Did you mean 'red'"):
        validate(grown | {"colour": "rde"})
    with pytest.raises(ConfigError, match="remark=-1 must be at least 0"):
        validate(grown | {"remark": -1})
    blue, noted = grown | {"colour": "blue"}, grown | {"remark": 7}
    assert config_hash(blue) != config_hash(grown) == config_hash(noted)
    assert group_key(blue) != group_key(grown) == group_key(noted)
    assert changed_settings(["colour=blue", "remark=7"], []) == ["colour=blue"]
    assert {"colour", "remark"} - schema.names("resume", False) == {"remark"}


def test_roles() -> None:
    """What each role means for the settings of the program, listed here once more by hand."""
    assert schema.names("identity", False) == {
        "overrides", "threads", "sweep", "task", "run", "resume", "plot", "strict", "expected", "note", "report",
        "fidelity", "reproduce", "callback", "callbacks", "hydra", "combine",
    }  # fmt: skip
    assert schema.names("batch") == {
        "overrides", "expected", "note", "report", "strict", "plot", "sweep", "callbacks",
    }  # fmt: skip
    assert schema.names("expected") >= {"seed", "threads", "device", "trainer.log_every", "dataset.root", "hydra"}
    assert not schema.names("expected") & {"replicates", "dtype", "matmul", "optimizer", "dataset", "trainer", "name"}
    fixed = {"seed", "dtype", "matmul", "replicates", "name", "parts", "overrides", "changes", "experiment"}
    assert schema.names("resume", False) - set(configuration_groups()) == fixed - {"experiment"}
    free = {"trainer.steps", "trainer.stopping.window", "optimizer.lr", "plot.format", "callbacks.mine", "threads"}
    problem = {"model.loc", "optimizer.beta1", "dataset.batch_size", "estimator.num_samples", "device.name", "seed"}
    assert {path for path in free | problem if schema.role_of(path).resume} == free
    assert "callback" in schema.names("resume")


# --- parts from elsewhere -------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder for --config-dir with two optimizers: one of its own class, and one that starts from `adam`."""
    folder = tmp_path / "mine" / "optimizer"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("_target_: own_parts.Mine\nlr: 0.0005\nkeen: 2.0\n")
    (folder / "slow.yaml").write_text("defaults:\n  - adam\n  - _self_\nlr: 0.0007\n")
    (tmp_path / "own_parts.py").write_text(
        "from vi_core.optimizers.sgd import SGD\n\n\nclass Mine(SGD):\n"
        "    def __init__(self, *, lr: float, keen: float = 1.0):\n        super().__init__(lr=lr, schedule=None)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield str(tmp_path / "mine")
    sys.modules.pop("own_parts", None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("optimizer=mine",), {"lr": 0.0005, "keen": 2.0}),
        (("optimizer=mine", "optimizer.lr=0.0003"), {"lr": 0.0003, "keen": 2.0}),
        (("optimizer=slow",), {"lr": 0.0007, "beta1": 0.9}),
        (("optimizer=sgd",), {"lr": 0.001}),
        ((), {"lr": 0.01}),
    ],
    ids=["own", "by hand", "from another", "the program's", "the experiment's"],
)
def test_a_part_keeps_its_own_settings(
    arguments: tuple[str, ...], expected: dict[str, float], mine: str, cli: CommandLine, tmp_path: Path
) -> None:
    """The learning rate of experiment=bbvi, 0.01, was chosen for its own optimizer."""
    result = cli("--config-dir", mine, *SMOKE, *arguments, "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    used = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["optimizer"]
    assert {key: used[key] for key in expected} == expected


def test_settings_of_a_part() -> None:
    """Values alone, without the parts inside."""
    own = part_settings("optimizer", "adam")
    assert own["lr"] == 0.001
    assert "schedule" not in {key for key, value in own.items() if isinstance(value, dict)}


# --- sweeps that cannot be batched ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "word"),
    [("hydra.launcher._target_=mine.Launcher", "launcher"), ("hydra.sweeper._target_=mine.Sweeper", "sweeper")],
)
def test_another_launcher_is_refused(argument: str, word: str, cli: CommandLine, tmp_path: Path) -> None:
    result = cli("-m", "sweep.batched=true", "seed=0,1", argument)
    assert result.code == 1
    assert result.err.startswith("error: sweep.batched=true ") and f"leave hydra/{word} out" in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.rglob("summary.json"))


# --- one adapter ----------------------------------------------------------------------------------------------------


def insides(source: str) -> list[str]:
    """What a module uses of the insides of Hydra and OmegaConf, and attributes that it sets on what it imports."""
    tree, found, imported = ast.parse(source), [], set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            paths = [f"{module}.{alias.name}".strip(".") for alias in node.names]
            found += [path for path in paths if path.startswith(("hydra._", "omegaconf._"))]
            if not (isinstance(node, ast.ImportFrom) and node.level) and not paths[0].startswith("vi_core"):
                imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target).partition(".")[0] in imported:
                found.append(ast.unparse(target))
    return found


def test_one_module_knows_the_insides_of_hydra() -> None:
    used = {
        path.relative_to(ROOT).as_posix(): insides(path.read_text())
        for package in ("experiments", "vi_core")
        for path in (ROOT / package).rglob("*.py")
    }
    assert len(used[ADAPTER]) >= 5
    switches = set(SWITCHES)  # which tests/contracts/test_private.py lists
    assert {path: what for path, what in used.items() if set(what) - switches and path != ADAPTER} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from hydra._internal.utils import get_args_parser",
        "import omegaconf._utils",
        "from omegaconf import _impl",
        "import argparse\ndef f():\n    argparse.ArgumentParser.error = None",
        "from hydra.core.plugins import Plugins\nPlugins.instantiate_sweeper = 3",
    ],
)
def test_insides_are_seen(source: str) -> None:
    assert insides(source)
    assert not insides("import sys\nfrom .mine import thing\nthing.x = 1\nself.y = 2")

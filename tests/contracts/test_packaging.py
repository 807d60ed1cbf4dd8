"""The wheel claims one top-level name, is complete, and runs away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

import vi_core
from tests.conftest import ROOT

INSTALLED_AS = {"vi_core": "vi_core", "conf": "vi_core/conf", "experiments": "vi_core/experiments"}
CHECKOUT_ONLY = ROOT / "experiments" / "benchmark"
"""The folder that is no part of the wheel."""


def pip(*arguments: str | Path) -> None:
    """Run pip without an index; its output becomes the message of a failure."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the sources: setuptools would pack whatever an earlier build left in `build/`."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in INSTALLED_AS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", target, source)
    (built,) = target.iterdir()
    return built


def test_wheel_claims_one_top_level_name(wheel: Path) -> None:
    """No `conf` and no `experiments`, which other projects also use."""
    top = {name.split("/")[0] for name in ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"vi_core"}


def test_wheel_holds_every_module_yaml_and_template(wheel: Path) -> None:
    """A new folder has to join `packages` in pyproject.toml."""
    wanted = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in INSTALLED_AS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".mplstyle"} or path.parent.name == "templates"
        if CHECKOUT_ONLY not in path.parents
    }
    assert {"vi_core/conf/config.yaml", "vi_core/experiments/cli.py"} <= wanted
    assert wanted - set(ZipFile(wheel).namelist()) == set()


def test_wheel_leaves_the_benchmark_out(wheel: Path) -> None:
    assert [name for name in ZipFile(wheel).namelist() if "/benchmark/" in name] == []


def test_wheel_has_the_version_of_the_library(wheel: Path) -> None:
    assert wheel.name.startswith(f"vi_lab-{vi_core.__version__}-")


FIT = """
import vi_core
from vi_core.models.bayesian.hierarchical import EightSchools
print(vi_core.fit(EightSchools(), {"y": [28.0, 8.0, -3.0], "sigma": [15.0, 10.0, 16.0]}, steps=20, replicates=1))
"""


@pytest.mark.slow
def test_console_script_runs_in_another_folder(wheel: Path, tmp_path: Path) -> None:
    """In an environment that sees this one's packages but not the checkout, whose editable install a .pth file imports:
    a folder named in a .pth file joins `sys.path` without its own .pth files being read.
    """
    builder = venv.EnvBuilder(symlinks=os.name != "nt")
    builder.create(tmp_path / "env")
    context = builder.ensure_directories(tmp_path / "env")
    (site_packages,) = (tmp_path / "env").rglob("site-packages")
    shared = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site_packages / "shared.pth").write_text("\n".join(shared))
    pip("--python", context.env_exe, "install", "--no-deps", "--no-index", wheel)

    script = Path(context.bin_path) / "vi-run"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([script, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr

    done = subprocess.run(
        [context.env_exe, "-c", FIT], cwd=tmp_path, env=environment, capture_output=True, text=True
    )  # whose parts have their settings from the YAML files of the wheel
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("EightSchools: full_rank_normal")

    command = [script, "experiment=benchmark", "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stdout + done.stderr
    assert "needs a checkout" in done.stderr


def test_every_declared_dependency_is_pinned() -> None:
    """`make` installs with constraints.txt, so that a dependency it does not name would float."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(name for extra in ("dev", "docs") for name in project["optional-dependencies"][extra]),
    ]
    names = {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in declared}
    assert names - set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)) == set()

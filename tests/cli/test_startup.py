"""Starting is quick and clean: no torch for --help, and importing the library changes nothing."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, CommandLine

NO_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "matplotlib", "scipy", "sklearn"}:
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
"""


def python(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python, with variables added to the environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    env = {**inherited, **(environment or {})}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def program(arguments: list[str]) -> str:
    """A script that runs the command line with torch out of reach."""
    run = f"import runpy; sys.argv = {['run.py', *arguments]}; sys.path.insert(0, {str(ROOT)!r})"
    return f"{NO_TORCH}\n{run}\nrunpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')"


def test_help_imports_no_torch_and_shows_examples(tmp_path: Path) -> None:
    done = python("-c", program(["--help"]), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("Examples", "python run.py experiment=vae_digits", "resume=", "task=plot", "estimator: ", "bbvi"):
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_block_blocks(tmp_path: Path) -> None:
    """Negative control: a run needs torch."""
    done = python("-c", program(["trainer=smoke", "plot.enabled=false"]), cwd=tmp_path)
    assert done.returncode != 0
    assert "torch was imported" in done.stdout + done.stderr


def test_refusals_and_the_configuration_need_no_torch(tmp_path: Path) -> None:
    for arguments, code in ((["--cfg", "job"], 0), (["task=plto"], 1), (["optimizer=adm"], 1), (["resume=nowhere"], 1)):
        done = python("-c", program(arguments), cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (code, code), done.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_importing_the_library_changes_nothing(tmp_path: Path) -> None:
    """`import vi_core` needs no torch; importing all of it leaves torch, and the seeds, as they were."""
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import vi_core
assert "torch" not in sys.modules
import pkgutil, importlib, random, numpy, torch
def state():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state().tolist(),
            torch.are_deterministic_algorithms_enabled(), random.getstate(), str(numpy.random.get_state()))
before = state()
for module in pkgutil.walk_packages(vi_core.__path__, "vi_core."):
    if not module.name.startswith(("vi_core.conf", "vi_core.experiments")):
        importlib.import_module(module.name)
assert state() == before
assert "hydra" not in sys.modules and "omegaconf" not in sys.modules and "torchvision" not in sys.modules
assert callable(vi_core.load)
"""
    done = python("-c", script, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_help_in_this_process(cli: CommandLine) -> None:
    """Every group and every option is listed, so that nobody has to open conf/."""
    shown = cli("--help").out
    groups = [path for path in (ROOT / "conf").rglob("*") if path.is_dir() and path.name != "__pycache__"]
    for group in groups:
        assert f"{group.relative_to(ROOT / 'conf').as_posix()}: " in shown
        assert [path.stem for path in group.glob("*.yaml") if path.stem not in shown] == []


MEMORY = """
import resource, sys
sys.path.insert(0, {root!r})
import torch
from experiments.run.process import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty({bytes}, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given = [faults() for _ in range(3)]
keep_memory()
print(min(given), [faults() for _ in range(3)][-1])
"""
LARGE = 2**26
"""Bytes, more than glibc keeps by itself, in 16,384 pages of 4 KiB or in 32 of 2 MiB."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to keep memory")
@pytest.mark.parametrize(("environment", "keeps"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
@pytest.mark.slow
def test_memory_that_a_step_frees_is_kept(tmp_path: Path, environment: dict[str, str], keeps: bool) -> None:
    """Negative control: as the environment has it, where that says how to allocate."""
    script = MEMORY.format(root=str(ROOT), bytes=LARGE)
    done = python("-c", script, cwd=tmp_path, environment=environment)
    before, after = (int(number) for number in done.stdout.split())
    assert before >= 32
    assert (after < 8) == keeps

"""Break important lines one by one and see which tests fail: `make mutate`, or `python tests/mutate.py [words]`.

`mutations.yaml` lists the lines. Each is broken in a temporary copy of the sources, never in the checkout, and the
tests named beside it are run there until the first fails. The exit code is 1 where all of them pass (the mutation
survives), where a line is no longer found, or where the tests fail without any mutation. Words choose mutations whose
name or file holds one of them. Each run is a fork of this process, which has imported torch once for all of them.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401 (for the forks)
import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("vi_core", "experiments", "conf", "tests", "docs", "run.py", "pyproject.toml", "README.md", "CHANGELOG.md")
SECONDS = 600
"""After which a run of tests counts as failed: an endless loop is noticed too."""


def chosen(words: Sequence[str]) -> list[Mapping[str, str]]:
    """The mutations that the words choose; all without words."""
    listed = yaml.safe_load((ROOT / "tests" / "mutations.yaml").read_text())
    return [one for one in listed if not words or any(word in f"{one['name']} {one['file']}" for word in words)]


def copy_sources(folder: Path) -> None:
    """Copy what the tests need to an empty folder."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)


class Failures:
    """A pytest plugin that keeps the names of the tests, and of the files, that fail."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.names += [report.nodeid] * report.failed

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.names += [report.nodeid] * report.failed


def run_tests(folder: Path, tests: str, sender: Connection) -> None:
    """Run tests in a folder, in a process of their own; send the name of the first that fails, or an empty text."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.chdir(folder)
    sys.path[0] = str(folder)
    torch.set_num_threads(1)
    failures = Failures()
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow", f"--rootdir={folder}"]
    code = pytest.main([*options, *tests.split()], plugins=[failures])
    sender.send(failures.names[0] if failures.names else "" if code == 0 else f"pytest ended with code {code}")


def first_failure(folder: Path, tests: str) -> str:
    """Return the name of the first test that fails in a folder, or an empty text where all pass."""
    forks = get_context("fork")
    receiver, sender = forks.Pipe(duplex=False)
    process = forks.Process(target=run_tests, args=(folder, tests, sender))
    process.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(SECONDS) else f"{tests} did not end within {SECONDS} s"
    except EOFError:
        found = f"{tests} ended the process"
    process.kill()
    process.join()
    return found


def outcome(folder: Path, mutation: Mapping[str, str]) -> str:
    """Break a line of the copy and run its tests; return the test that caught it, SURVIVED or NOT FOUND."""
    path = folder / mutation["file"]
    source = path.read_text() if path.exists() else ""
    if mutation["old"] not in source:
        return "NOT FOUND"
    path.write_text(source.replace(mutation["old"], mutation["new"], 1))
    try:
        return first_failure(folder, mutation["tests"]) or "SURVIVED"
    finally:
        path.write_text(source)


def main(words: Sequence[str]) -> int:
    """Print a line for each mutation; return 1 unless all are caught."""
    mutations, bad = chosen(words), 0
    if not mutations:
        print(f"no mutation has a name or a file with {' or '.join(words)}")
        return 1
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ.setdefault("VI_DATA", str(ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_sources(folder)
        tests = sorted({test for mutation in mutations for test in mutation["tests"].split()})
        if failure := first_failure(folder, " ".join(tests)):
            print(f"without any mutation: {failure} fails")
            return 1
        for mutation in mutations:
            found = outcome(folder, mutation)
            bad += found in ("SURVIVED", "NOT FOUND")
            print(f"{mutation['file']:45} {mutation['name']:62} {found}", flush=True)
    print(f"{len(mutations)} mutations, {bad} not caught")
    return int(bad > 0)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.exit(main(sys.argv[1:]))

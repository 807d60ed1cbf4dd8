"""Break important lines one by one and see which tests fail: `make mutate`, or `python -m tests.mutate [words]`.

`mutations.yaml` lists the lines. Each is broken in a temporary copy of the sources, never in the checkout, and the
tests named beside it are run there until the first fails. The exit code is 1 where all of them pass (the mutation
survives), where a line is no longer found, or where the tests fail without any mutation. Words choose mutations whose
name or file holds one of them.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

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
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)


def first_failure(folder: Path, tests: str) -> str:
    """Run tests in a folder until one fails; return its name, or an empty text where all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow"]
    data = os.environ.get("VI_DATA", str(ROOT.parent / "shared" / "data"))
    environment = os.environ | {"VI_DATA": data, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *tests.split()], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"{tests} (not finished in {SECONDS} s)"
    if done.returncode == 0:
        return ""
    named = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.MULTILINE)
    return named[1] if named else f"pytest ended with code {done.returncode}: {done.stdout[-200:]}{done.stderr[-200:]}"


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
    sys.exit(main(sys.argv[1:]))

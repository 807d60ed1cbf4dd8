"""The snippets of README.md and docs/: each page is followed like a script, in a folder with finished runs and data.

A block with a title is a file that is written, a Python block is executed, and each command of a shell block, a table
or a sentence is run. `make test` runs what is quick and composes the configuration of every other command, which fails
on names that do not exist; the slow tests run those as well, for a few steps. `composed` lists what is never run, with
the reason.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from PIL import Image

import vi_core
from tests.conftest import DATA, ROOT, SMOKE, run_in

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_AT_ONCE = ("README.md",)
"""Pages whose commands are run, and not only composed, by `make test`: a newcomer types these first."""
LONG = ("own_model.md",)
"""Pages whose Python blocks fit a dozen models: in the slow tests."""
KINDS = {"bash", "python", "yaml", "csv", "text"}
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:PYTHONPATH=\w+ )?(?:python run\.py|vi-run|make)\b[^`]*)`")
STAMP = "2026-01-31_12-00-00-000000"
FEW_STEPS = 20
PLACEHOLDERS = {
    "<run>": STAMP,
    "<sweep>": f"multirun/{STAMP}",
    "<data>": str(DATA),
    "<folder>": f"outputs/bbvi/{STAMP}",
}
"""What the pages leave to the reader, and what a reader of these tests would put there."""
ELSEWHERE = (
    "git clone", "python3 -m venv", "source .venv", ".venv/bin/pip", "pip install", "pre-commit install",
    "ray start", "ray stop", "mlflow server", "tensorboard --logdir",
)  # fmt: skip
"""Commands of other programs, which need the network or change an environment."""


def composed(arguments: list[str]) -> str:
    """Return why a command is composed and never run, or nothing."""
    reasons = {
        "experiment=benchmark": "takes an hour",
        "iwae_burda": "evaluates 5,000 importance samples on 10,000 images",
        "experiment=ddpm_digits": "evaluates 200 steps on all held-out images",
        "experiment=posteriordb": "needs a clone of posteriordb",
        "experiment=calibration": "fits for more than a minute",
        "task=truth": "draws long chains",
        "task=reproduce": "runs every experiment",
        "task=docs_benchmarks": "writes into docs/",
        "device=cuda": "needs a CUDA device",
        "hydra/launcher=": "starts processes, or needs a cluster",
        "hydra/sweeper=optuna": "needs a package of an extra",
        "callback=tensorboard": "needs a package of an extra",
        "callback=mlflow": "needs a package of an extra",
        "--cfg": "prints a configuration already",
    }
    return next((reason for mark, reason in reasons.items() if mark in " ".join(arguments)), "")


# --- reading a page ---------------------------------------------------------------------------------------------------


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, title, content) of a page's blocks in order; a command within a sentence or a table is `bash`."""
    place = 0
    for fence in FENCE.finditer(text):
        yield from (("bash", "", command) for command in INLINE.findall(text[place : fence.start()]))
        yield fence[1], fence[2] or "", fence[3]
        place = fence.end()
    yield from (("bash", "", command) for command in INLINE.findall(text[place:]))


def commands(block: str) -> list[list[str]]:
    """Return the words of each command of a shell block, with comments left out and placeholders filled in."""
    for placeholder, value in PLACEHOLDERS.items():
        block = block.replace(placeholder, value)
    lines = block.replace("\\\n", " ").replace(r"\|", "|").splitlines()
    inner = [re.sub(r'^eval "\$\((.*)\)"', r"\1", line) for line in lines]
    found = [shlex.split(line, comments=True) for line in inner if not line.startswith(ELSEWHERE)]
    return [words for words in found if words]


def single(arguments: list[str]) -> list[str]:
    """Return arguments that compose the first job of a sweep; a glob, whose values Hydra knows, is left out."""
    options = [word for word in arguments if word.startswith("-") and word not in ("-m", "--multirun", "--run")]
    if "--config-dir" in arguments:
        options.append(arguments[arguments.index("--config-dir") + 1])
    overrides = OverridesParser.create().parse_overrides([a for a in arguments if "=" in a and not a.startswith("-")])
    return [*options, *(value for value in map(first, overrides) if value)]


def first(override: Override) -> str:
    """Return an override with the first of its swept values, or nothing where it names none."""
    if not override.is_sweep_override():
        return str(override.input_line)
    if override.value_type in (ValueType.GLOB_CHOICE_SWEEP, ValueType.INTERVAL_SWEEP):
        return ""
    return f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"


# --- following it -----------------------------------------------------------------------------------------------------


def faults(text: str, folder: Path, run: bool) -> list[str]:
    """Follow a page in a folder; return what failed, and how. With `run`, commands that train do so for a few steps."""
    space: dict[str, object] = {"__name__": "page"}
    return [
        fault for kind, title, content in blocks(text) if (fault := follow(kind, title, content, folder, space, run))
    ]


def follow(kind: str, title: str, content: str, folder: Path, space: dict[str, object], run: bool) -> str:
    """Do what one block says; return what failed, or nothing."""
    if kind not in KINDS:
        return f"a block of kind {kind!r}, which is none of {sorted(KINDS)}: {content}"
    if title:
        (folder / title).parent.mkdir(parents=True, exist_ok=True)
        (folder / title).write_text(content)
        return ""
    if kind == "bash":
        return "\n".join(filter(None, (execute(words, folder, run) for words in commands(content))))
    return refused(lambda: yaml.safe_load(content) if kind == "yaml" else python(content, folder, space, kind))


def python(content: str, folder: Path, space: dict[str, object], kind: str) -> None:
    """Execute a Python block in the folder, with fits of a few steps; other kinds show what a program writes."""
    if kind == "python":
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setitem(vi_core.fit.__kwdefaults__ or {}, "steps", FEW_STEPS)
            exec(compile(content, "<page>", "exec"), space)


def refused(call: Callable[[], object]) -> str:
    """Return the error that a call raises, or nothing."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def execute(words: list[str], folder: Path, run: bool) -> str:
    """Run or compose one command; return what failed, or nothing."""
    if words[0].startswith("PYTHONPATH="):
        with importable(folder / words[0].partition("=")[2]):
            return execute(words[1:], folder, run)
    if words[0] == "make":
        return made(words[1:], folder, run)
    if words[:2] != ["python", "run.py"] and words[0] != "vi-run":
        return f"not a command of this program: {' '.join(words)}"
    arguments = words[1:] if words[0] == "vi-run" else words[2:]
    result = run_in(folder, *prepared(folder, arguments, run))
    return "" if (result.code, result.err) == (0, "") else f"{' '.join(words)}: {result.err or result.out}"


def made(words: list[str], folder: Path, run: bool) -> str:
    """Check that the Makefile has a target; what `make run` is given goes to the program."""
    if not words:  # "make" as a word
        return ""
    if f"\n{words[0]}:" not in (ROOT / "Makefile").read_text():
        return f"the Makefile has no target {words[0]}"
    given = next((word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")), "")
    return execute(["python", "run.py", *shlex.split(given)], folder, run) if words[0] == "run" else ""


def prepared(folder: Path, arguments: list[str], run: bool) -> list[str]:
    """Return arguments that end soon: as they are, of a few steps, or `--cfg job`."""
    keys = {argument.partition("=")[0] for argument in arguments}
    if keys & {"--help", "--shell-completion"} or "--cfg" in arguments:
        return arguments
    if "task=new_model" in arguments or "task=predict" in arguments:
        return arguments
    if not run or composed(arguments):
        return [
            "--cfg",
            "job",
            *single([a for a in arguments if not a.startswith(("task=", "runs=", "resume=", "sweep.resume="))]),
        ]
    if "task" in keys:
        return arguments
    return [*arguments, *([] if "resume" in keys else shortened(folder, single(arguments))), "plot.enabled=false"]


def shortened(folder: Path, arguments: list[str]) -> list[str]:
    """Return the overrides that make a job short and let it find its data."""
    short = ["trainer=smoke", "trainer.limit=20", "trainer.likelihood_samples=0"]
    names = [argument for argument in arguments if not argument.startswith("sweep.resume=")]
    if not any(name.startswith("experiment=") for name in names):
        return short
    config = yaml.safe_load(run_in(folder, "--cfg", "job", *names).out)
    if config["study"] is not None:
        return ["study.num_samples=2000"] if "num_samples" in config["study"] else []
    return [*short, f"dataset.root={DATA}"] if "mnist" in config["dataset"]["_target_"] else short


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let Python import the modules of a folder, as PYTHONPATH does, and forget them afterwards."""
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs and the data files that the pages speak of; copy it before using it."""
    folder = tmp_path_factory.mktemp("workplace")
    runs = {
        "bbvi": [*SMOKE, f"hydra.run.dir=outputs/bbvi/{STAMP}"],
        "vae_digits": [*SMOKE[:-1], "experiment=vae_digits", f"hydra.run.dir=outputs/vae_digits/{STAMP}"],
    }
    for arguments in runs.values():
        completed(folder, *arguments)
    rows = "".join(f"{0.1 + 0.3 * n % 1.7},{n % 5},{n % 3 % 2}\n" for n in range(40))
    (folder / "my.csv").write_text(f"x,y,passed\n{rows}")
    patients = "".join(
        f"{30 + n % 41},{0.1 * (n % 7)},{'north' if n % 3 else 'south'},{n % 5 % 2}\n" for n in range(60)
    )
    (folder / "patients.csv").write_text(f"age,dose,clinic,recovered\n{patients}")
    (folder / "new.csv").write_text("x,y,age,dose,clinic\n0.3,1,50,0.2,north\n")
    own = ["experiment=own", "model=logistic_regression", "dataset=table", "dataset.path=patients.csv"]
    own += ["dataset.target=recovered", "dataset.features=[age,dose,clinic]", "trainer=smoke", "plot.enabled=false"]
    completed(folder, *own, f"hydra.run.dir=outputs/logistic_regression/{STAMP}")
    (folder / "pictures").mkdir()
    for place, shade in enumerate(np.linspace(0, 255, 30).astype(np.uint8)):
        Image.fromarray(np.tile(shade, (12, 14, 3))).save(folder / "pictures" / f"{place}.png")
    (folder / "counts.csv").write_text("n\n" + "".join(f"{n % 5}\n" for n in range(40)))
    for name, head in {"quakes.csv": "long,lat,stations", "mine.csv": "x,y,count"}.items():
        lines = [f"{180 + n % 7},{-20 + n % 5},{10 + n % 13}\n" for n in range(80)]
        (folder / name).write_text(f"{head}\n{''.join(lines)}")
    return folder


@pytest.fixture(scope="session")
def swept(workplace: Path) -> Path:
    """The same folder, with the sweep of two jobs that the pages speak of."""
    completed(workplace, "-m", *SMOKE[1:], "seed=0,1", f"hydra.sweep.dir=outputs/bbvi/multirun/{STAMP}")
    return workplace


def completed(folder: Path, *arguments: str) -> None:
    result = run_in(folder, *arguments)
    assert (result.code, result.err) == (0, "")


def with_snippets() -> list[Path]:
    return [page for page in PAGES if any(kind in ("bash", "python") for kind, _, _ in blocks(page.read_text()))]


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow if p.name in LONG else ()) for p in with_snippets()],
    ids=lambda page: page.name,
)
def test_snippets_name_what_exists(page: Path, workplace: Path, tmp_path: Path) -> None:
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    assert faults(page.read_text(), tmp_path, run=page.name in RUN_AT_ONCE) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in with_snippets() if page.name not in RUN_AT_ONCE], ids=lambda page: page.name
)
def test_snippets_run(page: Path, swept: Path, tmp_path: Path) -> None:
    on_mnist = any(word in page.read_text().lower() for word in ("mnist", "experiment=iwae"))
    if on_mnist and not (DATA / "MNIST").is_dir():
        pytest.skip(f"no MNIST in {DATA} (set VI_DATA)")
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    assert faults(page.read_text(), tmp_path, run=True) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```bash\npython run.py estimator.num_smaples=3\n```", "num_smaples"),
        ("| sweep | `python run.py -m estimator=pathwize,exact` |", "pathwize"),
        ("```bash\nmake runn\n```", "runn"),
        ("```bash\nrm -rf outputs\n```", "not a command"),
        ("```python\nfrom vi_core.bounds.elbo import IWELBOW\n```", "IWELBOW"),
        ("```yaml\nkey: [1\n```", "expected"),
        ("```\npython run.py\n```", "kind ''"),
    ],
)
def test_wrong_snippets_are_caught(text: str, said: str, tmp_path: Path) -> None:
    assert said in "".join(faults(text, tmp_path, run=False))


def test_files_and_namespace_of_a_page_are_shared_by_its_snippets(tmp_path: Path) -> None:
    text = """
```text title="part.txt"
3
```
```python
from pathlib import Path
y = int(Path("part.txt").read_text())
```
```python
assert y == 3
```
"""
    assert faults(text, tmp_path, run=False) == []
    assert faults(text.replace("== 3", "== 4"), tmp_path, run=False) == ["AssertionError: "]

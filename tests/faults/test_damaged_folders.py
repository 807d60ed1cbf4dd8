"""Damaged folders: each reader of a run says in one line what is wrong with which file, or does not need that file.

Every damage is tried with `vi_core.load`, `task=plot`, `task=report`, `task=collect` and `resume=`. A run beside the
damaged one, and every file of the damaged one, must stay as they were.
"""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import vi_core
from experiments.benchmark import docs
from experiments.benchmark.results import Row, read_rows, write_rows
from tests.conftest import SMOKE, Result, configuration, run_in
from tests.faults import tally
from vi_core.errors import DataError, LabError
from vi_core.studies.base import Form, misfit
from vi_core.studies.exponential_inverse_cdf import ExponentialInverseCDF
from vi_core.studies.gamma_fisher import GammaFisher
from vi_core.studies.gumbel_softmax import GumbelSoftmaxStudy
from vi_core.studies.identities import Identities
from vi_core.studies.report_000_figure_2 import Report000Figure2
from vi_core.studies.report_001_tables import Report001Tables
from vi_core.studies.score_variance import ScoreVariance

Damage = Callable[[Path], object]
READERS = ("load", "plot", "report", "collect", "resume")
WRITTEN = {"report.html", "run.log", "sweep.csv"}
"""What the readers write themselves."""


def content(name: str, data: bytes | str) -> Damage:
    """The file has other content."""
    return lambda run: (run / name).write_bytes(data.encode() if isinstance(data, str) else data)


def folder_in_place(name: str) -> Damage:
    """The file is a folder."""
    return lambda run: ((run / name).unlink(), (run / name).mkdir())


def missing(name: str) -> Damage:
    """The file is not there."""
    return lambda run: (run / name).unlink()


def pipe(name: str) -> Damage:
    """The file is a pipe, whose reader waits for ever."""
    return lambda run: ((run / name).unlink(), os.mkfifo(run / name))


def summary(change: Callable[[dict[str, Any]], object]) -> Damage:
    """The summary has other entries."""

    def damage(run: Path) -> None:
        found = json.loads((run / "summary.json").read_text())
        change(found)
        (run / "summary.json").write_text(json.dumps(found))

    return damage


def config(change: Callable[[dict[str, Any]], object]) -> Damage:
    """The configuration has other entries."""

    def damage(run: Path) -> None:
        found = yaml.safe_load((run / "config.yaml").read_text())
        change(found)
        (run / "config.yaml").write_text(yaml.safe_dump(found))

    return damage


def half(name: str) -> Damage:
    """The file is cut in its middle."""
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])


def arrays(**found: np.ndarray) -> Damage:
    """samples.npz has these arrays."""
    return lambda run: np.savez(run / "samples.npz", **found)  # pyright: ignore[reportArgumentType]


class Trap:
    """An object that leaves a file where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def pickled(run: Path) -> None:
    """An object, as `np.save` writes it with pickles."""
    array = np.empty(1, dtype=object)
    array[0] = Trap()
    np.savez(run / "samples.npz", mu=array)


def huge(run: Path) -> None:
    """Arrays that declare 8 EiB and have 16 bytes."""
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": "<f8", "fortran_order": False, "shape": (2**60,)})
    with zipfile.ZipFile(run / "samples.npz", "w") as archive:
        archive.writestr("mu.npy", text.getvalue() + bytes(16))


def longer(run: Path) -> None:
    """Right arrays, one of which has 16 bytes more than it declares."""
    with np.load(run / "samples.npz") as arrays, zipfile.ZipFile(run / "longer", "w") as archive:
        for name in arrays:
            text = io.BytesIO()
            np.save(text, arrays[name])
            archive.writestr(f"{name}.npy", text.getvalue() + bytes(16 if name == "mu" else 0))
    (run / "longer").rename(run / "samples.npz")


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))])
DEEP = "[" * 3000 + "]" * 3000
KEYS = (
    "final", "estimates", "timing", "status", "objective", "checks", "environment", "schema", "overrides",
    "config_hash", "subtitle", "diagnostics", "replicates", "best_replicate", "experiment",
)  # fmt: skip
"""Of summary.json, that readers need."""
EVERYWHERE = {
    "config.yaml": {
        "is empty": content("config.yaml", ""),
        "is a list": content("config.yaml", "- 1\n"),
        "is a number": content("config.yaml", "3\n"),
        "is not UTF-8": content("config.yaml", b"name: \xff\xfe\n"),
        "is binary": content("config.yaml", bytes(range(256))),
        "does not parse": content("config.yaml", "a: [1, 2\nb: }"),
        "has no model": config(lambda c: c.pop("model")),
        "has a model without a class": config(lambda c: c["model"].pop("_target_")),
        "has a text for a model": config(lambda c: c.update(model="normal_gamma")),
        "has no seed": config(lambda c: c.pop("seed")),
        "has no study": config(lambda c: c.pop("study")),
        "has a text for replicates": config(lambda c: c.update(replicates="two")),
        "has numbers for overrides": config(lambda c: c.update(overrides=[1, 2])),
        "has an expectation without a value": config(lambda c: c["expected"][0].pop("value")),
        "has an infinite tolerance": config(lambda c: c["expected"][0].update(tolerance=float("inf"))),
        "has keys that are no texts": content("config.yaml", "1: 2\n3: 4\n"),
        "has a date": content("config.yaml", "name: 2020-01-01\n"),
        "has a tag of its own": content("config.yaml", "name: !!python/object/apply:os.mkdir [unpickled]\n"),
        "has an anchor inside itself": content("config.yaml", "name: &a [*a]\n"),
        "has anchors that explode": content("config.yaml", BOMB),
        "is nested without end": content("config.yaml", DEEP),
        "is a folder": folder_in_place("config.yaml"),
        "is a pipe": pipe("config.yaml"),
    }
}
WITHOUT_RESUME = {
    "summary.json": {
        "is empty": content("summary.json", ""),
        "is {}": content("summary.json", "{}"),
        "is a list": content("summary.json", "[1]"),
        "is cut": half("summary.json"),
        "is nested without end": content("summary.json", DEEP),
        "is not UTF-8": content("summary.json", b'{"status": "\xff"}'),
        "has NaN": content("summary.json", '{"schema": NaN}'),
        "has an infinite number": content("summary.json", '{"schema": 1e999}'),
        "is a folder": folder_in_place("summary.json"),
        **{f"has no {key}": summary(lambda s, key=key: s.pop(key)) for key in KEYS},
        **{
            f"has a text for {key}": summary(lambda s, key=key: s.update({key: "x"}))
            for key in ("final", "estimates", "timing", "status", "objective", "checks", "environment", "replicates")
        },
        "has an estimate that is a number": summary(lambda s: s["estimates"].update(mu=3)),
        "has a text for a mean": summary(lambda s: s["estimates"]["mu"].update(mean="x")),
        "has a long number": summary(lambda s: s["final"].update(mean=10**400)),
        "has a check without a verdict": summary(lambda s: s["checks"].append({"name": "x"})),
        "has a check without a value": summary(
            lambda s: s["checks"].append(dict.fromkeys(("expected", "tolerance"), 1) | {"name": "x", "passed": True})
        ),
        "has another best replicate": summary(lambda s: s.update(best_replicate=7)),
        "has too few values": summary(lambda s: s["final"].update(values=[1.0])),
        "has another layout": summary(lambda s: s.update(schema=99)),
        "has another dtype": summary(lambda s: s["environment"].update(dtype="int8")),
    }
}
OF_FITS = {
    "trace.csv": {
        "is empty": content("trace.csv", ""),
        "has no rows": content("trace.csv", "step,replicate,elbo,seconds\n"),
        "is a comment": content("trace.csv", "step,replicate,elbo,seconds\n# 1\n"),
        "is text": content("trace.csv", "once upon a time\n"),
        "is ragged": content("trace.csv", "step,replicate,elbo,seconds\n1,0,2,3\n1,1,2\n"),
        "has another width": content("trace.csv", "step,replicate,elbo,seconds\n1,0\n1,1\n2,0\n2,1\n"),
        "has words": content("trace.csv", "step,replicate,elbo,seconds\n1,x,2,3\n"),
        "has infinite replicates": content("trace.csv", "step,replicate,elbo,seconds\n1,inf,2,3\n"),
        "has replicates without end": content("trace.csv", "step,replicate,elbo,seconds\n1,1e18,2,3\n"),
        "has steps out of order": content(
            "trace.csv", "step,replicate,elbo,seconds\n2,0,2,3\n2,1,2,3\n1,0,2,3\n1,1,2,3\n"
        ),
        "has columns without names": content("trace.csv", "step,replicate\n1,0\n"),
        "is not UTF-8": content("trace.csv", b"step,replicate,\xff,seconds\n1,0,2,3\n"),
        "is a folder": folder_in_place("trace.csv"),
    }
}
OF_LOADING = {
    "checkpoint.pt": {
        "is missing": missing("checkpoint.pt"),
        "is empty": content("checkpoint.pt", ""),
        "is cut": half("checkpoint.pt"),
        "is text": content("checkpoint.pt", "once upon a time"),
        "is a pickle": content("checkpoint.pt", pickle.dumps(Trap())),
        "is a folder": folder_in_place("checkpoint.pt"),
    },
    "trace.csv": {
        "is missing": missing("trace.csv"),
        "has other replicates": content("trace.csv", "step,replicate,elbo,seconds\n1,0,2,3\n"),
    },
    "config.yaml": {"is missing": missing("config.yaml")},
}
OF_PLOTTING = {
    "samples.npz": {
        "is missing": missing("samples.npz"),
        "is empty": content("samples.npz", ""),
        "is text": content("samples.npz", "once upon a time"),
        "is cut": half("samples.npz"),
        "has pickled objects": pickled,
        "is a pickle": content("samples.npz", pickle.dumps(Trap())),
        "declares a huge shape": huge,
        "has more than it declares": longer,
        "lacks a latent": arrays(mu=np.zeros((2, 5))),
        "has other replicates": arrays(mu=np.zeros((3, 5)), tau=np.ones((3, 5))),
        "has too few axes": arrays(mu=np.zeros(2), tau=np.ones(2)),
        "has texts": arrays(mu=np.array(["a", "b"]), tau=np.ones((2, 5))),
        "is a folder": folder_in_place("samples.npz"),
    }
}
GROUPS: list[tuple[dict[str, dict[str, Damage]], set[str]]] = [
    (EVERYWHERE, {"load", "plot", "report", "resume"}),
    (WITHOUT_RESUME, {"load", "plot", "report", "collect"}),
    (OF_FITS, {"load", "plot"}),
    (OF_LOADING, {"load", "plot"}),
    (OF_PLOTTING, {"plot"}),
]
"""Damages by file, with the readers that need the file and have to refuse it by name."""
CASES = [
    pytest.param(damage, name, readers, id=f"{name} {what}", marks=() if place % 3 == 0 else pytest.mark.slow)
    for group, readers in GROUPS
    for name, damages in group.items()
    for place, (what, damage) in enumerate(damages.items())
]
"""Each damage of each file; the first of every three is tried by `make test`, all by `make test-faults`."""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two finished jobs of a sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    for number in "01":
        result = run_in(folder, *SMOKE, f"seed={number}", f"hydra.run.dir=sweep/{number}")
        assert (result.code, result.err) == (0, "")
    (folder / "sweep" / "0" / "plots").mkdir()
    return folder / "sweep"


def read(reader: str, place: Path) -> Result:
    """Let a reader read the second run of a sweep, or the sweep; the library's error counts as a line."""
    if reader == "load":
        try:
            vi_core.load(place / "sweep" / "1")
        except LabError as error:
            return Result(1, "", f"error: {error}\n")
        return Result(0, "", "")
    if reader == "resume":
        return run_in(place, "resume=sweep/1")
    return run_in(place, f"task={reader}", "run=sweep" if reader == "collect" else "run=sweep/1", "plot.enabled=false")


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, without what the readers write."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in WRITTEN)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize(("damage", "name", "refusing"), CASES)
def test_damage(damage: Damage, name: str, refusing: set[str], sweep: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    shutil.copytree(sweep, place / "sweep")
    for spare in (place / "sweep").glob("*/checkpoint.previous.pt"):
        spare.unlink()  # it would stand in: tests/faults/test_checkpoints.py
    damage(place / "sweep" / "1")
    before = files(place)
    for reader in READERS:
        if reader == "resume" and "resume" not in refusing:
            continue  # a run goes on without the files that it makes itself
        result = read(reader, place)
        lines = result.err.splitlines()
        fine = result.code == 0 and not lines and reader not in refusing
        said = len(lines) == 1 and lines[0].startswith("error: ") and name in lines[0] and "Traceback" not in result.err
        table = reader == "collect" and result.code == 1 and name in result.out and "Traceback" not in result.out
        right = fine or table or (result.code == 1 and (said or (not lines and reader not in refusing)))
        tally("damaged folders", "right" if right else "wrong")
        assert right, (reader, result)
        assert {path: data for path, data in files(place).items() if path in before} == before, reader
        assert not (place / "unpickled").exists() and not Path("unpickled").exists()


def test_a_whole_folder_is_read(sweep: Path, tmp_path: Path) -> None:
    """Negative control: without a damage every reader reads."""
    shutil.copytree(sweep, tmp_path / "sweep")
    assert [read(reader, tmp_path).code for reader in READERS] == [0] * len(READERS)


STUDIES = {
    "gamma_fisher": GammaFisher(num_samples=100),
    "exponential_inverse_cdf": ExponentialInverseCDF(num_draws=50, num_samples=100),
    "gumbel_softmax": GumbelSoftmaxStudy(temperatures=[0.5, 1], num_draws=50, num_samples=100),
    "identities": Identities(num_samples=1000),
    "report_000_figure_2": Report000Figure2(replicates=2, steps=2, every=1),
    "report_001_tables": Report001Tables(replicates=2, steps=2, every=1),
    "score_variance": ScoreVariance(squares=[0.5, 1.0], scales=[0.1], num_samples=100),
}


def spoiled(array: np.ndarray, form: Form) -> dict[str, np.ndarray]:
    """Copies of a record with one damage each, by its name."""
    found = {
        "axis more": array[None],
        "empty": array[..., :0] if array.ndim else np.empty(0),
        "longer": np.concatenate([array, array[-1:]]) if array.ndim else np.stack([array, array]),
        "of another kind": np.full(array.shape, "x") if form.kind != "text" else np.zeros(array.shape),
    }
    if form.kind == "number":
        found["not finite"] = np.full(array.shape, np.nan)
    if form.kind == "integer":
        found["broken"] = array + 0.5
    if form.least is not None:
        found["too small"] = array - 100
    if form.below is not None:
        found["too large"] = array + 100
    if form.ascending:
        found["descending"] = array[::-1]
    return found


@pytest.mark.parametrize("name", STUDIES)
def test_records_of_a_study_have_their_form(name: str) -> None:
    """Those that it computes, and no damaged copy of them; what has the form, of other numbers, can be drawn.

    A record more of the names is seen at another one, and the number of exact values is free.
    """
    study = STUDIES[name]
    records, forms = study.run().records, study.forms()
    assert records.keys() == forms.keys() and misfit(records, forms) == ""
    for record, form in forms.items():
        for what, array in spoiled(records[record], form).items():
            found = misfit(records | {record: array}, forms)
            right = f"'{record}'" in found or (what == "longer" and record in ("names", "exact"))
            tally("damaged folders", "right" if right else "wrong")
            assert right, (record, what, found)
    generator = np.random.default_rng(0)
    others = {
        record: array
        if forms[record].kind != "number"
        else np.sort(generator.normal(size=array.size) ** 2).reshape(array.shape)
        for record, array in records.items()
    }
    assert misfit(others, forms) == ""
    assert study.figures(others)


def test_damaged_records_are_one_line(tmp_path: Path) -> None:
    """On the command line, with the file and the record by name; what was drawn before stays."""
    study = ("experiment=gamma_fisher", "study.num_samples=100", "hydra.run.dir=run")
    assert run_in(tmp_path, "--run", *study).code == 0
    path, before = tmp_path / "run" / "records.npz", files(tmp_path / "run" / "plots")
    with np.load(path) as found:
        records = dict(found)
    assert run_in(tmp_path, "task=plot", "run=run").code == 0
    for changed in (
        {"shape": records["shape"][:-1]},
        {"centre": np.array(["a", "b"])},
        {"scale": records["scale"] * 0},
    ):
        np.savez(path, **(records | changed))  # pyright: ignore[reportArgumentType]
        result = run_in(tmp_path, "task=plot", "run=run")
        said = result.code == 1 and result.err.count("\n") == 1 and "records.npz is damaged" in result.err
        right = (
            said
            and f"'{next(iter(changed))}'" in result.err
            and files(tmp_path / "run" / "plots").keys() == before.keys()
        )
        tally("damaged folders", "right" if right else "wrong")
        assert right, result


PIXEL = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 3, 2) + bytes(13)


@pytest.mark.parametrize("data", [b"\x89PN", b"", b"<svg/>" * 10, PIXEL.replace(b"\r\n", b"\n\n"), PIXEL[:20]])
def test_what_is_no_png_is_not_embedded(data: bytes, sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "0", tmp_path / "run")
    (tmp_path / "run" / "plots" / "bound.png").write_bytes(data)
    (tmp_path / "run" / "plots" / "density.png").write_bytes(PIXEL)
    result = run_in(tmp_path, "task=report", "run=run")
    page = (tmp_path / "run" / "report.html").read_text()
    right = (result.code, result.err, page.count("data:image/png")) == (0, "", 1) and "bound.png" in result.out
    tally("damaged folders", "right" if right else "wrong")
    assert right, result


def test_a_report_does_not_follow_links(sweep: Path, tmp_path: Path) -> None:
    """Neither for figures nor for files, and not into another folder in place of a job."""
    secret = tmp_path / "secret"
    shutil.copytree(sweep / "0", secret)
    (secret / "plots" / "bound.png").write_bytes(PIXEL)

    def report(name: str, linked: str) -> tuple[Result, str]:
        shutil.copytree(sweep / "0", tmp_path / name)
        target = tmp_path / name / linked
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        target.symlink_to(secret / linked)
        result, page = run_in(tmp_path, "task=report", f"run={name}"), tmp_path / name / "report.html"
        return result, page.read_text() if page.exists() else ""

    for index, linked in enumerate(("plots/bound.png", "plots", "summary.json", "config.yaml")):
        result, page = report(f"run{index}", linked)
        right = "data:image/png" not in page and (linked.startswith("plots") or f"{linked} is a link" in result.err)
        tally("damaged folders", "right" if right else "wrong")
        assert right, (linked, result)
    shutil.copytree(sweep, tmp_path / "jobs")
    shutil.rmtree(tmp_path / "jobs" / "1")
    (tmp_path / "jobs" / "1").symlink_to(secret)
    assert "is a link" in run_in(tmp_path, "task=report", "run=jobs").err


@pytest.mark.parametrize("target", ["unknown_module_of_trial.Model", "antigravity.Model", "os.getcwd", "os.path.join"])
def test_reading_a_run_imports_no_module(target: str, sweep: Path, tmp_path: Path) -> None:
    """But one of the program, or one that is imported already and has such a part."""
    import sys

    shutil.copytree(sweep / "0", tmp_path / "sweep" / "1")
    config(lambda c: c["model"].update(_target_=target))(tmp_path / "sweep" / "1")
    before = {*sys.modules}
    for reader in ("load", "plot", "resume"):
        result = read(reader, tmp_path)
        right = result.code == 1 and result.err.count("\n") == 1 and f"model._target_='{target}'" in result.err
        tally("damaged folders", "right" if right else "wrong")
        assert right, (reader, result)
    assert target.partition(".")[0] not in {*sys.modules} - before


def test_a_part_of_ones_own_is_read_where_it_is_named(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By --config-dir on the command line, by an import in Python."""
    import importlib
    import sys

    source = "from vi_core.models.conjugate.normal_gamma import NormalGamma\n\n\nclass Own(NormalGamma):\n    pass\n"
    (tmp_path / "own_model_of_trial.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "own.yaml").write_text("_target_: own_model_of_trial.Own\n")
    monkeypatch.setattr("vi_core.own_parts.modules", set())
    shutil.copytree(sweep / "0", tmp_path / "sweep" / "1")
    config(lambda c: c["model"].update(_target_="own_model_of_trial.Own"))(tmp_path / "sweep" / "1")
    with pytest.raises(LabError, match="--config-dir"):
        vi_core.load(tmp_path / "sweep" / "1")
    assert run_in(tmp_path, "task=plot", "run=sweep/1").code == 1
    assert "own_model_of_trial" not in sys.modules
    assert run_in(tmp_path, "--config-dir", "mine", "task=plot", "run=sweep/1").code == 0
    monkeypatch.setattr("vi_core.own_parts.modules", set())
    sys.modules.pop("own_model_of_trial")
    importlib.import_module("own_model_of_trial")
    assert vi_core.load(tmp_path / "sweep" / "1").q.moments()
    sys.modules.pop("own_model_of_trial")


# --- a benchmark ----------------------------------------------------------------------------------------------------

ROWS = [
    Row("bbvi", "ours", "replay", None, "ok", 1.5, 0.2, 2.0, 1.9, 2.1, 1.8, "s", 1, 3, "a note, with commas"),
    Row("bbvi", "pyro", "", None, "missing", None, None, None, None, None, None, "s", None, 0, "no package"),
    Row("cost_n", "ours", "", 100.0, "ok", 1.5, 0.2, 2.0, 1.9, 2.1, 1.8, "s", 1, 3, ""),
    Row("cost_n", "ours", "", 1000.0, "ok", 1.5, 0.2, 3.0, 2.9, 3.1, 2.8, "s", 1, 3, ""),
]
TABLES = {
    "empty": lambda text: "",
    "another header": lambda text: text.replace("median", "mean", 1),
    "a row cut": lambda text: text[: text.rindex(",3,") + 1],
    "a cell more": lambda text: text.replace("no package", "no package,1"),
    "an open quote": lambda text: text.replace('"a note', 'a "note').replace('commas"', "commas"),
    "a word": lambda text: text.replace(",1.9,", ",one,"),
    "not a number": lambda text: text.replace(",1.9,", ",nan,"),
    "infinite": lambda text: text.replace(",2.1,", ",inf,"),
    "negative": lambda text: text.replace(",1.8,", ",-1.8,"),
    "zero": lambda text: text.replace(",1.8,", ",0,"),
    "too large": lambda text: text.replace(",3.1,", ",1e300,"),
    "quartiles out of order": lambda text: text.replace(",2.1,", ",1.95,"),
    "no median": lambda text: text.replace(",2,1.9,", ",,1.9,"),
    "half a thread": lambda text: text.replace(",s,1,3,", ",s,0.5,3,"),
    "another unit": lambda text: text.replace(",s,1,3,\n", ",ms,1,3,\n", 1),
    "a place less": lambda text: text.replace(",1000,", ",,"),
    "a place at zero": lambda text: text.replace(",1000,", ",0,"),
}
"""Damages of benchmark.csv."""


@pytest.mark.parametrize("damage", TABLES.values(), ids=TABLES.keys())
def test_a_damaged_table_of_a_benchmark_is_refused(damage: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "benchmark.csv"
    write_rows(ROWS, path)
    assert read_rows(path) == ROWS
    changed = damage(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(DataError, match=r"benchmark\.csv is not the table") as caught:
        read_rows(path)
    tally("damaged folders", "right")
    assert "\n" not in str(caught.value)


def test_a_table_of_a_benchmark_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Nor a pipe, which has no writer."""
    (tmp_path / "benchmark.csv").write_bytes(b"problem,\xff\n")
    with pytest.raises(DataError, match=r"benchmark\.csv is damaged"):
        read_rows(tmp_path / "benchmark.csv")
    (tmp_path / "benchmark.csv").unlink()
    os.mkfifo(tmp_path / "benchmark.csv")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_rows(tmp_path / "benchmark.csv")
    tally("damaged folders", "right")


def test_the_page_of_a_benchmark_needs_a_benchmark(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that is whole: the folder of a fit, or a check without its limit, is one line."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sweep / "0", tmp_path / "run")
    write_rows(ROWS, tmp_path / "run" / "benchmark.csv")
    check = {"name": "time.bbvi.ours", "value": 2.0, "expected": 3.0, "tolerance": 0.0, "passed": True}
    found = {"machine": {"cores": "2"}, "unjudged": "", "checks": [check | {"sense": "at most"}]}
    for change, reason in (
        ({}, "machine is missing"),
        (found | {"checks": [check]}, r"checks\.0\.sense is missing"),
        (found | {"machine": ["x"]}, "machine must be a mapping"),
    ):
        summary(lambda s, change=change: s.update(change))(tmp_path / "run")
        with pytest.raises(DataError, match=rf"summary\.json is damaged \({reason}"):
            docs.run(configuration(), tmp_path / "run")
        tally("damaged folders", "right")
    assert not (tmp_path / "docs" / "benchmarks.md").exists()
    summary(lambda s: s.update(found))(tmp_path / "run")
    docs.run(configuration(), tmp_path / "run")
    assert "| `time.bbvi.ours` | 2.00 | at most 3 | PASS |" in (tmp_path / "docs" / "benchmarks.md").read_text()

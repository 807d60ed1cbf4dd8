"""`task=compare`: runs side by side, with the settings in which they differ and the numbers of their summaries."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.sweeps.compare import Number, cautions, evidence, held_out
from tests.conftest import CommandLine, summary_of


@pytest.fixture
def two_runs(finished_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run and a copy of it that has another seed and another final bound."""
    first, second = (shutil.copytree(finished_run, tmp_path / name) for name in ("first", "second"))
    text = (second / "config.yaml").read_text()
    assert "\nseed: 0\n" in text
    (second / "config.yaml").write_text(text.replace("\nseed: 0\n", "\nseed: 5\n"))
    summary = summary_of(second)
    summary["final"]["mean"] = -200.25
    (second / "summary.json").write_text(json.dumps(summary))
    return first, second


def test_runs_side_by_side(cli: CommandLine, two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = cli("task=compare", "runs=[first,second]", "run=out", "plot.enabled=false")
    assert (result.code, result.err) == (0, "")
    with (tmp_path / "out" / "comparison.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    summary = summary_of(two_runs[0])
    assert [row["run"] for row in rows] == ["first", "second"]
    assert [row["seed"] for row in rows] == ["0", "5"]
    assert "replicates" not in rows[0]  # which is the same
    assert [float(row["final"]) for row in rows] == [summary["final"]["mean"], -200.25]
    assert float(rows[0]["log_evidence"]) == summary["final"]["log_evidence"]
    assert rows[0]["log_evidence_by"] == "closed form" and rows[0]["verdict"]
    assert "-200.25 ± " in result.out and "seed" in result.out.splitlines()[1]
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "Side by side" in page and "−200.25 ± " in page and "NOT JUDGED" not in page


@pytest.mark.parametrize(
    ("runs", "words"), [("[]", "needs folders"), ("[first]", "at least two"), ("[first,nowhere]", "nowhere")]
)
def test_what_cannot_be_compared_is_one_line(
    runs: str, words: str, cli: CommandLine, two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    result = cli("task=compare", f"runs={runs}", "run=out")
    assert (result.code, result.err.count("\n")) == (1, 1) and words in result.err
    assert not (tmp_path / "out").exists()


def job(**entries: Any) -> dict[str, Any]:
    final = {"log_evidence": None, "mean": -80.0, "se": 0.5, "name": "elbo", "method": "held-out data"}
    base = {"final": final, "diagnostics": {}, "data": {"checksum": "a"}, "status": "completed", "settings": {}}
    return base | entries


def test_evidence_and_held_out_density_say_where_they_come_from() -> None:
    """The best source that a run has comes first."""
    exact = job(final=job()["final"] | {"log_evidence": -3.0}, verdict={"modes": [{"log_evidence": -4.0}]})
    assert evidence(exact) == Number(-3.0, None, "closed form")
    referred = job(final=job()["final"] | {"reference_log_evidence": -5.0, "reference_error": 0.1})
    assert evidence(referred) == Number(-5.0, 0.1, "reference")
    assert evidence(job(verdict={"modes": [{"log_evidence": -4.0}]})) == Number(-4.0, None, "importance sampling")
    assert evidence(job(verdict={})).value is None
    assert held_out(job()) == Number(-80.0, 0.5, "ELBO")
    weighted = job(diagnostics={"likelihood": {"nll": 77.0, "se": 0.2}})
    assert held_out(weighted) == Number(-77.0, 0.2, "importance sampling")


def test_other_data_are_cautioned_of() -> None:
    assert cautions([job(), job()]) == []
    assert "different data" in cautions([job(), job(data={"checksum": "b"})])[0]
    assert "did not finish" in cautions([job(), job(status="interrupted")])[0]

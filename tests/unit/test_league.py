"""The league on a clone of one posterior that is known: rows, scores, goes on where it was interrupted, and its reader.

The program is y_n ~ N(mu, 1), mu ~ N(0, 1) for six numbers, so that mu | y ~ N(Σy/7, 1/7).
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import run_in, summary_of
from vi_core.errors import LabError
from vi_core.studies.league.posteriordb import Database, index_of
from vi_core.studies.league.scores import energy_distance, score
from vi_core.studies.league.table import Row, read_rows, share, write_rows

PROGRAM = """
data { int N; vector[N] y; }
parameters { real mu; }
model { mu ~ normal(0, 1); y ~ normal(mu, 1); }
"""
Y = [0.3, 1.2, -0.4, 0.9, 2.0, 1.1]
SHORT = ("study.compared=[full,laplace]", "+study.methods.full={family: full_rank_normal, steps: 20, recipe: none}")


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(path.stem, json.dumps(content))
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with the posterior `six-mean`, and `six-other` without reference draws."""
    root = tmp_path / "clone"
    base = root / "posterior_database"
    for name, reference in (("six-mean", "six-mean"), ("six-other", None)):
        about = {"model_name": "mean", "data_name": "six", "reference_posterior_name": reference}
        write(base / "posteriors" / f"{name}.json", about)
    write(base / "models" / "stan" / "mean.stan", PROGRAM)
    implementations = {"stan": {"model_code": "models/stan/mean.stan"}}
    write(base / "models" / "info" / "mean.info.json", {"model_implementations": implementations})
    write(base / "data" / "info" / "six.info.json", {"data_file": "data/data/six.json"})
    write(base / "data" / "data" / "six.json.zip", {"N": 6, "y": Y})
    draws = sum(Y) / 7 + np.random.default_rng(0).normal(size=(2, 2000)) / 7**0.5
    chains = [{"mu": chain.tolist()} for chain in draws]
    write(base / "reference_posteriors" / "draws" / "draws" / "six-mean.json.zip", chains)
    return root


def league(folder: Path, clone: Path, *arguments: str) -> Any:
    """Run the league with two short methods."""
    settings = (f"study.root={clone}", *SHORT, "study.without=[]", "study.apart=[]")
    return run_in(folder, "--run", "experiment=posteriordb", *settings, "study.replicates=2", *arguments)


def test_rows_scores_and_going_on(clone: Path, tmp_path: Path) -> None:
    """Laplace's approximation is the posterior: trusted, good, and within the noise of 4,000 draws of the reference."""
    result = league(tmp_path, clone, "hydra.run.dir=league")
    assert (result.code, result.err) == (0, "")
    rows = read_rows(tmp_path / "league" / "league.csv")
    assert [(row.method, row.replicate) for row in rows] == [(m, r) for m in ("full", "laplace") for r in (0, 1)]
    for row in rows[2:]:
        assert row.good and row.trust == "good"
        assert row.mean_error < 0.15 and 0.9 < row.sd_low <= row.sd_high < 1.1 and row.energy < 0.3
    assert summary_of(tmp_path / "league")["estimates"]["laplace_good"]["mean"] == 1.0
    assert (tmp_path / "league" / "plots" / "league.png").is_file()
    marked = [Row(**{**vars(row), "seconds": 77.0}) for row in rows[:2]]
    write_rows(marked, tmp_path / "league" / "league.csv")
    assert run_in(tmp_path, "resume=league").code == 0
    again = read_rows(tmp_path / "league" / "league.csv")
    assert [row.seconds == 77.0 for row in again] == [True, True, False, False]
    assert [row.elbo for row in again[2:]] == pytest.approx([row.elbo for row in rows[2:]])


def test_a_fit_that_fails_is_a_row(clone: Path, tmp_path: Path) -> None:
    program = clone / "posterior_database" / "models" / "stan" / "mean.stan"
    program.write_text(PROGRAM.replace("normal(0, 1)", "normal(0, -1)"))
    assert league(tmp_path, clone, "hydra.run.dir=league").code == 0
    rows = read_rows(tmp_path / "league" / "league.csv")
    assert len(rows) == 4
    assert all("Scale parameter" in row.status and not row.good and row.trust == "poor" for row in rows)
    assert summary_of(tmp_path / "league")["estimates"]["full_ended"]["mean"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("study.root=null",), "study.root is not set; give a clone of"),
        (("study.root=elsewhere",), "study.root=elsewhere is no clone of posteriordb"),
        (("study.only=[six-maen]",), "study.only=six-maen is no posterior with reference draws in this clone. Did you"),
        (("study.only=[six-other]",), "study.only=six-other is no posterior with reference draws"),
        (("study.seeds=0",), "study.seeds=0"),
        (("study.compared=[lapalce]",), "study.compared=lapalce is none of auto_full_rank, auto_mean_field"),
    ],
)
def test_a_mistake_is_one_line(clone: Path, tmp_path: Path, arguments: tuple[str, ...], wrong: str) -> None:
    result = league(tmp_path, clone, *arguments, "hydra.run.dir=league")
    assert result.code == 1 and result.err.startswith(f"error: {wrong}") and result.err.count("\n") == 1


def test_a_flow_without_zuko_is_refused_before_any_fit(clone: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("vi_core.studies.league.league.find_spec", lambda name: None)
    arguments = ("study.compared=[laplace,auto_flow]", "hydra.run.dir=league")
    result = league(tmp_path, clone, *arguments)
    wrong = (
        "error: study.methods.auto_flow needs zuko, which is not installed; pip install 'vi-lab[flows]' adds it, and "
    )
    assert (result.code, result.err) == (1, f"{wrong}study.compared=[laplace] does without.\n")


def test_damaged_files_are_one_line(clone: Path) -> None:
    base = clone / "posterior_database"
    (base / "data" / "data" / "six.json.zip").write_bytes(b"no zip")
    with pytest.raises(LabError, match=r"six.json.zip is damaged"):
        Database(clone).read("six-mean")


def test_names_count_from_zero() -> None:
    assert index_of("theta[2,1]") == ("theta", (1, 0))
    assert index_of("mu") == ("mu", ())


def test_scores_of_a_shifted_and_scaled_law() -> None:
    """N(0.5, 2²) and N(0, 1): an error of 0.5 deviations, a ratio of 2, each within four standard errors."""
    noise = np.random.default_rng(1).normal(size=(2, 40_000, 1))
    found = score(0.5 + 2 * noise[0], noise[1])
    assert found.mean_error == pytest.approx(0.5, abs=0.05)
    assert found.sd_low == found.sd_high == pytest.approx(2.0, abs=0.04)
    assert not found.good
    assert score(noise[0], noise[1]).good
    assert not score(0.31 + noise[0], noise[1]).good


def test_weights_move_scores() -> None:
    """Draws of N(1, 1) with weights towards N(0, 1) have its mean."""
    noise = np.random.default_rng(2).normal(size=(2, 40_000, 1))
    draws = 1 + noise[0]
    weights = np.exp(-0.5 * draws**2 + 0.5 * noise[0] ** 2)[:, 0]
    assert score(draws, noise[1]).mean_error > 0.9
    assert score(draws, noise[1], weights / weights.sum()).mean_error < 0.1


def test_energy_distance_of_two_normals() -> None:
    """With E|N(2, 2)| = 2.1996 and E|N(0, 2)| = 1.1284, D² of N(2, 1) and N(0, 1) is twice the difference."""
    noise = np.random.default_rng(3).normal(size=(2, 5000, 1))
    assert energy_distance(2 + noise[0], noise[1]) == pytest.approx((2 * (2.1996 - 1.1284)) ** 0.5, abs=0.1)
    assert energy_distance(noise[0], noise[1]) < 0.2


def test_shares_by_verdict() -> None:
    kinds = [(True, "good", True), (False, "good", True), (False, "corrected", True), (True, "poor", True)]
    rows = [Row("p", "m", 0, i, "fitted", good=g, trust=t, corrected_good=c) for i, (g, t, c) in enumerate(kinds)]
    found = share(rows)
    assert (found.fits, found.good, found.trusted_good, found.trusted_bad) == (4, 2, 1, 1)
    assert (found.corrected_good, found.corrected_bad, found.refused_good, found.refused_bad) == (1, 0, 1, 0)


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "league.csv"
    write_rows([Row("p", "m", 0, 0, "an error, with a comma")], path)
    assert read_rows(path)[0].status == "an error, with a comma"
    path.write_text(path.read_text().replace(",poor,", ",maybe so,").replace("False", "perhaps"))
    with pytest.raises(LabError, match=r"damaged"):
        read_rows(path)

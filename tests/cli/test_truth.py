"""Reference answers on the command line: kept by model and data, beside the estimates of every later fit."""

from pathlib import Path

import pytest

from tests.conftest import CommandLine, run_in, summary_of
from vi_core.fits import truth
from vi_core.storage.archive import read_archive

OWN = ("--run", "experiment=own", "model=eight_schools", "dataset=eight_schools", "plot.enabled=false")
FEW = ("trainer.steps=20", "replicates=2", "trainer.final_samples=20")
ANSWER = truth.Reference(
    {"mu": truth.Known(4.3, 3.3, -1.2, 9.7, 0.03, 0.08)}, -31.3, 0.01, 1.001, 5000.0, 0, 7000, 0, 20.0
)
"""Of no chain: what is written is what is read."""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run `run`, and a reference that was kept for its model and data; its path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run_in(tmp_path, *OWN, *FEW, "hydra.run.dir=run").code == 0
    assert "reference" not in summary_of(tmp_path / "run")["estimates"]["mu"]
    archive = read_archive(tmp_path / "run")
    return truth.keep(truth.key(archive.config, archive.problem.checksum), ANSWER)


def test_a_later_fit_has_the_reference_beside_it(kept: Path, cli: CommandLine, tmp_path: Path) -> None:
    """Another seed and number of steps is the same model and the same data."""
    result = cli(*OWN, *FEW, "seed=5", "trainer.steps=10", "hydra.run.dir=later")
    assert result.code == 0
    assert "log evidence of the reference = -31.3000 ± 0.01 nats" in result.out
    found = summary_of(tmp_path / "later")
    assert found["estimates"]["mu"]["reference"] == 4.3
    assert found["estimates"]["mu"]["reference_error"] == 0.03
    assert "reference" not in found["estimates"]["tau"]
    assert found["final"]["reference_log_evidence"] == -31.3


def test_another_model_or_other_data_have_none(kept: Path, cli: CommandLine, tmp_path: Path) -> None:
    assert cli(*OWN, *FEW, "model.tau_scale=7.0", "hydra.run.dir=other").code == 0
    assert "reference" not in summary_of(tmp_path / "other")["estimates"]["mu"]


def test_the_task_takes_what_is_kept(
    kept: Path, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chains are not run again, and the finished run has the answer in its summary."""
    monkeypatch.setattr(truth, "reference", None)
    result = cli("task=truth", "run=run")
    assert (result.code, result.err) == (0, "")
    assert "32 chains, R-hat 1.001, 5000 effective draws, 0 divergent" in result.out
    assert summary_of(tmp_path / "run")["estimates"]["mu"]["reference"] == 4.3


def test_a_damaged_reference_costs_no_fit(kept: Path, cli: CommandLine, tmp_path: Path) -> None:
    kept.write_text("{}")
    result = cli(*OWN, *FEW, "hydra.run.dir=later")
    assert result.code == 0
    assert "is damaged" in result.out
    assert "reference" not in summary_of(tmp_path / "later")["estimates"]["mu"]


def test_a_model_without_shared_latents_is_refused(cli: CommandLine) -> None:
    assert cli("--run", "experiment=vae_digits", "trainer=smoke", "plot.enabled=false", "hydra.run.dir=vae").code == 0
    result = cli("task=truth", "run=vae")
    assert result.code == 1
    assert "samples continuous latents that all data points share" in result.err

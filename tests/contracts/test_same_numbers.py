"""Short runs end with the numbers that are stored in data/numbers.json.

A change that is meant to leave all numbers as they are leaves these. One that is not writes them again, and says so:
`python tests/contracts/test_same_numbers.py --write`.
"""

import csv
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

STORED = Path(__file__).resolve().parents[1] / "data" / "numbers.json"
COMMON = ("--run", "hydra.mode=RUN", "seed=3", "threads=1", "plot.enabled=false")
TRAINING = ("trainer.limit=20", "trainer.final_samples=50", "trainer.execution=eager")
REPLICATED = (*TRAINING, "replicates=2")
SMALL_GRAPH = ("trainer.gradient_draws=0", "dataset.num_points=3")
NETWORK = (*TRAINING, "trainer.limit=12", "dataset.batch_size=20", "model.hidden=[16]", "family.hidden=[16]")
DIFFUSION = (*TRAINING, "dataset.batch_size=20", "model.denoiser.hidden=[16]")
SCHOOLS = ("experiment=own", "model=eight_schools")
STUDY = ("study.num_samples=2000",)
RUNS: dict[str, tuple[str, ...]] = {
    "score_function": ("experiment=bbvi_naive", *REPLICATED),
    "control_variate": ("experiment=bbvi", *REPLICATED),
    "control_variate_in_sample": ("experiment=bbvi_robbins_monro_control_variate", *REPLICATED),
    "structured": ("experiment=bbvi_structured", *REPLICATED),
    "pathwise": ("experiment=bbvi", "estimator=pathwise", "optimizer=adagrad", *REPLICATED),
    "sticking_the_landing": ("experiment=bbvi", "estimator=sticking_the_landing", *REPLICATED),
    "iwelbo": ("experiment=bbvi", "bound=iwelbo", "estimator=score_function", *REPLICATED),
    "rao_blackwell": ("experiment=rao_blackwell", *SMALL_GRAPH, *REPLICATED),
    "rao_blackwell_control_variate": (
        "experiment=rao_blackwell", "estimator=rao_blackwell_control_variate", *SMALL_GRAPH, *REPLICATED,
    ),
    "natural_gradient": ("experiment=natural_gradient_vi", "optimizer.lr=0.3", *REPLICATED, "trainer.limit=5"),
    "coordinate_ascent": ("experiment=cavi_normal_gamma", *REPLICATED, "trainer.limit=3"),
    "earthquakes": ("experiment=earthquakes_cavi", "dataset.num_points=50", *REPLICATED, "trainer.limit=5"),
    "full_rank_normal": (*SCHOOLS, *REPLICATED),
    "low_rank_normal": (*SCHOOLS, "family=low_rank_normal", *REPLICATED),
    "mixture_of_normals": (*SCHOOLS, "family=mixture_of_normals", *REPLICATED),
    "gamma": ("experiment=gamma_gd_vs_ngd", *TRAINING),
    "vae": ("experiment=vae_digits", "trainer.likelihood_samples=2", *NETWORK),
    "vae_iwelbo": ("experiment=vae_digits", "bound=iwelbo", "estimator=pathwise", "estimator.num_samples=3", *NETWORK),
    "categorical_vae": ("experiment=categorical_vae_digits", *NETWORK),
    "ddpm_bound": ("experiment=ddpm_bound", "dataset.num_test=50", *DIFFUSION),
    "ddpm_simple": ("experiment=ddpm_two_moons", "dataset.num_test=50", *DIFFUSION),
    "gamma_fisher": ("experiment=gamma_fisher", *STUDY),
    "exponential_inverse_cdf": ("experiment=exponential_inverse_cdf", *STUDY),
}  # fmt: skip
SUMMARY = ("objective.mean", "final.mean", "estimates.*.mean", "estimates.*.sd", "diagnostics.likelihood.nll")
"""What is stored of a summary; a star stands for every key."""


def numbers_of(run: Path) -> dict[str, float]:
    """A few numbers of a run: of the summary, and of the trace the first bound and the last row of each replicate."""
    summary = json.loads((run / "summary.json").read_text())
    found = {name: number for path in SUMMARY for name, number in under(summary, path)}
    if (run / "trace.csv").is_file():
        with (run / "trace.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        bound, replicates = list(rows[0])[2], len({row["replicate"] for row in rows})
        for row in rows[:replicates]:
            found[f"trace.{bound}.first.{row['replicate']}"] = float(row[bound])
        for row in rows[-replicates:]:
            for column in row.keys() - {"step", "replicate", "seconds"}:
                if not column.startswith("E["):  # the summary has it
                    found[f"trace.{column}.last.{row['replicate']}"] = float(row[column])
    return {name: found[name] for name in sorted(found) if math.isfinite(found[name])}


def under(tree: Any, path: str, name: str = "") -> list[tuple[str, float]]:
    """The numbers at a path with their names; none where there is no such path or no number."""
    key, _, rest = path.partition(".")
    if not key:
        return [(name, float(tree))] if isinstance(tree, int | float) else []
    if not isinstance(tree, dict):
        return []
    keys = tree if key == "*" else tree.keys() & {key}
    return [pair for k in keys for pair in under(tree[k], rest, f"{name}.{k}" if name else k)]


def run_now(name: str, folder: Path) -> dict[str, Any]:
    """Run it and return its numbers with their type."""
    from tests.conftest import run_in

    result = run_in(folder, *COMMON, *RUNS[name], f"hydra.run.dir={name}")
    assert (result.code, result.err) == (0, "")
    dtype = json.loads((folder / name / "summary.json").read_text())["environment"]["dtype"]
    return {"dtype": dtype, "numbers": numbers_of(folder / name)}


def torch_version() -> str:
    """The version without what says how it was built."""
    return torch.__version__.partition("+")[0]


def tolerance(name: str, dtype: str) -> float:
    """How far a number may be, relatively, from the stored one. A trace has nine digits."""
    return 1e-4 if dtype == "float32" else 1e-8 if name.startswith("trace.") else 1e-9


def test_every_run_is_stored() -> None:
    assert json.loads(STORED.read_text())["runs"].keys() == RUNS.keys()


@pytest.mark.parametrize("name", RUNS)
def test_numbers_are_those_that_are_stored(name: str, tmp_path: Path) -> None:
    stored = json.loads(STORED.read_text())
    if stored["torch"] != torch_version():
        pytest.skip(f"stored with torch {stored['torch']}, whose random streams may be others")
    expected, actual = stored["runs"][name], run_now(name, tmp_path)
    assert actual["dtype"] == expected["dtype"]
    assert actual["numbers"].keys() == expected["numbers"].keys()
    wrong = {
        key: (number, actual["numbers"][key])
        for key, number in expected["numbers"].items()
        if not math.isclose(number, actual["numbers"][key], rel_tol=(t := tolerance(key, expected["dtype"])), abs_tol=t)
    }
    assert not wrong, f"stored, found; stored on a processor with {stored['processor']}"


def write() -> None:
    """Store the numbers of now."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: run_now(name, Path(folder)) for name in RUNS}
    processor = torch.backends.cpu.get_cpu_capability()
    stored = {"torch": torch_version(), "processor": processor, "runs": runs}
    STORED.parent.mkdir(exist_ok=True)
    temporary = STORED.with_suffix(".tmp")
    temporary.write_text(json.dumps(stored, indent=1) + "\n")
    os.replace(temporary, STORED)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/contracts/test_same_numbers.py --write")
    sys.path.insert(0, str(STORED.parent.parent.parent))
    write()

"""A fit in ArviZ's schema: what each group holds, and leave-one-out by ArviZ against the exact answer.

For a conjugate model log p(y_n | y_−n) is the difference of two log evidences.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vi_core
from vi_core.fits.interchange import groups
from vi_core.models.bayesian.hierarchical import EightSchools
from vi_core.models.bayesian.regression import LinearRegression
from vi_core.problem import default_dtype

N = 40


@pytest.fixture(scope="module")
def line() -> Any:
    """A linear regression with known noise, whose posterior is a Normal that q can be."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 2, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -2.0], dtype=torch.float64) + 0.5 * torch.randn(N, generator=generator).double()
    return vi_core.fit(LinearRegression(sigma=0.5), {"x": x, "y": y}, steps=200, replicates=2)


def exact_leave_one_out(fit: Any) -> float:
    """The sum over n of log p(y_n | y_−n), by exact evidences."""
    whole = fit.model.exact(fit.data)["log_evidence"]
    total = 0.0
    for n in range(N):
        rest = {name: torch.cat([v[:n], v[n + 1 :]]) for name, v in fit.data.items()}
        model = LinearRegression(sigma=0.5)
        with default_dtype(torch.float64):
            model.observe(rest, N - 1)
        total += whole - model.exact(rest)["log_evidence"]
    return total


def test_the_groups_and_their_shapes() -> None:
    data = {"y": torch.arange(8.0).double(), "sigma": torch.ones(8).double()}
    found = groups(vi_core.fit(EightSchools(), data, steps=20, replicates=2), 30)
    assert {name: value.shape for name, value in found["posterior"].items()} == {
        "mu": (1, 30), "tau": (1, 30), "raw": (1, 30, 8), "theta": (1, 30, 8),
    }  # fmt: skip
    theta = found["posterior"]["mu"][..., None] + found["posterior"]["tau"][..., None] * found["posterior"]["raw"]
    np.testing.assert_allclose(found["posterior"]["theta"], theta)
    assert found["posterior_predictive"]["y"].shape == found["log_likelihood"]["y"].shape == (1, 30, 8)
    np.testing.assert_allclose(found["observed_data"]["y"], np.arange(8.0))


def test_weights_are_those_of_the_best_replicate(line: Any) -> None:
    """q is the posterior up to the optimizer's noise, so that each log-weight is the log evidence."""
    found = groups(line, 500)["sample_stats"]
    assert np.abs(found["log_weight"] - line.model.exact(line.data)["log_evidence"]).mean() < 0.1


def test_loo_of_arviz_is_the_exact_one(line: Any, tmp_path: Path) -> None:
    """PSIS from 4,000 draws is within 0.2 nats of the sum of 40 exact densities, of which one is about 0.7 nats."""
    arviz = pytest.importorskip("arviz")
    torch.manual_seed(0)
    path = str(tmp_path / "posterior.nc")
    line.to_arviz(4000).to_netcdf(path, engine="h5netcdf")
    read = arviz.from_netcdf(path)
    assert set(read.groups()) >= {
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "sample_stats",
    }
    assert arviz.loo(read).elpd_loo == pytest.approx(exact_leave_one_out(line), abs=0.2)

"""Reference answers by long chains: exact posteriors are met within their stated errors, two modes are refused.

A quantity that is further than five of its standard errors from the exact value fails: one false alarm in a million for
each. The smallest error that the tests see is five times the stated one, 0.02 posterior deviations for these sizes.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

import vi_core
from vi_core.algorithms.hamiltonian import Coordinates, hamiltonian
from vi_core.errors import DataError, LabError
from vi_core.fits import truth
from vi_core.models.bayesian.regression import LinearRegression

Case = tuple[dict[str, float], truth.Reference]


@pytest.fixture(scope="module")
def linear() -> Case:
    """Exact answers of a small linear regression, and its reference."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(30, 1, generator=generator, dtype=torch.float64)
    y = 1 + 2 * x[:, 0] + torch.randn(30, generator=generator, dtype=torch.float64)
    model = LinearRegression()
    problem = vi_core.fit(model, {"x": x, "y": y}, steps=1, replicates=1).run.problem
    return model.exact({"x": x, "y": y}), truth.reference(problem, draws=400)


@pytest.mark.slow
def test_moments_are_exact_within_their_errors(linear: Case) -> None:
    exact, found = linear
    for name, known in found.quantities.items():
        assert known.error < 0.03 * known.sd
        assert abs(known.mean - exact[name]) < 5 * known.error
        assert known.sd == pytest.approx(exact[f"{name}.std"], rel=0.1)


@pytest.mark.slow
def test_evidence_is_exact_within_its_error(linear: Case) -> None:
    exact, found = linear
    assert found.evidence_error < 0.02
    assert abs(found.log_evidence - exact["log_evidence"]) < 5 * found.evidence_error


class TwoModes(vi_core.BayesianModel):
    """A mean with two narrow modes, far apart."""

    def prior(self, data: dict[str, Tensor]) -> list[tuple[str, MixtureSameFamily]]:
        return [("mu", MixtureSameFamily(Categorical(torch.ones(2)), Normal(torch.tensor([-20.0, 20.0]), 0.1)))]

    def likelihood(self, z: dict[str, Tensor], data: dict[str, Tensor]) -> Normal:
        return Normal(0 * z["mu"], 1.0)


@pytest.mark.slow
def test_chains_in_two_modes_are_refused() -> None:
    problem = vi_core.fit(TwoModes(), {"y": torch.zeros(1)}, steps=1, replicates=1).run.problem
    with pytest.raises(LabError, match=r"not to be believed: split R-hat is .*, above 1.01"):
        truth.reference(problem, draws=100)


def test_chains_find_the_scale_by_themselves() -> None:
    """From coordinates that are wrong by a factor of ten, a correlated Normal keeps its covariance within 10 %."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        root = torch.tensor([[1.0, 0.0], [2.0, 0.5]], dtype=torch.float64)
        law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), scale_tril=root)
        start = Coordinates(torch.zeros(16, 2).double(), 10 * torch.eye(2).double().expand(16, 2, 2))
        found = hamiltonian(law.log_prob, start, 250, 200)
    covariance = np.cov(found.draws.flatten(0, 1).numpy().T)
    assert np.abs(covariance / law.covariance_matrix.numpy() - 1).max() < 0.1
    assert found.divergent == 0


def test_an_answer_is_kept_and_recalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = truth.Known(1.0, 2.0, -1.0, 3.0, 0.01, 0.02)
    answer = truth.Reference({"mu": known}, -10.0, 0.01, 1.001, 4000.0, 0, 5000, 0, 1.5)
    name = truth.key({"model": {"sigma": 1.0}}, "abc")
    assert truth.recall(name) is None
    path = truth.keep(name, answer)
    assert truth.recall(name) == answer
    assert name != truth.key({"model": {"sigma": 2.0}}, "abc") != truth.key({"model": {"sigma": 1.0}}, "abd")
    path.write_text(path.read_text().replace('"mean"', '"meen"'))
    with pytest.raises(DataError, match="is damaged"):
        truth.recall(name)

"""Eight schools and hierarchical regression: densities by hand in scipy, and references by quadrature.

Given tau (and sigma), all else is Normal and integrated in closed form; what remains is a sum over a grid: 8,001 values
of log tau in (−12, 9), or 300 of log tau in (−6, 3.5) by 150 of log sigma in (−1.4, 0.4), whose edge has 4e-11 of the
mass.
"""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import vi_core
from tests.references import grouped
from tests.unit.test_regression import log_joint, observed
from vi_core.datasets.measurements import Measurements
from vi_core.errors import ConfigError, DataError
from vi_core.models.bayesian.hierarchical import EightSchools, EightSchoolsCentered, HierarchicalRegression

SCHOOLS: dict[str, Any] = {
    "y": [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0],
    "sigma": [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0],
}
THETA = ([6.2119, 4.9402, 3.927, 4.7571, 3.6155, 4.0426, 6.2967, 4.8543], [5.5931, 4.6743, 5.2626, 4.7803, 4.6575, 4.8269, 5.0779, 5.2908])  # fmt: skip  # noqa: E501
MU = (4.3968, 3.3177)
SCHOOLS_EVIDENCE = -31.31135
GROUPED = {
    "mu": (0.9609, 0.3536),
    "beta": (0.5982, 0.0703),
    "sigma": (0.50635, 0.0508),
    "alpha": ([1.4882, 0.7045, 0.9161, 0.9031, 1.6496, 0.111], [0.1601, 0.1574, 0.1616, 0.1592, 0.1605, 0.1633]),
}
GROUPED_EVIDENCE = -62.18038


@pytest.fixture(autouse=True)
def float64() -> None:
    torch.set_default_dtype(torch.float64)


def test_hierarchical_regression_has_the_density_written_by_hand() -> None:
    """In the effects themselves; the density of `raw` is theirs times the deviations that standardise them."""
    model = HierarchicalRegression(intercept_scale=3.0, slope_scale=2.0, group_scale=1.5, noise_scale=0.8)
    data, raw = observed(model, grouped()), np.linspace(-1, 1.5, 6)
    group, x, y = (grouped()[name] for name in ("group", "x", "y"))
    precision = 10 / 0.6**2 + 1 / 0.9**2
    residual = np.array([(y - 0.3 * x)[group == g].mean() for g in range(6)])
    alpha = (residual * 10 / 0.6**2 + 0.4 / 0.9**2) / precision + raw / precision**0.5
    by_hand = stats.norm.logpdf(y, alpha[group] + 0.3 * x, 0.6).sum() + stats.norm.logpdf(alpha, 0.4, 0.9).sum()
    by_hand += stats.norm.logpdf(0.4, 0, 3) + stats.norm.logpdf(0.3, 0, 2)
    by_hand += stats.halfnorm.logpdf(0.9, scale=1.5) + stats.halfnorm.logpdf(0.6, scale=0.8)
    z = {"mu": 0.4, "tau": 0.9, "raw": raw, "beta": [0.3], "sigma": 0.6}
    assert log_joint(model, data, **z) == pytest.approx(by_hand - 6 * np.log(precision**0.5), abs=1e-9)
    axes = {name: torch.as_tensor(value)[None, None, None] for name, value in z.items()}
    torch.testing.assert_close(model.quantities_at(axes, data)["alpha"].flatten(), torch.from_numpy(alpha))


def test_a_group_without_points_has_the_prior() -> None:
    """Group 1 of three has no point: its effect is N(mu, tau²), and a minibatch knows as much of the groups."""
    model = HierarchicalRegression()
    data = observed(model, {"x": [0.0, 1.0, 2.0], "y": [1.0, 2.0, 3.0], "group": [0, 2, 2]})
    z = {name: torch.tensor(value) for name, value in {"mu": 0.4, "tau": 0.9, "beta": [0.3], "sigma": 0.6}.items()}
    law = model.standardised(z, model.data_of(0, data))
    assert law.mean[1].item() == 0 and law.stddev[1].item() == pytest.approx(1.0) and law.stddev[0] > 1.1
    row = {name: value[:1] for name, value in data.items()}
    latents = {name: value[None, None, None] for name, value in (z | {"raw": torch.ones(3)}).items()}
    whole, part = (model.quantities_at(latents, rows)["alpha"] for rows in (data, row))
    assert torch.equal(whole, part) and whole.flatten()[1].item() == pytest.approx(1.3)


def test_eight_schools_has_the_density_written_by_hand() -> None:
    model, raw = EightSchools(), np.linspace(-1, 1, 8)
    data = observed(model, SCHOOLS)
    by_hand = stats.norm.logpdf(SCHOOLS["y"], 3 + 4 * raw, SCHOOLS["sigma"]).sum() + stats.norm.logpdf(raw).sum()
    by_hand += stats.norm.logpdf(3, 0, 5) + stats.halfcauchy.logpdf(4, scale=5)
    assert log_joint(model, data, mu=3.0, tau=4.0, raw=raw) == pytest.approx(by_hand, abs=1e-10)


def test_the_centred_density_is_the_other_one_in_theta() -> None:
    """p(raw) = p(theta) tau⁸, by theta = mu + tau·raw."""
    centred, raw = EightSchoolsCentered(), np.linspace(-1, 1, 8)
    found = log_joint(centred, observed(centred, SCHOOLS), mu=3.0, tau=4.0, theta=3 + 4 * raw)
    model = EightSchools()
    other = log_joint(model, observed(model, SCHOOLS), mu=3.0, tau=4.0, raw=raw)
    assert found + 8 * np.log(4.0) == pytest.approx(other, abs=1e-10)


def furthest(draws: torch.Tensor, reference: tuple[Any, Any]) -> float:
    """Largest distance of a mean from its reference, in posterior deviations."""
    return float(np.abs((draws.numpy().mean(0) - reference[0]) / reference[1]).max())


def test_eight_schools_agree_with_quadrature() -> None:
    fit = vi_core.fit(EightSchools(), SCHOOLS, steps=1000, replicates=2)
    torch.manual_seed(0)
    draws = fit.draws(20_000)
    assert furthest(draws["theta"], THETA) < 0.1
    assert furthest(draws["mu"], MU) < 0.1
    log_w = fit.run.problem.log_weights(20_000, fit.data)[:, fit.best, 0]
    assert log_w.logsumexp(0).item() - np.log(20_000) == pytest.approx(SCHOOLS_EVIDENCE, abs=0.1)
    assert SCHOOLS_EVIDENCE - 0.5 < fit.elbo[fit.best] < SCHOOLS_EVIDENCE


def test_a_hierarchical_fit_agrees_with_quadrature() -> None:
    """What the bound lacks is the heavy tail of tau, of which six groups say little; all replicates end alike."""
    fit = vi_core.fit(HierarchicalRegression(), grouped(), steps=500)
    torch.manual_seed(0)
    draws = fit.draws(20_000)
    assert {name for name, reference in GROUPED.items() if furthest(draws[name], reference) > 0.1} == set()
    assert bool(((fit.elbo > GROUPED_EVIDENCE - 0.4) & (fit.elbo < GROUPED_EVIDENCE)).all())


@pytest.mark.parametrize("group", [[0.0, 1.0, 0.0], [0, -1, 0]])
def test_groups_that_are_no_codes_are_refused(group: list[float]) -> None:
    with pytest.raises(DataError, match="whole numbers from 0"):
        observed(HierarchicalRegression(), {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0], "group": group})


def test_measurements_come_as_two_columns() -> None:
    data = Measurements(**SCHOOLS).load()
    columns = data.decode(data.train)
    assert {name: value.tolist() for name, value in columns.items()} == SCHOOLS
    with pytest.raises(ConfigError, match="of one length, not 8 and 2"):
        Measurements(y=SCHOOLS["y"], sigma=[1.0, 2.0])
    with pytest.raises(ConfigError, match=r"dataset\.sigma"):
        Measurements(y=[1.0, 2.0], sigma=[1.0, 0.0])

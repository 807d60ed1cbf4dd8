"""The verdict on fits whose distance from the target is known in closed form, and moments corrected by weights.

The target is N(0, I) in D dimensions with log evidence −7. KL(N(m, s² I) ‖ p) = D (s² − 1 + m²)/2 − D log s.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import vi_core
from experiments.results.verdict_lines import weights_line
from tests.conftest import run_in, summary_of
from tests.league import Bimodal
from vi_core.diagnostics.importance import smoothed_weights
from vi_core.diagnostics.verdict import Verdict, Weighed, judge
from vi_core.fits.trust import corrected as corrected_moments
from vi_core.fits.trust import draws_for, verdict, weigh
from vi_core.problem import default_dtype

EVIDENCE, DIMENSIONS, DRAWS = -7.0, 4, 4000
ALIVE = torch.ones(2, dtype=torch.bool)


def weighed(
    scale: float, *offsets: float, seed: int = 0, below: tuple[float, ...] = (), dimensions: int = DIMENSIONS
) -> Weighed:
    """Draws of N(offset, scale²) by replicate, and weights towards N(0, 1) with an evidence `below` the others'."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(DRAWS, len(offsets), dimensions, generator=generator, dtype=torch.float64)
    z = torch.tensor(offsets, dtype=torch.float64)[:, None] + scale * noise
    one = torch.ones((), dtype=torch.float64)
    log_w = (Normal(0 * one, one).log_prob(z) - Normal(0 * one, scale * one).log_prob(scale * noise)).sum(-1) + EVIDENCE
    return Weighed({"z": z}, log_w - torch.tensor(below) if below else log_w)


def test_the_posterior_itself_is_trusted() -> None:
    found = judge(weighed(1.0, 0.0, 0.0), ALIVE)
    assert (found.trust, found.k_hat, found.agreement) == ("good", -1.0, 1.0)
    assert found.kl_gap == pytest.approx(0.0, abs=1e-9)
    assert found.ess == pytest.approx(DRAWS)
    assert [mode.replicates for mode in found.modes] == [(0, 1)]
    assert found.modes[0].log_evidence == pytest.approx(EVIDENCE)


def test_a_q_that_is_too_narrow_is_not_trusted() -> None:
    """Deviations of 0.5 in four dimensions: KL = 1.27, and a tail that no draw reaches."""
    found = judge(weighed(0.5, 0.0, 0.0), ALIVE, ways_out="family=wider")
    assert found.trust == "poor"
    assert found.k_hat is not None
    assert found.k_hat > 0.7
    assert "try family=wider" in found.line


def test_a_q_that_is_too_wide_is_corrected() -> None:
    """Deviations of 1.5: KL = 0.878 nats, bounded weights. The estimate of KL has a standard error below 0.05."""
    found = judge(weighed(1.5, 0.0, 0.0), ALIVE)
    assert found.trust == "corrected"
    assert found.kl_gap == pytest.approx(DIMENSIONS * (0.625 - math.log(1.5)), abs=0.2)
    assert found.line.startswith("CORRECTED")


def test_a_little_in_many_directions_is_a_gap() -> None:
    """Deviations 0.9 of the target's in 40 directions: k-hat and moves are small, and KL is 40 (log 1/0.9 − 0.095)."""
    found = judge(weighed(0.9, 0.0, dimensions=40), ALIVE[:1])
    assert found.k_hat is not None and found.k_hat < 0.7
    assert found.shift is not None and found.shift < 0.2 and found.stretch is not None and found.stretch < 0.25
    assert found.kl_gap == pytest.approx(40 * (0.81 / 2 - 0.5 - math.log(0.9)), abs=0.1)
    assert found.trust == "corrected"


def test_draws_without_a_spread_are_said_to_have_none() -> None:
    """As those of a float32 at 1e6 with a deviation of 1e-4."""
    seen = weighed(1.0, 0.0, 0.0)
    seen.z["z"][..., 0] = 1e6
    found = judge(seen, ALIVE)
    assert found.trust == "poor" and "draws of a latent do not differ" in found.line and "inf" not in found.line
    assert found.as_dict()["shift"] is None


def test_weights_that_widen_q_do_not_correct_it() -> None:
    """A deviation of 0.75: Pareto's shape is 1 − 0.75² = 0.44, and weights widen q by 1/0.75 = exp(0.29)."""
    found = judge(weighed(0.75, 0.0, dimensions=1), ALIVE[:1])
    assert found.k_hat is not None and found.k_hat < 0.5 and found.ess is not None and found.ess > 1000
    assert found.widening == pytest.approx(-math.log(0.75), abs=0.03)
    assert found.trust == "poor"
    wide = judge(weighed(1.4, 0.0, dimensions=1), ALIVE[:1])
    assert wide.trust == "corrected" and wide.stretch == pytest.approx(math.log(1.4), abs=0.03)


def test_a_replicate_that_is_averaged_over_must_be_near_the_best() -> None:
    """The second replicate ended in the same place, 3 nats lower: the best alone is trusted, both are not."""
    both = weighed(1.0, 0.0, 0.0, below=(0.0, 3.0))
    assert judge(both, ALIVE).trust == "good"
    assert judge(both, ALIVE).agreement == 0.5
    assert judge(both, ALIVE, ALIVE).trust == "poor"


def test_modes_are_told_apart_and_weighted_by_their_evidence() -> None:
    """Two modes ten deviations apart, the second with e^(-1/2) of the evidence: neither is the posterior."""
    here, there = weighed(1.0, 0.0, seed=1), weighed(1.0, 0.0, seed=2, below=(0.5,))
    z = torch.cat([here.z["z"], there.z["z"] + 10, here.z["z"] + 0.3], dim=1)
    log_w = torch.cat([here.log_w, there.log_w, here.log_w], dim=1)
    found = judge(Weighed({"z": z}, log_w), torch.ones(3, dtype=torch.bool))
    assert found.trust == "poor"
    assert [mode.replicates for mode in found.modes] == [(0, 2), (1,)]
    assert found.modes[1].weight == pytest.approx(1 / (1 + math.exp(0.5)))
    assert "family=mixture_of_normals" in found.line


def test_a_mode_of_negligible_evidence_does_no_harm() -> None:
    here, there = weighed(1.0, 0.0), weighed(1.0, 0.0, below=(34.0,))
    z = torch.cat([here.z["z"], there.z["z"] + 10], dim=1)
    found = judge(Weighed({"z": z}, torch.cat([here.log_w, there.log_w], dim=1)), ALIVE)
    assert found.trust == "good"
    assert "1 other mode" in found.line


def test_one_replicate_says_what_it_cannot_see() -> None:
    found = judge(weighed(1.0, 0.0), ALIVE[:1])
    assert (found.trust, found.agreement) == ("good", None)
    assert "cannot see other modes" in found.line


def test_draws_where_the_density_is_zero() -> None:
    broken = weighed(1.0, 0.0)
    broken.log_w[5] = -math.inf
    assert judge(broken, ALIVE[:1]).trust == "poor"
    assert json.dumps(judge(broken, ALIVE[:1]).as_dict(), allow_nan=False)


def test_smoothed_weights_have_the_quantiles_of_their_law() -> None:
    """Weights that are generalised Pareto with shape 0.4: the tail is smooth, ordered as before, and sums to one."""
    uniform = torch.rand(DRAWS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    raw = 1 + (uniform ** (-0.4) - 1) / 0.4
    smoothed = smoothed_weights(raw.log())
    assert smoothed.sum().item() == pytest.approx(1.0)
    tail = raw.argsort()[-150:]
    assert bool((smoothed[tail].diff() >= 0).all())
    levels = 1 - (torch.arange(1, 101, dtype=torch.float64) - 0.5).flip(0) / DRAWS
    law = 1 + ((1 - levels) ** (-0.4) - 1) / 0.4
    body = raw.argsort()[: DRAWS // 2]
    found = smoothed.sort().values[-100:] / smoothed[body].mean() * raw[body].mean()
    torch.testing.assert_close(found[:80], law[:80], rtol=0.1, atol=0)
    assert smoothed_weights(torch.zeros(100)).tolist() == pytest.approx([0.01] * 100)


class Location(vi_core.BayesianModel):
    """y_n ~ N(mu, 1), mu ~ N(0, 1): the posterior is N(Σy/(N + 1), 1/(N + 1))."""

    def prior(self, data: Any) -> Any:
        yield "mu", Normal(0.0, 1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(z["mu"] + 0 * data["y"], 1.0)

    def quantities(self, z: Any, data: Any) -> dict[str, Tensor]:
        return {"pair": torch.stack([z["mu"], 2 * z["mu"]])}


Y = np.array([0.3, 1.2, -0.4, 0.9, 2.0])


@pytest.fixture(scope="module")
def narrow() -> Any:
    """A fit of one step that stands where q is twice too wide."""
    fit = vi_core.fit(Location(), {"y": Y}, steps=1, replicates=2, scale=2.0)
    return fit


def test_corrected_moments_are_those_of_the_posterior(narrow: Any) -> None:
    """4,000 draws, effective size about 2,700: within five standard errors, 0.1 posterior deviations."""
    found: Verdict = narrow.verdict
    assert found.trust == "corrected"
    sd = 1 / math.sqrt(6)
    rows = narrow.corrected()
    assert rows["mu"].mean == pytest.approx(Y.sum() / 6, abs=0.1 * sd)
    assert rows["mu"].sd == pytest.approx(sd, rel=0.08)
    assert rows["mu"].q05 == pytest.approx(Y.sum() / 6 - 1.645 * sd, abs=0.15 * sd)
    assert rows["pair[1]"].mean == pytest.approx(2 * rows["mu"].mean)
    table = narrow.summary()
    assert table["mu"]["corrected sd"] == pytest.approx(rows["mu"].sd)
    assert "CORRECTED" in repr(table)


def test_the_verdict_leaves_random_streams_and_parameters(narrow: Any) -> None:
    problem = narrow.run.problem
    before, raw = torch.get_rng_state(), problem.family.packed.raw.detach().clone()
    with default_dtype(torch.float64):
        first = weigh(problem, 300)
        verdict(problem, first)
        corrected_moments(problem, first, np.array([True, False]))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(raw, problem.family.packed.raw.detach())


def test_replicates_on_their_way_need_steps_and_no_mixture() -> None:
    """Two places with equal evidence: modes where q fits there, and unfinished fits where it is far too narrow."""
    lines = []
    for scale in (1.0, 0.2):
        one = weighed(scale, 0.0)
        z, log_w = torch.cat([one.z["z"], one.z["z"] + 10], dim=1), one.log_w.expand(-1, 2)
        found = judge(Weighed({"z": z}, log_w), ALIVE, ways_out="more steps")
        assert len(found.modes) == 2
        lines.append(found.line)
    assert "try combine=evidence" in lines[0]
    assert "try more steps" in lines[1] and "combine" not in lines[1]


def test_a_run_without_a_verdict_has_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """History, bound and estimates are equal in every bit, as they are written."""
    settings = ("trainer.steps=20", "replicates=2", "plot.enabled=false", "trainer.execution=eager")
    assert run_in(tmp_path, "--run", *settings, "hydra.run.dir=with").code == 0
    monkeypatch.setattr("experiments.results.trust.entry", lambda *_: {})
    assert run_in(tmp_path, "--run", *settings, "hydra.run.dir=without").code == 0
    judged, plain = (summary_of(tmp_path / name) for name in ("with", "without"))
    assert judged["verdict"]["trust"] and not plain["verdict"]
    assert (judged["final"], judged["estimates"]) == (plain["final"], plain["estimates"])
    traces = [(tmp_path / name / "trace.csv").read_text().splitlines() for name in ("with", "without")]
    assert traces[0][0].endswith(",seconds")
    numbers = [[line.rpartition(",")[0] for line in trace] for trace in traces]
    assert numbers[0] == numbers[1]


def test_draws_come_in_pieces_and_their_number_has_bounds(narrow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = narrow.run.problem
    assert draws_for(problem, 1) == DRAWS
    monkeypatch.setattr("vi_core.fits.trust.MOST_DENSITIES", 70)  # seven draws of two replicates at five points
    assert weigh(problem, 20).log_w.shape == (20, 2)
    assert draws_for(problem, 1) == 200
    assert draws_for(problem, 1000) == 2400


def test_the_verdict_is_on_the_replicate_that_is_described() -> None:
    """Replicate 1 is too narrow by far: it is refused where it is chosen, and the best one is judged otherwise."""
    fit = vi_core.fit(Location(), {"y": Y}, steps=1, replicates=2, scale=[1.0, 0.2])
    assert fit.best == 0 and fit.verdict.trust == "good"
    assert fit.at(1).verdict.trust == "poor"
    assert fit.at(0).verdict.trust == "good"


def test_modes_are_combined_by_their_evidence() -> None:
    """0.7 N(-4, 1) + 0.3 N(4, 1): mean -1.6, deviation 3.80; no replicate is trusted, and their mixture is.

    Of 20,000 stratified draws the mean is within 0.05, five standard errors; equal weights would have 0.
    """
    fit = vi_core.fit(Bimodal(), {"y": np.zeros(1)}, replicates=6, combine="evidence", steps=375)
    a = fit.draws(20_000)["a"]
    assert a.mean().item() == pytest.approx(-1.6, abs=0.05)
    assert a.std(correction=0).item() == pytest.approx(14.44**0.5, abs=0.05)
    assert fit.verdict.trust == "good"
    assert [mode.weight for mode in fit.verdict.modes] == pytest.approx([0.7, 0.3], abs=0.01)
    assert "2 modes combined by their shares of the evidence: 70%, 30%" in fit.verdict.line
    assert fit.at(0).verdict.trust == "poor"
    points = fit.log_predictive({"y": np.zeros(1)}, 100)
    assert points.item() == pytest.approx(-0.5 * math.log(2 * math.pi))
    assert fit.summary()["a"]["mc_error"] is None


def test_data_sets_of_their_own_are_judged_alone() -> None:
    """The second set has a lower evidence by far, and no replicate of the first set says anything of it."""
    fit = vi_core.fit(Location(), {"y": np.stack([Y, Y + 20])}, replicates=2, per_replicate=["y"])
    for replicate in (0, 1):
        verdict = fit.at(replicate).verdict
        assert (verdict.trust, verdict.agreement) == ("good", None)


@pytest.mark.parametrize(
    ("k_hat", "ess", "words"),
    [
        (0.3, 900.0, "k-hat 0.30, 22% effective; weighted averages are reliable"),
        (0.6, 900.0, "many more draws"),
        (0.9, 900.0, "q misses part"),
        (0.9, 3900.0, "k-hat does not matter"),
    ],
)
def test_weights_come_with_advice(k_hat: float, ess: float, words: str) -> None:
    (line,) = weights_line({"trust": "good", "k_hat": k_hat, "ess": ess, "draws": 4000})
    assert words in line


def test_fits_without_a_verdict_have_no_weights() -> None:
    assert weights_line({}) == weights_line({"trust": None, "line": "information"}) == []

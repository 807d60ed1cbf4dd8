"""The replay of report 001's random calls: data, start and draws, against the calls as the report has them."""

from typing import Any

import pytest
import torch

from vi_core.problem import default_dtype
from vi_core.studies import report_001_tables
from vi_core.studies.report_001_tables import NUM_SAMPLES, Replay, Report001Tables


def as_written() -> tuple[list[float], list[tuple[float, float]]]:
    """Start, and the draws (mu, tau) of the first step, by the report's calls on the default stream."""
    with torch.random.fork_rng(), default_dtype(torch.float32):
        torch.manual_seed(10)
        normal: Any = torch.normal  # whose stubs know no tensor with a size
        normal(1, 1 / torch.sqrt(torch.tensor(0.5)), size=(100,))
        start = [torch.randn(1).item()]
        start += [torch.rand(1).item() * width + low for width, low in ((2, 0.5), (3, 1.0), (3, 0.5))]
        loc, ratio, a, b = map(torch.tensor, start)
        draws = []
        for _ in range(NUM_SAMPLES):
            tau = torch.distributions.Gamma(a, b).sample()
            mu = torch.distributions.Normal(loc, 1 / torch.sqrt(ratio * tau)).sample()
            draws.append((mu.item(), tau.item()))
    return start, draws


def first_draws() -> torch.Tensor:
    """(S, 2), of replicate 0."""
    with default_dtype(torch.float32):
        replay, empty = Replay(2), {name: torch.zeros(NUM_SAMPLES, 2, 1) for name in ("mu", "tau")}
        z = replay.draw(replay.start, empty)
    return torch.stack([z["mu"][:, 0, 0], z["tau"][:, 0, 0]], dim=1)


def test_start_and_draws_are_those_of_the_report() -> None:
    """To float32; the start to the digits that the experiment bbvi_structured has."""
    start, draws = as_written()
    assert start == pytest.approx([1.481584, 2.354285, 3.022350, 0.874788], abs=1e-6)
    assert torch.allclose(first_draws(), torch.tensor(draws, dtype=torch.float32), rtol=1e-5)


def test_another_seed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_001_tables, "SEED", 11)
    assert not torch.allclose(first_draws(), torch.tensor(as_written()[1], dtype=torch.float32), rtol=1e-2)


def test_the_replay_does_not_depend_on_the_other_streams() -> None:
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found = Report001Tables(replicates=2, steps=3, every=1).run().quantities
        ends.append((found["table_1_mu"].value, found["table_2_mu"].value, found["table_1_mu_band"].value))
    assert ends[0][:2] == ends[1][:2]
    assert ends[0][2] != ends[1][2]

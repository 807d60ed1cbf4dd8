"""The plane of two latents: its axes are those whose posterior means vary most, and its points are those means."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from experiments.results.latents import plane
from tests.conftest import CommandLine, summary_of
from vi_core.datasets.digits import Digits
from vi_core.errors import DataError
from vi_core.models.autoencoders.vae import VAE


class Stretching:
    """q(z | x) whose mean is the first five pixels of an image, times a factor for each."""

    factors = torch.tensor([0.1, 3.0, 0.2, 0.5, 2.0])

    def variational(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 26:31] * self.factors

    def distribution(self, means: torch.Tensor) -> Any:
        return SimpleNamespace(moments=lambda: {"z": (means[None], torch.ones_like(means)[None])})


def problem_of(dataset: Digits, latents: int = 5) -> Any:
    return SimpleNamespace(model=VAE(64, latent_dim=latents), family=Stretching(), data=dataset.load())


def test_the_two_latents_of_the_largest_variance_are_kept() -> None:
    dataset = Digits(binarization="none")
    found, problem = plane(problem_of(dataset), dataset), problem_of(dataset)
    assert found is not None
    means = (problem.data.test[:, 26:31] / 16 * Stretching.factors).double().numpy()
    widest = sorted(np.argsort(means.var(axis=0))[-2:].tolist())
    assert found.names == tuple(f"z[{place}]" for place in widest)
    np.testing.assert_allclose(found.points, means[:, widest], rtol=1e-6)
    assert (found.total, found.held_out, found.classes) == (5, True, dataset.classes())


def test_drawn_pixels_repeat_and_leave_the_stream() -> None:
    dataset = Digits(binarization="dynamic")
    first, second = (plane(problem_of(dataset), dataset) for _ in range(2))
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.points, second.points)
    problem, before = problem_of(dataset), torch.get_rng_state()
    plane(problem, dataset)
    assert torch.equal(torch.get_rng_state(), before)


def test_there_is_no_plane_without_two_latents_or_without_classes(caplog: Any) -> None:
    dataset, problem = Digits(), problem_of(Digits())
    assert plane(problem_of(dataset, latents=1), dataset) is None

    class Gone(Digits):
        def classes(self) -> list[str]:
            raise DataError("the labels are gone.")

    class Unknown(Digits):
        def classes(self) -> list[str] | None:  # type: ignore[override]
            return None

    assert plane(problem, Unknown()) is None
    assert plane(problem, Gone()) is None
    assert "the labels are gone" in caplog.text


@pytest.mark.slow
def test_training_does_not_depend_on_classes(cli: CommandLine, tmp_path: Any, monkeypatch: Any) -> None:
    """Without figures they are never read; with figures the numbers are the same."""
    short = ("experiment=vae_digits", "trainer=smoke", "trainer.execution=eager", "threads=1")
    assert cli(*short, "plot.only=[latents]", "hydra.run.dir=drawn").code == 0
    assert [path.name for path in (tmp_path / "drawn" / "plots").iterdir()] == ["latents.png"]
    monkeypatch.setattr(Digits, "classes", None)
    assert cli(*short, "plot.enabled=false", "hydra.run.dir=plain").code == 0
    drawn, plain = (summary_of(tmp_path / name) for name in ("drawn", "plain"))
    assert drawn["final"] == plain["final"]

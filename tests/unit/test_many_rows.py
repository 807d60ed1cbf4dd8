"""Fits by minibatches: the control variate, starts and weights from some of the rows, against exact regressions.

The slow test fits a million rows; its numbers are printed by `pytest -s -m slow tests/unit/test_many_rows.py`.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vi_core
import vi_core.fits.trust
import vi_core.problem
from vi_core.algorithms import whitening
from vi_core.algorithms.anchor import Anchored
from vi_core.algorithms.gradient import GradientStep
from vi_core.algorithms.whitening import Density
from vi_core.fits.fitted import Fit
from vi_core.models.bayesian.regression import LinearRegression, LogisticRegression, Regression

N, BATCH = 2000, 100


def rows(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw predictors and their linear predictor."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, size))
    return x, 0.5 + x @ (0.3 * rng.standard_normal(size))


def few() -> dict[str, np.ndarray]:
    x, eta = rows(N, 3)
    return {"x": x, "y": eta + np.random.default_rng(1).standard_normal(N)}


@pytest.fixture(scope="module")
def fit() -> Fit:
    """Of few rows, of which start and weights see a tenth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vi_core.problem, "ROWS", 200)
        patch.setattr(vi_core.problem, "ROWS_EACH", 1)
        patch.setattr(vi_core.fits.trust, "ROWS", 200)
        patch.setattr(vi_core.fits.trust, "ROWS_SQUARED", 1)
        return vi_core.fit(LinearRegression(sigma=1.0), few(), batch_size=BATCH, replicates=2, steps=125)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Laws that a model makes of plain numbers are float64 here as in a fit."""
    with vi_core.problem.default_dtype(torch.float64):
        yield


def anchor_of(fit: Fit) -> Anchored:
    step = fit.problem.step
    assert isinstance(step, GradientStep) and step.anchor is not None
    return step.anchor


def scored(fit: Fit, means: Tensor, deviations: Tensor) -> Tensor:
    """Return errors of the means of alpha and beta in posterior deviations, (R, 1 + P), above the sd ratios."""
    moments = fit.q.moments()
    mean, sd = (torch.cat([moments["alpha"][i][..., None], moments["beta"][i]], dim=-1)[:, 0].cpu() for i in (0, 1))
    return torch.stack([(mean - means) / deviations, sd / deviations])


def exact(model: LinearRegression, data: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    found = model.exact({name: torch.from_numpy(value) for name, value in data.items()})
    names = ["alpha", *(f"beta[{i}]" for i in range(data["x"].shape[1]))]
    means, deviations = (torch.tensor([found[name + end] for name in names]) for end in ("", ".std"))
    return means, deviations


def test_batches_with_the_control_variate_average_to_all_data(fit: Fit) -> None:
    """Exactly, value and gradient, at any latents; and at the origin every batch has those of all data."""
    anchor, model, batches = anchor_of(fit), fit.model, fit.problem.batches
    z = {name: (value + 0.1).detach().requires_grad_() for name, value in fit.q.sample(3).items()}
    whole = model.log_joint(z, batches.whole(model))
    each = torch.stack([anchor.log_joint(z, x) for x, _ in batches.blocks(BATCH)])
    torch.testing.assert_close(each.mean(dim=0), whole, rtol=1e-12, atol=0)
    found, wanted = (torch.autograd.grad(value.sum(), list(z.values())) for value in (each.mean(dim=0), whole))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    family = fit.problem.family
    origin = family.point(family.origin.unsqueeze(0))[0]  # type: ignore[operator]
    at_origin = torch.stack([anchor.log_joint(origin, x) for x, _ in batches.blocks(BATCH)])
    torch.testing.assert_close(at_origin, anchor.value.expand_as(at_origin), rtol=1e-12, atol=0)


def test_the_control_variate_removes_the_noise_of_batches(fit: Fit) -> None:
    """At draws of q the gradients of a batch vary by less than a tenth of what they vary by without it."""
    anchor, model, batches = anchor_of(fit), fit.model, fit.problem.batches
    z = {name: value.detach().requires_grad_() for name, value in fit.q.sample(8).items()}

    def spread(target: vi_core.problem.Model) -> Tensor:
        slopes = [torch.autograd.grad(target.log_joint(z, x).sum(), z["beta"])[0] for x, _ in batches.blocks(BATCH)]
        return torch.stack(slopes).std(dim=0).mean()

    assert spread(anchor) < 0.1 * spread(model)


def test_the_origin_is_the_mode_of_all_rows(fit: Fit) -> None:
    """A start from a tenth of the rows is some three deviations off; the origin is not."""
    model = fit.model
    assert isinstance(model, LinearRegression)
    means, deviations = exact(model, few())
    origin = fit.problem.family.origin[:, 0]  # type: ignore[index]
    assert isinstance(origin, Tensor)
    assert float(((origin - means) / deviations).abs().max()) < 1e-3
    off, ratio = scored(fit, means, deviations)
    assert float(off.abs().max()) < 0.1 and float(ratio.log().abs().max()) < 0.1


def test_weights_from_some_rows_are_those_of_all(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ELBO is that of all rows within the error of a tenth of them, and so is the gap to the evidence."""
    monkeypatch.setattr(vi_core.fits.trust, "ROWS", 200)
    monkeypatch.setattr(vi_core.fits.trust, "ROWS_SQUARED", 1)
    assert vi_core.fits.trust.rows_for(fit.problem) == 200
    some = vi_core.fits.trust.weigh(fit.problem, 1000).log_w
    monkeypatch.setattr(vi_core.fits.trust, "ROWS", N)
    whole = vi_core.fits.trust.weigh(fit.problem, 1000).log_w
    torch.testing.assert_close(some.mean(dim=0), whole.mean(dim=0), rtol=0, atol=0.5)
    assert float((some.std(dim=0) - whole.std(dim=0)).max()) < 0.5
    assert fit.verdict.trust == "good"


def test_a_density_in_pieces_is_the_density(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    data, u = {"y": torch.randn(30)}, torch.randn(7, 1, requires_grad=True)

    def f(x: dict[str, Tensor], u: Tensor) -> Tensor:
        return -(x["y"] - u.sin()).square().mean(dim=-1)

    def blocks() -> list[tuple[dict[str, Tensor], float]]:
        return [({"y": part}, len(part) / 30) for part in data["y"].split(12)]

    monkeypatch.setattr(whitening, "DENSITIES", 24)
    found, wanted = Density(f, blocks)(u), f(data, u)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad((v * v).sum(), u)[0] for v in (found, wanted)))
    with torch.no_grad():
        torch.testing.assert_close(Density(f, blocks)(u), wanted)


def test_a_random_start_has_no_anchor() -> None:
    found = vi_core.fit(LinearRegression(sigma=1.0), few(), batch_size=BATCH, start="random", steps=5, replicates=1)
    assert isinstance(found.problem.step, GradientStep) and found.problem.step.anchor is None


# --- a million rows -------------------------------------------------------------------------------------------------


def maximum(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return mode and deviations of a logistic regression by Newton's method; of many rows those of the posterior."""
    design, prior = np.c_[np.ones(len(x)), x], np.r_[0.01, np.full(x.shape[1], 0.16)]
    mode, hessian = np.zeros(design.shape[1]), np.eye(design.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-design @ mode))
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + np.diag(prior)
        mode = mode + np.linalg.solve(hessian, design.T @ (y - p) - prior * mode)
    return torch.from_numpy(mode), torch.from_numpy(np.sqrt(np.linalg.inv(hessian).diagonal()))


def memory(what: str) -> float:
    """Return a line of the process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_a_million_rows(kind: str, seed: int) -> None:
    x, eta = rows(1_000_000, 20, seed)
    rng = np.random.default_rng(seed + 10)
    y = eta + rng.standard_normal(len(x)) if kind == "linear" else (rng.random(len(x)) < 1 / (1 + np.exp(-eta))) * 1.0
    model: Regression = LinearRegression(sigma=1.0) if kind == "linear" else LogisticRegression()
    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.perf_counter()
    fit = vi_core.fit(model, {"x": x, "y": y}, batch_size=1000, seed=seed)
    seconds, peak = time.perf_counter() - began, memory("VmHWM") - before
    answer = exact(model, {"x": x, "y": y}) if isinstance(model, LinearRegression) else maximum(x, y)
    off, ratio = scored(fit, *answer)
    shown = f"means off by {off.abs().max():.3f} sd, sd ratio {ratio.min():.3f} to {ratio.max():.3f}"
    print(f"\n{kind}, seed {seed}: {shown}; {peak:.0f} MiB above the data, {seconds:.0f} s, {fit.run.loop.done} steps")
    assert float(off.abs().max()) < 0.1
    assert float(ratio.min()) > 0.95 and float(ratio.max()) < 1.05
    assert peak < 1024
    assert fit.verdict.trust == "good"

"""Learning rates in stages, and Adam with an average of squares that does not begin at zero."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.test_optimizers import RATES, STEPS, Reference, advance, gradients_at, start
from vi_core.errors import LabError
from vi_core.optimizers.adam import Adam
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.schedules import Staged
from vi_core.optimizers.sgd import SGD, AdaGrad

IMAGES = 20
"""Of a minibatch of Burda et al., over which their gradient is a sum, and the library's a mean."""


def test_the_published_stages() -> None:
    """1, 3, 9, ..., 2187 epochs at 1e-3 · 10^(−(i−1)/7): 3,280 in all, and the last rate stays."""
    steps_per_epoch = 10
    epochs, rates = [3**i for i in range(8)], [1e-3 * 10 ** (-i / 7) for i in range(8)]
    assert sum(epochs) == 3280
    expected = np.repeat(rates, np.array(epochs) * steps_per_epoch)
    schedule = Staged(steps_per_epoch)
    found = 1e-3 * schedule.factor(torch.arange(3280 * steps_per_epoch))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert schedule.factor(torch.tensor(10**9)).item() == pytest.approx(0.1)


def test_stages_that_are_no_whole_epochs() -> None:
    """Of 0.25, 0.5 and 1 epochs of 10 steps: the ends 2.5 and 7.5 are rounded to even, 2 and 8."""
    schedule = Staged(10, stages=3, first=0.25, growth=2.0, final=0.01)
    found = [schedule.next().item() for _ in range(12)]
    assert found == pytest.approx([1.0] * 2 + [0.1] * 6 + [0.01] * 4)


def staged() -> Staged:
    """Three stages that end within `STEPS` steps."""
    return Staged(5, stages=3, first=1.0, growth=3.0, final=0.04)


def factor(step: int) -> float:
    return 1.0 if step < 5 else 0.2 if step < 20 else 0.04


RULES: dict[str, tuple[type[SGD] | type[Adam] | type[AdaGrad], Reference]] = {
    "sgd": (SGD, lambda p, lr: torch.optim.SGD(p, lr=lr, maximize=True)),
    "adam": (Adam, lambda p, lr: torch.optim.Adam(p, lr=lr, maximize=True)),
    "adagrad": (AdaGrad, lambda p, lr: torch.optim.Adagrad(p, lr=lr, maximize=True)),
}


def discrepancy(name: str, rates: list[float], reference_factor: float = 1.0) -> float:
    """Largest difference from torch.optim under its own scheduler, which runs each replicate alone."""
    kind, reference = RULES[name]
    ours, worst = start(len(rates)), 0.0
    theirs = [[p[r].clone().requires_grad_() for p in ours] for r in range(len(rates))]
    optimizer = kind(lr=rates if len(rates) > 1 else rates[0], schedule=staged())
    optimizer.bind(ours, len(rates))
    alone = [reference(list(p), lr * reference_factor) for p, lr in zip(theirs, rates, strict=True)]
    schedulers = [torch.optim.lr_scheduler.LambdaLR(one, factor) for one in alone]
    for step in range(STEPS):
        for i, gradient in enumerate(gradients_at(step, ours)):
            for r in range(len(rates)):
                theirs[r][i].grad = gradient[r].clone()
        for one, scheduler in zip(alone, schedulers, strict=True):
            one.step()
            scheduler.step()
        advance(optimizer, ours, range(step, step + 1))
        moved = [torch.stack([theirs[r][i].detach() for r in range(len(rates))]) for i in range(len(ours))]
        worst = max(worst, *(float((a - b).abs().max()) for a, b in zip(ours, moved, strict=True)))
    return worst


@pytest.mark.parametrize("rates", [RATES[:1], RATES], ids=["one", "three"])
@pytest.mark.parametrize("name", RULES)
def test_every_step_is_that_of_torch(name: str, rates: list[float]) -> None:
    """A rate off by a thousandth is seen."""
    assert discrepancy(name, rates) < 1e-10
    assert discrepancy(name, rates, 1.001) > 1e-4


@pytest.mark.parametrize("name", RULES)
def test_state_resumes_within_a_stage_and_at_its_end(name: str) -> None:
    kind, _ = RULES[name]
    for stop in (5, 12, 20):
        straight, resumed = start(1), start(1)
        first, second, whole = (kind(lr=0.1, schedule=staged()) for _ in range(3))
        for optimizer, parameters in ((whole, straight), (first, resumed), (second, resumed)):
            optimizer.bind(parameters, 1)
        advance(whole, straight, range(30))
        advance(first, resumed, range(stop))
        second.load_state_dict(first.state_dict())
        advance(second, resumed, range(stop, 30))
        assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


@pytest.mark.parametrize(
    ("setting", "value"), [("stages", 1), ("first", 0.0), ("growth", -1.0), ("final", float("inf"))]
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(LabError, match=rf"optimizer\.schedule\.{setting}"):
        Staged(**{setting: value})  # pyright: ignore[reportArgumentType]


# --- Adam as Burda et al. have it -----------------------------------------------------------------------------------


def published(parameters: list[Tensor], steps: int, lr: float) -> list[Tensor]:
    """The rule with sums over images: v from one, eps = 1e-4 beside an uncorrected root, the correction in the rate."""
    moved, means = [p.clone() for p in parameters], [torch.zeros_like(p) for p in parameters]
    squares = [torch.ones_like(p) for p in parameters]
    for step in range(steps):
        rate = lr * (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.99 ** (step + 1))
        for i, g in enumerate(gradients_at(step, parameters)):
            total = IMAGES * g
            means[i] = 0.99 * means[i] + 0.01 * total
            squares[i] = 0.999 * squares[i] + 0.001 * total**2
            moved[i] += rate * means[i] / (squares[i].sqrt() + 1e-4)
    return moved


def distance(*, eps: float, initial_square: float = 0.0, steps: int = 300) -> float:
    """The largest difference from the published rule, as a share of the largest way gone."""
    ours = start(1)
    optimizer = Adam(lr=1e-2, beta1=0.99, eps=eps, initial_square=initial_square)
    optimizer.bind(ours, 1)
    advance(optimizer, ours, range(steps))
    theirs = published(start(1), steps, 1e-2)
    way = max(float((a - b).abs().max()) for a, b in zip(theirs, start(1), strict=True))
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) / way


def test_adam_of_the_published_code() -> None:
    """With gradients averaged over images. eps is divided by a corrected root here: less than 1e-4 of any step."""
    assert distance(eps=1e-4 / IMAGES, initial_square=1 / IMAGES**2) < 1e-4
    assert distance(eps=1e-4 / IMAGES) > 0.1
    assert distance(eps=1e-4, initial_square=1.0) > 0.1


def test_initial_square_is_state_of_every_replicate() -> None:
    optimizer: Optimizer = Adam(initial_square=0.25)
    optimizer.bind(start(3), 3)
    assert all(bool((square == 0.25).all()) for square in optimizer.states("square", 2))
    with pytest.raises(LabError, match=r"optimizer\.initial_square=-1"):
        Adam(initial_square=-1.0)

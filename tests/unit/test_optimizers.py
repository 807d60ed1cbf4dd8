"""Optimizers step by step against torch.optim, for one replicate and for several with a learning rate each."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from tests import fakes
from vi_core.errors import LabError
from vi_core.optimizers.adam import Adam
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.sgd import SGD, AdaGrad, RobbinsMonro
from vi_core.per_replicate import PerReplicate

STEPS = 50
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]

Rule = Callable[[PerReplicate], Optimizer]
Reference = Callable[[list[Tensor], float], torch.optim.Optimizer]

RULES: dict[str, tuple[Rule, Reference]] = {
    "sgd": (lambda lr: SGD(lr=lr), lambda p, lr: torch.optim.SGD(p, lr=lr, maximize=True)),
    "adam": (lambda lr: Adam(lr=lr), lambda p, lr: torch.optim.Adam(p, lr=lr, maximize=True)),
    "adam, other settings": (
        lambda lr: Adam(lr=lr, beta1=0.5, beta2=0.9, eps=1e-2),
        lambda p, lr: torch.optim.Adam(p, lr=lr, betas=(0.5, 0.9), eps=1e-2, maximize=True),
    ),
    "adagrad": (lambda lr: AdaGrad(lr=lr), lambda p, lr: torch.optim.Adagrad(p, lr=lr, maximize=True)),
    "adagrad, other settings": (
        lambda lr: AdaGrad(lr=lr, eps=1e-2),
        lambda p, lr: torch.optim.Adagrad(p, lr=lr, eps=1e-2, maximize=True),
    ),
}
BROKEN: dict[str, tuple[Rule, Reference]] = {
    "descent": (lambda lr: fakes.Descent(lr=lr), RULES["sgd"][1]),
    "uncorrected adam": (lambda lr: fakes.UncorrectedAdam(lr=lr), RULES["adam"][1]),
    "eps under the root": (lambda lr: fakes.EpsUnderTheRoot(lr=lr), RULES["adagrad, other settings"][1]),
}
RATES = [0.1, 0.003, 1.0]


def start(replicates: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    """Two parameters with R as their first axis: a packed one and a matrix."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(replicates, 1, 4), (replicates, 2, 3)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape in shapes]


def gradients_at(step: int, like: Sequence[Tensor]) -> list[Tensor]:
    """Noisy gradients of different sizes, the same for both programs."""
    generator = torch.Generator().manual_seed(1000 + step)
    noise = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in like]
    return [10.0 ** (i - 1) * value for i, value in enumerate(noise)]


def advance(optimizer: Optimizer, parameters: list[Tensor], steps: range, alive: Tensor | None = None) -> None:
    """Take steps with the library's optimizer, in place."""
    alive = torch.ones(len(parameters[0]), dtype=torch.bool) if alive is None else alive
    for step in steps:
        optimizer(parameters, gradients_at(step, parameters), alive.to(parameters[0].device))


def path_discrepancy(rule: Rule, reference: Reference, replicates: int, rates: list[float], device: str) -> float:
    """Largest difference from torch.optim on the way, which runs each replicate alone at its own rate."""
    ours = start(replicates, device=device)
    theirs = [[p[r].clone().requires_grad_() for p in ours] for r in range(replicates)]
    optimizer = rule(rates if len(rates) > 1 else rates[0])
    optimizer.bind(ours, replicates)
    alone = [reference(list(p), rates[r % len(rates)]) for r, p in enumerate(theirs)]
    worst = 0.0
    for step in range(STEPS):
        for i, gradient in enumerate(gradients_at(step, ours)):
            for r in range(replicates):
                theirs[r][i].grad = gradient[r].clone()
        for one in alone:
            one.step()
        advance(optimizer, ours, range(step, step + 1))
        moved = [torch.stack([theirs[r][i].detach() for r in range(replicates)]) for i in range(len(ours))]
        worst = max(worst, *(float((a - b).abs().max()) for a, b in zip(ours, moved, strict=True)))
    return worst


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("replicates", "rates"), [(1, RATES[:1]), (3, RATES[:1]), (3, RATES)])
@pytest.mark.parametrize("name", RULES)
def test_every_step_is_that_of_torch(name: str, replicates: int, rates: list[float], device: str) -> None:
    assert path_discrepancy(*RULES[name], replicates, rates, device) < (1e-10 if device == "cpu" else 1e-6)


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_rules_are_caught(name: str) -> None:
    assert path_discrepancy(*BROKEN[name], 3, RATES, "cpu") > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", DEVICES)
def test_adam_in_every_dtype(device: str, default: torch.dtype, dtype: torch.dtype) -> None:
    """Also where torch's default dtype is the other one, as a job may set it: one replicate is as one of three."""
    torch.set_default_dtype(default)
    three = start(3, dtype, device)
    one = [p[:1].clone() for p in three]
    for parameters in (one, three):
        optimizer = Adam(lr=0.1)
        optimizer.bind(parameters, len(parameters[0]))
        for step in range(10):
            slopes = [g[: len(parameters[0])] for g in gradients_at(step, three)]
            optimizer(parameters, slopes, torch.ones(len(parameters[0]), dtype=torch.bool, device=device))
    for a, b, before in zip(one, three, start(3, dtype, device), strict=True):
        torch.testing.assert_close(a, b[:1], rtol=1e-5, atol=1e-6)
        assert 0.1 < float((b - before).abs().max()) < 1.1


@pytest.mark.parametrize(("lr", "offset", "power"), [(1.0, 1000.0, 1.0), (0.3, 0.0, 0.6)])
def test_robbins_monro(lr: float, offset: float, power: float) -> None:
    """λ_T = λ_0 + Σ_t lr/(offset + t)^power g_t, with t = 1 at the first step."""
    moved, expected = start(3), start(3)
    optimizer = RobbinsMonro(lr=lr, offset=offset, power=power)
    optimizer.bind(moved, 3)
    advance(optimizer, moved, range(STEPS))
    for step in range(STEPS):
        for parameter, gradient in zip(expected, gradients_at(step, expected), strict=True):
            parameter += lr / (offset + step + 1) ** power * gradient
    for a, b in zip(moved, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_robbins_monro_has_a_rate_for_each_replicate() -> None:
    together = start(3)
    optimizer = RobbinsMonro(lr=RATES)
    optimizer.bind(together, 3)
    advance(optimizer, together, range(1))
    for r, lr in enumerate(RATES):
        step = together[0][r] - start(3)[0][r]
        torch.testing.assert_close(step, lr / 1001 * gradients_at(0, together)[0][r])


# --- contract -------------------------------------------------------------------------------------------------------

EVERY: dict[str, Rule] = {name: rule for name, (rule, _) in RULES.items()} | {
    "robbins_monro": lambda lr: RobbinsMonro(lr=lr)
}


@pytest.mark.parametrize("name", EVERY)
def test_rates_must_be_as_many_as_the_replicates(name: str) -> None:
    with pytest.raises(LabError, match=r"optimizer\.lr has 2 values for replicates=3"):
        EVERY[name]([0.1, 0.2]).bind(start(3), 3)


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf"), [0.1, -0.1]])
@pytest.mark.parametrize("name", EVERY)
def test_rates_must_be_positive(name: str, lr: PerReplicate) -> None:
    with pytest.raises(LabError, match=r"optimizer\.lr"):
        EVERY[name](lr)


@pytest.mark.parametrize("power", [0.5, 1.1])
def test_robbins_monro_refuses_steps_that_do_not_converge(power: float) -> None:
    with pytest.raises(LabError, match=r"optimizer\.power"):
        RobbinsMonro(power=power)


@pytest.mark.parametrize("replicates", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_state_round_trip_continues_identically(name: str, replicates: int) -> None:
    """A new optimizer that loads the state after 20 steps takes the next 20 bit for bit."""
    parameters = start(replicates)
    optimizer = EVERY[name](0.05)
    optimizer.bind(parameters, replicates)
    advance(optimizer, parameters, range(20))
    resumed_parameters = [p.clone() for p in parameters]
    state = copy.deepcopy(optimizer.state_dict())
    advance(optimizer, parameters, range(20, 40))

    resumed = EVERY[name](0.05)
    resumed.bind(resumed_parameters, replicates)
    forgotten = [p.clone() for p in resumed_parameters]
    resumed.load_state_dict(state)
    advance(resumed, resumed_parameters, range(20, 40))
    assert all(torch.equal(a, b) for a, b in zip(parameters, resumed_parameters, strict=True))

    fresh = EVERY[name](0.05)
    fresh.bind(forgotten, replicates)
    advance(fresh, forgotten, range(20, 40))
    same = all(torch.equal(a, b) for a, b in zip(parameters, forgotten, strict=True))
    assert same == (name == "sgd")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("replicates", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_dead_replicates_stay(name: str, replicates: int, device: str) -> None:
    """Bit for bit, whatever their gradients are, while the others move as if all were alive."""
    parameters, undisturbed = start(replicates, device=device), start(replicates, device=device)
    alive = torch.ones(replicates, dtype=torch.bool, device=device)
    alive[0] = False
    optimizer, other = EVERY[name](0.1), EVERY[name](0.1)
    optimizer.bind(parameters, replicates)
    other.bind(undisturbed, replicates)
    for step in range(10):
        gradients = gradients_at(step, parameters)
        other(undisturbed, gradients, torch.ones_like(alive))
        spoiled = [g.clone() for g in gradients]
        for g in spoiled:
            g[0] = torch.tensor([float("nan"), float("inf"), 1e300])[step % 3]
        optimizer(parameters, spoiled, alive)
    for now, before, free in zip(parameters, start(replicates, device=device), undisturbed, strict=True):
        assert torch.equal(now[0], before[0])
        assert torch.equal(now[1:], free[1:])


def test_a_rule_that_moves_the_dead_is_caught() -> None:
    parameters = start(3)
    optimizer = fakes.Unmasked(lr=0.1)
    optimizer.bind(parameters, 3)
    advance(optimizer, parameters, range(1), torch.tensor([False, True, True]))
    assert not torch.equal(parameters[0][0], start(3)[0][0])

"""Common subexpressions of recorded operations are computed once, and nothing else changes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vi_core.execution.replay import interpreted, record
from vi_core.execution.subexpressions import eliminate_common


def counted(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[int, int]:
    """Operations before and after; the results and the changed inputs are asserted to be those of the function."""
    with torch.no_grad():
        graph, constants = record(function, [value.clone() for value in inputs])
        fewer = eliminate_common(graph)
        old, new = ([value.clone() for value in inputs] for _ in range(2))
        torch.manual_seed(0)
        expected = function(*old)
        torch.manual_seed(0)
        found = interpreted(fewer, constants)(*new)
    for one, other in zip([*expected, *old], [*found, *new], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    before, after = (sum(node.op == "call_function" for node in each.nodes) for each in (graph, fewer))
    return before, after


X = torch.tensor([0.5, -2.0, 3.0])


def twice(x: Tensor) -> tuple[Tensor, ...]:
    return (x.exp() + x.exp(),)


def changed_between(x: Tensor) -> tuple[Tensor, ...]:
    first = x.exp()
    x.add_(1)
    return (first + x.exp(),)


def changed_result(x: Tensor) -> tuple[Tensor, ...]:
    first, second = x.exp(), x.exp()
    first.mul_(2)
    return (first + second,)


def changed_view(x: Tensor) -> tuple[Tensor, ...]:
    first, second = x.exp(), x.exp()
    second[1:].zero_()
    return (first + second,)


def random(x: Tensor) -> tuple[Tensor, ...]:
    return (torch.randn(3) + torch.randn(3), torch.poisson(x.abs()) + torch.poisson(x.abs()))


def views(x: Tensor) -> tuple[Tensor, ...]:
    one, other = x[1:], x[1:]
    before = one.exp()
    one.add_(1)
    return (before + other.exp(),)


def one(x: Tensor) -> tuple[Tensor, ...]:
    return (x.pow(1.0) * 1.0 + 2,)


def one_of_integers(x: Tensor) -> tuple[Tensor, ...]:
    return (x.long() * 1.0,)


def copy_of_changed(x: Tensor) -> tuple[Tensor, ...]:
    kept = x * 1.0
    x.add_(1)
    return (kept,)


def signs_of_zero(x: Tensor) -> tuple[Tensor, ...]:
    return (x.clamp_max(0.0).mul(0.0), x.clamp_max(-0.0).mul(-0.0), x.sign() * 1, x.sign() * True)


@pytest.mark.parametrize(
    ("function", "saved"),
    [
        (twice, 1),
        (changed_between, 0),
        (changed_result, 0),
        (changed_view, 0),
        (random, 1),  # one |x|
        (views, 1),  # the second view of x, which shows the change
        (one, 2),
        (one_of_integers, 0),
        (copy_of_changed, 0),
        (signs_of_zero, 3),  # one of two signs, and its two copies
    ],
)
def test_operations_saved(function: Callable[..., tuple[Tensor, ...]], saved: int):
    before, after = counted(function, X)
    assert before - after == saved

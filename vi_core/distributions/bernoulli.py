"""The log likelihood of many Bernoulli variables, with one logarithm for sixteen of them.

With logits η and m = 1/(1 + e^−η),

    log p(y) = y η − max(η, 0) + log max(m, 1 − m).

The numbers in the last logarithm lie in [½, 1], so that a product of sixteen is a float of any width, and its logarithm
stands for sixteen. With one logarithm for each number a step of a logistic regression in machine code took 73 µs and a
replayed one 106, where they take 51 and 96 (docs/speed.md). The slope in η is y − m.
"""

from typing import Any

import torch
from torch import Tensor

GROUP = 16


def sum_of_log_densities(logits: Tensor, y: Tensor) -> Tensor:
    """Return Σ_n log p(y_n), (*batch), in nats.

    Args:
        logits: η, (*batch, N).
        y: Zeros and ones, of a shape that broadcasts to that of the logits.
    """
    return _Sum.apply(logits, y)[0]  # type: ignore[index]


def _sum_of_logs(values: Tensor) -> Tensor:
    """Return Σ_n log v_n, (*batch), of v in [½, 1], (*batch, N)."""
    whole = values.shape[-1] // GROUP * GROUP
    products = values[..., :whole].unflatten(-1, (GROUP, -1)).prod(dim=-2)
    return products.log().sum(dim=-1) + values[..., whole:].log().sum(dim=-1)


class _Sum(torch.autograd.Function):
    """Σ_n log p(y_n) and the means m, as functions of the logits, with derivatives of any order."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        mean = logits.sigmoid()
        linear = (y * logits - logits.clamp_min(0)).sum(dim=-1)
        ctx.save_for_backward(y, mean)
        ctx.set_materialize_grads(False)
        return linear + _sum_of_logs(torch.maximum(mean, 1 - mean)), mean

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (of_sum, of_mean), (y, mean) = grad_outputs, ctx.saved_tensors
        slope = None if of_sum is None else of_sum.unsqueeze(-1) * (y - mean)
        if of_mean is not None:  # where the slope is differentiated
            curved = of_mean * mean * (1 - mean)
            slope = curved if slope is None else slope + curved
        return slope, None

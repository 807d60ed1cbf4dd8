"""The log-density of independent Bernoulli pixels, summed over an image, from logits.

    log p(x | l) = Σ_d (x_d l_d − log(1 + e^{l_d})),    ∂ log p/∂l_d = x_d − sigmoid(l_d).

Automatic differentiation of the first line passes over the logits a dozen times, which costs a third of a step of an
importance-weighted bound with 50 samples. Here the samples are taken one by one, so that each stays in the cache, and
the second line is the backward pass. A compiler is given the first line, whose passes it makes one.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vi_core.tracing import is_tracing


def bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Return log p(x | logits), (K, *batch), for logits (K, *batch, D) and x that broadcasts to (*batch, D)."""
    if is_tracing():
        return (x * logits - F.softplus(logits)).sum(dim=-1)
    return BernoulliLogProb.apply(logits, x)


class BernoulliLogProb(torch.autograd.Function):
    """`apply(logits, x)`: logits (K, *batch, D) and x, with a shape that broadcasts to (*batch, D), to (K, *batch)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        """Return log p(x | logits), (K, *batch)."""
        ctx.save_for_backward(logits, x)
        return torch.stack([(x * sample - F.softplus(sample)).sum(dim=-1) for sample in logits])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return gradient · (x − sigmoid(logits))."""
        (gradient,), (logits, x) = grad_outputs, ctx.saved_tensors
        result = torch.empty_like(logits)
        for sample, weight, slope in zip(logits, gradient.unsqueeze(-1), result, strict=True):
            torch.sigmoid(sample, out=slope)
            slope.neg_().add_(x).mul_(weight)
        return result, None

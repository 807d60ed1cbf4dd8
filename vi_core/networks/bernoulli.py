"""The log-density of independent Bernoulli pixels, summed over an image, from the network that gives their logits.

With the last layer's input h and logits l = W h + b, and m = sigmoid(l),

    log p(x | h) = Σ_d (x_d l_d − log(1 + e^{l_d})),    ∂ log p/∂l = x − m.

Automatic differentiation of the first line passes over all logits a dozen times, which costs a third of a step of an
importance-weighted bound with 50 samples. Here the samples go through the last layer one by one, so that a sample's
logits stay in the cache of the processor and never reach memory; what is kept is r = x − m. With g_k the gradient in
log p(x | h_k), the backward pass is three products, and g multiplies the narrow factors:

    ∂h_k = g_k (Wᵀ r_k),    ∂W = Σ_k r_k (g_k h_k)ᵀ,    ∂b = Σ_k g_k r_k.

The exponential of m serves the logarithm, too: log(1 + e^l) = max(l, 0) − log max(m, 1 − m), without cancellation.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vi_core.execution.recording import is_tracing
from vi_core.networks.mlp import MLP


def log_likelihood(decoder: MLP, z: Tensor, x: Tensor) -> Tensor:
    """Return log p(x | z), (K, *batch), with logits decoder(z).

    Args:
        decoder: Maps to D logits.
        z: Input of the network, (K, *batch, inputs).
        x: Pixels in [0, 1], (..., D), that broadcast with (*batch, D); without gradient.
    """
    hidden, weight, bias = decoder.before_head(z)
    if x.device.type != "cpu" or is_tracing():  # the loop is for a cache, and hides the formula
        logits = F.linear(hidden, weight, bias).to(x.dtype)
        return (x * logits - F.softplus(logits)).sum(dim=-1)
    batch = torch.broadcast_shapes(hidden.shape[1:-1], x.shape[:-1])
    hidden = hidden.expand(len(hidden), *batch, -1)
    return _LogLikelihood.apply(hidden, weight, bias, x, torch.is_grad_enabled())


class _LogLikelihood(torch.autograd.Function):
    """The function above of the last layer; layer in the type of its products, the rest in that of x."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, x: Tensor, differentiable: bool) -> Tensor:
        """Return log p(x | hidden), (K, *batch), for hidden (K, *batch, H)."""
        residuals = hidden.new_empty(*hidden.shape[:-1], len(bias)) if differentiable else None
        values = []
        for index, sample in enumerate(hidden):
            logits = F.linear(sample, weight, bias).to(x.dtype)
            mean = logits.sigmoid()
            if residuals is not None:
                torch.sub(x, mean, out=residuals[index])
            terms = torch.maximum(mean, 1 - mean).log_().addcmul_(x, logits)
            values.append(terms.sub_(logits.clamp_(min=0)).sum(dim=-1))
        ctx.save_for_backward(hidden, weight, residuals)
        return torch.stack(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the three products."""
        (gradient,), (hidden, weight, residuals) = grad_outputs, ctx.saved_tensors
        column = gradient.reshape(-1, 1).to(residuals.dtype)
        rows, inputs = residuals.flatten(0, -2), hidden.flatten(0, -2)
        slope = torch.mm(rows, weight).mul_(column).view_as(hidden)
        return slope, torch.mm(rows.t(), inputs * column), torch.mm(column.t(), rows).squeeze(0), None, None

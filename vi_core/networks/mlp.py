"""Multilayer perceptrons for encoders and decoders, initialised as `torch.nn.Linear` does.

A Normal whose parameters a network computes is N(loc(h), diag scale(h)²), with loc and log scale in its two heads. Its
network is applied to explicit weights, so that a density can be formed for weights that are detached, or for a copy of
them for each sample and data point, as scores need them.

The log-density of independent Bernoulli pixels, summed over an image, comes from the network that gives their logits.

With the last layer's input h and logits l = W h + b, and m = sigmoid(l),

    log p(x | h) = Σ_d (x_d l_d − log(1 + e^{l_d})),    ∂ log p/∂l = x − m.

Automatic differentiation of the first line passes over all logits a dozen times, which costs a third of a step of an
importance-weighted bound with 50 samples. Here the samples go through the last layer one by one, so that a sample's
logits stay in the cache of the processor and never reach memory; what is kept is r = x − m. With g_k the gradient in
log p(x | h_k), the backward pass is three products, and g multiplies the narrow factors:

    ∂h_k = g_k (Wᵀ r_k),    ∂W = Σ_k r_k (g_k h_k)ᵀ,    ∂b = Σ_k g_k r_k.

The exponential of m serves the logarithm, too: log(1 + e^l) = max(l, 0) − log max(m, 1 − m), without cancellation.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vi_core.distributions.normal import Normal
from vi_core.errors import Unsupported, did_you_mean, require
from vi_core.execution.recording import is_tracing

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": partial(nn.LeakyReLU, 0.2, inplace=True),
    "relu": partial(nn.ReLU, inplace=True),
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}
PRODUCTS: dict[str, torch.dtype | None] = {"auto": None, "bfloat16": torch.bfloat16, "tf32": torch.float32}
"""Types of the products, by the name that `matmul` has in a configuration; `auto` is that of the parameters.

With `tf32` a CUDA device rounds what it multiplies to 10 bits; who calls the library switches that on for the process.
"""


class MLP(nn.Module):
    """Linear layers of the given sizes with an activation between them and none after the last.

    Args:
        sizes: Widths from input to output, at least two.
        activation: A key of `ACTIVATIONS`; `leaky_relu` has slope 0.2.
        owner: The part that it belongs to, for messages: `model` or `family`.
    """

    products: torch.dtype | None = None
    """The type in which matrices are multiplied and hidden layers are kept; None is that of the input."""

    def __init__(self, sizes: Sequence[int], activation: str, owner: str):
        super().__init__()
        require(all(size >= 1 for size in sizes), f"{owner}.hidden={list(sizes[1:-1])} must all be at least 1.")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), make_activation(activation, owner)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., sizes[0]) to (..., sizes[-1]), in the type of x."""
        hidden, weight, bias = self.before_head(x)
        return F.linear(hidden, weight, bias).to(x.dtype)

    def before_head(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the last layer multiplies, in the type of the products: its input, weight and bias.

        For x (..., sizes[0]) they have shapes (..., sizes[-2]), (sizes[-1], sizes[-2]) and (sizes[-1],).
        """
        *hidden, head = self.layers
        kind, batch = self.products or x.dtype, x.shape[:-1]
        x = x.to(kind).reshape(-1, x.shape[-1])  # an activation in place of a view would be copied by its gradient
        for layer in hidden:
            x = F.linear(x, layer.weight.to(kind), layer.bias.to(kind)) if isinstance(layer, nn.Linear) else layer(x)
        assert isinstance(head, nn.Linear)
        return x.view(*batch, head.in_features), head.weight.to(kind), head.bias.to(kind)


def make_activation(name: str, owner: str) -> nn.Module:
    """Return an activation by its key in `ACTIVATIONS`; raise for another name, which `owner` was given."""
    known, hint = ", ".join(ACTIVATIONS), did_you_mean(name, ACTIVATIONS)
    require(name in ACTIVATIONS, f"{owner}.activation={name} is not one of {known}.{hint}")
    return ACTIVATIONS[name]()


def multiply_in(products: str, *parts: nn.Module) -> None:
    """Let all networks of `parts` multiply matrices in the type that PRODUCTS names.

    Parameters and their gradients keep their own type. Raises where no network is there, or where float64 was chosen.
    """
    networks = [module for part in parts for module in part.modules() if isinstance(module, MLP)]
    kind = PRODUCTS[products]
    for network in networks:
        network.products = kind
    if kind is None:
        return
    names = " and ".join(type(part).__name__ for part in parts)
    if not networks:
        raise Unsupported(f"matmul={products} is for networks, and {names} have none; use matmul=auto.")
    if next(networks[0].parameters()).dtype == torch.float64:
        raise Unsupported(
            f"matmul={products} spoils the digits that dtype=float64 is chosen for; use dtype=float32, or matmul=auto."
        )


def layer_widths(widths: Sequence[Sequence[int]], layers: int, owner: str) -> list[list[int]]:
    """Return the hidden widths of one network for each of `layers` latents; raise where they are not that."""
    found = [list(hidden) for hidden in widths]
    fits = len(found) == layers and all(width >= 1 for hidden in found for width in hidden)
    require(fits, f"{owner}.widths={found} must be one list for each of {layers} latents, of numbers of at least 1.")
    return found


def normal_from(output: Tensor) -> Normal:
    """Return N(loc, scale²) from loc and log scale, side by side, (..., 2 D)."""
    loc, log_scale = output.chunk(2, dim=-1)
    return Normal(loc, log_scale.exp())


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return weights (1, 1, outputs, inputs) and biases (1, 1, outputs) by name, from the input to the output."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    tensors = [(f"{name}_{i}", getattr(layer, name)) for i, layer in enumerate(layers) for name in ("weight", "bias")]
    return {name: tensor[None, None] for name, tensor in tensors}


def apply_network(weights: Mapping[str, Tensor], activation: Activation, h: Tensor) -> Tensor:
    """Return the output, (K, R, B, outputs), at h (K, R, B, inputs) of a network with the weights of `weights_of`.

    Weights may have a copy for each sample and data point: (K, R, B, outputs, inputs) in place of (1, 1, ...).
    """
    tensors: Sequence[Tensor] = list(weights.values())
    for i, (weight, bias) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        h = _linear(h if i == 0 else activation(h), weight, bias)
    return h


def _linear(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.shape[:-2].numel() == 1:
        return F.linear(h, weight.reshape(weight.shape[-2:]), bias.reshape(-1))
    return (weight @ h.unsqueeze(-1)).squeeze(-1) + bias


def bernoulli_log_likelihood(decoder: MLP, z: Tensor, x: Tensor) -> Tensor:
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

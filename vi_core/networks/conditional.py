"""Normals whose parameters a network computes: N(loc(h), diag scale(h)²), with loc and log scale in its two heads.

The network is applied to explicit weights, so that a density can be formed for weights that are detached, or for a copy
of them for each sample and data point, as scores need them.
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from vi_core.distributions.normal import Normal
from vi_core.errors import require

Activation = Callable[[Tensor], Tensor]


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

"""Multilayer perceptrons for encoders and decoders, initialised as `torch.nn.Linear` does."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from vi_core.errors import did_you_mean, require

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": partial(nn.LeakyReLU, 0.2, inplace=True),
    "relu": partial(nn.ReLU, inplace=True),
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}


class MLP(nn.Module):
    """Linear layers of the given sizes with an activation between them and none after the last.

    Args:
        sizes: Widths from input to output, at least two.
        activation: A key of `ACTIVATIONS`; `leaky_relu` has slope 0.2.
        owner: The part that it belongs to, for messages: `model` or `family`.
    """

    def __init__(self, sizes: Sequence[int], activation: str, owner: str):
        super().__init__()
        known = ", ".join(ACTIVATIONS)
        hint = did_you_mean(activation, ACTIVATIONS)
        require(activation in ACTIVATIONS, f"{owner}.activation={activation} is not one of {known}.{hint}")
        require(all(size >= 1 for size in sizes), f"{owner}.hidden={list(sizes[1:-1])} must all be at least 1.")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., sizes[0]) to (..., sizes[-1])."""
        return self.layers(x)

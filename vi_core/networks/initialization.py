"""How the weights of a network begin, where they do not begin as those of `torch.nn.Linear` do."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vi_core.errors import require


class Initialization(ABC):
    """A law of a linear layer's first weights, drawn from torch's default stream."""

    @abstractmethod
    def __call__(self, layer: nn.Linear, heads: int) -> None:
        """Set weights and biases of a layer whose outputs are those of `heads` layers of equal width, side by side."""


class Glorot(Initialization):
    """Weights uniform on (−a, a), a = √(6 / (inputs + outputs)), and biases zero. Glorot, Bengio 2010, equation 16."""

    def __call__(self, layer: nn.Linear, heads: int) -> None:
        limit = (6 / (layer.in_features + layer.out_features / heads)) ** 0.5
        nn.init.uniform_(layer.weight, -limit, limit)
        nn.init.zeros_(layer.bias)


def initialize(network: nn.Module, initialization: Initialization | None, heads: int = 1) -> None:
    """Begin the linear layers of a network by `initialization`, if there is one; the last has `heads` heads."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if initialization is not None:
        for layer in layers:
            initialization(layer, heads if layer is layers[-1] else 1)


def set_output_bias(network: nn.Module, bias: Tensor) -> None:
    """Begin the bias of a network's last layer at given values, (outputs,)."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.bias.copy_(bias)


class OutputBias(ABC):
    """Where the bias of the layer begins that yields the logits of pixels."""

    @abstractmethod
    def __call__(self) -> Tensor:
        """Return the bias, (pixels,)."""


class DataLogits(OutputBias):
    """log m/(1 − m), with the mean m of each pixel over the training data: a network that says nothing yields m.

    Args:
        data_mean: Computes the mean of the data, (pixels,).
        margin: How close to 0 and 1 a mean may come.
    """

    def __init__(self, data_mean: Callable[[], Tensor], /, *, margin: float = 0.001):
        require(0 < margin < 0.5, f"model.output_bias.margin={margin} must lie between 0 and 0.5.")
        self.data_mean, self.margin = data_mean, margin

    def __call__(self) -> Tensor:
        return torch.logit(self.data_mean(), eps=self.margin)

"""What a diffusion model learns: ε_θ(x_t, t), the noise that a state holds."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vi_core.errors import require
from vi_core.networks import MLP


class Denoiser(nn.Module, ABC):
    """E[ε | x_t], or an approximation of it, where x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε."""

    @abstractmethod
    def forward(self, state: Tensor, time: Tensor) -> Tensor:
        """Return ε_θ, (..., D), for states x_t (..., D) at times t/T (...), in (0, 1]."""


class NetworkDenoiser(Denoiser):
    """ε_θ(x, t) = g(t) · x + network(x, t): a perceptron on the state and on sines and cosines of the time.

    g(t), with one gain for each dimension, is an affine map of these sines and cosines, learned too. With most of the
    signal gone the noise is the state itself, and a perceptron alone is slow to find the identity in many dimensions.

    Args:
        event_size: D; known from the data.
        hidden: Widths of the hidden layers.
        activation: See `vi_core.networks.ACTIVATIONS`.
        frequencies: F, so that the time enters as sin and cos of 2^f π t/T/2 for f = 0, ..., F − 1.
    """

    octaves: Tensor

    def __init__(
        self,
        event_size: int,
        /,
        *,
        hidden: Sequence[int] = (128, 128, 128),
        activation: str = "gelu",
        frequencies: int = 6,
    ):
        super().__init__()
        require(frequencies >= 1, f"model.denoiser.frequencies={frequencies} must be at least 1.")
        octaves = 0.5 * math.pi * 2.0 ** torch.arange(frequencies)
        self.register_buffer("octaves", octaves.to(torch.get_default_dtype()), persistent=False)
        self.gain = nn.Linear(2 * frequencies, event_size)
        self.network = MLP([event_size + 2 * frequencies, *hidden, event_size], activation, "model.denoiser")

    def forward(self, state: Tensor, time: Tensor) -> Tensor:
        angles = time.unsqueeze(-1) * self.octaves
        clock = torch.cat([angles.sin(), angles.cos()], dim=-1)
        inputs = torch.cat([state, clock.expand(*state.shape[:-1], -1)], dim=-1)
        return torch.addcmul(self.network(inputs), self.gain(clock), state)

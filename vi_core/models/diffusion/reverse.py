"""The parts of the reverse process of a diffusion model that have a choice: decoders and denoisers.

A denoiser ε_θ(x_t, t) predicts the noise in a state; training fits it. A decoder is the last step p(x_0 | x_1), a
density or a probability of grey levels. The bound contains it as L_0 = −E log p(x_0 | x_1).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vi_core.distributions.grey_levels import off_grid
from vi_core.distributions.normal import Normal
from vi_core.errors import Unsupported, require
from vi_core.networks.mlp import MLP


class Decoder(ABC):
    """p(x_0 | x_1) from a mean and a standard deviation, and the scale on which x_0 is diffused.

    Attributes:
        units: Name of −log₂ p per dimension: `bits per dimension` of data that have a probability, or `differential`.
    """

    units: str

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Raise `Unsupported` for a batch of data (B, D) that the decoder does not describe."""

    def lift(self, x: Tensor) -> Tensor:
        """Map data to x_0; same shape, and the data themselves by default."""
        return x

    def lower(self, start: Tensor) -> Tensor:
        """Map x_0, or a noisy state, to the data's units; the inverse of `lift`."""
        return start

    @abstractmethod
    def log_prob(self, start: Tensor, p: Normal) -> Tensor:
        """Return log p(x_0 | x_1), elementwise, from the Normal around μ_θ(x_1, 1)."""

    def expected_term(self, squared_error: Tensor, variance: Tensor, size: int) -> Tensor:
        """Return E[L_0] from E‖x_0 − μ_θ‖² and σ_1² for D = `size`; NaN, the default, where it depends on more."""
        return torch.full_like(variance, torch.nan)

    @abstractmethod
    def sample(self, p: Normal) -> Tensor:
        """Draw x_0, shaped as the mean."""


class GaussianDecoder(Decoder):
    """The density N(x_0; μ_θ(x_1, 1), σ_1² I), for data on a continuum.

    L_0 and the bound are then differential: they may be negative, and change by log|c| per dimension with the data's
    unit. On data that take few values a density has no meaning, and grows without limit as σ_1 falls: refused.
    """

    units = "differential bits per dimension"

    def check(self, x: Tensor) -> None:
        if 2 * x.unique().numel() <= x.numel():
            raise Unsupported(
                "model/decoder=gaussian is a density, and these data take few distinct values; "
                "use model/decoder=discretized with model.decoder.levels."
            )

    def log_prob(self, start: Tensor, p: Normal) -> Tensor:
        return p.log_prob(start)

    def expected_term(self, squared_error: Tensor, variance: Tensor, size: int) -> Tensor:
        return 0.5 * (size * (2 * math.pi * variance).log() + squared_error / variance)

    def sample(self, p: Normal) -> Tensor:
        return p.rsample(1).squeeze(0)


class DiscretizedDecoder(Decoder):
    """The probability of each grey level: the Normal's mass in the level's bin, the outermost bins open to the outside.

    Data 0, 1/(n − 1), ..., 1 are lifted to [−1, 1], where levels are 2/(n − 1) apart. The masses of one pixel sum to 1,
    and L_0 is a number of nats, from which bits per dimension follow. Ho, Jain, Abbeel 2020, equation 13.

    Args:
        levels: n, the number of grey levels: 17 for digits, 256 for images of 8 bits, 2 for binarized ones.
    """

    units = "bits per dimension"

    def __init__(self, *, levels: int = 17):
        require(levels >= 2, f"model.decoder.levels={levels} must be at least 2.")
        self.levels = levels
        self.half = 1 / (levels - 1)

    def check(self, x: Tensor) -> None:
        if off_grid(x, self.levels):
            raise Unsupported(
                f"model.decoder.levels={self.levels} describes pixels 0, 1/{self.levels - 1}, ..., 1, "
                "and these data are others; use images with that many grey levels and dataset.binarization=none."
            )

    def lift(self, x: Tensor) -> Tensor:
        return 2 * x - 1

    def lower(self, start: Tensor) -> Tensor:
        return (0.5 * (start + 1)).clamp(0, 1)

    def log_prob(self, start: Tensor, p: Normal) -> Tensor:
        """log(Φ(b) − Φ(a)), by the tail in which both are small, so that nothing cancels."""
        middle, width = (start - p.loc) / p.scale, self.half / p.scale
        below, above = middle - width, middle + width
        flip = middle > 0
        low, high = torch.where(flip, -above, below), torch.where(flip, -below, above)
        upper = torch.special.log_ndtr(high)
        inside = upper + torch.log(-torch.expm1(torch.special.log_ndtr(low) - upper))
        edge = 1 - 0.5 * self.half
        left, right = torch.special.log_ndtr(above), torch.special.log_ndtr(-below)
        return torch.where(start < -edge, left, torch.where(start > edge, right, inside))

    def sample(self, p: Normal) -> Tensor:
        step = 2 * self.half
        drawn = p.rsample(1).squeeze(0).clamp(-1, 1)
        return ((drawn + 1) / step).round() * step - 1


class Denoiser(nn.Module, ABC):
    """E[ε | x_t], or an approximation of it, where x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε."""

    def check(self, start: Tensor) -> None:
        """Raise `Unsupported` for x_0, (B, D), that the denoiser is not made for."""

    @abstractmethod
    def forward(self, state: Tensor, time: Tensor, signal: Tensor) -> Tensor:
        """Return ε_θ, (..., D), for states x_t (..., D) at times t/T (...), in (0, 1], where ᾱ_t is `signal` (...)."""


class Clock(nn.Module):
    """Fourier features of the time: sin and cos of 2^f π t/T/2 for f = 0, ..., F − 1.

    Args:
        frequencies: F, at least 1.
    """

    octaves: Tensor

    def __init__(self, frequencies: int):
        super().__init__()
        require(frequencies >= 1, f"model.denoiser.frequencies={frequencies} must be at least 1.")
        octaves = 0.5 * math.pi * 2.0 ** torch.arange(frequencies)
        self.register_buffer("octaves", octaves.to(torch.get_default_dtype()), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """Map t/T (...) to (..., 2 F)."""
        angles = time.unsqueeze(-1) * self.octaves
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class NetworkDenoiser(Denoiser):
    """ε_θ(x, t) = g(t) · x + network(x, t): a perceptron on the state and on sines and cosines of the time.

    g(t), with one gain for each dimension, is an affine map of these sines and cosines, learned too. With most of the
    signal gone the noise is the state itself, and a perceptron alone is slow to find the identity in many dimensions.

    Args:
        event_size: D, length of a data point; known from the data.
        hidden: Widths of the hidden layers.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
        frequencies: F, number of octaves of the Fourier features.
    """

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
        self.clock = Clock(frequencies)
        self.gain = nn.Linear(2 * frequencies, event_size)
        self.network = MLP([event_size + 2 * frequencies, *hidden, event_size], activation, "model.denoiser")

    def forward(self, state: Tensor, time: Tensor, signal: Tensor) -> Tensor:
        clock = self.clock(time)
        return torch.addcmul(self.network(beside(state, clock)), self.gain(clock), state)


class GreyLevelDenoiser(Denoiser):
    """Bayes' rule for each pixel, on n grey levels g_1, ..., g_n = −1, ..., 1, with a prior that sees the other pixels.

        ε_θ(x_t, t) = (x_t − √ᾱ_t x̂_0)/√(1 − ᾱ_t),   x̂_0 = Σ_j w_j g_j,
        w_j ∝ exp(b_j + h g_j + k g_j²) N(x_t; √ᾱ_t g_j, 1 − ᾱ_t)   in each pixel,

    with a table b, by pixel and level, and with h and k, by pixel, from a perceptron on all of x_t and on the time. At
    h = k = 0 this is E[ε | x_t] of independent pixels with level j as frequent as exp(b_j); h and k multiply the prior
    by a Normal factor that depends on the other pixels. At low noise x̂_0 is a staircase in x_t, which the likelihood
    N yields and a perceptron would have to learn.

    Args:
        event_size: D, length of a data point; known from the data.
        levels: n, number of grey levels; that of the decoder.
        hidden: Widths of the hidden layers.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
        frequencies: F, number of octaves of the Fourier features.
    """

    grid: Tensor

    def __init__(
        self,
        event_size: int,
        /,
        *,
        levels: int = 17,
        hidden: Sequence[int] = (256, 256),
        activation: str = "gelu",
        frequencies: int = 6,
    ):
        super().__init__()
        require(levels >= 2, f"model.denoiser.levels={levels} must be at least 2.")
        self.register_buffer("grid", torch.linspace(-1, 1, levels), persistent=False)
        self.clock = Clock(frequencies)
        self.table = nn.Parameter(torch.zeros(event_size, levels))
        self.network = MLP([event_size + 2 * frequencies, *hidden, 2 * event_size], activation, "model.denoiser")

    def check(self, start: Tensor) -> None:
        levels = len(self.grid)
        if off_grid((start + 1) * 0.5, levels):
            raise Unsupported(
                f"model.denoiser.levels={levels} needs data on {levels} grey levels from -1 to 1; use model/decoder="
                f"discretized with model.decoder.levels={levels}, images with these levels, or model/denoiser=network."
            )

    def forward(self, state: Tensor, time: Tensor, signal: Tensor) -> Tensor:
        kept = signal.unsqueeze(-1)
        start = self.log_weights(state, time, kept.unsqueeze(-1)).softmax(dim=-1) @ self.grid
        return (state - kept.sqrt() * start) * (1 - kept).rsqrt()

    def log_weights(self, state: Tensor, time: Tensor, signal: Tensor) -> Tensor:
        """Return log w_j up to a constant, (..., D, n), where ᾱ_t is `signal` (..., 1, 1)."""
        linear, square = self.network(beside(state, self.clock(time))).unsqueeze(-1).chunk(2, dim=-2)
        slope = linear + signal.sqrt() / (1 - signal) * state.unsqueeze(-1)  # log N is linear in g and g²
        curve = square - 0.5 * signal / (1 - signal)
        return torch.addcmul(self.table, torch.addcmul(slope, curve, self.grid), self.grid)


def beside(state: Tensor, clock: Tensor) -> Tensor:
    """Concatenate states (..., D) and the Fourier features of their times (..., 2 F), of shapes that broadcast."""
    return torch.cat([state, clock.expand(*state.shape[:-1], -1)], dim=-1)

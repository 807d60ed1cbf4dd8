"""Decoders of a diffusion model: the last step p(x_0 | x_1), a density or a probability of grey levels.

The bound contains it as L_0 = −E log p(x_0 | x_1).
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vi_core.distributions.normal import Normal
from vi_core.errors import Unsupported, require


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
        steps = x * (self.levels - 1)
        if bool((x < 0).any()) or bool((x > 1).any()) or bool(((steps - steps.round()).abs() > 1e-3).any()):
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

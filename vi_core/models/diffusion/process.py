"""The forward process of a diffusion model, its noise schedules and the variances of the reverse process.

    q(x_t | x_{t−1}) = N(√α_t x_{t−1}, β_t I),  t = 1, ..., T,   α_t = 1 − β_t,   ᾱ_t = Π_{s≤t} α_s,  ᾱ_0 = 1,
    q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I),
    q(x_{t−1} | x_t, x_0) = N(√ᾱ_{t−1} β_t/(1 − ᾱ_t) x_0 + √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) x_t,  β̃_t I),
    β̃_t = β_t (1 − ᾱ_{t−1})/(1 − ᾱ_t).

q has no free parameters. The model, which reverses the process, and the family, which is q, share one `Diffusion`.
Sohl-Dickstein, Weiss, Maheswaranathan, Ganguli 2015; Ho, Jain, Abbeel 2020.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vi_core.distributions.normal import Normal
from vi_core.errors import require


class Schedule(ABC):
    """A noise schedule: β_1, ..., β_T for every T."""

    @abstractmethod
    def betas(self, num_steps: int) -> Tensor:
        """Return β_1, ..., β_T, (T,), in float64, each in (0, 1)."""


class Linear(Schedule):
    """β_t rises linearly in t from `first`/T to `last`/T.

    Ho et al. take 1e-4 to 0.02 at T = 1000: 0.1/T to 20/T. In this form Σ β_t, and with it ᾱ_T and L_T, hardly depend
    on T; 1e-4 to 0.02 at T = 100 would leave ᾱ_T = 0.36, and x_T far from the N(0, I) that generation starts from.

    Args:
        first: T β_1.
        last: T β_T; below T.
    """

    def __init__(self, *, first: float = 0.1, last: float = 20.0):
        require(first > 0, f"model.schedule.first={first} must be positive; it is T times beta_1.")
        require(last > 0, f"model.schedule.last={last} must be positive; it is T times beta_T.")
        self.first, self.last = first, last

    def betas(self, num_steps: int) -> Tensor:
        most = max(self.first, self.last)
        require(num_steps > most, f"model.num_steps={num_steps} must exceed {most}, the largest T beta_t.")
        return torch.linspace(self.first, self.last, num_steps, dtype=torch.float64) / num_steps


class Cosine(Schedule):
    """ᾱ_t = f(t)/f(0) with f(t) = cos²(π/2 · (t/T + s)/(1 + s)), and β_t no larger than `largest`.

    Nichol, Dhariwal 2021, section 3.2. Noise comes in more slowly than with the linear schedule.

    Args:
        offset: s, which keeps β_1 away from 0.
        largest: The limit of β_t, in (0, 1): at t = T it would be 1.
    """

    def __init__(self, *, offset: float = 0.008, largest: float = 0.999):
        require(offset > 0, f"model.schedule.offset={offset} must be positive.")
        require(0 < largest < 1, f"model.schedule.largest={largest} must lie between 0 and 1.")
        self.offset, self.largest = offset, largest

    def betas(self, num_steps: int) -> Tensor:
        time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        kept = (0.5 * math.pi * (time + self.offset) / (1 + self.offset)).cos().square()
        return (1 - kept[1:] / kept[:-1]).clamp_max(self.largest)


class LogSNR(Schedule):
    """ᾱ_t = 1/(1 + exp(−λ_t)), with λ_t = log(ᾱ_t/(1 − ᾱ_t)) linear in t from t = 1 to T.

    Each step then loses the same factor of signal to noise, and none is so long that a Normal is a poor reverse kernel.
    Kingma, Salimans, Poole, Ho 2021, where the two ends are learned.

    Args:
        first: 1 − ᾱ_1, in (0, 1).
        last: ᾱ_T, below 1 − `first`.
    """

    def __init__(self, *, first: float = 5.0e-4, last: float = 1.0e-4):
        require(0 < first < 1, f"model.schedule.first={first} must lie between 0 and 1; it is 1 - alpha_bar_1.")
        most = 1 - first
        require(0 < last < most, f"model.schedule.last={last} must lie between 0 and alpha_bar_1={most}.")
        self.first, self.last = first, last

    def betas(self, num_steps: int) -> Tensor:
        start, end = math.log((1 - self.first) / self.first), math.log(self.last / (1 - self.last))
        kept = torch.linspace(start, end, num_steps, dtype=torch.float64).sigmoid()
        return 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])


class Diffusion(nn.Module):
    """q(x_1, ..., x_T | x_0). Tables over t have the entry of t at index t − 1; t counts from 1.

    Args:
        betas: β_1, ..., β_T, (T,), in float64.
        lift: Map from a data point to x_0, the same shape: the scale on which noise is added.

    Attributes:
        beta, beta_tilde: β_t and β̃_t, (T,), like all tables in torch's default dtype.
        signal, noise: ᾱ_t and 1 − ᾱ_t.
        signal_before, noise_before: ᾱ_{t−1} and 1 − ᾱ_{t−1}.
    """

    beta: Tensor
    beta_tilde: Tensor
    signal: Tensor
    noise: Tensor

    def __init__(self, betas: Tensor, lift: Callable[[Tensor], Tensor]):
        super().__init__()
        self.num_steps, self.lift = len(betas), lift
        signal = (1 - betas).cumprod(dim=0)
        before = torch.cat([signal.new_ones(1), signal[:-1]])
        tables = {"beta": betas, "signal": signal, "noise": 1 - signal, "signal_before": before}
        tables |= {"noise_before": 1 - before, "beta_tilde": betas * (1 - before) / (1 - signal)}
        for name, table in tables.items():  # cast at last, as 1 − ᾱ_t cancels
            self.register_buffer(name, table.to(torch.get_default_dtype()), persistent=False)

    def at(self, t: Tensor, *names: str) -> list[Tensor]:
        """Return the entries of tables for t (...), each (..., 1)."""
        return [self.get_buffer(name)[t - 1].unsqueeze(-1) for name in names]

    def marginal(self, start: Tensor, t: Tensor) -> Normal:
        """Return q(x_t | x_0) for x_0 (..., D) and t (...), of shapes that broadcast."""
        signal, noise = self.at(t, "signal", "noise")
        return Normal(signal.sqrt() * start, noise.sqrt())

    def posterior(self, start: Tensor, state: Tensor, t: Tensor) -> Normal:
        """Return q(x_{t−1} | x_t, x_0) for x_0 and x_t (..., D) and t (...); at t = 1 it is the point x_0."""
        beta, tilde, noise = self.at(t, "beta", "beta_tilde", "noise")
        signal_before, noise_before = self.at(t, "signal_before", "noise_before")
        loc = (signal_before.sqrt() * beta * start + (1 - beta).sqrt() * noise_before * state) / noise
        return Normal(loc, tilde.sqrt())


class ReverseVariance(ABC):
    """Variances σ_t² of p(x_{t−1} | x_t) = N(μ_θ(x_t, t), σ_t² I); σ_1 is the scale of the decoder p(x_0 | x_1)."""

    @abstractmethod
    def variances(self, process: Diffusion) -> Tensor:
        """Return σ_1², ..., σ_T², (T,), all positive."""


class Beta(ReverseVariance):
    """σ_t² = β_t. With the optimal denoiser the reverse kernels are then exact for x_0 ~ N(m, I)."""

    def variances(self, process: Diffusion) -> Tensor:
        return process.beta


class BetaTilde(ReverseVariance):
    """σ_t² = β̃_t for t > 1, exact if x_0 is one point, and σ_1² = β_1, since a decoder with β̃_1 = 0 has no density."""

    def variances(self, process: Diffusion) -> Tensor:
        return torch.cat([process.beta[:1], process.beta_tilde[1:]])

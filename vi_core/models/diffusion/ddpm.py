"""A denoising diffusion model: data x_0 are made from noise x_T in T learned steps, with latents x_1, ..., x_T.

    p(x_T) = N(0, I),   p(x_{t−1} | x_t) = N(μ_θ(x_t, t), σ_t² I) for t > 1,   p(x_0 | x_1) by a decoder on μ_θ(x_1, 1),
    μ_θ(x_t, t) = (x_t − β_t/√(1 − ᾱ_t) · ε_θ(x_t, t)) / √α_t.

With q of `vi_core.models.diffusion.process` the negative ELBO is a sum of terms, each with x_t ~ q(x_t | x_0):

    L = L_T + Σ_{t>1} L_{t−1} + L_0,
    L_T = KL(q(x_T | x_0) ‖ p(x_T)),
    L_{t−1} = E KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) = β_t²/(2 σ_t² α_t (1 − ᾱ_t)) E‖ε − ε_θ(x_t, t)‖² + const,
    L_0 = −E log p(x_0 | x_1).

The variances σ_t², fixed, are those of `reverse_variance`. Ho, Jain, Abbeel 2020.
"""

from itertools import pairwise

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.normal import Normal, kl_normal, standard_normal
from vi_core.errors import Unsupported, require
from vi_core.models.base import Denoising, Factors, Model, Network
from vi_core.models.diffusion.process import Diffusion, ReverseVariance, Schedule
from vi_core.models.diffusion.reverse import Decoder, Denoiser
from vi_core.types import Latent, Latents


class DDPM(Model):
    """The reverse process, with one latent per data point: `path`, the states x_1, ..., x_T, (T, D).

    Args:
        event_size: D, length of a data point; known from the data.
        num_steps: T, number of steps of the diffusion; at least 2.
        schedule: Noise β_1, ..., β_T of the forward process.
        reverse_variance: Variances σ_1², ..., σ_T² of the reverse process.
        decoder: p(x_0 | x_1), and the scale on which data are diffused.
        denoiser: The network ε_θ.
    """

    variance: Tensor

    layouts = ({"path": frozenset({"start"})},)  # the forward process

    def __init__(
        self,
        event_size: int,
        /,
        *,
        num_steps: int = 100,
        schedule: Schedule,
        reverse_variance: ReverseVariance,
        decoder: Decoder,
        denoiser: Denoiser,
    ):
        super().__init__()
        require(num_steps >= 2, f"model.num_steps={num_steps} must be at least 2.")
        self.num_steps, self.event_size = num_steps, event_size
        self.decoder, self.denoiser = decoder, denoiser
        self.process = Diffusion(schedule.betas(num_steps), decoder.lift)
        self.register_buffer("variance", reverse_variance.variances(self.process), persistent=False)
        self.latents = {"path": Latent(supports.real, (num_steps, event_size), local=True)}
        self.units = decoder.units

    def check_data(self, x: Tensor) -> None:
        if x.dim() != 2:
            raise Unsupported("model=ddpm describes vectors; use dataset=gaussian_2d, two_moons or digits.")
        self.decoder.check(x)
        self.denoiser.check(self.process.lift(x))

    def predict(self, state: Tensor, t: Tensor) -> Tensor:
        """Return ε_θ(x_t, t), (..., D), for states (..., D) and t (...)."""
        return self.denoiser(state, t.to(state.dtype) / self.num_steps, self.process.signal[t - 1])

    def backward(self, state: Tensor, noise: Tensor, t: Tensor) -> Normal:
        """Return p(x_{t−1} | x_t) for a predicted noise; at t = 1 the Normal from which the decoder makes x_0."""
        beta, total = self.process.at(t, "beta", "noise")
        loc = (state - beta * total.rsqrt() * noise) * (1 - beta).rsqrt()
        return Normal(loc, self.variance[t - 1].sqrt().unsqueeze(-1))

    def factors(self, z: Latents, x: Tensor) -> Factors:
        path, mentioned = z["path"], frozenset({"path"})
        t = torch.arange(1, self.num_steps + 1, device=path.device)
        back = self.backward(path, self.predict(path, t), t)
        first = Normal(back.loc[..., 0, :], back.scale[0])
        later = Normal(back.loc[..., 1:, :], back.scale[1:])
        terms = {
            "prior": standard_normal(path).log_prob(path[..., -1, :]).sum(dim=-1),
            "reverse": later.log_prob(path[..., :-1, :]).sum(dim=(-2, -1)),
            "likelihood": self.decoder.log_prob(self.process.lift(x), first).sum(dim=-1),
        }
        return {name: (value, mentioned) for name, value in terms.items()}

    def network(self, points: int) -> Network:
        """The chain x_T → ... → x_t → x_(t−1) → ... → x_0, and q's edges back."""
        names = ("x_T", "x_t", "x_t−1", "x_0")
        edges = tuple(pairwise(names))
        parents = {"x_T": (), **{child: (parent,) for parent, child in edges}}
        back = tuple((child, parent) for parent, child in edges)
        return Network(
            parents, frozenset({"x_0"}), {f"N = {points}": frozenset(names)}, back, frozenset({edges[0], edges[2]})
        )

    def end_term(self, x: Tensor) -> Tensor:
        last = torch.full((1,), self.num_steps, device=x.device)  # a scalar would be fetched from the device
        return kl_normal(self.process.marginal(self.process.lift(x), last), standard_normal(x)).sum(dim=-1).unsqueeze(0)

    def denoising(self, x: Tensor, t: Tensor, noise: Tensor) -> Denoising:
        start = self.process.lift(x)
        marginal = self.process.marginal(start, t)
        state = marginal.loc + marginal.scale * noise
        predicted = self.predict(state, t)
        back = self.backward(state, predicted, t)
        terms = kl_normal(self.process.posterior(start, state, t), back).sum(dim=-1)
        first = (t == 1).expand_as(terms)
        start, loc, scale = (value.expand_as(state) for value in (start, back.loc, back.scale))
        decoding = -self.decoder.log_prob(start, Normal(loc, scale)).sum(dim=-1)  # at every t: no shape depends on t
        return Denoising((noise - predicted).square().sum(dim=-1), torch.where(first, decoding, terms))

    def affine_optimum(self, mean: Tensor, covariance: Tensor) -> Tensor:
        process, variance = self.process, self.variance
        spread = torch.linalg.eigvalsh(covariance)
        kept = process.signal.unsqueeze(1) * spread
        error = (kept / (kept + process.noise.unsqueeze(1))).sum(dim=1)
        weighted = process.beta.square() / (2 * variance * (1 - process.beta) * process.noise) * error
        ratio = process.beta_tilde / variance
        terms = weighted + 0.5 * self.event_size * (ratio - 1 - ratio.log())
        first = self.decoder.expected_term(2 * variance[0] * weighted[0], variance[0], self.event_size)
        power, noise = mean.square().sum() + spread.sum(), process.noise[-1]
        end = 0.5 * (process.signal[-1] * power + self.event_size * (noise - 1 - noise.log()))
        return torch.cat([first.reshape(1), terms[1:], end.reshape(1)])

    def generate(self, num_samples: int) -> Tensor:
        like = self.process.beta
        state = torch.randn(num_samples, self.event_size, dtype=like.dtype, device=like.device)
        states = [state]
        for step in range(self.num_steps, 0, -1):
            t = torch.tensor(step, device=like.device)
            back = self.backward(state, self.predict(state, t), t)
            state = back.rsample(1).squeeze(0) if step > 1 else self.decoder.sample(back)
            states.append(state)
        return self.decoder.lower(torch.stack(states))

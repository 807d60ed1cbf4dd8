"""Amortised categorical latents: q(z | x) = Π_g Categorical(z_g; softmax(logits_g(x))), from one encoder network.

q is discrete: `sample` and `log_prob` are those of one-hot vectors, and so are all values of bounds. `rsample` draws
from a relaxation, which changes gradients only, with a temperature that anneals during training:

    τ_t = initial · (final/initial)^min(t/steps, 1)

falls exponentially from `initial` to `final` in `steps` training steps, and stays there. t counts training steps, not
evaluations, and is a buffer, so that a resumed run continues at its temperature. Jang, Gu, Poole 2017; Maddison, Mnih,
Teh 2017.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Size, Tensor, nn

from vi_core.distributions import supports
from vi_core.distributions.categorical import (
    GumbelSoftmax,
    OneHotCategorical,
    RelaxedOneHot,
    StraightThrough,
    one_hot_argmax,
)
from vi_core.errors import require
from vi_core.families.base import Family, VariationalDistribution, all_local
from vi_core.networks.mlp import MLP
from vi_core.types import Latent, Latents, Params


class Relaxation(nn.Module, ABC):
    """A differentiable sampler in place of the argmax, with an annealed temperature.

    Args:
        initial: Temperature of the first step; positive, at least `final`.
        final: Temperature after `steps` steps; positive.
        steps: Number of training steps over which it falls.

    Attributes:
        leaves_support: Whether draws lie inside the simplex: the discrete model is defined on its corners alone.
        bias: What the derivative of a draw gives in place of the gradient of the discrete model, in a few words.
        trained: Number of training steps made, a scalar.
    """

    leaves_support: ClassVar[bool]
    bias: ClassVar[str]
    trained: Tensor

    def __init__(self, *, initial: float = 1.0, final: float = 0.5, steps: int = 1000):
        super().__init__()
        inside = 0 < final <= initial < math.inf
        range_of = f"family.relaxation.final={final} and family.relaxation.initial={initial}"
        require(inside, f"{range_of} must be positive and finite, and final not above initial.")
        require(steps >= 1, f"family.relaxation.steps={steps} must be at least 1; a constant is initial=final.")
        self.initial, self.final, self.steps = initial, final, steps
        self.register_buffer("trained", torch.zeros((), dtype=torch.long))

    @property
    def temperature(self) -> Tensor:
        """τ_t, a scalar in double precision; being a scalar it does not change the dtype of tensors that it divides."""
        share = (self.trained.double() / self.steps).clamp(max=1.0)
        return self.initial * (share * math.log(self.final / self.initial)).exp()

    def advance(self) -> None:
        """Count a training step."""
        self.trained.add_(1)

    @abstractmethod
    def distribution(self, logits: Tensor) -> RelaxedOneHot:
        """Return the law of differentiable draws at the present temperature, for logits (*batch, *groups, C)."""


class GumbelSoftmaxRelaxation(Relaxation):
    """Draws inside the simplex, with the unbiased gradient of a relaxed objective."""

    leaves_support = True
    bias = "draws are relaxed, and it is the gradient of a relaxed objective"

    def distribution(self, logits: Tensor) -> RelaxedOneHot:
        return GumbelSoftmax(logits, self.temperature)


class StraightThroughRelaxation(Relaxation):
    """One-hot draws with the derivative of relaxed ones: true values, biased gradients."""

    leaves_support = False
    bias = "one-hot draws have the derivative of relaxed ones"

    def distribution(self, logits: Tensor) -> RelaxedOneHot:
        return StraightThrough(logits, self.temperature)


class AmortizedCategoricalDistribution(VariationalDistribution):
    """Independent one-hot vectors, with logits (1, B, G, C), and the relaxation of the same logits."""

    kind = "one-hot vectors"

    def __init__(self, name: str, factor: OneHotCategorical, relaxed: RelaxedOneHot):
        self.name, self.factor, self.relaxed = name, factor, relaxed

    def shapes(self) -> dict[str, Size]:
        return {self.name: self.factor.mean.shape}

    def rsample(self, num_samples: int) -> Latents:
        return {self.name: self.relaxed.rsample(num_samples)}

    def sample(self, num_samples: int) -> Latents:
        """Draw one-hot z ~ q, (K, 1, B, G, C)."""
        return {self.name: self.factor.sample(num_samples)}

    def on_support(self, z: Latents) -> Latents:
        """Return the one-hot argmax of each relaxed draw, which has law q."""
        return {self.name: one_hot_argmax(z[self.name].detach())}

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        """Return log q at one-hot z."""
        return {self.name: self.factor.log_prob(z[self.name]).sum(dim=-1)}

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {self.name: (self.factor.mean, self.factor.variance.sqrt())}


class AmortizedCategorical(Family):
    """An encoder network for a model with groups of one-hot latents per data point.

    Args:
        latents: The model's latents: one, one-hot, local, with shape (G, C).
        replicates: R; 1, since the network has one set of weights.
        event_size: Length of a flattened data point; known from the data.
        relaxation: Sampler of differentiable draws, with its temperature.
        hidden: Widths of the encoder's hidden layers, from the image to the latent.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    name = "amortized_categorical"
    described = "groups of one-hot vectors for each data point, as model=categorical_vae has them"
    amortized = True

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        event_size: int = 1,
        /,
        *,
        relaxation: Relaxation,
        hidden: Sequence[int] = (200, 200),
        activation: str = "leaky_relu",
    ):
        super().__init__()
        self.check_latents(latents, replicates)
        ((self.latent, latent),) = latents.items()
        self.shape, self.replicates = latent.shape, 1
        self.layout = {self.latent: frozenset({"logits"})}
        self.relaxation, self.relaxed, self.bias = relaxation, relaxation.leaves_support, relaxation.bias
        self.encoder = MLP([event_size, *hidden, latent.shape[0] * latent.shape[1]], activation, "family")

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return len(latents) == 1 and all_local(latents, supports.one_hot, 2)

    def variational(self, x: Any = None) -> Params:
        """Encode images (B, inputs) into logits (1, B, G, C)."""
        return {self.latent: {"logits": self.encoder(x).unsqueeze(0).unflatten(-1, self.shape)}}

    def distribution(self, params: Params) -> VariationalDistribution:
        logits = params[self.latent]["logits"]
        relaxed = self.relaxation.distribution(logits)
        return AmortizedCategoricalDistribution(self.latent, OneHotCategorical(logits), relaxed)

    def advance(self) -> None:
        self.relaxation.advance()

    def monitor(self) -> dict[str, Tensor]:
        return {"temperature": self.relaxation.temperature.reshape(1)}

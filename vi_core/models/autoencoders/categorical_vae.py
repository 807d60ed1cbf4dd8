"""A variational autoencoder with discrete latents: G groups of one-hot vectors, and a Bernoulli decoder.

    z_g ~ uniform over the C one-hot vectors,   x | z ~ Bernoulli(sigmoid(decoder(z))), pixel by pixel.

log p(z) = −G log C. The likelihood is also defined at points inside the simplex, where relaxed draws evaluate it; the
prior and the bounds are defined for one-hot z alone. Jang, Gu, Poole 2017, section 4.2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.categorical import OneHotCategorical
from vi_core.errors import require
from vi_core.models.autoencoders._images import BernoulliImages
from vi_core.models.base import Factors, Layout
from vi_core.networks.mlp import MLP
from vi_core.types import Latent, Latents, Params


class CategoricalVAE(BernoulliImages):
    """A Bernoulli decoder on one-hot vectors, with latent `z` (groups, classes) per image.

    Args:
        event_size: Number of pixels of an image; known from the data.
        groups: G.
        classes: C.
        hidden: Widths of the decoder's hidden layers, from the latent to the image.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    def __init__(
        self,
        event_size: int,
        /,
        *,
        groups: int = 20,
        classes: int = 10,
        hidden: Sequence[int] = (200, 200),
        activation: str = "leaky_relu",
    ):
        super().__init__()
        require(groups >= 1, f"model.groups={groups} must be at least 1.")
        require(classes >= 2, f"model.classes={classes} must be at least 2.")
        self.groups, self.classes = groups, classes
        self.latents = {"z": Latent(supports.one_hot, (groups, classes), local=True)}
        self.decoder = MLP([groups * classes, *hidden, event_size], activation, "model")

    def knows(self, layout: Layout) -> bool:
        """Whether q is an independent categorical law of each group."""
        return layout == {"z": frozenset({"logits"})}

    def decoded(self, z: Latents) -> Tensor:
        return z["z"].flatten(-2)

    def factors(self, z: Latents, x: Tensor) -> Factors:
        likelihood, mentioned = self.log_likelihood(z, x), frozenset({"z"})
        prior = torch.full_like(likelihood, -self.groups * math.log(self.classes))
        return {"likelihood": (likelihood, mentioned), "prior": (prior, mentioned)}

    def kl(self, params: Params) -> Tensor:
        """KL(q(z | x) ‖ uniform), with shape (R, B)."""
        return OneHotCategorical(params["z"]["logits"]).kl_to_uniform().sum(dim=-1)

    def sample_prior(self, num_samples: int) -> Latents:
        weight = next(self.decoder.parameters())
        return {"z": OneHotCategorical(weight.new_zeros(1, 1, self.groups, self.classes)).sample(num_samples)}

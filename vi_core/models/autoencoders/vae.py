"""The generative models of variational autoencoders: a Bernoulli decoder on latents of three kinds.

    x | z ~ Bernoulli(sigmoid(decoder(h(z)))), pixel by pixel.

With logits l, log p(x | z) = Σ (x·l − log(1 + e^l)); probabilities are never formed, so that nothing saturates.

    vae                z ~ N(0, I_D)
    categorical_vae    z_g ~ uniform over the C one-hot vectors, g = 1, ..., G; log p(z) = −G log C
    hierarchical_vae   z_L ~ N(0, I),   z_l | z_{l+1} ~ N(loc_l(z_{l+1}), diag scale_l(z_{l+1})²), decoded from z_1

The likelihood of `categorical_vae` is also defined at points inside the simplex, where relaxed draws evaluate it; its
prior and bounds are defined for one-hot z alone. In `hierarchical_vae` each conditional has a network of its own, with
loc and log scale in two heads; with L = 1 it is `vae`.

Kingma, Welling 2014; Rezende, Mohamed, Wierstra 2014; Jang, Gu, Poole 2017, section 4.2; with one and two stochastic
layers in Burda, Grosse, Salakhutdinov 2015, section 5.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from vi_core.distributions import supports
from vi_core.distributions.categorical import OneHotCategorical
from vi_core.distributions.normal import Normal, kl_normal, standard_normal
from vi_core.errors import Unsupported, require
from vi_core.models.base import Factors, Model
from vi_core.networks.initialization import Initialization, OutputBias, initialize, set_output_bias
from vi_core.networks.mlp import MLP, bernoulli_log_likelihood, layer_widths, normal_from
from vi_core.types import Latent, Latents, Params


class BernoulliImages(Model):
    """A model of images (B, pixels) with values in [0, 1].

    Attributes:
        decoder: The network from h(z) to the logits of the pixels.
    """

    decoder: MLP

    def decoded(self, z: Latents) -> Tensor:
        """Return h(z), the input of the decoder, (K, R, B, inputs): the first latent, as a vector."""
        return z[next(iter(self.latents))].flatten(3)

    def check_data(self, x: Tensor) -> None:
        if x.dim() != 2 or bool((x < 0).any()) or bool((x > 1).any()):
            name = type(self).__name__
            raise Unsupported(f"{name} describes pixels in [0, 1]; use dataset=digits, mnist or images.")

    def log_likelihood(self, z: Latents, x: Tensor) -> Tensor:
        """Return log p(x | z), (K, R, B), for latents (K, R, B, *event) and images (B, pixels) in [0, 1]."""
        return bernoulli_log_likelihood(self.decoder, self.decoded(z), x)

    def pixel_means(self, z: Latents) -> Tensor:
        """Return E[x | z], (K, *batch, pixels)."""
        return self.decoder(self.decoded(z)).sigmoid()


class NormalLatent(Model):
    """A model of images with one latent `z` ~ N(0, I) (D,) for each, decoded by a network.

    Args:
        latent_dim: D, dimension of the latent.
    """

    layouts = ({"z": frozenset({"loc", "scale"})},)  # diagonal Normals

    def __init__(self, latent_dim: int):
        super().__init__()
        require(latent_dim >= 1, f"model.latent_dim={latent_dim} must be at least 1.")
        self.latent_dim = latent_dim
        self.latents = {"z": Latent(supports.real, (latent_dim,), local=True)}

    @abstractmethod
    def log_likelihood(self, z: Latents, x: Tensor) -> Tensor:
        """Return log p(x | z), (K, R, B), for latents (K, R, B, D) and images (B, pixels)."""

    def factors(self, z: Latents, x: Tensor) -> Factors:
        prior = standard_normal(z["z"]).log_prob(z["z"]).sum(dim=-1)
        mentioned = frozenset({"z"})
        return {"likelihood": (self.log_likelihood(z, x), mentioned), "prior": (prior, mentioned)}

    def kl(self, params: Params) -> Tensor:
        """KL(q(z | x) ‖ N(0, I)), with shape (R, B)."""
        q = Normal(**params["z"])
        return kl_normal(q, standard_normal(q.loc)).sum(dim=-1)

    def sample_prior(self, num_samples: int) -> Latents:
        weight = next(self.parameters())
        return {"z": torch.randn(num_samples, 1, 1, self.latent_dim, dtype=weight.dtype, device=weight.device)}


class VAE(BernoulliImages, NormalLatent):
    """A Bernoulli decoder on a standard Normal, with latent `z` (D,) per image.

    Args:
        event_size: Number of pixels of an image; known from the data.
        latent_dim: D, dimension of the latent.
        hidden: Widths of the decoder's hidden layers, from the latent to the image.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    def __init__(
        self,
        event_size: int,
        /,
        *,
        latent_dim: int = 20,
        hidden: Sequence[int] = (200, 200),
        activation: str = "leaky_relu",
    ):
        super().__init__(latent_dim)
        self.decoder = MLP([latent_dim, *hidden, event_size], activation, "model")


class CategoricalVAE(BernoulliImages):
    """A Bernoulli decoder on one-hot vectors, with latent `z` (groups, classes) per image.

    Args:
        event_size: Number of pixels of an image; known from the data.
        groups: G.
        classes: C.
        hidden: Widths of the decoder's hidden layers, from the latent to the image.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    layouts = ({"z": frozenset({"logits"})},)  # an independent categorical law of each group

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


class HierarchicalVAE(BernoulliImages):
    """A Bernoulli decoder below a chain of Normals, with latents `z1`, `z2`, ... per image.

    Args:
        event_size: Number of pixels of an image; known from the data.
        latent_dims: Dimensions of z1, z2, ...
        widths: Hidden widths of the networks below z1, below z2, ..., each from above to below.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
        initialization: Law of the initial weights; None for that of `torch.nn.Linear`.
        output_bias: Initial bias of the pixels' logits; None for that of `initialization`.
    """

    def __init__(
        self,
        event_size: int,
        /,
        *,
        latent_dims: Sequence[int] = (100, 50),
        widths: Sequence[Sequence[int]] = ((200, 200), (100, 100)),
        activation: str = "tanh",
        initialization: Initialization | None = None,
        output_bias: OutputBias | None = None,
    ):
        super().__init__()
        dims = list(latent_dims)
        valid = bool(dims) and min(dims) >= 1
        require(valid, f"model.latent_dims={dims} must be one number or more, each at least 1.")
        hidden = layer_widths(widths, len(dims), "model")
        self.names = [f"z{layer}" for layer in range(1, len(dims) + 1)]
        latents = [Latent(supports.real, (dim,), local=True) for dim in dims]
        self.latents = dict(zip(self.names, latents, strict=True))
        self.decoder = MLP([dims[0], *hidden[0], event_size], activation, "model")
        initialize(self.decoder, initialization)
        if output_bias is not None:
            set_output_bias(self.decoder, output_bias())
        self.conditionals = nn.ModuleDict()
        for name, (below, above), inside in zip(self.names, pairwise(dims), hidden[1:], strict=False):
            self.conditionals[name] = MLP([above, *inside, 2 * below], activation, "model")
            initialize(self.conditionals[name], initialization, heads=2)

    def factors(self, z: Latents, x: Tensor) -> Factors:
        """Return log p(x | z1), log p(z1 | z2), ..., log p(zL), each (K, R, B), for images (B, pixels) in [0, 1]."""
        found = {"likelihood": (self.log_likelihood(z, x), frozenset({"z1"}))}
        for name, above in zip(self.names, [*self.names[1:], None], strict=True):
            mentioned = frozenset({name} if above is None else {name, above})
            found[name] = (self._conditional(name, above, z).log_prob(z[name]).sum(dim=-1), mentioned)
        return found

    def sample_prior(self, num_samples: int) -> Latents:
        weight = next(self.decoder.parameters())
        top = self.names[-1]
        shape = (num_samples, 1, 1, *self.latents[top].shape)
        z = {top: torch.randn(shape, dtype=weight.dtype, device=weight.device)}
        for name, above in reversed(list(pairwise(self.names))):
            z[name] = self._conditional(name, above, z).rsample(1).squeeze(0)
        return z

    def _conditional(self, name: str, above: str | None, z: Latents) -> Normal:
        """Return p(z_l | z_{l+1}), or p(z_L) for `above=None`."""
        if above is None:
            return standard_normal(z[name])
        return normal_from(self.conditionals[name](z[above]))

"""A variational autoencoder with L stochastic layers of latents, z1 next to the pixels and zL on top:

    z_L ~ N(0, I),   z_l | z_{l+1} ~ N(loc_l(z_{l+1}), diag scale_l(z_{l+1})²),
    x | z_1 ~ Bernoulli(sigmoid(decoder(z_1))), pixel by pixel.

Each conditional has a network of its own, with loc and log scale in two heads. Rezende, Mohamed, Wierstra 2014; with
one and two layers in Burda, Grosse, Salakhutdinov 2015, section 5. With L = 1 it is `model=vae`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from vi_core.distributions import supports
from vi_core.distributions.normal import Normal, standard_normal
from vi_core.errors import require
from vi_core.models.autoencoders._images import BernoulliImages
from vi_core.models.base import Factors
from vi_core.networks.conditional import layer_widths, normal_from
from vi_core.networks.initialization import Initialization, OutputBias, initialize, set_output_bias
from vi_core.networks.mlp import MLP
from vi_core.types import Latent, Latents


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

    def decoded(self, z: Latents) -> Tensor:
        return z["z1"]

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

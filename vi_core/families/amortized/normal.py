"""Amortised Normals, from the data to one latent or upwards through a chain of them:

    q(z | x) = N(z_1; loc_1(x), diag scale_1(x)²) Π_l N(z_{l+1}; loc_{l+1}(z_l), diag scale_{l+1}(z_l)²).

The head of the encoder of one latent yields loc and the log-variance, as in Kingma, Welling 2014, appendix C. For the
chain see Burda, Grosse, Salakhutdinov 2015, section 5. The parameters of q(z_1 | x) for given x are loc and scale;
those of q(z_{l+1} | z_l) are the weights of its network, since loc and scale are known with z_l only. Stopping the
gradient on both leaves the path through the draws, as sticking the landing wants it: z_l still moves loc and scale of
z_{l+1}.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vi_core.distributions import supports
from vi_core.distributions.normal import Normal
from vi_core.families.base import Family, VariationalDistribution, all_local
from vi_core.families.mean_field import MeanFieldDistribution
from vi_core.networks.convolutional import Features
from vi_core.networks.initialization import Initialization, initialize
from vi_core.networks.mlp import ACTIVATIONS, MLP, Activation, apply_network, layer_widths, normal_from, weights_of
from vi_core.types import Graph, Latent, Latents, Params


class AmortizedNormal(Family):
    """An encoder network for a model with one real latent vector per data point.

    Args:
        latents: The model's latents: one, real, local, with shape (D,).
        replicates: R; 1, since the network has one set of weights.
        event_size: Length of a flattened data point; known from the data.
        features: Layers of the encoder that see the image as rows and columns; None for none.
        hidden: Widths of the encoder's hidden layers, from the image or its features to the latent.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    name = "amortized_normal"
    described = "one real vector for each data point"
    amortized = True

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        event_size: int = 1,
        /,
        *,
        features: Features | None = None,
        hidden: Sequence[int] = (200, 200),
        activation: str = "leaky_relu",
    ):
        super().__init__()
        self.check_latents(latents, replicates)
        ((self.latent, latent),) = latents.items()
        self.replicates = 1
        self.layout = {self.latent: frozenset({"loc", "scale"})}
        self.features = nn.Identity() if features is None else features
        inputs = event_size if features is None else features.size
        self.encoder = MLP([inputs, *hidden, 2 * latent.shape[0]], activation, "family")

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return len(latents) == 1 and all_local(latents, supports.real, 1)

    def variational(self, x: Any = None) -> Params:
        """Encode images (B, inputs) into loc and scale, each (1, B, D)."""
        loc, log_variance = self.encoder(self.features(x)).unsqueeze(0).chunk(2, dim=-1)
        return {self.latent: {"loc": loc, "scale": (0.5 * log_variance).exp()}}

    def distribution(self, params: Params) -> MeanFieldDistribution:
        return MeanFieldDistribution({self.latent: Normal(**params[self.latent])}, {self.latent: 1})


DRAWS = 1000  # for moments of all latents but the first: their standard error is 3 % of the deviation


class AmortizedNormalChainDistribution(VariationalDistribution):
    """Diagonal Normals, the first with parameters (1, B, D), each other one with a network on the latent before it.

    The conditionals at the last draw are cached: estimators draw z and then evaluate its density, and a second pass
    through the same networks would take a tenth of a step of an importance-weighted bound.
    """

    def __init__(self, params: Params, activation: Activation):
        self.first, *others = params
        self.factor, self.activation = Normal(**params[self.first]), activation
        self.networks = {name: params[name] for name in others}
        self.before = dict(pairwise(params))
        self.last: dict[str, tuple[Tensor, bool, Normal]] = {}

    def rsample(self, num_samples: int) -> Latents:
        z = {self.first: self.factor.rsample(num_samples)}
        for name, after in self.before.items():
            z[after] = self._conditional(after, z[name]).rsample(1).squeeze(0)
        return z

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        terms = {self.first: self.factor.log_prob(z[self.first]).sum(dim=-1)}
        for name, after in self.before.items():
            terms[after] = self._conditional(after, z[name]).log_prob(z[after]).sum(dim=-1)
        return terms

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return exact moments of the first latent; of the others by E[loc] and E[scale²] + Var[loc] over draws."""
        found, z = {self.first: (self.factor.mean, self.factor.scale)}, self.sample(DRAWS)
        for name, after in self.before.items():
            given = self._conditional(after, z[name])
            variance = given.variance.mean(dim=0) + given.loc.var(dim=0, correction=0)
            found[after] = (given.loc.mean(dim=0), variance.sqrt())
        return found

    def _conditional(self, name: str, below: Tensor) -> Normal:
        """Return q(z_{l+1} | z_l), with parameters (K, R, B, D), at draws of the latent before, (K, R, B, D')."""
        draw, with_gradient, given = self.last.get(name, (None, False, None))
        if given is None or draw is not below or with_gradient != torch.is_grad_enabled():
            given = normal_from(apply_network(self.networks[name], self.activation, below))
            self.last[name] = (below, torch.is_grad_enabled(), given)
        return given


class AmortizedNormalChain(Family):
    """An encoder network for the first of the model's latents, and one from each latent to the next.

    Args:
        latents: The model's latents, from the data upwards: each real and local, with shape (D,).
        replicates: R; 1, since the networks have one set of weights.
        event_size: Length of a flattened data point; known from the data.
        widths: Hidden widths of the network of each latent, from below to above.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
        initialization: Law of the initial weights; None for that of `torch.nn.Linear`.
    """

    name = "amortized_normal_chain"
    described = "real vectors for each data point"
    amortized = True

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        event_size: int = 1,
        /,
        *,
        widths: Sequence[Sequence[int]] = ((200, 200), (100, 100)),
        activation: str = "tanh",
        initialization: Initialization | None = None,
    ):
        super().__init__()
        self.check_latents(latents, replicates)
        dims = [event_size, *(latent.shape[0] for latent in latents.values())]
        hidden = layer_widths(widths, len(latents), "family")
        sizes = [[below, *inside, 2 * above] for (below, above), inside in zip(pairwise(dims), hidden, strict=True)]
        networks = [MLP(size, activation, "family") for size in sizes]
        for network in networks:
            initialize(network, initialization, heads=2)
        self.replicates, self.activation = 1, ACTIVATIONS[activation]()
        self.encoder, self.upper = networks[0], nn.ModuleList(networks[1:])
        self.first, *self.others = latents
        self.layout = {self.first: frozenset({"loc", "scale"})}
        self.layout |= {name: frozenset(group) for name, group in self._weights().items()}

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return all_local(latents, supports.real, 1)

    @property
    def parents(self) -> Graph:
        return {self.first: frozenset()} | {above: frozenset({name}) for name, above in pairwise(self.layout)}

    def variational(self, x: Any = None) -> Params:
        """Encode images (B, inputs) into loc and scale, each (1, B, D); weights of other networks are (1, 1, ...)."""
        q = normal_from(self.encoder(x).unsqueeze(0))
        return {self.first: {"loc": q.loc, "scale": q.scale}} | self._weights()

    def _weights(self) -> Params:
        return {name: weights_of(network) for name, network in zip(self.others, self.upper, strict=True)}

    def distribution(self, params: Params) -> VariationalDistribution:
        return AmortizedNormalChainDistribution(params, self.activation)

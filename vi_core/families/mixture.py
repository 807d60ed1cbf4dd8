"""Mixtures of Normals with equal weights on unconstrained space: q(v) = (1/C) Σ_c N(v; m_c, L_c L_cᵀ).

Number and weights of the components are fixed, so that which component a draw is from does not depend on a parameter,
and a draw v = m_c + L_c ε is differentiable. Independent draws choose c uniformly. **Balanced** draws give each
component as many of the K draws as another, or one more, and which have one more is drawn uniformly: then each
component has K/C draws on average and

    E[(1/K) Σ_k f(v_k)] = (1/C) Σ_c E_{N_c}[f] = E_q[f]

for every f and every K, by the law of total expectation, while the variance of E[f | c] over components is gone where
C divides K. With f = log w the ELBO, its pathwise gradient and, as E_q[∇ log q] = 0, the path derivative are unbiased.
A bound whose samples share a logarithm is defined by independent draws, and score-function gradients with coefficients
from the other samples need them too: those use `rsample` and `sample`. Arenz, Dahlinger, Ye, Volpp, Neumann 2023;
Morningstar et al. 2021 on stratified draws.
"""

import math

import torch
from torch import Tensor

from vi_core.errors import require
from vi_core.families._packed import Entry
from vi_core.families.normals import CholeskyNormal, exponential, noise
from vi_core.families.unconstrained import Base, Normals, Preconditioner, StoredFamily
from vi_core.per_replicate import PerReplicate
from vi_core.types import Graph, Latent


class NormalMixture(Base):
    """C Normals with weights 1/C.

    Args:
        loc, scale: (*batch, C, D).
        lower: (*batch, C, P), entries of the Cholesky factors below their diagonals.
        places: (2, P), rows and columns of these.
    """

    def __init__(self, loc: Tensor, scale: Tensor, lower: Tensor, places: Tensor):
        self.components = CholeskyNormal(loc, scale, lower, places)
        self.batch, self.count = loc.shape[:-2], loc.shape[-2]

    def rsample(self, num_samples: int) -> Tensor:
        shape = (num_samples, *self.batch)
        return self._draw(torch.randint(self.count, shape, device=self.components.loc.device))

    def balanced(self, num_samples: int) -> Tensor:
        like = self.components.loc
        rounds = -(-num_samples // self.count)
        last = torch.rand(self.count, *self.batch, device=like.device).argsort(dim=0)  # of which the first are taken
        return self._draw(last.repeat(rounds, *(1,) * len(self.batch))[:num_samples])

    def _draw(self, component: Tensor) -> Tensor:
        """Draw from components, given by number (K, *batch), the same noise for all, of which one is taken."""
        normals, place = self.components, component[..., None, None]
        standard = noise(len(component), normals.loc[..., 0, :])[..., None, :, None]
        all_draws = normals.loc + (normals.cholesky @ standard).squeeze(-1)
        return all_draws.take_along_dim(place, dim=-2).squeeze(-2)

    def log_terms(self, v: Tensor) -> Tensor:
        each = self.components.log_terms(v.unsqueeze(-2)).sum(-1)
        return each.logsumexp(dim=-1, keepdim=True) - math.log(self.count)

    @property
    def normals(self) -> Normals:
        loc, cholesky = self.components.loc, self.components.cholesky
        return [(loc[..., c, :], cholesky[..., c, :, :]) for c in range(self.count)]


class MixtureOfNormals(StoredFamily):
    """A mixture of Normals with any covariances, and equal weights.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        components: C, at least 1.
        loc_std: Deviation of the initial means of components about the origin, in preconditioned coordinates.
        scale: Initial deviation of each coordinate; one number, or one for each replicate.
        start: Where the origin lies: `random`, `mode`, or `run:<folder>`, where an earlier fit ended.
        preconditioner: Which curvature at the origin scales the coordinates.
    """

    name = "mixture_of_normals"
    places: Tensor

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        components: int = 4,
        loc_std: PerReplicate = 0.5,
        scale: PerReplicate = 1.0,
        start: str = "mode",
        preconditioner: Preconditioner = "full",
    ):
        require(components >= 1, f"family.components={components} must be at least 1.")
        self.check_latents(latents)
        size = sum(math.prod(latent.unconstrained_shape) for latent in latents.values())
        places = torch.tril_indices(size, size, offset=-1)
        entries = [
            Entry("u", "loc", (components, size), 0.0, None, loc_std),
            Entry("u", "scale", (components, size), scale, exponential),
            Entry("u", "lower", (components, places.shape[1]), 0.0),
        ]
        super().__init__(latents, replicates, entries, start, preconditioner)
        self.register_buffer("places", places, persistent=False)

    @property
    def parents(self) -> Graph:
        return {}

    def law(self, **parameters: Tensor) -> NormalMixture:
        return NormalMixture(**parameters, places=self.places)

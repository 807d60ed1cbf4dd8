"""Contract of a model: an unnormalised target p(x, z), with closed forms and exact answers where they are known.

Every model has `latents` and `factors`. Its other abilities are protocols: an estimator or algorithm that needs one
checks for it before the first step, and refuses in one line where it is missing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vi_core.errors import Unsupported
from vi_core.models.diffusion.process import Diffusion
from vi_core.types import Latent, Latents, Params

Factors = dict[str, tuple[Tensor, frozenset[str]]]  # name -> (log density (K, *batch), latents that it mentions)
Layout = Mapping[str, frozenset[str]]  # latent -> names of its variational parameters


class Model(nn.Module, ABC):
    """A density p(x, z), with data x in whatever form `summarize` returns.

    Attributes:
        latents: The latent variables by name, in the order of coordinate updates.
        layouts: Parameters of the q for which the model's closed forms hold; see `Family.layout`.
        lacks: Constants that log p(x, z) lacks, in words; empty where it has all of them.
        recordable: Whether all operations are torch's, so that a step can be recorded and repeated without Python.
        per_replicate: Names of columns whose second axis is one of replicates, each of which has data of its own.
        objective: What the bound is, on the axes of figures, where it is another thing than a bound; else empty.
        reports_latents: Whether results describe the latents themselves; else `HasColumns.reported` alone.
    """

    latents: dict[str, Latent]
    layouts: tuple[Layout, ...] = ()
    lacks: str = ""
    per_replicate: frozenset[str] = frozenset()
    objective: ClassVar[str] = ""
    recordable: ClassVar[bool] = True
    reports_latents: ClassVar[bool] = True

    @abstractmethod
    def factors(self, z: Latents, x: Any) -> Factors:
        """Return the factors of log p(x, z) at z, each (K, *batch), with normalising constants kept."""

    def log_joint(self, z: Latents, x: Any) -> Tensor:
        """Return log p(x, z), with shape (K, *batch)."""
        return reduce(add, [value for value, _ in self.factors(z, x).values()])

    def check_data(self, x: Tensor) -> None:
        """Raise `Unsupported` for a batch (B, *event) that the model does not describe; called once."""

    @property
    def has_local(self) -> bool:
        """Whether data points have latents of their own, so that q is conditioned on them."""
        return any(latent.local for latent in self.latents.values())

    @property
    def has_points(self) -> bool:
        """Whether a minibatch gives an unbiased estimate of the bound; so where each point has its own latents."""
        return self.has_local

    def knows(self, layout: Layout) -> bool:
        """Whether the model's closed forms hold for a q with these parameters."""
        return layout in self.layouts

    @property
    def has_quantities(self) -> bool:
        """Whether results describe functions of the latents beside them."""
        return False

    def reported(self, z: Latents, x: Any) -> Latents:
        """Return what results describe at draws (K, R, 1, *event), by name; the latents themselves by default."""
        return z

    def seen_by(self, replicate: int, x: Any) -> Any:
        """Return the data of one replicate, of all that the factors see; the same for all by default."""
        return x

    def summarize(self, x: Tensor) -> Any:
        """Return what the factors need of the whole data set x (N, *event), computed once; x itself by default."""
        return x


@runtime_checkable
class HasColumns(Protocol):
    """A model of data by name, which declares its latents when it sees them."""

    def observe(self, data: Mapping[str, Tensor], num_points: int) -> None:
        """Take in all data, by name, of N points, and declare the latents; refuse what does not fit in one line."""
        ...

    def reported(self, z: Latents, x: Any) -> dict[str, Tensor]:
        """Return what results describe at each draw (K, R, 1, *event): latents and functions of them, by name."""
        ...

    def log_predictive(self, z: Latents, x: Any) -> Tensor:
        """Return the log predictive density of each data point, (R, B), for draws z of q."""
        ...


@runtime_checkable
class HasClosedFormKL(Protocol):
    """A model whose KL(q(z) ‖ p(z)) has a closed form, for the families that it `knows`."""

    def log_likelihood(self, z: Latents, x: Any) -> Tensor:
        """Return log p(x | z), with shape (K, *batch)."""
        ...

    def kl(self, params: Params) -> Tensor:
        """Return KL(q ‖ prior), with shape (*batch), differentiable."""
        ...


@runtime_checkable
class HasNormalPrior(Protocol):
    """A model whose prior may be one Normal law of all latents: its KL from a Normal q has a closed form."""

    def log_likelihood(self, z: Latents, x: Any) -> Tensor:
        """Return log p(x | z), with shape (K, *batch)."""
        ...

    def normal_prior(self) -> tuple[Tensor, Tensor]:
        """Return the mean m and a lower triangular W of the prior N(m, (WᵀW)⁻¹) of all latents, side by side.

        m is (R, 1, D), with R = 1 where the replicates share it; W is its diagonal (R, 1, D), or all of it
        (R, 1, D, D). Raises `Unsupported` naming the first latent with another law.
        """
        ...


@runtime_checkable
class HasExpectedBound(Protocol):
    """A model whose ELBO has a closed form, for the families that it `knows`."""

    def expected_bound(self, params: Params, x: Any) -> Tensor:
        """Return the ELBO of q, with shape (*batch), differentiable in its parameters."""
        ...


@runtime_checkable
class HasExactPosterior(Protocol):
    """A model with known posterior moments and evidence."""

    def exact(self, x: Any) -> dict[str, float]:
        """Return posterior means by latent name, deviations as `<latent>.std`, and `log_evidence`, in nats."""
        ...


@runtime_checkable
class HasExactMarginals(HasExactPosterior, Protocol):
    """A model with an exact posterior whose marginals are known laws."""

    def exact_marginals(self, x: Any) -> dict[str, Distribution]:
        """Return the law of each scalar by name, such as `beta[0]`, in float64; {} where there is no common one."""
        ...


@runtime_checkable
class HasUpdates(Protocol):
    """A model with conjugate coordinate updates, for the families that it `knows`."""

    def update(self, block: str, params: Params, x: Any) -> dict[str, Tensor]:
        """Return the parameters of q(block) that maximise the ELBO with the other blocks of `params` held fixed.

        x is what `summarize` returns, or what `complete` returns for models with assignments.
        """
        ...


@runtime_checkable
class HasFisher(Protocol):
    """A likelihood whose Fisher information is known."""

    def fisher(self, z: Latents, x: Any) -> Tensor:
        """Return the information on the scalar latents, in their order, (*batch, L, L), at z (*batch)."""
        ...


@runtime_checkable
class HasPredictive(Protocol):
    """A model of univariate data with a density that can be drawn over their histogram."""

    def log_density(self, points: Tensor, z: Latents) -> Tensor:
        """Return log p(point | z), with shape (G, *shape of z), at `points` (G,)."""
        ...


@runtime_checkable
class GeneratesImages(Protocol):
    """A model that maps latents to the means of pixels."""

    def pixel_means(self, z: Latents) -> Tensor:
        """Return E[x | z] in [0, 1], with shape (K, *batch, pixels)."""
        ...

    def sample_prior(self, num_samples: int) -> Latents:
        """Draw z ~ p(z), each (num_samples, 1, 1, *event)."""
        ...


class Network(NamedTuple):
    """A Bayesian network, for its drawing.

    Attributes:
        parents: By node.
        observed: Nodes that are data.
        plates: Nodes inside by label, such as `N = 100`.
        back: Edges of q, from data to latents.
        dotted: Edges that stand for a part of a chain.
    """

    parents: dict[str, tuple[str, ...]]
    observed: frozenset[str]
    plates: dict[str, frozenset[str]]
    back: tuple[tuple[str, str], ...] = ()
    dotted: frozenset[tuple[str, str]] = frozenset()


@runtime_checkable
class HasNetwork(Protocol):
    """A model whose network has nodes that its factors do not show: summed out, or steps of one latent."""

    def network(self, points: int) -> Network:
        """Return the network on so many data points."""
        ...


class Completed(NamedTuple):
    """The step of coordinate ascent that goes over the data.

    Attributes:
        bound: The ELBO with the assignments of the data points at their optimum, (*batch).
        statistics: The data completed by their expected assignments: what `update` sees in place of the data.
        magnitude: Sum of the absolute values of what `bound` adds up, (*batch): its rounding is relative to this.
    """

    bound: Tensor
    statistics: Any
    magnitude: Tensor


@runtime_checkable
class HasAssignments(Protocol):
    """A mixture whose assignments of data points coordinate ascent keeps, and `factors` sums out."""

    def complete(self, params: Params, x: Any) -> Completed:
        """Set the assignments to their optimum given `params`; one pass over the data, with no gradient."""
        ...

    def responsibilities(self, params: Params, points: Tensor, x: Any) -> Tensor:
        """Return q(component) of `points` (B, *event), (R, B, components)."""
        ...


@runtime_checkable
class HasStart(Protocol):
    """A model that draws initial parameters for coordinate ascent, so that replicates are random restarts."""

    def start(self, params: Params, x: Any) -> Params:
        """Return initial parameters like `params`, drawn for each replicate from torch's default stream."""
        ...


@runtime_checkable
class HasConstants(Protocol):
    """A model whose constants can be estimated by empirical Bayes; they are buffers, one set per replicate."""

    @property
    def estimates_constants(self) -> bool:
        """Whether the constants are estimated."""
        ...

    def estimate_constants(self, params: Params, x: Any, alive: Tensor) -> None:
        """Set the constants of replicates that are `alive` (R,) to the maximum of the ELBO given q."""


@runtime_checkable
class HasCounts(Protocol):
    """A mixture of places around a latent `epicentre` and of counts, with posterior predictive checks of the counts."""

    def place_scale(self) -> Tensor:
        """Return the standard deviation of a place around its epicentre, (R,)."""
        ...

    def count_probabilities(self, params: Params, counts: Tensor) -> Tensor:
        """Return the posterior predictive probability of `counts` (G,), (R, G)."""
        ...

    def misfit(self, params: Params, x: Any) -> dict[str, Tensor]:
        """Return statistics of the observed and the predicted counts by name, each (R,)."""
        ...


class Denoising(NamedTuple):
    """One term of a diffusion model's bound at given noise, each (K, *batch) and differentiable.

    Attributes:
        squared_error: ‖ε − ε_θ(x_t, t)‖².
        term: An unbiased estimate of L_{t−1}; L_0 where t = 1.
    """

    squared_error: Tensor
    term: Tensor


@runtime_checkable
class HasDenoisingTerms(Protocol):
    """A diffusion model: −ELBO = L_T + Σ_{t>1} L_{t−1} + L_0, for the q that it `knows`.

    Attributes:
        num_steps: T.
        process: The forward process, which the family uses too.
        units: Name of nats per dimension divided by log 2: `bits per dimension`, or `differential` ones of a density.
    """

    num_steps: int
    process: Diffusion
    units: str

    def end_term(self, x: Tensor) -> Tensor:
        """Return L_T = KL(q(x_T | x_0) ‖ p(x_T)), in closed form, (1, B), for data (B, D)."""
        ...

    def denoising(self, x: Tensor, t: Tensor, noise: Tensor) -> Denoising:
        """Return the step t, (K, 1, B), from x_t at noise ε ~ N(0, I), (K, 1, B, D), for data (B, D)."""
        ...

    def affine_optimum(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """Return L_0, L_1, ..., L_T, (T + 1,), of the best affine denoiser for x_0 with these moments.

        It is the best of all denoisers for Gaussian data. NaN for terms that the moments do not determine.
        """
        ...

    def generate(self, num_samples: int) -> Tensor:
        """Sample the reverse process; return x_T, ..., x_0 in the data's units, (T + 1, num_samples, D)."""
        ...


def denoising_terms(model: HasDenoisingTerms, x: Tensor, num_samples: int) -> Tensor:
    """Return independent estimates of L_0, L_1, ..., L_T by data point, (T + 1, B), each from `num_samples` draws."""
    terms = []
    for step in range(1, model.num_steps + 1):
        noise = torch.randn(num_samples, 1, *x.shape, dtype=x.dtype, device=x.device)
        t = torch.full(noise.shape[:-1], step, device=x.device)
        terms.append(model.denoising(x, t, noise).term.mean(dim=(0, 1)))
    return torch.stack([*terms, model.end_term(x).squeeze(0)])


def require_points(model: Model, what: str) -> None:
    """Raise `Unsupported` where a likelihood has no density for each data point."""
    if not model.has_points:
        raise Unsupported(
            f"{what} needs a likelihood with one density for each data point, which {type(model).__name__} lacks."
        )

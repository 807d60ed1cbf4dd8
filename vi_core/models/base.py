"""Contract of a model: an unnormalised target p(x, z), with closed forms and exact answers where they are known.

Every model has `latents` and `factors`. Its other abilities are protocols: an estimator or algorithm that needs one
checks for it before the first step, and refuses in one line where it is missing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from vi_core.types import Latent, Latents, Params

Factors = dict[str, tuple[Tensor, frozenset[str]]]  # name -> (log density (K, *batch), latents that it mentions)
Layout = Mapping[str, frozenset[str]]  # latent -> names of its variational parameters


class Model(nn.Module, ABC):
    """A density p(x, z), with data x in whatever form `summarize` returns.

    Attributes:
        latents: The latent variables by name, in the order of coordinate updates.
    """

    latents: dict[str, Latent]

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

    def knows(self, layout: Layout) -> bool:
        """Whether the model's closed forms hold for a q with these parameters; see `Family.layout`."""
        return False

    def summarize(self, x: Tensor) -> Any:
        """Return what the factors need of the whole data set x (N, *event), computed once; x itself by default."""
        return x


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

"""Protocols of mixtures with a latent assignment of each data point, for coordinate ascent and figures."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from vi_core.types import Params


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

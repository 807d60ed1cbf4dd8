"""The contract of a variational family and of the joint density that it yields for given parameters.

A family owns unconstrained parameters and turns them into constrained `Params`. A `VariationalDistribution` closes over
explicit tensors and never over a module, so that a gradient is stopped on `Params`, in one visible place.
"""

from abc import ABC, abstractmethod
from functools import reduce
from operator import add
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vi_core.distributions import supports
from vi_core.errors import Unsupported
from vi_core.types import Latent, Latents, Params


class VariationalDistribution(ABC):
    """q(z) for given parameters."""

    parents: dict[str, frozenset[str]]
    """The family's own graph: latent -> latents that it is conditioned on."""

    @abstractmethod
    def rsample(self, num_samples: int) -> Latents:
        """Draw z ~ q, each latent (K, *batch, *event), differentiable in the parameters.

        Where the family is `relaxed`, the draws stand beside the support of q, and `on_support` takes them there.
        """

    @abstractmethod
    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        """Return log q(z_i | parents of z_i) by latent, each (K, *batch)."""

    @abstractmethod
    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the marginal mean and standard deviation by latent, each (*batch, *event)."""

    def sample(self, num_samples: int) -> Latents:
        """Draw z ~ q, each latent (K, *batch, *event), with no gradient."""
        with torch.no_grad():
            return self.rsample(num_samples)

    def on_support(self, z: Latents) -> Latents:
        """Return draws of `rsample` moved onto the support of q, with law q; without gradient where they move."""
        return z

    def log_prob(self, z: Latents) -> Tensor:
        """Return log q(z), with shape (K, *batch)."""
        return reduce(add, self.log_prob_terms(z).values())


class Family(nn.Module, ABC):
    """A parametric set of densities q(z) or q(z | x).

    `replicates` (R) is the number of independent parameter sets; with R > 1 every parameter has R as its first axis.
    """

    has_scores: ClassVar[bool] = True
    """Whether log q depends on the parameters at a fixed z: not so for a point mass."""
    relaxed: bool = False
    """Whether differentiable draws leave the latents' support, where densities have no meaning."""
    bias: str = ""
    """Why the derivative of a draw does not give an unbiased gradient, in a few words; empty where it does."""
    replicates: int
    layout: dict[str, frozenset[str]]
    """Latent -> names of its parameters in `Params`: what a model's closed forms are looked up by."""

    @abstractmethod
    def variational(self, x: Any = None) -> Params:
        """Return the constrained parameters, differentiable: the encoder's output where the family is amortised."""

    @abstractmethod
    def distribution(self, params: Params) -> VariationalDistribution:
        """Return q for given parameters; pure."""

    def advance(self) -> None:
        """Take notice of a training step: schedules move here, in buffers, and nowhere else; none by default."""

    def monitor(self) -> dict[str, Tensor]:
        """Return numbers of the family's own to record beside the bound, by name, each (R,): a temperature."""
        return {}

    def stored_names(self) -> list[str] | None:
        """Name each unconstrained number of a replicate where all stand in one tensor (R, 1, P), else None."""
        return None

    def pull_back(self, information: Tensor) -> Tensor:
        """Carry an information on constrained parameters, (R, P, P) in the order of `flatten`, to the stored ones."""
        raise Unsupported(f"{type(self).__name__} does not store its parameters in one tensor.")

    def assign(self, params: Params) -> None:
        """Set the family's parameters to given constrained values."""
        raise Unsupported(f"{type(self).__name__} has no parameters of its own that could be set.")


@runtime_checkable
class HasInformation(Protocol):
    """A family whose Fisher information is known; all its parameters stand in one tensor (R, 1, P)."""

    def fisher(self) -> Tensor:
        """Return the Fisher information of q on its stored parameters, (R, P, P), at their present values."""
        ...


@runtime_checkable
class HasDomain(Protocol):
    """A family whose stored parameters are not free; all stand in one tensor (R, 1, P)."""

    def confine(self, step: Tensor) -> Tensor:
        """Return `step` (R, 1, P), cut for each replicate where it would leave the domain."""
        ...


def refuse_local(latents: dict[str, Latent], family: str) -> None:
    """Raise unless all latents are shared by the data points."""
    for name, latent in latents.items():
        if latent.local:
            raise Unsupported(
                f"family={family} has no parameters per data point, which latent '{name}' needs; "
                f"use family={suited_family(latents)}."
            )


def suited_family(latents: dict[str, Latent]) -> str:
    """Name the family for a model with these latents, for messages."""
    latent = next(iter(latents.values()))
    if not latent.local:
        return "mean_field"
    if latent.support == supports.one_hot:
        return "amortized_categorical"
    if len(latents) > 1:
        return "amortized_normal_chain"
    return "forward_process" if len(latent.shape) == 2 else "amortized_normal"


def refuse_replicates(replicates: int, family: str) -> None:
    """Raise unless there is one replicate; for families whose network has one set of weights."""
    if replicates > 1:
        raise Unsupported(
            f"replicates={replicates} does not go with family={family}, whose network has one set of "
            "weights; use replicates=1 and sweep the seed: -m 'seed=range(3)'."
        )

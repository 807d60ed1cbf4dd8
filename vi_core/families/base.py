"""Contract of a variational family, and of the distribution q that it yields for given parameters.

A family owns unconstrained parameters and turns them into constrained `Params`. A `VariationalDistribution` closes over
explicit tensors and never over a module, so that a gradient is stopped on `Params`, in one visible place.
"""

import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from importlib import import_module
from operator import add
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from vi_core.distributions.supports import Support
from vi_core.errors import Unsupported
from vi_core.types import Graph, Latent, Latents, Params


class VariationalDistribution(ABC):
    """q(z) for given parameters.

    Attributes:
        kind: What it is, for `repr`; empty for the name of the class.
    """

    kind: str = ""

    def __repr__(self) -> str:
        kind, shapes = self.kind or type(self).__name__, self.shapes()
        if not shapes:
            return kind
        latents = ", ".join(f"{name} {tuple(shape[2:])}" if shape[2:] else name for name, shape in shapes.items())
        replicates, points = next(iter(shapes.values()))[:2]
        line = f"{kind} of {latents}; {replicates} replicate{'s' * (replicates > 1)}"
        return f"{line}, {points} data points" if points > 1 else line

    def shapes(self) -> Mapping[str, Sequence[int]]:
        """Return the shape (*batch, *event) of one value of each latent, for `repr`; empty where it is not known."""
        return {}

    @abstractmethod
    def rsample(self, num_samples: int) -> Latents:
        """Draw z ~ q, each latent (K, *batch, *event), differentiable in the parameters.

        Draws of a `relaxed` family are not on the support of q; `on_support` moves them there.
        """

    def balanced(self, num_samples: int) -> Latents:
        """Draw like `rsample`, for means over the K draws alone, which may vary less than those of independent draws.

        E[(1/K) Σ_k f(z_k)] = E_q[f(z)] for every f. A bound whose samples share a logarithm needs `rsample`.
        """
        return self.rsample(num_samples)

    @abstractmethod
    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        """Return log q(z_i | parents of z_i) by latent, each (K, *batch)."""

    @abstractmethod
    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the marginal mean and standard deviation by latent, each (*batch, *event)."""

    def quantiles(self, levels: Sequence[float]) -> dict[str, tuple[Tensor, ...]]:
        """Return marginal quantiles, one for each level, each (*batch, *event), of latents where they are known.

        Those of other latents are estimated from draws.
        """
        return {}

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
    """A parametric set of densities q(z), or q(z | x) where it is amortised.

    Attributes:
        name: The value of the setting `family`, for messages.
        described: The latents that the family has parameters for, in words.
        amortized: Whether an encoder network yields the parameters; it has one set of weights, hence R = 1.
        has_scores: Whether log q depends on the parameters at a fixed z: not so for a point mass.
        fixed: Whether q is found before the first step, and training has nothing to move.
        singular: Whether its parameters can move and leave q as it is, so that its Fisher information is singular.
        relaxed: Whether differentiable draws leave the latents' support, where densities have no meaning.
        bias: Why the derivative of a draw does not give an unbiased gradient, in a few words; empty where it does.
        replicates: R, the number of independent parameter sets; with R > 1 every parameter has R as its first axis.
        layout: Latent -> names of its parameters in `Params`: what a model's closed forms are looked up by.
        latents: Those that it was made for, where data points share them.
        given: The settings that its constructor was called with, by which a file describes it.
    """

    name: ClassVar[str]
    described: ClassVar[str]
    amortized: ClassVar[bool] = False
    has_scores: ClassVar[bool] = True
    fixed: ClassVar[bool] = False
    singular: ClassVar[bool] = False
    relaxed: bool = False
    bias: str = ""
    replicates: int
    layout: dict[str, frozenset[str]]
    latents: dict[str, Latent]
    given: dict[str, Any]

    def __new__(cls, *context: Any, **settings: Any) -> Self:
        family = super().__new__(cls)
        family.given = settings
        return family

    @classmethod
    @abstractmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        """Whether the family has parameters for a model with these latents."""

    @abstractmethod
    def variational(self, x: Any = None) -> Params:
        """Return the constrained parameters, differentiable: the encoder's output where the family is amortised."""

    @abstractmethod
    def distribution(self, params: Params) -> VariationalDistribution:
        """Return q for given parameters; pure."""

    @property
    def parents(self) -> Graph:
        """Directed graph of q: latent -> latents that its factor is conditioned on; without edges by default.

        Empty for a q whose log-density is not a sum of one term for each latent.
        """
        return dict.fromkeys(self.layout, frozenset[str]())

    def owners(self, group: str, name: str, size: int) -> tuple[str, ...]:
        """Return to which latent's term of log q each of the `size` numbers of a parameter belongs: here, its group.

        A number may also bear on the terms of descendants of that latent, and on no others.
        """
        return (group,) * size

    @classmethod
    def check_latents(cls, latents: dict[str, Latent], replicates: int = 1) -> None:
        """Raise `Unsupported` for latents that the family does not describe, or for more networks than it has."""
        if not cls.describes(latents):
            found = ", ".join(f"{name} ({latent})" for name, latent in latents.items())
            suited = " or ".join(suited_families(latents))
            way_out = f"use family={suited}." if suited else "no family describes these."
            raise Unsupported(f"family={cls.name} describes {cls.described}, but the model has {found}; {way_out}")
        if cls.amortized and replicates > 1:
            raise Unsupported(
                f"replicates={replicates} does not go with family={cls.name}, whose network has one set of weights; "
                "use replicates=1 and sweep the seed: -m 'seed=range(3)'."
            )

    def advance(self) -> None:
        """Count a training step; schedules of the family's own move here, in buffers, and nowhere else."""

    def monitor(self) -> dict[str, Tensor]:
        """Return numbers to record beside the bound, such as a temperature, by name, each (R,)."""
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
    """A family whose stored parameters are constrained; all stand in one tensor (R, 1, P)."""

    def confine(self, step: Tensor) -> Tensor:
        """Return `step` (R, 1, P), cut for each replicate where it would leave the domain."""
        ...


@runtime_checkable
class HasEntropy(Protocol):
    """A family whose entropy is known, but for the change of variables onto the latents' supports."""

    def entropy(self, params: Params, z: Latents) -> Tensor:
        """Return H[u] + log|det ∂z/∂u| at draws z of q for given parameters, (K, *batch): its mean is H[z].

        u are coordinates of z whose entropy H[u] has a closed form; z themselves where their own has one.
        """
        ...


@runtime_checkable
class HasKLToNormal(Protocol):
    """A family whose divergence from a Normal law of all latents is known, where all latents are real."""

    def kl_to_normal(self, params: Params, mean: Tensor, whitening: Tensor) -> Tensor:
        """Return KL(q ‖ N(m, (WᵀW)⁻¹)), (*batch), differentiable in the parameters.

        Args:
            params: Of q.
            mean: m, (R, 1, D), or with a first axis of one.
            whitening: W, lower triangular: its diagonal (R, 1, D), or all of it (R, 1, D, D).
        """
        ...


@runtime_checkable
class HasCoordinates(Protocol):
    """A family on unconstrained space, in coordinates that are set once from the target, before the first step.

    Attributes:
        origin: (R, 1, D).
        start: `random`, `mode` or `run:<folder>`: where the origin lies.
        preconditioner: `none`, `diagonal` or `full`: which curvature there scales the coordinates.
    """

    origin: Tensor
    start: Any
    preconditioner: Any

    def point(self, u: Tensor) -> tuple[Latents, Tensor]:
        """Return latents and log|det ∂z/∂u| at unconstrained coordinates (..., D)."""
        ...

    def coordinates(self, z: Latents) -> Tensor:
        """Return unconstrained coordinates (..., D) of latents."""
        ...

    def place(self, origin: Tensor, factor: Tensor | None) -> None:
        """Set the origin (R, 1, D), and the linear map (R, 1, D) or (R, 1, D, D) where there is one."""
        ...


@runtime_checkable
class HasPaths(HasCoordinates, Protocol):
    """A family that is a Normal of a path to a mode.

    Attributes:
        memory: Steps behind a point of the path from which the curvature there is estimated.
    """

    memory: int


def all_shared(latents: dict[str, Latent], *allowed: Support) -> bool:
    """Whether the data points share all latents, and each has one of the allowed supports."""
    return all(not latent.local and latent.support in allowed for latent in latents.values())


def all_local(latents: dict[str, Latent], support: Support, axes: int) -> bool:
    """Whether each data point has its own latents, all with one support and that many axes."""
    return all(z.local and z.support == support and len(z.shape) == axes for z in latents.values())


def suited_families(latents: dict[str, Latent]) -> list[str]:
    """Name the families of this package that describe a model's latents; imports them all, for messages."""
    package = import_module(__package__ or "")
    modules = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for module in modules:
        import_module(module)
    own = (family for family in _concrete(Family) if family.__module__ in modules)
    return sorted({family.name for family in own if family.describes(latents)})


def _concrete(family: type[Family]) -> Iterator[type[Family]]:
    if not inspect.isabstract(family):
        yield family
    for child in family.__subclasses__():
        yield from _concrete(child)

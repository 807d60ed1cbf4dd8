"""Normalising flows on unconstrained space: v = m + s ⊙ f(ε), ε ~ N(0, I), with a neural spline flow f.

    log q(v) = log N(ε) − log|det ∂f/∂ε| − Σ log s,    ε = f⁻¹((v − m)/s).

f is a chain of transformations by monotonic rational-quadratic splines on (−5, 5), the identity outside; the splines of
a coordinate are the output of a network that sees the coordinates before it. With `passes=2` it sees the first half of
them alone, a coupling layer, whose inverse takes two evaluations of the network. m and s let the flow move where the
splines are the identity. Durkan, Bekasov, Murray, Papamakarios 2019; the layers are those of `zuko`.

The networks of R replicates are one function of stacked weights (R, ...), mapped by `torch.func.vmap`. The noise is
drawn outside of it. A law remembers the density of its own last draws, which needs no inverse.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vi_core.distributions.normal import HALF_LOG_2PI
from vi_core.errors import Unsupported, require
from vi_core.families.normals import noise
from vi_core.families.unconstrained import Base, Preconditioner, UnconstrainedFamily
from vi_core.types import Graph, Latent, Params

RATE = 0.05  # weights in units of what is stored: a rate that suits locations and scales is too high for networks
SMALL = 0.01  # factor of the first weights of a network's last layer
POINTS = 1024  # of a Sobol sequence, for moments


class SplineMap(nn.Module):
    """f and its inverse as a module whose weights `functional_call` replaces.

    Args:
        chain: A lazy transformation of zuko.
    """

    def __init__(self, chain: nn.Module):
        super().__init__()
        self.chain = chain

    def forward(self, value: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        """Return f(value), or f⁻¹(value), and log|det ∂f/∂ε| there: (..., D) and (...)."""
        f: Any = self.chain()
        start = f.inv(value) if backwards else value
        end, log_det = f.call_and_ladj(start)
        return (start if backwards else end), log_det


class FlowLaw(Base):
    """The law of m + s ⊙ f(ε).

    Args:
        loc, scale: m and s, (*batch, D).
        weights: Of f by name, each (*batch, *shape).
        skeleton: f without weights of its own.
        buffers: Its constants by name.
    """

    def __init__(
        self, loc: Tensor, scale: Tensor, weights: dict[str, Tensor], skeleton: SplineMap, buffers: dict[str, Tensor]
    ):
        self.loc, self.scale, self.weights, self.skeleton, self.buffers = loc, scale, weights, skeleton, buffers
        self.drawn: tuple[Tensor, Tensor] | None = None

    def _map(self, value: Tensor, backwards: bool = False) -> tuple[Tensor, Tensor]:
        """Map (K, *batch, D), with weights for each batch element, or for each of the K too."""
        axes = self.loc.dim() - 1
        alone = value.dim() == self.loc.dim()  # one value for each set of weights
        given = value if alone else value.movedim(0, -2)
        flat = given.flatten(0, axes - 1)
        weights = {name: weight.flatten(0, axes - 1) for name, weight in self.weights.items()}

        def one(own: dict[str, Tensor], values: Tensor) -> Any:
            return torch.func.functional_call(self.skeleton, {**own, **self.buffers}, (values, backwards))

        found, log_det = torch.func.vmap(one)(weights, flat)
        found, log_det = found.reshape(given.shape), log_det.reshape(given.shape[:-1])
        return (found, log_det) if alone else (found.movedim(-2, 0), log_det.movedim(-1, 0))

    def _density(self, standard: Tensor, log_det: Tensor) -> Tensor:
        log_normal = -0.5 * standard.square().sum(-1) - standard.shape[-1] * HALF_LOG_2PI
        return (log_normal - log_det - self.scale.log().sum(-1)).unsqueeze(-1)

    def rsample(self, num_samples: int) -> Tensor:
        standard = noise(num_samples, self.loc)
        found, log_det = self._map(standard)
        v = torch.addcmul(self.loc, self.scale, found)
        self.drawn = v, self._density(standard, log_det)
        return v

    def log_terms(self, v: Tensor) -> Tensor:
        if self.drawn is not None and self.drawn[0] is v and (v.requires_grad or not torch.is_grad_enabled()):
            return self.drawn[1]
        return self._density(*self._map((v - self.loc) / self.scale, backwards=True))

    def points(self) -> Tensor:
        draws = torch.quasirandom.SobolEngine(self.loc.shape[-1]).draw(POINTS + 1, dtype=torch.float64)[1:]
        standard = (draws.mul(2).sub(1).erfinv() * math.sqrt(2)).to(self.loc)
        standard = standard.reshape(POINTS, *(1,) * (self.loc.dim() - 1), -1).expand(POINTS, *self.loc.shape)
        return torch.addcmul(self.loc, self.scale, self._map(standard)[0])


class Flow(UnconstrainedFamily):
    """A neural spline flow in preconditioned coordinates.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        transforms: Layers of f; the coordinates are in reversed order in every second one.
        bins: Of each spline.
        passes: Evaluations of a layer's network that its inverse takes, at least 2, which is coupling; as many as there
            are coordinates make a layer autoregressive.
        hidden: Widths of the hidden layers of each network.
        start: Where the origin lies: `random`, `mode`, or `run:<folder>`, where an earlier fit ended.
        preconditioner: Which curvature at the origin scales the coordinates.
    """

    name = "flow"

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        transforms: int = 3,
        bins: int = 8,
        passes: int = 2,
        hidden: Sequence[int] = (64, 64),
        start: str = "mode",
        preconditioner: Preconditioner = "full",
    ):
        for setting, value, least in (("transforms", transforms, 1), ("bins", bins, 2), ("passes", passes, 2)):
            require(value >= least, f"family.{setting}={value} must be at least {least}.")
        require(all(width >= 1 for width in hidden), f"family.hidden={list(hidden)} must be positive widths.")
        super().__init__(latents, replicates, start, preconditioner)
        size = self.space.size
        one = spline_map(size, transforms=transforms, bins=bins, passes=passes, hidden_features=list(hidden))
        self.skeleton = (one,)  # in a tuple, so that its weights are not among the family's
        self.names = {name.replace(".", "_"): name for name, _ in one.named_parameters()}
        self.weights = nn.ParameterDict({key: first_weights(one, name, replicates) for key, name in self.names.items()})
        self.loc = nn.Parameter(torch.zeros(replicates, size))
        self.log_scale = nn.Parameter(torch.zeros(replicates, size))
        self.constants = {name.replace(".", "_"): name for name, _ in one.named_buffers()}
        for key, name in self.constants.items():
            self.register_buffer(f"constant_{key}", one.get_buffer(name), persistent=False)
        self.layout = {"u": frozenset({"loc", "scale", *self.names})}

    @property
    def parents(self) -> Graph:
        return {}

    def variational(self, x: object = None) -> Params:
        """Return m, s and the weights of f, each (R, 1, *shape)."""
        weights = {key: RATE * self.weights[key].unsqueeze(1) for key in self.names}
        return {"u": {"loc": self.loc.unsqueeze(1), "scale": self.log_scale.exp().unsqueeze(1), **weights}}

    def law(self, **parameters: Tensor) -> FlowLaw:
        weights = {name: parameters[key] for key, name in self.names.items()}
        buffers = {name: getattr(self, f"constant_{key}") for key, name in self.constants.items()}
        return FlowLaw(parameters["loc"], parameters["scale"], weights, self.skeleton[0], buffers)


def spline_map(size: int, **settings: Any) -> SplineMap:
    """Return f of `size` coordinates; `Unsupported` where zuko is not installed."""
    try:
        from zuko.flows import NSF
    except ImportError as error:
        raise Unsupported(
            "family=flow needs zuko 1.6, which is not installed; python -m pip install 'zuko==1.6.0' adds it."
        ) from error
    return SplineMap(NSF(size, **settings).transform)


def first_weights(f: SplineMap, name: str, replicates: int) -> Tensor:
    """Draw what is first stored of one of f's parameters, (R, *shape): matrices uniformly, and vectors are zero.

    The bound of the weights is 1/√(inputs), for the last layer of a network a hundredth of that, so that f begins near
    the identity.
    """
    like = f.get_parameter(name)
    first = like.new_zeros(replicates, *like.shape)
    if like.dim() < 2:
        return first
    layers: Any = f.chain.transforms
    last = any(like is weight for layer in layers if hasattr(layer, "hyper") for weight in layer.hyper[-1].parameters())
    bound = (SMALL if last else 1.0) * like.shape[1] ** -0.5 / RATE
    return first.uniform_(-bound, bound)

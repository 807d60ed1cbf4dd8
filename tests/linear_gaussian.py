"""A linear-Gaussian amortised problem whose bound and whose gradient are known in closed form.

    p(z) = N(0, I_2),   p(x | z) = N(W z + b, s² I_3),   q(z | x) = N(A x + c, diag v).

With m = A x + c, r = x − W m − b and P = 3 pixels, the ELBO of one data point is

    ELBO(x) = −½ P log(2π s²) − (‖r‖² + Σ_d v_d ‖W_d‖²)/(2 s²) − ½ Σ_d (v_d + m_d² − 1 − log v_d),

    ∂/∂W = (r mᵀ − W diag v)/s²,   ∂/∂b = r/s²,   ∂/∂log s = −P + (‖r‖² + Σ_d v_d ‖W_d‖²)/s²,
    ∂/∂m = Wᵀ r/s² − m,   ∂/∂A = ∂/∂m xᵀ,   ∂/∂c = ∂/∂m,   ∂/∂log √v_d = 1 − v_d − v_d ‖W_d‖²/s².

The parts below are built like the library's own, from settings with `_target_`, so that the whole path from a
configuration to a step and to a held-out bound can be held against numbers. `EnumeratedEncoder` draws no random
numbers: its 36 samples are a product of equal-weight Gauss–Hermite nodes, on which a mean of a polynomial of degree 5
in the noise is its expectation. Every ELBO estimator of this problem averages polynomials of degree 4 or less.
"""

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from vi_core.datasets.base import Data, Dataset
from vi_core.distributions import supports
from vi_core.distributions.normal import Normal
from vi_core.families.base import Family, VariationalDistribution
from vi_core.families.mean_field import MeanFieldDistribution
from vi_core.models.base import Factors, Layout, Model
from vi_core.types import Latent, Latents, Params

PIXELS, LATENTS, NUM_POINTS, NUM_TEST, BATCH, RATE = 3, 2, 23, 11, 7, 0.1
NODES = torch.tensor(list(product([3**0.5, -(3**0.5), 0.0, 0.0, 0.0, 0.0], repeat=LATENTS)), dtype=torch.float64)
"""Equal-weight nodes (36, 2): the Gauss–Hermite rule of three nodes has weights 1/6, 1/6 and 4/6."""
PARAMETERS = {
    "W": [[0.8, -0.3], [0.1, 0.9], [-0.5, 0.4]],
    "b": [0.2, -0.1, 0.4],
    "log_s": [-0.2],
    "A": [[0.3, 0.1, -0.2], [-0.1, 0.4, 0.2]],
    "c": [0.1, -0.3],
    "log_scale": [-0.4, -0.9],
}
"""Where every run begins: the same numbers for every seed."""
ORTHOGONAL = [[2.0, 0.0], [0.0, 0.5], [0.0, 0.0]]
"""A W with orthogonal columns, whose posterior is a diagonal Normal: q can be exact."""

Values = dict[str, Tensor]
"""The six parameters by name."""


def start() -> Values:
    """Return PARAMETERS as tensors in float64."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in PARAMETERS.items()}


# --- closed forms ---------------------------------------------------------------------------------------------------


def elbo(p: Values, x: Tensor) -> Tensor:
    """ELBO (B,) of each data point of x (B, 3)."""
    m, s2, v = x @ p["A"].T + p["c"], (2 * p["log_s"]).exp(), (2 * p["log_scale"]).exp()
    misfit = (x - m @ p["W"].T - p["b"]).square().sum(1) + (v * p["W"].square().sum(0)).sum()
    kl = 0.5 * (v + m.square() - 1 - v.log()).sum(1)
    return -0.5 * PIXELS * (math.log(2 * math.pi) + s2.log()) - misfit / (2 * s2) - kl


def gradient(p: Values, x: Tensor) -> Values:
    """The derivative of the mean of `elbo` over x (B, 3), written out."""
    m, s2, v = x @ p["A"].T + p["c"], (2 * p["log_s"]).exp(), (2 * p["log_scale"]).exp()
    r, columns, count = x - m @ p["W"].T - p["b"], p["W"].square().sum(0), len(x)
    slope = r @ p["W"] / s2 - m
    return {
        "W": (r.T @ m / count - p["W"] * v) / s2,
        "b": r.mean(0) / s2,
        "log_s": -PIXELS + (r.square().sum(1).mean() + (v * columns).sum()) / s2,
        "A": slope.T @ x / count,
        "c": slope.mean(0),
        "log_scale": 1 - v - v * columns / s2,
    }


def log_evidence(p: Values, x: Tensor) -> Tensor:
    """log p(x), (B,): x ~ N(b, W Wᵀ + s² I)."""
    covariance = p["W"] @ p["W"].T + (2 * p["log_s"]).exp() * torch.eye(PIXELS, dtype=torch.float64)
    return torch.distributions.MultivariateNormal(p["b"], covariance).log_prob(x)


def with_exact_posterior(p: Values) -> Values:
    """Return the parameters with W orthogonal and q(z | x) the posterior: precision I + WᵀW/s², mean v Wᵀ(x − b)/s²."""
    w, s2 = torch.tensor(ORTHOGONAL, dtype=torch.float64), (2 * p["log_s"]).exp()
    v = 1 / (1 + w.square().sum(0) / s2)
    gain = v.unsqueeze(1) * w.T / s2
    return p | {"W": w, "A": gain, "c": -gain @ p["b"], "log_scale": 0.5 * v.log()}


# --- parts ----------------------------------------------------------------------------------------------------------


class Points(Dataset):
    """23 points for training and, unless `num_test` is 0, others that are held out."""

    def __init__(self, *, batch_size: int | None = BATCH, num_test: int = NUM_TEST):
        self.batch_size, self.num_test = batch_size, num_test

    def load(self) -> Data:
        """Draw the points, train (23, 3) and test (num_test, 3); those held out lie elsewhere."""
        noise = torch.randn(NUM_POINTS + self.num_test, PIXELS, generator=torch.Generator().manual_seed(5))
        noise = noise.double()
        test = noise[NUM_POINTS:] * 1.5 + 1.0 if self.num_test else None
        return Data(noise[:NUM_POINTS], "draws for a test", test=test)


def parameters(*names: str) -> dict[str, nn.Parameter]:
    """Return some of PARAMETERS for a module, in torch's default type."""
    return {name: nn.Parameter(torch.tensor(PARAMETERS[name])) for name in names}


class LinearGaussian(Model):
    """p(z) p(x | z) as above."""

    W: Tensor
    b: Tensor
    log_s: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.latents = {"z": Latent(supports.real, (LATENTS,), local=True)}
        for name, value in parameters("W", "b", "log_s").items():
            self.register_parameter(name, value)

    def knows(self, layout: Layout) -> bool:
        return layout == {"z": frozenset({"loc", "scale"})}

    def log_likelihood(self, z: Latents, x: Tensor) -> Tensor:
        return Normal(z["z"] @ self.W.T + self.b, self.log_s.exp()).log_prob(x).sum(dim=-1)

    def factors(self, z: Latents, x: Tensor) -> Factors:
        prior = Normal(self.b.new_zeros(()), self.b.new_ones(())).log_prob(z["z"]).sum(dim=-1)
        mentioned = frozenset({"z"})
        return {"likelihood": (self.log_likelihood(z, x), mentioned), "prior": (prior, mentioned)}

    def kl(self, params: Params) -> Tensor:
        loc, scale = params["z"]["loc"], params["z"]["scale"]
        return 0.5 * (scale.square() + loc.square() - 1 - 2 * scale.log()).sum(dim=-1)


class Encoder(Family):
    """q(z | x) as above, with random draws."""

    A: Tensor
    c: Tensor
    log_scale: Tensor

    name = "encoder"
    described = "the latent of this problem"

    def __init__(self, latents: dict[str, Latent], /):
        super().__init__()
        (self.latent,), self.replicates = latents, 1
        self.layout = {self.latent: frozenset({"loc", "scale"})}
        for name, value in parameters("A", "c", "log_scale").items():
            self.register_parameter(name, value)

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return list(latents) == ["z"]

    def variational(self, x: Any = None) -> Params:
        loc = (x @ self.A.T + self.c).unsqueeze(0)
        return {self.latent: {"loc": loc, "scale": self.log_scale.exp().expand_as(loc)}}

    def distribution(self, params: Params) -> VariationalDistribution:
        return MeanFieldDistribution({self.latent: Normal(**params[self.latent])}, {self.latent: 1})


class EnumeratedDistribution(MeanFieldDistribution):
    """The same Normal with NODES in place of random noise."""

    def rsample(self, num_samples: int) -> Latents:
        assert num_samples == len(NODES)
        ((latent, factor),) = self.factors.items()
        assert isinstance(factor, Normal)
        return {latent: factor.loc + factor.scale * NODES.to(factor.loc).reshape(num_samples, 1, 1, LATENTS)}


class EnumeratedEncoder(Encoder):
    """q(z | x) as above, with NODES for its draws."""

    def distribution(self, params: Params) -> VariationalDistribution:
        return EnumeratedDistribution({self.latent: Normal(**params[self.latent])}, {self.latent: 1})


def settings(estimator: dict[str, Any], family: str = "EnumeratedEncoder", **dataset: Any) -> dict[str, Any]:
    """Return the configuration of this problem with an estimator, SGD, and settings of `Points`."""
    here = __name__
    return {
        "dataset": {"_target_": f"{here}.Points", **dataset},
        "model": {"_target_": f"{here}.LinearGaussian"},
        "family": {"_target_": f"{here}.{family}"},
        "bound": {"_target_": "vi_core.bounds.elbo.ELBO"},
        "estimator": estimator,
        "optimizer": {"_target_": "vi_core.optimizers.sgd.SGD", "lr": RATE, "schedule": None},
        "replicates": 1,
    }

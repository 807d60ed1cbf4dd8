"""Data sets that are drawn from known laws, each from a seed of its own.

The parameters that generated the points are known, so that a fit can be held against them. Most are drawn in float32
and cast later, so that a seed gives the same points at every precision of the arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch

from vi_core.datasets.base import Data, Dataset, Finite, Positive, whole
from vi_core.distributions.gamma import standard_gamma
from vi_core.errors import require


@dataclass(kw_only=True, eq=False)
class NormalDraws(Dataset):
    """Independent draws by PyTorch, x_n ~ Normal(loc, 1 / precision).

    Seed 10 with N = 100 has sample mean 0.8901 and sample precision 0.4580.

    Attributes:
        loc: Mean.
        precision: Inverse variance, positive.
        num_points: Number of points N.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    loc: Finite = 1.0
    precision: Positive = 0.5
    num_points: int = 100
    seed: int = 10
    batch_size: int | None = None

    def load(self) -> Data:
        """Draw the points; train has shape (num_points,) and type float32."""
        scale, shape = self.precision**-0.5, (self.num_points,)
        return Data(
            train=torch.normal(self.loc, scale, size=shape, generator=seeded(self.seed), dtype=torch.float32),
            provenance=f"{self.num_points} draws of Normal({self.loc}, 1/{self.precision}), torch seed {self.seed}",
            truth={"mu": float(self.loc), "tau": float(self.precision)},
        )


@dataclass(kw_only=True, eq=False)
class NormalNumpyDraws(Dataset):
    """The sample of `num_points` among those of the given `sizes`, drawn in turn from NumPy's `RandomState(seed)`.

    All are independent draws x_n ~ Normal(loc, 1 / precision). The legacy generator is the one whose stream NumPy
    promises never to change (NEP 19). With the default settings the samples of 10, 100 and 1000 points have means
    2.0437, 1.0261 and 0.9244.

    Attributes:
        loc: Mean.
        precision: Inverse variance, positive.
        sizes: Numbers of points of all samples, in the order in which they are drawn.
        num_points: Which of the samples, by its size.
        seed: Start of NumPy's generator, below 2³².
        batch_size: Rows in a step, or None for all.
    """

    loc: Finite = 1.0
    precision: Positive = 0.5
    sizes: Sequence[Annotated[int, partial(whole, least=2)]] = (10, 100, 1000)
    num_points: int = 100
    seed: Annotated[int, partial(whole, least=0, most=2**32 - 1)] = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        listed = f"dataset.num_points={self.num_points} must be one of dataset.sizes={list(self.sizes)}."
        require(self.num_points in self.sizes, listed)

    def load(self) -> Data:
        """Draw the samples up to the chosen one; train has shape (num_points,) and type float64."""
        stream, scale = np.random.RandomState(self.seed), self.precision**-0.5
        before = sum(self.sizes[: list(self.sizes).index(self.num_points)])
        stream.normal(self.loc, scale, before)
        return Data(
            train=torch.from_numpy(stream.normal(self.loc, scale, self.num_points)),
            provenance=f"{self.num_points} draws of Normal({self.loc}, 1/{self.precision}),"
            f" numpy RandomState({self.seed}) after {before} others",
            truth={"mu": float(self.loc), "tau": float(self.precision)},
        )


@dataclass(kw_only=True, eq=False)
class GammaDraws(Dataset):
    """Independent draws of Gamma(shape, scale), whose mean is shape · scale.

    Attributes:
        shape, scale: Parameters of the density, both positive.
        num_points: Number of points N.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    shape: Positive = 3.0
    scale: Positive = 2.0
    num_points: int = 1000
    seed: int = 0
    batch_size: int | None = None

    def load(self) -> Data:
        """Draw the points; train has shape (num_points,) and type float32."""
        concentration = torch.full((self.num_points,), self.shape, dtype=torch.float32)
        points = standard_gamma(concentration, seeded(self.seed)) / (1 / self.scale)
        provenance = f"{self.num_points} draws of Gamma(shape {self.shape}, scale {self.scale}), torch seed {self.seed}"
        return Data(points, provenance, truth={"shape": float(self.shape), "scale": float(self.scale)})


@dataclass(kw_only=True, eq=False)
class GaussianNetworkDraws(Dataset):
    """Points for `model=gaussian_network` from given z, w_1 and w_2, with settings of the same name as the model's.

    y_n ~ N(w_1 + w_2 t_n, y_scale²),   x_n ~ N(z + y_n, x_scale²),   t_n evenly from −1 to 1.

    Attributes:
        z: Level that all points share.
        w_1, w_2: Intercept and slope of the y_n.
        y_scale, x_scale: Standard deviations, both positive.
        num_points: Number of points N.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    z: Finite = 1.0
    w_1: Finite = -0.5
    w_2: Finite = 2.0
    y_scale: Positive = 1.0
    x_scale: Positive = 1.0
    num_points: int = 20
    seed: int = 0
    batch_size: int | None = None

    def load(self) -> Data:
        """Draw the points; train has shape (num_points,) and type float32."""
        noise = torch.randn(2, self.num_points, generator=seeded(self.seed), dtype=torch.float32)
        y = self.w_1 + self.w_2 * torch.linspace(-1, 1, self.num_points) + self.y_scale * noise[0]
        shared = {name: float(getattr(self, name)) for name in ("z", "w_1", "w_2")}
        return Data(
            train=self.z + y + self.x_scale * noise[1],
            provenance=f"{self.num_points} points of the Gaussian network with z {self.z}, "
            f"w ({self.w_1}, {self.w_2}), torch seed {self.seed}",
            truth=shared | {f"y_{n}": value for n, value in enumerate(y.tolist(), start=1)},
        )


@dataclass(kw_only=True, eq=False)
class Gaussian2D(Dataset):
    """Independent draws of a Normal in the plane, whose known covariance makes it an oracle for diffusion models.

    x_n ~ N(loc, Σ),   Σ_ii = std_i²,   Σ_12 = correlation · std_1 · std_2.

    Attributes:
        loc: Mean, two numbers.
        std: Standard deviations, two positive numbers.
        correlation: Between the coordinates, inside (−1, 1).
        num_points, num_test: Numbers of training and of held-out points.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    loc: Sequence[Finite] = (0.5, -0.5)
    std: Sequence[Positive] = (1.2, 0.8)
    correlation: float = 0.6
    num_points: int = 10_000
    num_test: int = 2000
    seed: int = 0
    batch_size: int | None = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in {"loc": self.loc, "std": self.std}.items():
            require(len(values) == 2, f"dataset.{name}={list(values)} must have two values.")
        require(abs(self.correlation) < 1, f"dataset.correlation={self.correlation} must lie between -1 and 1.")

    def load(self) -> Data:
        """Draw the points; train has shape (num_points, 2), test (num_test, 2), both float32."""
        noise = torch.randn(self.num_points + self.num_test, 2, generator=seeded(self.seed))
        second = self.correlation * noise[:, 0] + math.sqrt(1 - self.correlation**2) * noise[:, 1]
        points = torch.tensor(self.loc) + torch.tensor(self.std) * torch.stack([noise[:, 0], second], dim=1)
        provenance = (
            f"draws of a Normal in the plane with mean {list(self.loc)}, deviations {list(self.std)} and "
            f"correlation {self.correlation}, torch seed {self.seed}"
        )
        return Data(points[: self.num_points], provenance, points[self.num_points :])


@dataclass(kw_only=True, eq=False)
class TwoMoons(Dataset):
    """Two interleaved half circles in the plane with Normal noise: a law far from any Normal.

    With θ uniform on [0, π] and a fair coin, a point is (cos θ, sin θ) or (1 − cos θ, 1/2 − sin θ), minus the common
    centre (1/2, 1/4), plus noise.

    Attributes:
        noise: Standard deviation of the noise in each coordinate, at least 0.
        num_points, num_test: Numbers of training and of held-out points.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    noise: Finite = 0.06
    num_points: int = 10_000
    num_test: int = 2000
    seed: int = 0
    batch_size: int | None = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise >= 0, f"dataset.noise={self.noise} must not be negative.")

    def load(self) -> Data:
        """Draw the points; train has shape (num_points, 2), test (num_test, 2), both float32."""
        generator, count = seeded(self.seed), self.num_points + self.num_test
        angle = math.pi * torch.rand(count, generator=generator)
        upper = torch.rand(count, 1, generator=generator) < 0.5
        circle = torch.stack([angle.cos(), angle.sin()], dim=1)
        moons = torch.where(upper, circle, torch.tensor([1.0, 0.5]) - circle) - torch.tensor([0.5, 0.25])
        points = moons + self.noise * torch.randn(count, 2, generator=generator)
        provenance = f"two moons with noise {self.noise}, torch seed {self.seed}"
        return Data(points[: self.num_points], provenance, points[self.num_points :])


@dataclass(kw_only=True, eq=False)
class EarthquakeDraws(Dataset):
    """Synthetic earthquakes with known epicentres, strengths and origins, from a mixture of C epicentres:

        k_n ~ Categorical(weights),   x_n | k ~ N(epicentre_k, I / precision),   s_n | k ~ Poisson(strength_k).

    Attributes:
        epicentres: C pairs of coordinates.
        strengths: Poisson rate of each epicentre's counts, C positive numbers.
        weights: Probability of each epicentre, C positive numbers with sum 1; None for equal ones.
        precision: Inverse variance of a place around its epicentre, in each coordinate.
        num_points: Number of events N.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.

    Raises:
        ConfigError: Where the lists have different lengths, or a value is out of range.
    """

    epicentres: Sequence[Sequence[Finite]] = ((-6.0, -4.0), (6.0, -5.0), (0.0, 7.0), (7.0, 6.0))
    strengths: Sequence[Positive] = (5.0, 15.0, 30.0, 60.0)
    weights: Sequence[Positive] | None = None
    precision: Positive = 1.0
    num_points: int = 1000
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        components = len(self.epicentres)
        pairs = components > 0 and all(len(place) == 2 for place in self.epicentres)
        require(pairs, f"dataset.epicentres={self.epicentres} must be pairs of coordinates.")
        self.shares = [1 / components] * components if self.weights is None else self.weights
        for name, values in {"strengths": self.strengths, "weights": self.shares}.items():
            require(len(values) == components, f"dataset.{name} has {len(values)} values for {components} epicentres.")
        require(abs(sum(self.shares) - 1) < 1e-6, f"dataset.weights={self.shares} must have sum 1.")

    def load(self) -> Data:
        """Draw the events; train has shape (num_points, 3) and type float64."""
        generator = seeded(self.seed)
        settings = (self.epicentres, self.strengths, self.shares)
        places, strengths, shares = (torch.tensor(values, dtype=torch.float64) for values in settings)
        labels = torch.multinomial(shares, self.num_points, replacement=True, generator=generator)
        noise = torch.randn(self.num_points, 2, dtype=torch.float64, generator=generator)
        counts = torch.poisson(strengths[labels], generator=generator)
        truth = {f"epicentre[{i}]": value for i, value in enumerate(places.flatten().tolist())}
        truth |= {f"strength[{i}]": value for i, value in enumerate(strengths.tolist())}
        return Data(
            train=torch.cat([places[labels] + noise * self.precision**-0.5, counts.unsqueeze(-1)], dim=1),
            provenance=f"{self.num_points} events from {len(places)} epicentres, torch seed {self.seed}",
            truth=truth,
            labels=labels,
            columns=("horizontal", "vertical", "strength"),
        )


def seeded(seed: int) -> torch.Generator:
    """Return a random stream on the CPU that starts from `seed`."""
    return torch.Generator().manual_seed(seed)

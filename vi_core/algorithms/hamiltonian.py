"""Hamiltonian Monte Carlo with many chains at once, for reference answers.

All chains move in one evaluation of the model, which costs little more than one chain alone. They move in coordinates
v of u = origin + A v, first those that the curvature at modes whitens, then those of the covariance of all chains in
the middle of the warm-up. In whitened coordinates a path of length π/2 ends at a point that is independent of its
start, where the posterior is Normal; lengths are drawn around it, so that no path is periodic. Duane, Kennedy,
Pendleton, Roweth 1987; the step size follows the acceptance by dual averaging (Hoffman, Gelman 2014).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vi_core.algorithms.whitening import gradient

ACCEPTANCE = 0.9  # mean probability of acceptance that the step size aims at
MOST_STEPS = 200  # of a path
SMALL_EVERY = 10  # transitions: one of so many has a tenth of the step size, which frees chains from stiff places
CANDIDATES = 32  # for the first point of each chain
DIVERGENT = 1000.0  # nats of energy error

LogDensity = Callable[[Tensor], Tensor]  # points (C, D) -> log p (C,)


class Coordinates(NamedTuple):
    """u = origin + A v, by chain: origin (C, D) and lower triangular A (C, D, D)."""

    origin: Tensor
    factor: Tensor

    def point(self, v: Tensor) -> Tensor:
        """Return u (C, D) of v (C, D)."""
        return self.origin + (self.factor @ v.unsqueeze(-1)).squeeze(-1)

    def slope(self, gradient_in_u: Tensor) -> Tensor:
        """Return the gradient in v, Aᵀ g."""
        return (self.factor.mT @ gradient_in_u.unsqueeze(-1)).squeeze(-1)

    def inverse(self, u: Tensor) -> Tensor:
        """Return v (C, D) of u (C, D)."""
        return torch.linalg.solve_triangular(self.factor, (u - self.origin).unsqueeze(-1), upper=False).squeeze(-1)


class Chains(NamedTuple):
    """Draws of all chains.

    Attributes:
        draws: Unconstrained, (C, N, D).
        divergent: Transitions after the warm-up whose energy was off by more than 1,000 nats or not finite.
        gradients: Gradient evaluations of each chain.
    """

    draws: Tensor
    divergent: int
    gradients: int


class StepSize:
    """Dual averaging of log ε towards the target acceptance."""

    def __init__(self, first: float):
        self.restart(first)

    def restart(self, first: float) -> None:
        """Begin again around a step size."""
        self.centre, self.error, self.count, self.log_mean = math.log(10 * first), 0.0, 0, 0.0
        self.now = first

    def update(self, acceptance: float) -> None:
        """Take in the mean acceptance of one transition."""
        self.count += 1
        share = 1 / (self.count + 10)
        self.error += share * (ACCEPTANCE - acceptance - self.error)
        log_step = self.centre - math.sqrt(self.count) / 0.05 * self.error
        weight = self.count**-0.75
        self.log_mean += weight * (log_step - self.log_mean)
        self.now = math.exp(log_step)

    @property
    def settled(self) -> float:
        """The averaged step size."""
        return math.exp(self.log_mean)


def hamiltonian(f: LogDensity, start: Coordinates, draws: int, warmup: int) -> Chains:
    """Return draws of many chains, from torch's default stream.

    Args:
        f: log density on unconstrained space.
        start: Coordinates of each chain, in which it begins near the origin.
        draws: Of each chain.
        warmup: Transitions before them; the coordinates change after the first half.
    """
    space, step = start, StepSize(0.1)
    u = first_points(f, start)
    seen, kept, divergent, gradients = [], [], 0, 0
    for i in range(warmup + draws):
        if i == warmup // 2:
            space = pooled(torch.stack(seen[len(seen) // 2 :], dim=1))
            step.restart(0.1)
        size = step.now if i < warmup else step.settled
        if i % SMALL_EVERY == SMALL_EVERY - 1:
            size = size / 10
        length = math.pi / 2 * (0.5 + torch.rand(()).item())
        steps = min(MOST_STEPS, math.ceil(length / size))
        u, acceptance, wild = transition(f, space, u, size, steps)
        gradients += steps + 1
        if i < warmup:
            if size == step.now:
                step.update(float(acceptance.mean()))
            seen.append(u)
        else:
            divergent += wild
            kept.append(u)
    return Chains(torch.stack(kept, dim=1), divergent, gradients)


def first_points(f: LogDensity, start: Coordinates) -> Tensor:
    """Return the first point of each chain, (C, D): one of 32 standard Normal draws of v, drawn by its weight p/q."""
    v = torch.randn(CANDIDATES, *start.origin.shape, dtype=start.origin.dtype)
    u = start.point(v)
    log_w = torch.stack([f(each) for each in u]) + 0.5 * v.square().sum(-1)
    chosen = torch.distributions.Categorical(logits=log_w.nan_to_num(nan=-torch.inf, neginf=-1e300).mT).sample()
    return u[chosen, torch.arange(len(chosen))]


def pooled(draws: Tensor) -> Coordinates:
    """Return the same coordinates for all chains, from mean and covariance of draws (C, N, D)."""
    flat = draws.flatten(0, 1)
    factor = torch.linalg.cholesky(torch.atleast_2d(torch.cov(flat.T)) + 1e-10 * torch.eye(flat.shape[1]).to(flat))
    return Coordinates(flat.mean(dim=0).expand(len(draws), -1), factor.expand(len(draws), -1, -1))


def transition(f: LogDensity, space: Coordinates, u: Tensor, size: float, steps: int) -> tuple[Tensor, Tensor, int]:
    """Return points (C, D) after one path of `steps` leapfrog steps, acceptance (C,), and how many paths diverged."""
    v = space.inverse(u)
    momentum = torch.randn_like(v)
    before = f(u) - 0.5 * momentum.square().sum(-1)
    moved = momentum + 0.5 * size * space.slope(gradient(f, u))
    for k in range(steps):
        v = v + size * moved
        last = k == steps - 1
        moved = moved + (0.5 if last else 1.0) * size * space.slope(gradient(f, space.point(v)))
    there = space.point(v)
    gain = (f(there) - 0.5 * moved.square().sum(-1) - before).nan_to_num(nan=-torch.inf)
    acceptance = gain.clamp_max(0).exp()
    accepted = torch.rand_like(acceptance) < acceptance
    return torch.where(accepted.unsqueeze(-1), there, u), acceptance, int((gain < -DIVERGENT).sum())

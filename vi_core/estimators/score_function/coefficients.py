"""Coefficients of the score as a control variate, for each scalar parameter and replicate.

With h_k the score of sample k and f_k = s_k h_k its score-function gradient, E[h] = 0, so (1/K) Σ_k (f_k − a h_k) keeps
the mean of f for every fixed a, and a* = Cov(f, h)/Var(h) gives the least variance (Ranganath, Gerrish, Blei 2014,
section 3.2).
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor


class Coefficient(ABC):
    """A rule for a, from samples f and h of shape (P, K, *batch).

    Attributes:
        least_samples: Smallest K from which a is defined.
        estimated: Whether a comes from the samples.
        bias: Why the gradient is biased with this a, in a few words; empty where it is not.
    """

    least_samples: ClassVar[int]
    estimated: ClassVar[bool] = True
    bias: ClassVar[str] = ""

    @abstractmethod
    def __call__(self, f: Tensor, h: Tensor) -> Tensor:
        """Return a, broadcastable to (P, K, *batch)."""


class NoControl(Coefficient):
    """a = 0: the plain score-function gradient."""

    least_samples = 1
    estimated = False

    def __call__(self, f: Tensor, h: Tensor) -> Tensor:
        return torch.zeros_like(h)


class LeaveOneOut(Coefficient):
    """a_k from the other K − 1 samples: independent of h_k, hence no bias.

    With deviations from the mean over all K, f̃ and h̃, and κ = K/(K − 1), removing sample k from the sums leaves

        a_k = (Σ_j f̃_j h̃_j − κ f̃_k h̃_k) / (Σ_j h̃_j² − κ h̃_k²).

    Two other samples are needed for a slope: K ≥ 3. Such a slope has the tails of Student's t with K − 2 degrees of
    freedom: at K = 3 the gradient has no mean and at K = 4 no variance, so K ≥ 5 is what to use. Scores of discrete
    latents take few values: where the other draws share one, a_k is zero.
    """

    least_samples = 3

    def __call__(self, f: Tensor, h: Tensor) -> Tensor:
        num_samples = h.shape[1]
        moments = Moments(f, h)
        left = num_samples / (num_samples - 1)
        covariance = torch.sub(moments.covariance, moments.products, alpha=left)
        variance = torch.sub(moments.variance, moments.squares, alpha=left)
        return slope(covariance, variance, moments.variance + moments.rounding)


class InSample(Coefficient):
    """One a from the same K samples, as in Ranganath et al.: bias O(1/K), since a and h are then dependent.

    Measured on the Normal–Gamma model: several per cent of the gradient at K = 50 and a large part of it at K = 5.
    """

    least_samples = 2
    bias = "the control variate's coefficient comes from the samples that it is applied to"

    def __call__(self, f: Tensor, h: Tensor) -> Tensor:
        moments = Moments(f, h)
        return slope(moments.covariance, moments.variance, moments.rounding)


class Moments:
    """Second moments of f and h, (P, K, *batch), about their means over samples.

    Attributes:
        products, squares: (P, K, *batch), of one sample's deviations.
        covariance, variance: (P, 1, *batch), their sums.
        rounding: (P, 1, *batch), a bound on the rounding error of Σ h².
    """

    def __init__(self, f: Tensor, h: Tensor):
        mean = average(h)
        deviation = h - mean
        self.products, self.squares = (f - average(f)) * deviation, deviation.square()
        self.covariance, self.variance = total(self.products), total(self.squares)
        self.rounding = roundoff(self.variance + h.shape[1] * mean.square())


def average(samples: Tensor) -> Tensor:
    """Average over samples, (P, K, *batch) to (P, 1, *batch)."""
    return samples.sum(dim=1, keepdim=True) * (1 / samples.shape[1])


def total(samples: Tensor) -> Tensor:
    """Sum over samples, (P, 1, *batch), with the smallest number added, so that no parameter divides by zero."""
    return samples.sum(dim=1, keepdim=True) + torch.finfo(samples.dtype).tiny


def slope(covariance: Tensor, variance: Tensor, scale: Tensor) -> Tensor:
    """Return covariance/variance, or zero where the variance is no more than rounding of numbers as large as `scale`.

    Scores of draws that share one value have such a variance.
    """
    return torch.where(variance > roundoff(scale), covariance / variance, 0)


def roundoff(numbers: Tensor) -> Tensor:
    """Return a bound on the rounding error of sums as large as `numbers`: eight times their relative precision."""
    return 8 * torch.finfo(numbers.dtype).eps * numbers

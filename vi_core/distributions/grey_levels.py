"""The probability of grey levels: a logistic law, rounded to the levels that a pixel can have.

A pixel has one of n levels x = 0, 1/(n − 1), ..., 1. With o from a network, a scale s and F the logistic function
F(t) = 1/(1 + e^(−t)), level x is what lies in the bin around it, of half width δ = 1/(2(n − 1)), and the outermost bins
are open to the outside:

    P(x) = F(b) − F(a),    b = (x − 1/2 + δ)/s − o,   a = (x − 1/2 − δ)/s − o,    a = −∞ for x = 0, b = ∞ for x = 1.

The terms telescope, so that they sum to 1 for every o and s: a bound made of them bounds the logarithm of a
probability, is never above 0, and compares between models, in nats or in bits per dimension. For n = 2 it is
Bernoulli(F(o)), whatever s is. Kingma et al. 2016, appendix A; Salimans, Karpathy, Chen, Kingma 2017, section 2.1.

From F(b) − F(a) = F(b) F(−a) (1 − e^(a − b)), with b − a = 2δ/s the same for all levels,

    log P(x) = log F(b) [x < 1] + log F(−a) [x > 0] + log(1 − e^(−2δ/s)) [0 < x < 1],

where nothing cancels or overflows. The mean is a sum of tails, E[x] = Σ_j P(x > j/(n − 1))/(n − 1), j = 0, ..., n − 2.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def log_probability(x: Tensor, output: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Return log P(x), elementwise, for pixels x, outputs o and scales s of shapes that broadcast.

    Args:
        x: Multiples of 1/(n − 1), from 0 to 1.
        output: o.
        scale: s, positive.
        levels: n, at least 2.
    """
    half = 0.5 / (levels - 1)
    middle, width = (x - 0.5) / scale - output, half / scale
    below_one, above_zero = x < 1 - half, x > half
    value = torch.where(below_one, F.logsigmoid(middle + width), 0.0)
    value = value + torch.where(above_zero, F.logsigmoid(width - middle), 0.0)
    return value + torch.where(below_one & above_zero, torch.log(-torch.expm1(-2 * width)), 0.0)


def mean(output: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Return E[x], elementwise, from outputs o and scales s."""
    total = torch.zeros_like(output)
    for level in range(levels - 1):  # one by one: all at once would take n times the memory of the images
        total += torch.sigmoid(output - ((level + 0.5) / (levels - 1) - 0.5) / scale)
    return total / (levels - 1)


def off_grid(x: Tensor, levels: int) -> bool:
    """Whether a number is none of 0, 1/(n − 1), ..., 1, for n = `levels`."""
    steps = x * (levels - 1)
    return bool(((x < 0) | (x > 1) | ((steps - steps.round()).abs() > 1e-3)).any())

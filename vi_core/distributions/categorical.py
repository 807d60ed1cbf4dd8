"""One-hot categorical variables.

With Gumbel noise g_c = −log(−log u_c), u_c ~ U(0, 1), the index argmax_c (log π_c + g_c) has law π (the Gumbel-max
trick). Logits have shape (*batch, *groups, C) and need no normalisation; a draw of K samples has shape
(K, *batch, *groups, C).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def gumbel(num_samples: int, like: Tensor) -> Tensor:
    """Return independent standard Gumbel noise, (num_samples, *like.shape): finite, as u ∈ [0, 1) is kept off zero."""
    uniform = torch.rand((num_samples, *like.shape), dtype=like.dtype, device=like.device)
    return -uniform.clamp_min(torch.finfo(uniform.dtype).tiny).log().neg().log()


def one_hot_argmax(values: Tensor) -> Tensor:
    """Return the one-hot vectors of the largest entries along the last axis, same shape and dtype."""
    categories = torch.arange(values.shape[-1], device=values.device)
    return (categories == values.argmax(dim=-1, keepdim=True)).to(values.dtype)


@dataclass(frozen=True)
class OneHotCategorical:
    """One-hot vectors with probabilities softmax(logits)."""

    logits: Tensor

    def sample(self, num_samples: int) -> Tensor:
        """Draw one-hot z, (K, *batch, *groups, C), with no gradient."""
        with torch.no_grad():
            return one_hot_argmax(self.logits + gumbel(num_samples, self.logits))

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log π_c of one-hot z, (K, *batch, *groups); linear in z."""
        return (z * self.logits.log_softmax(dim=-1)).sum(dim=-1)

    @property
    def mean(self) -> Tensor:
        """The probabilities π."""
        return self.logits.softmax(dim=-1)

    @property
    def variance(self) -> Tensor:
        """π (1 − π), elementwise."""
        return self.mean * (1 - self.mean)

    def entropy(self) -> Tensor:
        """−Σ_c π_c log π_c in nats, (*batch, *groups)."""
        return -(self.mean * self.logits.log_softmax(dim=-1)).sum(dim=-1)

    def kl_to_uniform(self) -> Tensor:
        """KL(π ‖ uniform) = log C − entropy, (*batch, *groups)."""
        return math.log(self.logits.shape[-1]) - self.entropy()

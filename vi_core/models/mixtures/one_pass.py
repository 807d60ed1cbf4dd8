"""A pass over the data of a finite mixture whose log-weights are linear in a few features of a data point.

With features f_n (F,) and coefficients c_k (F,), a = logits are a_nk = c_k · f_n, the responsibilities are the softmax

    r_nk = exp(a_nk) / Σ_j exp(a_nj),

and coordinate ascent needs only Σ_n log Σ_k exp(a_nk) and Σ_n r_nk f_n of N points. A pass reads the data in pieces
that fit the processor's cache: two matrix products and one exponential per point and component, in memory that does not
grow with N · K.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

LOGITS_AT_ONCE = 2**17  # 1 MB in float64: fits the second-level cache of a processor


def pieces(coefficients: Tensor, features: Tensor) -> Iterator[Tensor]:
    """Split features (F, N) along N so that the logits of coefficients (M, K, F) stay within `LOGITS_AT_ONCE`."""
    size = max(1, LOGITS_AT_ONCE // (coefficients.shape[0] * coefficients.shape[1]))
    yield from features.split(size, dim=1)


def log_normalizer(coefficients: Tensor, features: Tensor) -> Tensor:
    """Return Σ_n log Σ_k exp(c_k · f_n), (M,), for coefficients (M, K, F) and features (F, N); differentiable."""
    parts = [(coefficients @ piece).logsumexp(dim=1).sum(dim=1) for piece in pieces(coefficients, features)]
    return torch.stack(parts).sum(dim=0)


def responsibilities(coefficients: Tensor, features: Tensor) -> Tensor:
    """Return r_nk, (M, K, N), on so many points N as memory holds; for figures and scores."""
    return (coefficients @ features).softmax(dim=1)


def expected_features(coefficients: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-normaliser (M,) and Σ_n r_nk f_n, (M, K, F), with no gradient."""
    normalizers, sums = [], coefficients.new_zeros(coefficients.shape)
    with torch.no_grad():
        for piece in pieces(coefficients, features):
            logits = coefficients @ piece
            peak = logits.amax(dim=1, keepdim=True)
            weights = logits.sub_(peak).exp_()
            total = weights.sum(dim=1, keepdim=True)
            normalizers.append((peak + total.log()).sum(dim=(1, 2)))
            sums += weights @ (piece / total).transpose(1, 2)
    return torch.stack(normalizers).sum(dim=0), sums

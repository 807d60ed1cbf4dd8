"""One pass over the events of a mixture whose components have a place, a spread and a rate of counts.

The log-weight of component k at a place x_n with count s_n is

    a_nk = constant_k − (precision/2) |x_n − place_k|² + s_n log_strength_k,

the responsibilities are its softmax r_nk over k, and coordinate ascent needs Σ_n log Σ_k exp(a_nk) and sums of the
events weighted by r_nk. The squared distance is formed from the difference. Expanded into x², x·place and place² it is
a small difference of terms as large as the squared distance between clusters. A pass goes over the events in pieces
that fit the processor's cache, so that memory does not grow with N · K.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

LOGITS_AT_ONCE = 2**16  # numbers; half a MiB in float64, so that what is made of them stays in a core's cache


class Components(NamedTuple):
    """M mixtures of K components.

    Attributes:
        constant: The part of a_nk that no event changes, (M, K).
        place: Centre, (M, K, 2), in the coordinates of the events.
        precision: Of a place around its centre, (M,).
        log_strength: Coefficient of the count, (M, K).
    """

    constant: Tensor
    place: Tensor
    precision: Tensor
    log_strength: Tensor


class Sums(NamedTuple):
    """Sums over events under the responsibilities of M mixtures.

    Attributes:
        log_normalizer: Σ_n log Σ_k exp(a_nk), (M,).
        magnitude: Σ_n |log Σ_k exp(a_nk)|, (M,): rounding is relative to it.
        counts: Σ_n r_nk, (M, K).
        places: Σ_n r_nk x_n, (M, K, 2).
        strengths: Σ_n r_nk s_n, (M, K).
        distances: Σ_n r_nk |x_n − place_k|², (M, K).
    """

    log_normalizer: Tensor
    magnitude: Tensor
    counts: Tensor
    places: Tensor
    strengths: Tensor
    distances: Tensor


def pieces(components: Components, places: Tensor, counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Split places (N, 2) and counts (N,) so that the log-weights of a piece stay within `LOGITS_AT_ONCE`."""
    size = max(1, LOGITS_AT_ONCE // components.constant.numel())
    yield from zip(places.split(size), counts.split(size), strict=True)


def squared_distances(components: Components, places: Tensor) -> Tensor:
    """Return |x_n − place_k|², (M, K, n), for places (n, 2)."""
    across, along = (components.place[..., i, None] - places[:, i] for i in range(2))
    return torch.addcmul(across.square(), along, along)


def log_weights(components: Components, squares: Tensor, counts: Tensor) -> Tensor:
    """Return a_nk, (M, K, n), from squared distances (M, K, n) and counts (n,)."""
    near = torch.addcmul(components.constant.unsqueeze(-1), components.precision[:, None, None], squares, value=-0.5)
    return torch.addcmul(near, components.log_strength.unsqueeze(-1), counts)


def log_normalizer(components: Components, places: Tensor, counts: Tensor) -> Tensor:
    """Return Σ_n log Σ_k exp(a_nk), (M,), differentiable in the components."""
    parts = [
        log_weights(components, squared_distances(components, x), s).logsumexp(dim=1).sum(dim=1)
        for x, s in pieces(components, places, counts)
    ]
    return torch.stack(parts).sum(dim=0)


def responsibilities(components: Components, places: Tensor, counts: Tensor) -> Tensor:
    """Return r_nk, (M, K, N): for figures and scores, on as many events as the caller can hold."""
    return log_weights(components, squared_distances(components, places), counts).softmax(dim=1)


@torch.no_grad()
def expected_sums(components: Components, places: Tensor, counts: Tensor) -> Sums:
    """Return the sums that coordinate ascent needs, with no gradient."""
    parts = [_sums(components, x, s) for x, s in pieces(components, places, counts)]
    return Sums(*(torch.stack(column).sum(dim=0) for column in zip(*parts, strict=True)))


def _sums(components: Components, places: Tensor, counts: Tensor) -> Sums:
    squares = squared_distances(components, places)
    weights = log_weights(components, squares, counts)
    peak = weights.amax(dim=1, keepdim=True)
    weights.sub_(peak).exp_()
    total = weights.sum(dim=1, keepdim=True)
    normalizer, share = peak + total.log(), total.reciprocal().transpose(1, 2)
    sums = weights @ torch.cat([share, share * places, share * counts.unsqueeze(-1)], dim=2)
    distances = (squares.mul_(weights) @ share).squeeze(-1)
    logs = normalizer.sum(dim=(1, 2)), normalizer.abs().sum(dim=(1, 2))
    return Sums(*logs, sums[..., 0], sums[..., 1:3], sums[..., 3], distances)

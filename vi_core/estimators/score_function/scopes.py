"""What multiplies the score of each parameter: all of log w, or the part of it that the parameter's latent can move.

Let log w = Σ_a f_a − Σ_j log q_j, with the factors f_a of p(x, z) and the terms q_j = q(z_j | parents of z_j) of a q
that is a directed graph. For the parameters of q_i, let D be z_i and its descendants in that graph, and h = ∇ log q_i.
Given everything outside D, the parents of z_i among it, z_i is a draw of q_i, so that E[h | z outside D] = 0. A term g
that mentions nothing in D is a function of what is outside, hence

    E[h g] = E[g E[h | z outside D]] = 0,

and leaving it out keeps the mean of the score-function gradient E[h log w]. What stays are the factors of p that meet
D, and of q the terms of D: a term q_j with a parent in D has j in D itself. Under mean field D = {z_i}, and the factors
that meet it are functions of z_i's Markov blanket: Ranganath, Gerrish, Blei 2014, section 3.1. Where q has an edge
z_i → z_j, the factors and the term of z_j stay too; without them the gradient is biased.

The conditional expectation of h log w given the blanket, which Rao–Blackwell is about, still holds E[g | blanket] · h.
That product has mean zero, and leaving it out as well is a second step, which no theorem says to lower the variance: it
does where g is noise to h, and raises it where g would cancel noise of what stays, as in log w near q(z) = p(z | x).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.estimators._chunks import in_chunks, per_chunk
from vi_core.families.base import VariationalDistribution
from vi_core.models.base import Model
from vi_core.types import Latents, Params

Graph = Mapping[str, frozenset[str]]
"""Latent -> its parents in q; or factor -> the latents that it mentions."""


class Draws(NamedTuple):
    """K draws from q."""

    q: VariationalDistribution
    params: Params
    z: Latents
    log_q: Tensor
    """(K, *batch), detached."""


class Weights(NamedTuple):
    """What the draws are worth."""

    log_p: Tensor
    """(K, *batch), differentiable in the model's own parameters."""
    log_w: Tensor
    """(K, *batch), likewise."""
    signal: Tensor
    """K times what multiplies the scores, detached: (K, *batch), or (P, K, *batch) with one for each scalar of q."""


class Blanket(NamedTuple):
    """What the parameters of one latent's q keep of log w."""

    factors: tuple[str, ...]
    """Names of factors of p."""
    terms: tuple[str, ...]
    """Latents whose terms of q stay."""


class Scope(ABC):
    """Which terms of log w meet which scores."""

    @abstractmethod
    def check(self, bound: Bound) -> None:
        """Raise `Unsupported` for a bound that this scope has no meaning for."""

    @abstractmethod
    def __call__(self, model: Model, bound: Bound, draws: Draws, x: Any, chunk_size: int | None) -> Weights:
        """Weigh draws on data x, with the model evaluated at `chunk_size` of them at once."""


class Everything(Scope):
    """All of log w for every parameter."""

    def check(self, bound: Bound) -> None: ...

    def __call__(self, model: Model, bound: Bound, draws: Draws, x: Any, chunk_size: int | None) -> Weights:
        log_p = in_chunks(model.log_joint, draws.z, x, chunk_size)
        log_w = log_p - draws.log_q
        return Weights(log_p, log_w, len(log_w) * bound.signal(log_w.detach()))


class MarkovBlanket(Scope):
    """For each latent the terms above, found from the model's factors and the family's graph.

    Requires the ELBO, whose signal log w is a sum over factors.
    """

    def check(self, bound: Bound) -> None:
        if bound.name != "elbo":
            raise Unsupported(
                f"Rao-Blackwellisation splits log w into factors, and only the ELBO is linear in it, not "
                f"bound={bound.name}; use estimator=score_function or estimator=pathwise, or bound=elbo."
            )

    def __call__(self, model: Model, bound: Bound, draws: Draws, x: Any, chunk_size: int | None) -> Weights:
        chunks, terms = per_chunk(model.factors, draws.z, x, chunk_size), draws.q.log_prob_terms(draws.z)
        values = torch.cat([torch.stack([value for value, _ in factors.values()]) for factors in chunks], dim=1)
        log_p = values.sum(dim=0)
        pieces = torch.cat([values.detach(), torch.stack(list(terms.values()))])
        scopes = tuple((name, mentioned) for name, (_, mentioned) in chunks[0].items())
        members = membership(
            scopes, tuple(draws.q.parents.items()), owners(draws.params, log_p.dim() - 1), tuple(terms)
        )
        signal = torch.tensordot(members.to(pieces), pieces, dims=1)
        return Weights(log_p, log_p - draws.log_q, signal)


def markov_blankets(scopes: Graph, parents: Graph) -> dict[str, Blanket]:
    """Return the blanket of each latent, from the latents that each factor mentions and the parents of each in q."""
    found = {}
    for latent in parents:
        inside = with_descendants(latent, parents)
        factors = tuple(name for name, mentioned in scopes.items() if mentioned & inside)
        found[latent] = Blanket(factors, tuple(other for other in parents if other in inside))
    return found


def with_descendants(latent: str, parents: Graph) -> frozenset[str]:
    """Return `latent` and all that have it above them."""
    inside = frozenset({latent})
    while children := {child for child, above in parents.items() if above & inside} - inside:
        inside |= children
    return inside


def owners(params: Params, batch_dims: int) -> tuple[str, ...]:
    """Return the latent that each scalar of one batch element belongs to, in the order of `flatten(params)`."""
    sizes = {latent: sum(v.shape[batch_dims:].numel() for v in group.values()) for latent, group in params.items()}
    return tuple(latent for latent, size in sizes.items() for _ in range(size))


@lru_cache(maxsize=32)
def membership(
    scopes: tuple[tuple[str, frozenset[str]], ...],
    parents: tuple[tuple[str, frozenset[str]], ...],
    owned_by: tuple[str, ...],
    terms: tuple[str, ...],
) -> Tensor:
    """Return how often each factor (1 or 0), and then each term of q (−1 or 0), counts for each scalar, (P, F + T)."""
    blankets = markov_blankets(dict(scopes), dict(parents))
    rows = {
        latent: [float(name in kept.factors) for name, _ in scopes] + [-float(name in kept.terms) for name in terms]
        for latent, kept in blankets.items()
    }
    return torch.tensor([rows[latent] for latent in owned_by])

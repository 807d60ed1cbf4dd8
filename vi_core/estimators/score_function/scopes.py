"""Scopes: which terms of log w multiply the score of each parameter, all or those that its latent can change.

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
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.estimators.base import in_chunks, per_chunk
from vi_core.families.base import Family, VariationalDistribution
from vi_core.models.base import Model
from vi_core.types import Graph, Latents, Params


class Draws(NamedTuple):
    """K draws from q.

    Attributes:
        family: The family, which has the directed graph of q.
        q: The distribution that they are from.
        params: Its parameters.
        z: The draws.
        log_q: Their log-densities, (K, *batch), detached.
    """

    family: Family
    q: VariationalDistribution
    params: Params
    z: Latents
    log_q: Tensor


class Weights(NamedTuple):
    """Log-weights of K draws, and the factors of their scores.

    Attributes:
        log_p: (K, *batch), differentiable in the model's own parameters.
        log_w: (K, *batch), likewise.
        signal: K times the factor of each score, detached: (K, *batch), or (P, K, *batch), one for each scalar of q.
    """

    log_p: Tensor
    log_w: Tensor
    signal: Tensor


class Blanket(NamedTuple):
    """Terms of log w that multiply the scores of one latent's parameters.

    Attributes:
        factors: Names of factors of p.
        terms: Latents whose terms of log q stay.
    """

    factors: tuple[str, ...]
    terms: tuple[str, ...]


class Scope(ABC):
    """A choice of the terms of log w that multiply each score."""

    @abstractmethod
    def check(self, model: Model, family: Family, bound: Bound) -> None:
        """Raise `Unsupported` for a combination whose log w cannot be split in this way."""

    @abstractmethod
    def __call__(self, model: Model, bound: Bound, draws: Draws, x: Any, chunk_size: int | None) -> Weights:
        """Weigh draws on data x, with the model evaluated at `chunk_size` of them at once."""


class Everything(Scope):
    """All of log w for every parameter."""

    def check(self, model: Model, family: Family, bound: Bound) -> None: ...

    def __call__(self, model: Model, bound: Bound, draws: Draws, x: Any, chunk_size: int | None) -> Weights:
        log_p = in_chunks(model.log_joint, draws.z, x, chunk_size)
        log_w = log_p - draws.log_q
        return Weights(log_p, log_w, len(log_w) * bound.signal(log_w.detach()))


class MarkovBlanket(Scope):
    """For each latent the terms that meet D, found from the model's factors and the family's graph.

    Requires the ELBO, whose signal log w is a sum over factors, and a family with a term of log q for each latent.
    """

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        if not bound.linear:
            raise Unsupported(
                f"Rao-Blackwellisation splits log w into factors, and only the ELBO is linear in it, not "
                f"bound={bound.name}; use estimator=score_function or estimator=pathwise, or bound=elbo."
            )
        if family.parents.keys() != model.latents.keys():
            raise Unsupported(
                f"Rao-Blackwellisation splits log q into one term for each latent, and {type(family).__name__} does "
                "not; use estimator=score_function or estimator=pathwise."
            )
        names = [(group, name) for group, own in family.layout.items() for name in own]
        owned = {latent for group, name in names for latent in family.owners(group, name, 1)}
        if not owned <= family.parents.keys():
            raise Unsupported(
                f"Rao-Blackwellisation needs parameters that belong to one latent each, and {type(family).__name__} "
                "has them in common; use estimator=score_function or estimator=pathwise."
            )

    def __call__(self, model: Model, bound: Bound, draws: Draws, x: Any, chunk_size: int | None) -> Weights:
        chunks, terms = per_chunk(model.factors, draws.z, x, chunk_size), draws.q.log_prob_terms(draws.z)
        values = torch.cat([torch.stack([value for value, _ in factors.values()]) for factors in chunks], dim=1)
        log_p = values.sum(dim=0)
        pieces = torch.cat([values.detach(), torch.stack(list(terms.values()))])
        scopes = tuple((name, mentioned) for name, (_, mentioned) in chunks[0].items())
        owned = owners(draws.family, draws.params, log_p.dim() - 1)
        members = membership(scopes, tuple(draws.family.parents.items()), owned, tuple(terms))
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
    """Return `latent` and its descendants."""
    inside = frozenset({latent})
    while children := {child for child, above in parents.items() if above & inside} - inside:
        inside |= children
    return inside


def owners(family: Family, params: Params, batch_dims: int) -> tuple[str, ...]:
    """Return the latent that each scalar of one batch element belongs to, in the order of `flatten(params)`."""
    found: list[str] = []
    for group, named in params.items():
        for name, value in named.items():
            found += family.owners(group, name, value.shape[batch_dims:].numel())
    return tuple(found)


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

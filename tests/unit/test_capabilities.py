"""What parts say of themselves, against what they do: linear bounds, graphs of q, latents that families describe."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests import fakes
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential
from vi_core.errors import Unsupported
from vi_core.estimators.score_function.coefficients import NoControl
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.estimators.score_function.scopes import MarkovBlanket
from vi_core.families.amortized.normal import AmortizedNormal, AmortizedNormalChain
from vi_core.families.base import Family, suited_families
from vi_core.families.mean_field import MeanField, MeanFieldDistribution
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.families.normals import FullRankNormal
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.types import Graph, Latent, Params

LOCAL = {"z1": Latent(supports.real, (3,), local=True), "z2": Latent(supports.real, (2,), local=True)}
X = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))


class Sum(ELBO):
    """A bound that says it is linear and is K times too large."""

    def __call__(self, log_w: Tensor) -> Tensor:
        return log_w.sum(dim=0)


class Edgeless(NormalGammaFamily):
    """Normal–Gamma densities whose graph lacks the edge from tau to mu."""

    @property
    def parents(self) -> Graph:
        return dict.fromkeys(self.layout, frozenset[str]())


class Dense(MeanField):
    """A family whose log-density does not split, and that must not be drawn from."""

    @property
    def parents(self) -> Graph:
        return {}

    def distribution(self, params: Params) -> MeanFieldDistribution:
        raise AssertionError("q was built before the combination was checked")


def says_the_truth(bound: Bound) -> bool:
    """Whether `linear` and `additive` are what the values show, on random log-weights."""
    log_w = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = [torch.stack([bound(part) for part in log_w.split(size)]).mean(dim=0) for size in (1, 3)]
    additive = all(torch.allclose(bound(log_w), mean) for mean in means)
    return bound.additive == additive and bound.linear == torch.allclose(bound(log_w), log_w.mean(dim=0))


def test_bounds_say_what_they_are() -> None:
    assert says_the_truth(ELBO()) and says_the_truth(IWELBO())
    assert not says_the_truth(Sum())


def dependences(family: Family) -> Graph:
    """Latent -> other latents on which its term of log q depends, by derivatives at a draw."""
    q = family.distribution(family.variational(X))
    z = {name: value.requires_grad_() for name, value in q.sample(3).items()}
    found = {}
    for name, term in q.log_prob_terms(z).items():
        slopes = torch.autograd.grad(term.sum(), list(z.values()), allow_unused=True, retain_graph=True)
        moved = {other for other, slope in zip(z, slopes, strict=True) if slope is not None and bool(slope.any())}
        found[name] = frozenset(moved - {name})
    return found


FAMILIES: list[Callable[[], Family]] = [
    lambda: MeanField(fakes.NORMAL_GAMMA_LATENTS, 2, positive=Exponential()),
    lambda: NormalGammaFamily(fakes.NORMAL_GAMMA_LATENTS, 2, positive=Exponential()),
    lambda: AmortizedNormal({"z1": LOCAL["z1"]}, 1, 5, hidden=[4]),
    lambda: AmortizedNormalChain(LOCAL, 1, 5, widths=[[4], [4]]),
]


@pytest.mark.parametrize("make", FAMILIES)
def test_graphs_are_those_of_the_densities(make: Callable[[], Family]) -> None:
    torch.manual_seed(0)
    family = make()
    assert family.parents == dependences(family)


def test_a_missing_edge_is_caught() -> None:
    family = Edgeless(fakes.NORMAL_GAMMA_LATENTS, 2, positive=Exponential())
    assert family.parents != dependences(family)


def test_a_density_that_does_not_split_is_refused_before_anything_is_drawn() -> None:
    model, estimator = NormalGamma(), ScoreFunction(coefficient=NoControl(), scope=MarkovBlanket())
    with pytest.raises(Unsupported, match="one term for each latent, and Dense does not; use estimator="):
        estimator.check(model, Dense(model.latents, positive=Exponential()), ELBO())
    estimator.check(model, NormalGammaFamily(model.latents, positive=Exponential()), ELBO())
    estimator.check(model, FullRankNormal(model.latents), ELBO())
    with pytest.raises(Unsupported, match="parameters that belong to one latent each, and Common has them in common"):
        estimator.check(model, Common(model.latents), ELBO())


class Common(FullRankNormal):
    """A family that does not say to which latent each of its numbers belongs."""

    def owners(self, group: str, name: str, size: int) -> tuple[str, ...]:
        return (group,) * size


FREE = [
    "flow", "full_rank_normal", "laplace", "low_rank_normal", "mean_field_normal", "mixture_of_normals",
    "pathfinder", "structured",
]  # fmt: skip
"""Families on unconstrained space, which describe all continuous latents."""


@pytest.mark.parametrize(
    ("latents", "expected"),
    [
        (
            fakes.NORMAL_GAMMA_LATENTS,
            sorted([*FREE, "mean_field", "natural_mean_field", "normal_gamma", "point_mass"]),
        ),
        (
            {"w": Latent(supports.real, (3,))},
            sorted([*FREE, "mean_field", "natural_mean_field", "point_mass"]),
        ),
        ({"z": LOCAL["z1"]}, ["amortized_normal", "amortized_normal_chain"]),
        (LOCAL, ["amortized_normal_chain"]),
        ({"z": Latent(supports.one_hot, (2, 3), local=True)}, ["amortized_categorical"]),
        ({"path": Latent(supports.real, (4, 2), local=True)}, ["forward_process"]),
        ({"p": Latent(supports.simplex, (3,))}, FREE),
        ({"k": Latent(supports.one_hot, (3,))}, []),
    ],
)
def test_families_are_suggested_by_what_they_describe(latents: dict[str, Latent], expected: list[str]) -> None:
    assert suited_families(latents) == expected


def test_latents_are_named_in_refusals() -> None:
    with pytest.raises(Unsupported, match=r"model has k \(one-hot \(3,\)\); no family describes these"):
        MeanField({"k": Latent(supports.one_hot, (3,))}, positive=Exponential())
    with pytest.raises(Unsupported, match=r"p \(simplex \(3,\)\); use family=flow or full_rank_normal or "):
        MeanField({"p": Latent(supports.simplex, (3,))}, positive=Exponential())
    with pytest.raises(Unsupported, match=r"z1 \(real \(3,\), per data point\), z2 .*; use family=amortized_normal_ch"):
        MeanField(LOCAL, positive=Exponential())

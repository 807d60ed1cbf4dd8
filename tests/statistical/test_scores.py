"""Per-sample scores, from one backward pass through expanded parameters, against closed forms of the reports; and how
families store the parameters that scores are taken in.

Scores are exact: an error of 1e-10, relative, is found, with no false alarms. Initial values are drawn, with the limit
of `oracles.limit`, one false alarm in a million runs of the whole suite. Power, in 99 of 100 runs: a mean of 6,000
samples that is off by 0.115 standard deviations of one (`oracles.smallest_shift`), so that a deviation of 2 is told
from 2.2.
"""

import pytest
import torch
from torch import Tensor

from tests import fakes, oracles
from vi_core.distributions import supports
from vi_core.distributions.transforms import Precision, Softplus
from vi_core.estimators.score_function.estimator import inner_product, per_sample_scores
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.families.base import Family
from vi_core.families.mean_field import MeanField
from vi_core.types import Latent, Latents, Params, column_names, flatten

K, R, B = 7, 5, 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def positive(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64) * 3 + 0.2


def real(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def largest_error(family: Family, params: Params, z: Latents, exact: dict[str, dict[str, Tensor]]) -> float:
    """Largest relative error of the scores of K samples against closed forms, each (K, *batch, *event)."""
    log_q, scores = per_sample_scores(family, params, z)
    ordered = [exact[latent][name] for latent, group in params.items() for name in group]
    elements = [value.reshape(*log_q.shape, -1).unbind(-1) for value in ordered]
    expected = torch.stack([element for event in elements for element in event])
    assert scores.shape == expected.shape
    torch.testing.assert_close(log_q, family.distribution(params).log_prob(z).detach(), rtol=0, atol=0)
    return float(((scores - expected).abs() / (1 + expected.abs())).max())


def test_mean_field_scores() -> None:
    family = MeanField(fakes.NORMAL_GAMMA_LATENTS, R, positive=Softplus())
    mu, tau = {"loc": real(R, 1), "scale": positive(R, 1)}, {"concentration": positive(R, 1), "rate": positive(R, 1)}
    z = family.distribution({"mu": mu, "tau": tau}).sample(K)
    exact = {"mu": oracles.normal_scores(z["mu"], **mu), "tau": oracles.gamma_scores(z["tau"], **tau)}
    assert largest_error(family, {"mu": mu, "tau": tau}, z, exact) < 1e-10


def test_structured_scores() -> None:
    """Also that they tell the right digamma from the one that report 001 prints, ψ(precision ratio)."""
    family = fakes.normal_gamma_family({"loc": 0.0, "precision_ratio": 1.0, "concentration": 1.0, "rate": 1.0}, R)
    mu = {"loc": real(R, 1), "precision_ratio": positive(R, 1)}
    tau = {"concentration": positive(R, 1), "rate": positive(R, 1)}
    z = family.distribution({"mu": mu, "tau": tau}).sample(K)
    scores = oracles.normal_gamma_scores(z["mu"], z["tau"], mu | tau)
    exact = {"mu": {name: scores[name] for name in mu}, "tau": {name: scores[name] for name in tau}}
    assert largest_error(family, {"mu": mu, "tau": tau}, z, exact) < 1e-10
    printed = exact["tau"]["concentration"] + torch.digamma(tau["concentration"]) - mu["precision_ratio"].digamma()
    wrong = {"mu": exact["mu"], "tau": exact["tau"] | {"concentration": printed}}
    assert largest_error(family, {"mu": mu, "tau": tau}, z, wrong) > 1e-2


def test_scores_of_vectors() -> None:
    """Elements of an event have a score each, in the order of `flatten`."""
    family = MeanField({"w": Latent(supports.real, (3,)), "s": Latent(supports.positive, (2,))}, R, positive=Softplus())
    w = {"loc": real(R, 1, 3), "scale": positive(R, 1, 3)}
    s = {"concentration": positive(R, 1, 2), "rate": positive(R, 1, 2)}
    z = family.distribution({"w": w, "s": s}).sample(K)
    assert z["w"].shape == (K, R, 1, 3)
    exact = {"w": oracles.normal_scores(z["w"], **w), "s": oracles.gamma_scores(z["s"], **s)}
    assert largest_error(family, {"w": w, "s": s}, z, exact) < 1e-10
    swapped = {"w": {"loc": exact["w"]["loc"].flip(-1), "scale": exact["w"]["scale"]}, "s": exact["s"]}
    assert largest_error(family, {"w": w, "s": s}, z, swapped) > 1e-2


def test_scores_of_an_encoder() -> None:
    """Scores in loc and scale of every image; by the chain rule the encoder gets the gradient of Σ c_k log q(z_k)."""
    family = AmortizedNormal(
        {"z": Latent(supports.real, (2,), local=True)}, 1, 6, hidden=[5], activation="tanh"
    ).double()
    x = real(B, 6)
    params = family.variational(x)
    z = family.distribution(params).sample(K)
    fixed = {name: value.detach() for name, value in params["z"].items()}
    exact = {"z": oracles.normal_scores(z["z"], **fixed)}
    assert largest_error(family, params, z, exact) < 1e-10

    coefficients = real(K, 1, B)
    _, scores = per_sample_scores(family, params, z)
    surrogate = inner_product(params, (coefficients * scores).sum(dim=1)).sum()
    direct = (coefficients * family.distribution(family.variational(x)).log_prob(z)).sum()
    weights = list(family.parameters())
    for found, expected in zip(
        torch.autograd.grad(surrogate, weights), torch.autograd.grad(direct, weights), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_scores_leave_the_graph_of_the_parameters_alone() -> None:
    """Neither the log-density nor the scores hold a graph, also inside `no_grad`."""
    family = fakes.normal_gamma_family({"loc": 0.0, "scale": 1.0, "concentration": 2.0, "rate": 1.0}, R)
    params = family.variational()
    z = family.distribution(params).sample(K)
    with torch.no_grad():
        log_q, scores = per_sample_scores(family, params, z)
    assert not log_q.requires_grad and not scores.requires_grad
    torch.testing.assert_close(scores, per_sample_scores(family, params, z)[1], rtol=0, atol=0)


# --- storage of the parameters --------------------------------------------------------------------------------------


def test_stored_parameters_come_back() -> None:
    """What is assigned is returned, for vectors, with different transforms for scales and for the rest."""
    latents = {"s": Latent(supports.positive, (2,)), "w": Latent(supports.real, (3,)), "t": Latent(supports.positive)}
    family = MeanField(latents, R, positive=Softplus(), spread=Precision()).double()
    params: Params = {
        "s": {"concentration": positive(R, 1, 2), "rate": positive(R, 1, 2)},
        "w": {"loc": real(R, 1, 3), "scale": positive(R, 1, 3)},
        "t": {"concentration": positive(R, 1), "rate": positive(R, 1)},
    }
    family.assign(params)
    assert column_names(family.variational()) == column_names(params)
    for found, expected in zip(flatten(family.variational()), flatten(params), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)

    (raw,) = family.parameters()
    place = family.stored_names().index("w.scale[1]")
    torch.testing.assert_close(raw[..., place], -2 * params["w"]["scale"][..., 1].log())


def test_initial_values() -> None:
    """Those that are asked for, as whole numbers too; `loc` alone differs between replicates."""
    family = MeanField({"w": Latent(supports.real, (3,))}, 2000, positive=Softplus(), loc=1, loc_std=2, scale=3)
    w = family.variational()["w"]
    torch.testing.assert_close(w["scale"], torch.full((2000, 1, 3), 3.0))
    draws = w["loc"].detach().reshape(-1, 1).double()
    assert oracles.max_z(draws, torch.tensor([1.0])) < oracles.limit(6000)
    assert oracles.max_z((draws - 1) ** 2, torch.tensor([4.0])) < oracles.limit(6000)
    fixed = MeanField({"w": Latent(supports.real, (3,))}, 4, positive=Softplus(), loc=1, loc_std=0)
    assert fixed.variational()["w"]["loc"].tolist() == [[[1.0] * 3]] * 4

"""Bayesian networks read off the factors of models, Markov blankets, and the places of nodes in the drawing."""

from typing import Any

import pytest
import torch

from vi_core.diagnostics.network import markov_blanket, network
from vi_core.families.base import Family
from vi_core.families.normals import FullRankNormal
from vi_core.models.base import Model, Network
from vi_core.models.bayesian.hierarchical import EightSchools
from vi_core.models.conjugate.gaussian_network import GaussianNetwork
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.models.diffusion.ddpm import DDPM
from vi_core.plots.drawing.style import symbol
from vi_core.plots.network import layout, network_figure

FOREST = {"v": (), "z": ("v",), "w_1": (), "w_2": (), "y_n": ("w_1", "w_2"), "x_n": ("y_n", "z")}


def found(model: Model, x: Any, points: int) -> Network:
    family: Family = FullRankNormal(model.latents)
    z = {name: torch.ones(1, 1, 1, *latent.shape) for name, latent in model.latents.items()}
    mentioned = {name: latents for name, (_, latents) in model.factors(z, x).items()}
    result = network(model, family, mentioned, points)
    assert result is not None
    return result


def test_the_network_of_conjugate_models_is_the_one_on_paper() -> None:
    model = NormalGamma()
    result = found(model, model.summarize(torch.randn(5)), 5)
    assert result.parents == {"x": ("mu", "tau"), "mu": ("tau",), "tau": ()}
    assert (result.observed, result.plates) == ({"x"}, {"N = 5": {"x"}})
    forest = GaussianNetwork(6)
    result = found(forest, forest.summarize(torch.randn(6)), 6)
    assert result.parents == FOREST
    assert result.plates == {"N = 6": {"x_n", "y_n"}}


def test_the_network_of_a_prior_and_likelihood() -> None:
    model = EightSchools()
    data = {"y": torch.zeros(8), "sigma": torch.ones(8)}
    model.observe(data, 8)
    result = found(model, data, 8)
    assert result.parents == {"mu": (), "tau": (), "raw": (), "y": ("mu", "raw", "tau")}
    assert result.observed == {"y"}


def test_a_markov_blanket_has_parents_children_and_their_other_parents() -> None:
    assert markov_blanket(FOREST, "z") == {"v", "x_n", "y_n"}
    assert markov_blanket(FOREST, "w_1") == {"w_2", "y_n"}
    assert markov_blanket(FOREST, "v") == {"z"}


def test_models_with_hidden_nodes_bring_their_own() -> None:
    chain = DDPM.network(object.__new__(DDPM), 10)
    assert chain.parents["x_0"] == ("x_t−1",) and ("x_0", "x_t−1") in chain.back


@pytest.mark.parametrize("plates", [{"N": frozenset({"x_n", "y_n"})}, {}])
def test_no_node_stands_on_another_and_children_are_below(plates: dict[str, frozenset[str]]) -> None:
    places = layout(FOREST, plates)
    assert len(set(places.values())) == len(FOREST)
    assert all(places[child][1] < places[parent][1] for child, above in FOREST.items() for parent in above)
    if plates:  # the box around the plate holds no other node
        left = min(places[name][0] for name in plates["N"])
        assert all(places[name][0] < left for name in FOREST if name not in plates["N"])


def test_the_figure_marks_the_blanket() -> None:
    look: Any = {"observed": frozenset({"x_n"}), "plates": {"N = 3": frozenset({"x_n", "y_n"})}}
    figure = network_figure(FOREST, chosen="z", blanket=markov_blanket(FOREST, "z"), **look)
    (axes,) = figure.axes
    texts = {text.get_text() for text in axes.texts}
    assert {"$z$", "$w_{1}$", "$x_{n}$", "N = 3"} <= texts
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["observed", "$z$", "Markov blanket of $z$"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mu", r"$\mu$"), ("theta[3]", r"$\theta_{3}$"), ("w_1", "$w_{1}$"), ("E[tau]", r"$\mathrm{E}[\tau]$"),
        ("z1", "$z_{1}$"), ("mu.loc", r"$\mu$ loc"), ("raw[0]", "raw[0]"), ("step", "step"), ("optimizer.lr",) * 2,
    ],
)  # fmt: skip
def test_names_have_symbols(name: str, shown: str) -> None:
    assert symbol(name) == shown

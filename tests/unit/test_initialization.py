"""How weights begin: the law of Glorot's weights, and a bias at the logits of the data."""

import pytest
import torch
from torch import nn

from tests import oracles
from vi_core.datasets.digits import Digits
from vi_core.datasets.synthetic import NormalDraws
from vi_core.errors import LabError
from vi_core.families.amortized.normal import AmortizedNormalChain
from vi_core.models.autoencoders.vae import HierarchicalVAE
from vi_core.networks.initialization import DataLogits, Glorot, initialize


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def law_of(layer: nn.Linear, limit: float) -> float:
    """The p-value of uniform weights on (−limit, limit)."""
    return oracles.law_p_value(layer.weight.flatten(), lambda w: (w + limit) / (2 * limit))


@pytest.mark.parametrize(("heads", "outputs"), [(1, 60), (2, 30)])
def test_glorot(heads: int, outputs: int) -> None:
    """Two heads of 30 outputs are drawn as two layers of 30, and not as one of 60."""
    layer = nn.Linear(200, 60)
    assert law_of(layer, (6 / (200 + outputs)) ** 0.5) < oracles.FALSE_ALARM, "torch's own weights have another law"
    Glorot()(layer, heads)
    assert law_of(layer, (6 / (200 + outputs)) ** 0.5) > oracles.FALSE_ALARM
    assert law_of(layer, (6 / (200 + 60 * 30 / outputs)) ** 0.5) < oracles.FALSE_ALARM
    assert not layer.bias.any()


def test_networks_begin_by_their_initialization() -> None:
    """Every layer of model and family; the last of a network of Normals has two heads."""
    model = HierarchicalVAE(64, latent_dims=[40, 30], widths=[[50], [60]], initialization=Glorot())
    family = AmortizedNormalChain(model.latents, 1, 64, widths=[[50], [60]], initialization=Glorot())
    limits = [6 / (40 + 50), 6 / (50 + 64), 6 / (30 + 60), 6 / (60 + 40)]
    limits += [6 / (64 + 50), 6 / (50 + 40), 6 / (40 + 60), 6 / (60 + 30)]
    layers = [layer for part in (model, family) for layer in part.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == len(limits)
    for layer, limit in zip(layers, limits, strict=True):
        assert law_of(layer, limit**0.5) > oracles.FALSE_ALARM


def test_none_leaves_torchs_own_weights() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = [p.clone() for p in network.parameters()]
    initialize(network, None)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("binarization", ["none", "threshold", "dynamic", "fixed"])
def test_mean_of_the_data(binarization: str) -> None:
    """What the model sees on average, with no draw: grey values where images are drawn anew for each batch."""
    data = Digits(binarization=binarization).load()
    stream = torch.get_rng_state()
    mean = data.mean()
    assert torch.equal(stream, torch.get_rng_state())
    assert mean.shape == (64,)
    if binarization != "dynamic":
        torch.testing.assert_close(mean, data.decode(data.train).double().mean(dim=0))
        return
    torch.testing.assert_close(mean, data.train.double().mean(dim=0) / 16)
    drawn = torch.cat([data.decode(data.train) for _ in range(20)]).double()
    moving = drawn.std(dim=0) > 0
    assert oracles.max_z(drawn[:, moving], mean[moving]) < oracles.limit(len(drawn))


def test_mean_of_plain_numbers() -> None:
    data = NormalDraws(num_points=2500).load()
    torch.testing.assert_close(data.mean(), data.train.double().mean())


def test_a_network_that_says_nothing_yields_the_mean() -> None:
    data = Digits(binarization="dynamic").load()
    model = HierarchicalVAE(64, latent_dims=[3], widths=[[5]], output_bias=DataLogits(data.mean, margin=0.01))
    nn.init.zeros_(list(model.decoder.parameters())[-2])
    means = model.pixel_means({"z1": torch.randn(1, 1, 1, 3)}).flatten()
    grey = data.train.double().mean(dim=0) / 16
    assert bool((grey < 0.01).any())
    torch.testing.assert_close(means, grey.clamp(0.01, 0.99).float())


@pytest.mark.parametrize("margin", [0.0, 0.5, -1.0])
def test_margin(margin: float) -> None:
    with pytest.raises(LabError, match=r"model\.output_bias\.margin"):
        DataLogits(lambda: torch.zeros(3), margin=margin)

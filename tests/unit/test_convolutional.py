"""Convolutional autoencoders against dense ones, against all images that there are, and on sizes that do not divide.

A convolution is a matrix whose entries are its weights, written down below by the formula of
`vi_core.networks.convolutional` and nothing else. The law of grey levels is compared with differences of logistic
functions; and a model of images so small that all can be listed gives them probabilities that sum to 1.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributions as reference

from tests.conftest import CommandLine, summary_of
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.distributions import grey_levels
from vi_core.errors import ConfigError, LabError, Unsupported
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.pathwise import Pathwise
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.models.autoencoders.convolutional import ConvolutionalVAE
from vi_core.networks.convolutional import ConvolutionalFeatures

SIZES = [(17, 23, 3), (8, 8), (5, 4, 3), (28, 28), (1, 9), (2, 2)]


@pytest.fixture(autouse=True)
def _float64() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)


def pair(
    shape: tuple[int, ...], levels: int, kernel: int = 3, stride: int = 2, channels: tuple[int, ...] = (3, 2)
) -> tuple[ConvolutionalVAE, AmortizedNormal]:
    """A small model and family."""
    settings = {"kernel": kernel, "stride": stride, "activation": "tanh"}
    model = ConvolutionalVAE(shape, levels, latent_dim=2, hidden=[4], channels=channels, **settings)
    features = ConvolutionalFeatures(shape, channels=channels[::-1], **settings)
    return model, AmortizedNormal(model.latents, 1, 1, features=features, hidden=[5], activation="tanh")


def images(count: int, shape: tuple[int, ...], levels: int) -> Tensor:
    """Random images (count, pixels) with some pixels at each end."""
    x = torch.randint(0, levels, (count, math.prod(shape))) / (levels - 1)
    x[:, 0], x[:, -1] = 0, 1
    return x


# --- the law of a pixel ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_levels_have_probabilities_that_sum_to_one(levels: int) -> None:
    x = torch.linspace(0, 1, levels)[:, None]
    output, scale = torch.tensor([-30.0, -3.0, 0.0, 0.4, 8.0, 300.0]), torch.tensor([0.01, 0.1, 1.0, 0.5, 0.1, 20.0])
    log_p = grey_levels.log_probability(x, output, scale, levels)
    torch.testing.assert_close(log_p.logsumexp(0), torch.zeros(6), rtol=0, atol=1e-12)
    torch.testing.assert_close(grey_levels.mean(output, scale, levels), (x * log_p.exp()).sum(0), rtol=0, atol=1e-12)
    half = 0.5 / (levels - 1)
    above, below = ((x + sign * half - 0.5) / scale - output for sign in (1, -1))
    above, below = above.where(x < 1, torch.inf), below.where(x > 0, -torch.inf)
    torch.testing.assert_close(log_p.exp(), above.sigmoid() - below.sigmoid(), rtol=0, atol=1e-12)


def test_two_levels_are_bernoulli() -> None:
    x, output = torch.tensor([0.0, 1.0])[:, None], torch.linspace(-40, 40, 9)
    expected = reference.Bernoulli(logits=output).log_prob(x)
    torch.testing.assert_close(grey_levels.log_probability(x, output, torch.tensor(0.3), 2), expected)


def test_a_level_far_off_has_a_finite_logarithm_and_gradient() -> None:
    x = torch.linspace(0, 1, 256, dtype=torch.float32)
    output = torch.tensor([[-500.0], [500.0]], dtype=torch.float32, requires_grad=True)
    scale = torch.tensor(0.01, dtype=torch.float32, requires_grad=True)
    log_p = grey_levels.log_probability(x, output, scale, 256)
    slopes = torch.autograd.grad(log_p.sum(), [output, scale])
    assert all(bool(t.isfinite().all()) for t in (log_p, *slopes))


# --- convolutions ---------------------------------------------------------------------------------------------------


def matrix(weight: Tensor, size: tuple[int, int], stride: int, last: bool) -> Tensor:
    """The matrix of a convolution with weights (out, in, k, k) of maps of that size, differentiable in the weights.

    Maps are (channels, rows, columns); with `last` those that go in are (rows, columns, channels).
    """
    outputs, inputs, kernel, _ = weight.shape
    padding = (kernel - 1) // 2
    small = [(n + 2 * padding - kernel) // stride + 1 for n in size]
    places = []
    for c, i, j, d, u, v in itertools.product(
        range(outputs), *map(range, small), range(inputs), range(kernel), range(kernel)
    ):
        row, column = stride * i + u - padding, stride * j + v - padding
        if 0 <= row < size[0] and 0 <= column < size[1]:
            source = (row * size[1] + column) * inputs + d if last else (d * size[0] + row) * size[1] + column
            entry = ((c * inputs + d) * kernel + u) * kernel + v
            places.append(((c * small[0] + i) * small[1] + j, source, entry))
    target, source, entry = torch.tensor(places).T
    empty = torch.zeros(outputs * small[0] * small[1], inputs * size[0] * size[1])
    return empty.index_put((target, source), weight.flatten()[entry])


def sizes_of(shape: tuple[int, ...], layers: int, kernel: int, stride: int) -> list[tuple[int, int]]:
    found = [(shape[0], shape[1])]
    for _ in range(layers):
        rows, columns = ((n + 2 * ((kernel - 1) // 2) - kernel) // stride + 1 for n in found[-1])
        found.append((rows, columns))
    return found


def encoded(family: AmortizedNormal, x: Tensor, shape: tuple[int, ...], kernel: int, stride: int) -> Tensor:
    """Location and log-variance of q(z | x), side by side, by matrices."""
    convolutions = [layer for layer in family.features.modules() if isinstance(layer, nn.Conv2d)]
    for layer, size in zip(convolutions, sizes_of(shape, 2, kernel, stride), strict=False):
        dense = matrix(layer.weight, size, stride, last=layer is convolutions[0])
        assert layer.bias is not None
        x = torch.tanh(x @ dense.T + layer.bias.repeat_interleave(len(dense) // len(layer.bias)))
    return family.encoder(x)


def decoded(model: ConvolutionalVAE, z: Tensor, shape: tuple[int, ...], kernel: int, stride: int) -> Tensor:
    """The decoder's output by matrices."""
    convolutions = [layer for layer in model.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    h, sizes = model.decoder.dense(z), sizes_of(shape, 2, kernel, stride)
    for layer, size in zip(convolutions, sizes[1::-1], strict=True):
        last = layer is convolutions[-1]
        dense = matrix(layer.weight, size, stride, last)
        assert layer.bias is not None
        places = dense.shape[1] // len(layer.bias)
        h = torch.tanh(h) @ dense + (layer.bias.repeat(places) if last else layer.bias.repeat_interleave(places))
    return h


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [((5, 7, 3), 3, 2), ((6, 5), 4, 2), ((3, 3), 1, 1), ((4, 4), 7, 4), ((4, 5, 3), 3, 1), ((7, 4), 3, 3)],
    ids=["odd and coloured", "even kernel", "1 x 1 kernel", "kernel of the whole image", "no stride", "stride of 3"],
)
def test_a_convolution_is_the_dense_layer_of_its_matrix(shape: tuple[int, ...], kernel: int, stride: int) -> None:
    """Values and the gradient in every weight; twin: a matrix with the kernel turned round, as a convolution is not."""
    model, family = pair(shape, 2, kernel, stride)
    x, z = images(3, shape, 2), torch.randn(4, 1, 3, 2)
    weights = [*family.parameters(), *model.parameters()]

    def total(logits: Tensor, head: Tensor) -> list[Tensor]:
        value = reference.Bernoulli(logits=logits).log_prob(x).sum() + (head * torch.arange(4)).sum()
        return [value, *torch.autograd.grad(value, weights)]

    q = family.variational(x)["z"]
    head = torch.cat([q["loc"], 2 * q["scale"].log()], dim=-1).squeeze(0)
    likelihood = model.log_likelihood({"z": z}, x).sum()
    found = [likelihood + (head * torch.arange(4)).sum()]
    found += torch.autograd.grad(found[0], weights)
    by_matrices = decoded(model, z, shape, kernel, stride), encoded(family, x, shape, kernel, stride)
    for one, other in zip(found, total(*by_matrices), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    if kernel > 1:
        with torch.no_grad():
            next(layer for layer in family.features.modules() if isinstance(layer, nn.Conv2d)).weight.copy_(
                next(iter(family.features.parameters())).flip(-1)
            )
        assert not torch.allclose(encoded(family, x, shape, kernel, stride), head)


@pytest.mark.parametrize("shape", SIZES)
def test_images_of_every_size_come_out_as_they_went_in(shape: tuple[int, ...]) -> None:
    model, family = pair(shape, 256)
    x = images(3, shape, 256)
    z = family.distribution(family.variational(x)).rsample(2)
    assert model.pixel_means(z).shape == (2, 1, 3, math.prod(shape))
    value = ClosedFormKL(num_samples=2)(model, family, ELBO(), x)
    slopes = torch.autograd.grad(value.surrogate.sum(), [*model.parameters(), *family.parameters()])
    assert value.bound.shape == (1, 3)
    assert all(bool(slope.isfinite().all()) and bool(slope.abs().sum() > 0) for slope in slopes)
    assert model.pixel_means(model.sample_prior(5)).shape == (5, 1, 1, math.prod(shape))


def test_neighbours_on_the_image_are_neighbours_for_the_network() -> None:
    """One pixel reaches the features of its own place alone, in each colour."""
    features = ConvolutionalFeatures((8, 12, 3), channels=[2], kernel=3, stride=2)
    x = torch.zeros(1, 8 * 12 * 3, requires_grad=True)
    (slope,) = torch.autograd.grad(features(x).unflatten(1, (2, 4, 6))[0, :, 1, 4].sum(), x)
    seen = slope.reshape(8, 12, 3).abs().sum(-1) > 0
    assert [sorted(set(axis.tolist())) for axis in seen.nonzero().T] == [[1, 2, 3], [7, 8, 9]]


# --- the model is a probability, and its bound a bound --------------------------------------------------------------


GRID, STEP = torch.linspace(-16, 16, 4001, dtype=torch.float64), 32 / 4000


def by_quadrature(model: ConvolutionalVAE, family: AmortizedNormal, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) and the ELBO of each image, (B,), of a model with one latent."""
    z = {"z": GRID[:, None, None, None].expand(-1, 1, len(x), 1)}
    with torch.no_grad():
        joint, log_q = model.log_joint(z, x), family.distribution(family.variational(x)).log_prob(z)
    elbo = (log_q.exp() * (joint - log_q)).sum(0) * STEP
    return joint.squeeze(1).logsumexp(0) + math.log(STEP), elbo.squeeze(0)


@pytest.mark.parametrize(("shape", "levels"), [((2, 2), 3), ((1, 1, 3), 4)], ids=["grey", "coloured"])
def test_probabilities_of_all_images_sum_to_one_and_the_bound_is_below_them(
    shape: tuple[int, ...], levels: int
) -> None:
    model = ConvolutionalVAE(shape, levels, latent_dim=1, hidden=[4], channels=[2], activation="tanh")
    features = ConvolutionalFeatures(shape, channels=[2], activation="tanh")
    family = AmortizedNormal(model.latents, 1, 1, features=features, hidden=[3], activation="tanh")
    with torch.no_grad():
        for weight in model.decoder.parameters():
            weight.mul_(3)
        model.log_scale.add_(1.0)
        list(family.parameters())[-1].add_(0.8)  # of loc and log-variance: q is off the posterior
    pixels = list(itertools.product(range(levels), repeat=math.prod(shape)))
    x = torch.tensor(pixels) / (levels - 1)
    evidence, elbo = by_quadrature(model, family, x)
    assert float(evidence.exp().sum()) == pytest.approx(1, abs=1e-10)
    assert float((elbo - evidence).max()) < -1e-4
    assert float((elbo - evidence).abs().max()) > 0.3
    with torch.no_grad():
        weighted = IWELBO()(Pathwise(num_samples=1)(model, family, ELBO(), x.repeat(3000, 1)).bound.view(3000, -1))
        assert float((weighted - evidence).abs().max()) < 0.2
        for estimator in (Pathwise(num_samples=100), ClosedFormKL(num_samples=100)):
            values = torch.stack([estimator(model, family, ELBO(), x).bound[0] for _ in range(40)])
            z = (values.mean(0) - torch.stack([elbo, evidence])[:, None]) / (values.std(0) / 40**0.5)
            assert float(z[0].abs().max()) < 6 < float(z[1].abs().max())  # of 81 images; false alarms: 1 in 10,000


def test_binary_images_need_no_scale() -> None:
    assert not isinstance(pair((4, 4), 2)[0].log_scale, nn.Parameter)
    coloured = pair((4, 4, 3), 256)[0]
    assert isinstance(coloured.log_scale, nn.Parameter)
    assert coloured.log_scale.shape == (3,)


# --- requests that have no meaning ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ConvolutionalVAE(None, None), "model=convolutional_vae is for images with rows and columns"),
        (lambda: ConvolutionalFeatures(None), "family/features=convolutional is for images"),
        (lambda: ConvolutionalVAE((8, 8), 2, channels=[]), "model.channels=[] must be numbers of at least 1"),
        (lambda: ConvolutionalFeatures((8, 8), channels=[4, 0]), "family.features.channels=[4, 0] must be"),
        (lambda: ConvolutionalVAE((8, 8), 2, kernel=1), "model.kernel=1 must be at least model.stride=2"),
        (lambda: ConvolutionalVAE((8, 8), 2, stride=0), "model.stride=0 must be at least 1"),
        (lambda: ConvolutionalVAE((2, 3), 2, kernel=4, channels=[1] * 3), "are too many layers for 2 x 3 pixels"),
        (lambda: ConvolutionalVAE((8, 8), 2, activation="rellu"), "Did you mean 'relu'?"),
        (lambda: ConvolutionalVAE((8, 8), 2, hidden=[0]), "model.hidden=[0] must all be at least 1"),
        (lambda: ConvolutionalVAE((2, 2), 2).check_data(torch.full((1, 4), 0.5)), "describes pixels with 2 levels"),
    ],
)
def test_refusals_are_one_line(make: Callable[[], object], said: str) -> None:
    with pytest.raises(LabError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, (ConfigError, Unsupported))


# --- from the command line ------------------------------------------------------------------------------------------


def discs(count: int) -> np.ndarray:
    """Coloured discs on a blue ground, (count, 10, 14, 3) bytes."""
    random, (rows, columns) = np.random.default_rng(0), np.mgrid[:10, :14]
    found = np.zeros((count, 10, 14, 3), dtype=np.uint8)
    found[..., 2] = 90
    for image in found:
        inside = (rows - random.uniform(2, 8)) ** 2 + (columns - random.uniform(2, 12)) ** 2 < 9
        image[inside] = random.choice([[250, 60, 40], [240, 220, 60]])
    return found


def test_coloured_images_are_learned_and_drawn(cli: CommandLine, tmp_path: Path) -> None:
    np.save(tmp_path / "discs.npy", discs(200))
    common = ("experiment=convolutional_vae", "dataset=images", "dataset.path=discs.npy", "dataset.test_fraction=0.2")
    short = ("trainer=smoke", "trainer.limit=120", "trainer.execution=eager", "dataset.batch_size=40", "threads=1")
    result = cli(*common, *short, "trainer.eval_every=1", "optimizer.lr=0.005", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    lines = (tmp_path / "run" / "trace.csv").read_text().splitlines()
    place = lines[0].split(",").index("held_out")
    held_out = [float(line.split(",")[place]) for line in lines[1:] if line.split(",")[place] not in ("", "nan")]
    assert held_out[-1] > held_out[0] + 500
    assert held_out[-1] < 0
    assert summary_of(tmp_path / "run")["final"]["method"] == "held-out data"
    with np.load(tmp_path / "run" / "samples.npz") as samples:
        assert samples["reconstruction"].shape == samples["test"].shape == (40, 10, 14, 3)
        assert (
            samples["interpolation"].shape == (30, 10, 14, 3)
            and 0 <= samples["grey"].min() < samples["grey"].max() == 1
        )
        errors = np.abs(samples["reconstruction"] - samples["test"]).mean()
        assert errors < 0.6 * np.abs(samples["test"].mean(axis=0) - samples["test"]).mean()
    drawn = {path.stem for path in (tmp_path / "run" / "plots").iterdir()}
    assert drawn >= {"bound", "reconstructions", "generated", "interpolation"}
    assert cli("task=plot", "run=run").code == 0

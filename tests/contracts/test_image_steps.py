"""Steps on images: the fused likelihood, chunks over samples, products in bfloat16, and no waiting for the device.

What a step keeps in memory is counted by watching every tensor that torch allocates, so that it does not depend on the
machine.
"""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as reference
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conftest import CommandLine, summary_of
from tests.contracts.test_config import composed, names
from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.distributions.transforms import Exponential
from vi_core.errors import LabError, Unsupported
from vi_core.estimators import base as chunks
from vi_core.estimators.base import Estimate, Estimator
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.pathwise import Pathwise
from vi_core.execution.recording import tracing
from vi_core.families.amortized.categorical import AmortizedCategorical, GumbelSoftmaxRelaxation
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.families.base import Family
from vi_core.families.mean_field import MeanField
from vi_core.models.autoencoders.vae import VAE, CategoricalVAE
from vi_core.models.base import Model
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.networks import mlp
from vi_core.networks.mlp import MLP, bernoulli_log_likelihood, multiply_in
from vi_core.optimizers.adam import Adam
from vi_core.schema import construct

K = 7
CHUNKED = [name for name in names("estimator") if "chunk_size" in composed(f"estimator/{name}")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


# --- the fused likelihood -------------------------------------------------------------------------------------------


def likelihood_and_gradients(
    function: Callable[[MLP, Tensor, Tensor], Tensor], dtype: torch.dtype, pixels: int = 6, scale: float = 60.0
) -> list[Tensor]:
    """A log-likelihood (K, 1, B), with logits where probabilities would be 0 or 1, and its gradients, in float64."""
    torch.manual_seed(3)
    network = MLP([3, 5, pixels], "tanh", "model").double()
    with torch.no_grad():
        list(network.parameters())[-2].mul_(scale)
    z, x = torch.randn(4, 1, 2, 3, dtype=torch.float64), torch.rand(2, pixels, dtype=torch.float64).round()
    weight = torch.randn(4, 1, 2, dtype=torch.float64)
    network, z = network.to(dtype), z.to(dtype).requires_grad_()
    value = function(network, z, x.to(dtype))
    gradients = torch.autograd.grad(value, [z, *network.parameters()], weight.to(value.dtype))
    return [value.detach().double(), *(gradient.double() for gradient in gradients)]


def by_torch(network: MLP, z: Tensor, x: Tensor) -> Tensor:
    """The same by torch's own law, in float64 from the logits on."""
    return reference.Bernoulli(logits=network(z).double()).log_prob(x.double()).sum(dim=-1)


def by_probabilities(network: MLP, z: Tensor, x: Tensor) -> Tensor:
    """What the logits are for: probabilities that round to 0 and 1."""
    p = network(z).sigmoid()
    return (x * p.log() + (1 - x) * (1 - p).log()).sum(dim=-1)


def worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest error relative to the largest element of its tensor."""
    errors = (float((f - e).abs().max() / e.abs().max()) for f, e in zip(found, expected, strict=True))
    return max(float("inf") if error != error else error for error in errors)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_bernoulli_likelihood_and_its_gradients(dtype: torch.dtype, tolerance: float) -> None:
    """Against torch's law and its automatic derivative."""
    for pixels in (6, 784):
        expected = likelihood_and_gradients(by_torch, dtype, pixels)
        assert worst(likelihood_and_gradients(bernoulli_log_likelihood, dtype, pixels), expected) < tolerance
        assert worst(likelihood_and_gradients(by_probabilities, dtype, pixels), expected) > tolerance


def test_latents_that_several_images_share() -> None:
    network, x = MLP([3, 4, 5], "tanh", "model").double(), torch.rand(2, 5).round().double()
    z = torch.randn(4, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    values = bernoulli_log_likelihood(network, z, x), by_torch(network, z, x)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value.square().sum(), z)[0] for value in values))


def test_grey_pixels_and_evaluation_without_gradient() -> None:
    network, z, x = MLP([3, 5], "tanh", "model").double(), torch.randn(4, 2, 3).double(), torch.rand(2, 5).double()
    logits = network(z)
    expected = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
    torch.testing.assert_close(bernoulli_log_likelihood(network, z, x), expected)
    with torch.no_grad(), Live() as live:
        torch.testing.assert_close(bernoulli_log_likelihood(network, z, x), expected.detach())
    with Live() as differentiable:
        bernoulli_log_likelihood(network, z, x)
    assert live.peak <= differentiable.peak - logits.nbytes


def test_compilers_and_other_devices_get_the_plain_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = likelihood_and_gradients(bernoulli_log_likelihood, torch.float64)
    monkeypatch.setattr(mlp, "_LogLikelihood", None)
    with tracing():
        plain = likelihood_and_gradients(bernoulli_log_likelihood, torch.float64)
    assert worst(plain, fused) < 1e-9  # softplus is linear from 20


# --- chunks over samples --------------------------------------------------------------------------------------------


def problems() -> dict[str, tuple[Model, Family, Any]]:
    """A model with its family and data in float64, small."""
    images = torch.rand(3, 6).round().double()
    vae = VAE(6, latent_dim=2, hidden=[4], activation="tanh").double()
    discrete = CategoricalVAE(6, groups=2, classes=3, hidden=[4]).double()
    normal_gamma = NormalGamma()
    relaxed = GumbelSoftmaxRelaxation()
    return {
        "vae": (vae, AmortizedNormal(vae.latents, 1, 6, hidden=[4]).double(), images),
        "categorical_vae": (
            discrete,
            AmortizedCategorical(discrete.latents, 1, 6, hidden=[4], relaxation=relaxed).double(),
            images,
        ),
        "normal_gamma": (
            normal_gamma,
            MeanField(normal_gamma.latents, 2, positive=Exponential(), spread=Exponential()).double(),
            normal_gamma.summarize(torch.randn(10).double()),
        ),
    }


def outcome(estimator: Estimator, model: Model, family: Family, bound: Bound, x: Any) -> list[Tensor]:
    """Bound, gradients in all weights, evaluated bound and the random state afterwards, from one seed."""
    torch.manual_seed(5)
    estimate = estimator(model, family, bound, x)
    weights = [*family.parameters(), *model.parameters()]
    gradients = torch.autograd.grad(estimate.surrogate.sum(), weights, materialize_grads=True)
    return [
        estimate.bound, *estimate.terms.values(), *gradients, estimator.value(model, family, bound, x),
        torch.get_rng_state(),
    ]  # fmt: skip


def chunked(name: str, size: int | None) -> Estimator:
    """An estimator by the name of its file, with K samples."""
    return construct(composed(f"estimator/{name}") | {"num_samples": K, "chunk_size": size}, "estimator")


def difference(name: str, bound: Bound, problem: str, size: int) -> float | None:
    """Largest difference between chunks and all samples at once, or None where the parts do not go together."""
    model, family, x = problems()[problem]
    whole, pieces = (chunked(name, number) for number in (None, size))
    try:
        whole.check(model, family, bound)
    except Unsupported:
        return None
    found, expected = (outcome(estimator, model, family, bound, x) for estimator in (pieces, whole))
    return max(float((f - e).abs().max()) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("problem", ["vae", "categorical_vae", "normal_gamma"])
@pytest.mark.parametrize("bound", [ELBO(), IWELBO()], ids=lambda bound: bound.name)
@pytest.mark.parametrize("name", CHUNKED)
def test_chunks_have_the_same_gradient(name: str, bound: Bound, problem: str) -> None:
    """For sizes that divide K, that do not, and that are larger; the same draws, the same evaluation."""
    found = [difference(name, bound, problem, size) for size in (1, 3, K, 50)]
    assert all(value is None or value < 1e-12 for value in found)


def test_every_estimator_with_chunks_runs_on_some_problem() -> None:
    assert len(CHUNKED) >= 9
    for name in CHUNKED:
        assert any(difference(name, ELBO(), problem, 3) is not None for problem in problems())


def test_a_chunk_that_loses_its_gradient_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Callable[..., Tensor], z: dict[str, Tensor], x: Any) -> Tensor:
        return function({name: value.detach() for name, value in z.items()}, x)

    monkeypatch.setattr(chunks, "forgetful", broken)
    for name in ("pathwise", "sticking_the_landing", "closed_form_kl"):
        found = difference(name, ELBO(), "vae", 3)
        assert found is not None and found > 1e-3


def test_a_backward_pass_may_be_repeated() -> None:
    """What a chunk computes again is dropped as it is used, and computed once more for a second pass."""
    model, family, x = problems()["vae"]
    surrogate = chunked("pathwise", 3)(model, family, IWELBO(), x).surrogate.sum()
    weights = [*family.parameters(), *model.parameters()]
    first, second = (torch.autograd.grad(surrogate, weights, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_chunk_of_nothing_is_refused() -> None:
    for name in CHUNKED:
        with pytest.raises(LabError, match=r"estimator\.chunk_size=0 must be at least 1, or null"):
            chunked(name, 0)


class Live(TorchDispatchMode):
    """Bytes of the storages that were made inside and are still there: now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given | self.known:
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        self.known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def iwae_step(chunk_size: int | None, num_samples: int = 50) -> GradientStep:
    """The step of the importance-weighted bound with the decoder of report 000."""
    model = VAE(784)
    family = AmortizedNormal(model.latents, 1, 784)
    return GradientStep(model, family, IWELBO(), Pathwise(num_samples=num_samples, chunk_size=chunk_size), Adam())


def peak_of_step(chunk_size: int | None) -> int:
    """Bytes that a step on 16 images holds at most, beyond parameters and the optimizer's state."""
    step, x = iwae_step(chunk_size), torch.rand(16, 784).round()
    with Live() as live:
        step(x)
    return live.peak


def test_chunks_halve_the_memory_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, ten = peak_of_step(None), peak_of_step(10)
    activations = 4 * 50 * 16 * (784 + 2 * 200)
    assert activations < whole < 2 * activations + 8e6
    assert ten < 0.5 * whole
    monkeypatch.setattr(chunks, "forgetful", lambda function, z, x: function(z, x))
    assert peak_of_step(10) > 0.8 * whole


# --- no waiting for the device --------------------------------------------------------------------------------------


class Waiting(TorchDispatchMode):
    """Count operations whose result the host has to see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.")):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def waits(step: GradientStep, x: Tensor) -> list[str]:
    with Waiting() as mode:
        step(x)
    return mode.seen


def look(_estimator: Any, _inputs: Any, estimate: Estimate) -> None:
    """A hook that shows the bound of each step."""
    estimate.bound.sum().item()


def test_steps_do_not_wait_for_the_device() -> None:
    """Nothing that a step computes decides what it does next."""
    x = torch.rand(8, 784).round()
    assert waits(iwae_step(None, 5), x) == waits(iwae_step(2, 5), x) == []
    for name in ("vae", "categorical_vae"):
        model, family, images = problems()[name]
        step = GradientStep(model, family, ELBO(), ClosedFormKL(), Adam())
        assert waits(step, images) == []
        step.estimator.register_forward_hook(look)
        assert waits(step, images) != []


# --- products in bfloat16 -------------------------------------------------------------------------------------------


def test_bfloat16_is_for_products_alone() -> None:
    """Parameters, gradients, bound and the optimizer's state stay in float32; what differs is rounding."""
    x, results = torch.rand(8, 784).round(), {}
    for matmul in ("auto", "bfloat16"):
        torch.manual_seed(3)
        step = iwae_step(None, 5)
        multiply_in(matmul, step.model, step.family)
        with Kinds() as kinds:
            bound = step(x)["iwelbo"]
        assert bound.dtype == torch.float32
        assert all(tensor.dtype == torch.float32 for tensor in [*step.parameters()])
        assert kinds.products == {torch.bfloat16 if matmul == "bfloat16" else torch.float32}
        results[matmul] = float(bound)
    assert 0 < abs(results["auto"] - results["bfloat16"]) < 1.0  # of 540 nats


class Kinds(TorchDispatchMode):
    """Types of the operands of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.products: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in ("aten.mm.", "aten.addmm.", "aten.bmm.")):
            self.products |= {value.dtype for value in args if isinstance(value, Tensor)}
        return func(*args, **(kwargs or {}))


def round_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep parameters in bfloat16, too: a step of Adam is then mostly lost in rounding."""
    move = Adam.forward

    def rounded(self: Adam, parameters: Sequence[Tensor], gradients: Sequence[Tensor], alive: Tensor) -> None:
        move(self, parameters, gradients, alive)
        for parameter in parameters:
            parameter.copy_(parameter.bfloat16())

    monkeypatch.setattr(Adam, "forward", rounded)


@pytest.mark.slow
def test_bfloat16_moves_the_bound_by_less_than_a_tenth_of_a_nat(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of training, with the same seed. Measured: 0.003."""

    def bound(matmul: str, folder: str) -> float:
        arguments = ("--run", "experiment=vae_digits", f"matmul={matmul}", "plot.enabled=false", "threads=1")
        assert cli(*arguments, f"hydra.run.dir={folder}").code == 0
        return summary_of(tmp_path / folder)["objective"]["mean"]

    exact = bound("auto", "float32")
    assert abs(bound("bfloat16", "bfloat16") - exact) < 0.1
    round_parameters(monkeypatch)
    assert abs(bound("auto", "rounded") - exact) > 0.1

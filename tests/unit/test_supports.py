"""Supports and transforms of parameters: values, inverses and log-determinants against dense Jacobians of autograd."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from vi_core.distributions import supports
from vi_core.distributions.supports import Support
from vi_core.distributions.transforms import Clamp, Exponential, Positive, Precision, Softplus
from vi_core.errors import ConfigError, Unsupported
from vi_core.types import Latent


def below_the_diagonal(z: Tensor) -> Tensor:
    """The free entries of a Cholesky factor whose rows have length one."""
    row, column = torch.tril_indices(*z.shape, offset=-1)
    return z[row, column]


def all_but_the_last(z: Tensor) -> Tensor:
    """The free coordinates of vectors that sum to one."""
    return z[..., :-1]


def everything(z: Tensor) -> Tensor:
    """All coordinates, where no constraint ties them."""
    return z


Free = Callable[[Tensor], Tensor]
LATENTS: list[tuple[Latent, Free]] = [
    (Latent(supports.real), everything),
    (Latent(supports.real, (2, 3)), everything),
    (Latent(supports.positive, (3,)), everything),
    (Latent(supports.unit_interval, (3,)), everything),
    (Latent(supports.bounded(-2.0, 5.0), (2, 2)), everything),
    (Latent(supports.ordered, (4,)), everything),
    (Latent(supports.ordered, (2, 3)), everything),
    (Latent(supports.simplex, (5,)), all_but_the_last),
    (Latent(supports.simplex, (2, 3)), all_but_the_last),
    (Latent(supports.correlation_cholesky, (2, 2)), below_the_diagonal),
    (Latent(supports.correlation_cholesky, (4, 4)), below_the_diagonal),
]
POSITIVES: list[Positive] = [Exponential(), Softplus(), Precision(), Clamp()]
TOLERANCE = 1e-9  # absolute, of a log-determinant in float64


def name(value: object) -> str | None:
    """Label of a test's parameter."""
    if isinstance(value, Latent):
        return f"{value.support.name}-{value.shape}"
    return type(value).__name__ if isinstance(value, Positive) else None


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def draws(latent: Latent, scale: float = 1.0) -> Tensor:
    """20 unconstrained points, (20, *unconstrained_shape)."""
    return scale * torch.randn(20, *latent.unconstrained_shape, dtype=torch.float64)


def dense(latent: Latent, free: Free, u: Tensor) -> Tensor:
    """log|det ∂z/∂u| of one point by the whole Jacobian."""
    jacobian = jacrev(lambda flat: free(latent.support.transform(flat.reshape(u.shape))).flatten())(u.flatten())
    return torch.linalg.slogdet(jacobian).logabsdet


def of_one(latent: Latent, u: Tensor) -> Tensor:
    """The latent's own log-determinant at one point."""
    return latent.log_abs_det_jacobian(u, latent.support.transform(u))


def discrepancy(latent: Latent, free: Free, sign: float = 1.0) -> float:
    """Largest error of the log-determinants at 20 points, mapped by vmap."""
    u = draws(latent)
    expected = torch.stack([dense(latent, free, point) for point in u])
    return float((sign * vmap(lambda point: of_one(latent, point))(u) - expected).abs().max())


@pytest.mark.parametrize(("latent", "free"), LATENTS, ids=name)
def test_log_determinants_are_those_of_the_jacobian(latent: Latent, free: Free) -> None:
    assert discrepancy(latent, free) < TOLERANCE


@pytest.mark.parametrize(("latent", "free"), LATENTS[2:], ids=name)
def test_a_wrong_sign_is_caught(latent: Latent, free: Free) -> None:
    assert discrepancy(latent, free, -1.0) > 0.1


@pytest.mark.parametrize(("latent", "free"), LATENTS, ids=name)
def test_values_lie_on_the_support_and_come_back(latent: Latent, free: Free) -> None:
    """Also with batch axes and under vmap, which give the same numbers."""
    u = draws(latent)
    z = latent.support.transform(u)
    assert z.shape == (20, *latent.shape)
    assert bool(latent.support.constraint.check(z).all())
    torch.testing.assert_close(latent.support.inverse(z), u)
    torch.testing.assert_close(vmap(latent.support.transform)(u), z)
    torch.testing.assert_close(vmap(latent.support.inverse)(z), u)
    assert latent.log_abs_det_jacobian(u, z).shape == (20,)


@pytest.mark.parametrize(("latent", "free"), LATENTS[2:], ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_determinants_are_finite_where_values_round_to_the_boundary(
    latent: Latent, free: Free, dtype: torch.dtype
) -> None:
    """At |u| of some hundreds, where z is on the boundary in floating point; so are their derivatives."""
    u = draws(latent, scale=100.0).to(dtype).requires_grad_()
    value = vmap(lambda point: of_one(latent, point))(u)
    gradient = torch.autograd.grad(value.sum(), u)[0]
    assert bool(value.isfinite().all()) and bool(gradient.isfinite().all())


def test_log_determinants_of_torch_are_not() -> None:
    """The two that are written anew: with torch's, the test above would fail."""
    for support in (supports.simplex, supports.correlation_cholesky):
        theirs = torch.distributions.biject_to(support.constraint)
        shape = (40,) if support is supports.simplex else (45,)
        u = 100 * torch.randn(20, *shape)
        assert not bool(theirs.log_abs_det_jacobian(u, theirs(u)).isfinite().all())
        u = torch.randn(20, *shape, dtype=torch.float64)
        z = theirs(u)
        torch.testing.assert_close(support.log_abs_det_jacobian(u, z), theirs.log_abs_det_jacobian(u, z))


def test_one_hot_is_discrete() -> None:
    latent = Latent(supports.one_hot, (2, 3))
    assert latent.support.discrete and not supports.real.discrete
    assert bool(latent.support.constraint.check(torch.eye(3)).all())
    with pytest.raises(Unsupported, match="one-hot support is discrete"):
        _ = latent.unconstrained_shape


def test_supports_are_equal_by_value() -> None:
    """A copy, as worker processes get it, is the same support; other bounds are another."""
    for support in (supports.real, supports.simplex, supports.ordered, supports.bounded(0.0, 1.0)):
        assert copy.deepcopy(support) == support and hash(copy.deepcopy(support)) == hash(support)
    assert supports.bounded(0.0, 1.0) != supports.bounded(0.0, 2.0)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_bounds_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="must have finite bounds"):
        supports.bounded(*bounds)


@pytest.mark.parametrize(
    ("support", "shape"), [(supports.simplex, ()), (supports.ordered, ()), (supports.correlation_cholesky, (3,))]
)
def test_shapes_without_the_axes_of_a_value_are_refused(support: Support, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=support.name):
        Latent(support, shape)


@pytest.mark.parametrize("positive", POSITIVES, ids=name)
def test_log_derivatives_of_stored_parameters(positive: Positive) -> None:
    """Against autograd, under vmap; Clamp has none below its least value."""
    raw = torch.linspace(-20, 20, 101, dtype=torch.float64)
    slopes = vmap(torch.func.grad(positive))(raw)
    found = vmap(lambda point: positive.log_abs_det_jacobian(point, positive(point)))(raw)
    torch.testing.assert_close(found, slopes.abs().log(), rtol=0, atol=TOLERANCE)
    assert isinstance(positive, Clamp) or bool((found + slopes.abs().log()).abs().max() > 0.1)

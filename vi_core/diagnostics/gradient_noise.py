"""Noise and bias of a gradient estimator at fixed parameters.

With ĝ_1, ..., ĝ_n independent estimates of ∇ELBO in the unconstrained parameters, on which an optimizer acts, the noise
is √tr Cov(ĝ), and that of a latent the same over its own parameters. An unbiased ĝ has (ḡ − ∇ELBO)/(s/√n) near
Student's t with n − 1 degrees of freedom in every parameter. Of networks the noise is that of each layer's weights, on
one minibatch that stays the same, so that it is of the draws of q alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.estimators.base import Estimator
from vi_core.families.base import Family
from vi_core.models.base import HasExpectedBound, Model


def stored(family: Family) -> tuple[Tensor, list[str]]:
    """Return the unconstrained parameters of a family without a network.

    Returns:
        The parameters in one tensor, (R, 1, P), and the latent that each of the P numbers belongs to.

    Raises:
        Unsupported: For a family with a network, or with nothing to train.
    """
    names = family.stored_names()
    if names is None:
        reason = "nothing to train" if family.fixed else "a network for each replicate"
        raise Unsupported(
            f"trainer.gradient_draws measures latents that all data points share, and networks with replicates=1; "
            f"{type(family).__name__} has {reason}; use trainer.gradient_draws=0."
        )
    (raw,) = family.parameters()
    return raw, [name.rpartition(".")[0] for name in names]


def gradient_draws(estimator: Estimator, model: Model, family: Family, bound: Bound, x: Any, count: int) -> Tensor:
    """Return `count` independent estimates of the gradient in stored parameters, (count, R, P)."""
    raw, _ = stored(family)
    draws = [torch.autograd.grad(estimator(model, family, bound, x).surrogate.sum(), raw)[0] for _ in range(count)]
    return torch.stack(draws).squeeze(2)


def exact_gradient(model: Model, family: Family, bound: Bound, x: Any) -> Tensor | None:
    """Return the gradient of the closed-form ELBO in stored parameters, (R, P), or None without a closed form."""
    if not bound.linear or not isinstance(model, HasExpectedBound) or not model.knows(family.layout):
        return None
    raw, _ = stored(family)
    value = cast(HasExpectedBound, model).expected_bound(family.variational(), x)
    return torch.autograd.grad(value.sum(), raw)[0].squeeze(1)


def deviations(draws: Tensor, latents: list[str]) -> dict[str, Tensor]:
    """Return √tr Cov of the parameters of each latent, (R), from draws (n, R, P) with `latents` by parameter."""
    variances = draws.var(dim=0)
    columns = {name: [i for i, owner in enumerate(latents) if owner == name] for name in dict.fromkeys(latents)}
    return {name: variances[:, own].sum(dim=-1).sqrt() for name, own in columns.items()}


def standardised_errors(draws: Tensor, exact: Tensor) -> Tensor:
    """Return (ḡ − exact)/(s/√n), (R, P), with rounding added to the standard error: noise may be zero."""
    rounding = 100 * torch.finfo(draws.dtype).eps * (1 + exact.abs())
    return (draws.mean(dim=0) - exact) / (draws.std(dim=0) / len(draws) ** 0.5 + rounding)


def layers(*parts: nn.Module) -> dict[str, list[Tensor]]:
    """Return the weights of each layer of networks by its place, such as `encoder.0`; a layer has matrix and bias."""
    found: dict[str, list[Tensor]] = {}
    for name, parameter in (pair for part in parts for pair in part.named_parameters()):
        place = ".".join(word for word in name.split(".")[:-1] if word != "layers")
        found.setdefault(place or name, []).append(parameter)
    return found


def layer_deviations(
    surrogate: Callable[[], Tensor], weights: Mapping[str, Sequence[Tensor]], count: int
) -> dict[str, Tensor]:
    """Return √tr Cov of the gradient in the weights of each layer, (1,).

    Sums are Welford's, so that no draws are kept.

    Args:
        surrogate: Returns the scalar to ascend, from fresh draws of q.
        weights: By layer.
        count: Number of estimates, at least 2.
    """
    tensors = [tensor for own in weights.values() for tensor in own]
    means, squares = ([torch.zeros_like(tensor) for tensor in tensors] for _ in range(2))
    for n in range(1, count + 1):
        gradients = torch.autograd.grad(surrogate(), tensors, allow_unused=True, materialize_grads=True)
        for mean, square, gradient in zip(means, squares, gradients, strict=True):
            distance = gradient - mean
            mean += distance / n
            square += distance * (gradient - mean)
    totals = iter([square.sum() / (count - 1) for square in squares])
    return {name: sum((next(totals) for _ in own), torch.zeros(())).sqrt().reshape(1) for name, own in weights.items()}

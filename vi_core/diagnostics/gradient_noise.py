"""Noise and bias of a gradient estimator at fixed parameters.

With ĝ_1, ..., ĝ_n independent estimates of ∇ELBO in the unconstrained parameters, on which an optimizer acts, the noise
is √tr Cov(ĝ), and that of a latent the same over its own parameters. An unbiased ĝ has (ḡ − ∇ELBO)/(s/√n) near
Student's t with n − 1 degrees of freedom in every parameter.

The n − 1 squared distances d_k = (k−1)/k ‖ĝ_k − m_{k−1}‖², of estimate k = 2, ..., n from the mean m_{k−1} of those
before it, have the expectation tr Cov(ĝ) each, are uncorrelated for Normal ĝ and nearly so for others, and their mean
is the sample variance s² (Welford 1962). So the noise s has the standard error sd(d) / (2 s √(n−1)), by the delta
method; of Normal ĝ in one dimension this is s/√(2(n−1)).

Of networks the noise is that of each layer's weights, on
one minibatch that stays the same, so that it is of the draws of q alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

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


class Noise(NamedTuple):
    """√tr Cov of gradient estimates and its standard error, (R,) each; the error is NaN of two estimates."""

    sd: Tensor
    se: Tensor


def noise_of(squares: Tensor) -> Noise:
    """Return the noise whose squared distances d_2, ..., d_n are `squares`, (n − 1, R)."""
    sd = squares.mean(dim=0).sqrt()
    spread = squares.std(dim=0) if len(squares) > 1 else torch.full_like(sd, torch.nan)
    return Noise(sd, spread / (2 * len(squares) ** 0.5 * sd).clamp_min(torch.finfo(sd.dtype).tiny))


def squared_distances(draws: Tensor, latents: list[str]) -> dict[str, Tensor]:
    """Return d_2, ..., d_n of the parameters of each latent, (n − 1, R), from draws (n, R, P).

    Args:
        draws: Of the gradient.
        latents: To which each of the P parameters belongs.
    """
    shifted = draws - draws[0]  # equal draws have no distance then, whatever rounding does to their mean
    count = torch.arange(1, len(draws), dtype=draws.dtype, device=draws.device)[:, None, None]
    distances = shifted[1:] - shifted.cumsum(dim=0)[:-1] / count
    squares = distances.square() * count / (count + 1)
    columns = {name: [i for i, owner in enumerate(latents) if owner == name] for name in dict.fromkeys(latents)}
    return {name: squares[:, :, own].sum(dim=-1) for name, own in columns.items()}


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


def layer_distances(
    surrogate: Callable[[], Tensor], weights: Mapping[str, Sequence[Tensor]], count: int
) -> dict[str, Tensor]:
    """Return d_2, ..., d_n of the gradient in the weights of each layer, (n − 1, 1), with no draws kept.

    Args:
        surrogate: Returns the scalar to ascend, from fresh draws of q.
        weights: By layer.
        count: n, at least 2.
    """
    tensors = [tensor for own in weights.values() for tensor in own]
    means, squares = [torch.zeros_like(tensor) for tensor in tensors], list[Tensor]()
    for n in range(1, count + 1):
        gradients = torch.autograd.grad(surrogate(), tensors, allow_unused=True, materialize_grads=True)
        row = []
        for mean, gradient in zip(means, gradients, strict=True):
            distance = gradient - mean
            mean += distance / n
            row.append((distance * (gradient - mean)).sum())
        squares.append(torch.stack(row))
    columns = iter(torch.stack(squares[1:]).split([len(own) for own in weights.values()], dim=1))
    return {name: next(columns).sum(dim=1, keepdim=True) for name in weights}

"""Noise and bias of a gradient estimator at fixed parameters.

With ĝ_1, ..., ĝ_n independent estimates of ∇ELBO in the unconstrained parameters, on which an optimizer acts, the noise
is √tr Cov(ĝ), and that of a latent the same over its own parameters. An unbiased ĝ has (ḡ − ∇ELBO)/(s/√n) near
Student's t with n − 1 degrees of freedom in every parameter.
"""

from typing import Any, cast

import torch
from torch import Tensor

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
        reason = "nothing to train" if family.fixed else "a network"
        raise Unsupported(
            f"trainer.gradient_draws measures latents that all data points share, and {type(family).__name__} has "
            f"{reason}; use trainer.gradient_draws=0."
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

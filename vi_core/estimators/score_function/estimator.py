"""The score-function gradient (REINFORCE) of black-box variational inference, with optional control variates.

Approximates ∇_λ E_q[L] with Σ_k s_k ∇_λ log q(z_k; λ), where z_k ~ q and s = `bound.signal(log w)`: log w_k / K for the
ELBO. Needs draws and densities only: no derivative of the model. Ranganath, Gerrish, Blei 2014, algorithms 1 and 2.
With the scope `MarkovBlanket` each parameter has an s of its own: Rao–Blackwellisation, section 3.1 there.

Per-sample scores come from one backward pass through parameters expanded to (K, *batch, *event): each sample then has a
copy of its own, whose gradient is that sample's score, for any family. The result reaches the family's unconstrained
parameters, or its encoder, by the chain rule.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported, require
from vi_core.estimators.base import Estimate, Estimator
from vi_core.estimators.score_function.coefficients import Coefficient
from vi_core.estimators.score_function.scopes import Draws, Scope
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.types import Latents, Params, detached, flatten, unflatten


class ScoreFunction(Estimator):
    """Unbiased unless the coefficient is estimated from the same samples.

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
        coefficient: The control variate's coefficient; see `vi_core.estimators.score_function.coefficients`.
        scope: Which terms of log w meet which scores; see `vi_core.estimators.score_function.scopes`.
    """

    differentiates_draws = False

    def __init__(self, *, num_samples: int = 50, chunk_size: int | None = None, coefficient: Coefficient, scope: Scope):
        super().__init__(num_samples=num_samples, chunk_size=chunk_size)
        least, kind = coefficient.least_samples, type(coefficient).__name__
        enough = num_samples >= least
        require(enough, f"estimator.num_samples={num_samples} must be at least {least} for the coefficient {kind}.")
        self.coefficient, self.scope = coefficient, scope

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        if not family.has_scores:
            name = type(family).__name__
            raise Unsupported(f"score functions need a density, and {name} has none; use estimator=pathwise.")
        if self.coefficient.estimated and not bound.additive:
            raise Unsupported(
                f"an estimated control-variate coefficient biases bound={bound.name}, whose terms share all samples; "
                "use estimator=score_function or estimator=pathwise, or bound=elbo."
            )
        self.scope.check(model, family, bound)

    def bias(self, bound: Bound) -> str:
        return self.coefficient.bias

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        params = family.variational(x)
        q = family.distribution(detached(params))
        z = q.sample(self.num_samples)
        log_q, scores = per_sample_scores(family, params, z)
        log_p, log_w, signal = self.scope(model, bound, Draws(family, q, params, z, log_q), x, self.chunk_size)
        surrogate = inner_product(params, self._gradient(signal, scores))
        value = bound(log_w)
        if log_p.requires_grad:  # the model's own parameters: their gradient flows through the bound itself
            surrogate = surrogate + value
        return Estimate(value.detach(), surrogate, log_w.detach(), {})

    def _gradient(self, signal: Tensor, score: Tensor) -> Tensor:
        """Average (s_k − a_k) h_k over samples; s (K, *batch) or like h, h (P, K, *batch), result (P, *batch)."""
        coefficient = self.coefficient(signal * score, score) if self.coefficient.estimated else 0.0
        return ((signal - coefficient) * score).sum(dim=1) * (1 / self.num_samples)


def per_sample_scores(family: Family, params: Params, z: Latents) -> tuple[Tensor, Tensor]:
    """Return log q(z), (K, *batch), and each sample's score ∂ log q(z_k)/∂λ, (P, K, *batch).

    P counts the scalar parameters of one batch element, in the order of `flatten(params)`.
    """
    shape = next(iter(z.values())).shape[:3]
    copies = [p.detach().expand(*shape, *p.shape[2:]).requires_grad_() for p in flatten(params)]
    with torch.enable_grad():
        log_q = family.distribution(unflatten(copies, params)).log_prob(z)
        scores = torch.autograd.grad(log_q.sum(), copies)  # with grad_outputs, torch would import sympy: a second
    return log_q.detach(), stack_elements(scores, shape)


def inner_product(params: Params, gradient: Tensor) -> Tensor:
    """Return Σ λ·g, (*batch), whose derivative in λ is the gradient g, (P, *batch), ordered as in `flatten`."""
    return (stack_elements(flatten(params), gradient.shape[1:]) * gradient).sum(dim=0)


def stack_elements(tensors: Sequence[Tensor], batch: torch.Size) -> Tensor:
    """Stack tensors (*batch, *event), or with singletons in batch, along a new first axis: an entry for each scalar."""
    dims = len(batch)
    if all(tensor.dim() == dims for tensor in tensors):
        return torch.stack(list(tensors))
    pieces = [tensor.reshape(*tensor.shape[:dims], -1).movedim(-1, 0) for tensor in tensors]
    return torch.cat([piece.expand(len(piece), *batch) for piece in pieces])

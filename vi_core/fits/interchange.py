"""Exchange with ArviZ: a fit as `arviz.InferenceData`, in the schema that other programs for Bayesian inference write.

The draws of q are independent, so that they are one chain: those of the best replicate. Replicates are no chains, since
each has a q of its own, and chains of them would show the spread of the optimizer as if it were that of the posterior.

posterior             latents and quantities
posterior_predictive  observed variables, a new set with each draw
log_likelihood        log p(y_n | z) of each point, where the likelihood has one density for each
observed_data         the observed variables
sample_stats          `lp`, log p(y, z), and `log_weight`, log p(y, z) − log q(z), by which draws can be reweighted
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vi_core.extras import needed
from vi_core.models.bayesian.base import BayesianModel
from vi_core.problem import default_dtype

if TYPE_CHECKING:
    from vi_core.fits.fitted import Fit

Group = dict[str, np.ndarray]


def inference_data(fit: "Fit", draws: int) -> Any:
    """Return a fit as `arviz.InferenceData`, with `draws` draws of the best replicate as one chain.

    Raises:
        ConfigError: Where ArviZ is not installed.
    """
    arviz = needed("arviz", "arviz")
    found: dict[str, Any] = groups(fit, draws)
    return arviz.from_dict(**found)


def groups(fit: "Fit", draws: int) -> dict[str, Group]:
    """Return the groups by name, each with arrays (1, draws, *shape); observed data have no draws."""
    model, data = fit.model, fit.data
    with torch.no_grad(), default_dtype(fit.dtype):
        own, log_joint, log_w = fit.weighted(draws)
        posterior = {name: value[:, 0, 0] for name, value in model.reported(own, data).items()}
        found = {"posterior": _chain(posterior), "sample_stats": _chain({"lp": log_joint, "log_weight": log_w})}
        if not isinstance(model, BayesianModel):  # a program, whose data have no laws of their own
            return found
        chain = {name: value[:, 0, 0] for name, value in own.items()}
        found["posterior_predictive"] = _chain(model.predictive(chain, data))
        found["observed_data"] = {name: data[name].cpu().numpy() for name in sorted(model.observables)}
        if model.pointwise:
            densities = model.log_likelihoods(own, data)
            found["log_likelihood"] = _chain({name: value[:, 0, 0] for name, value in densities.items()})
    return found


def _chain(values: dict[str, Tensor]) -> Group:
    return {name: value.unsqueeze(0).cpu().numpy() for name, value in values.items()}

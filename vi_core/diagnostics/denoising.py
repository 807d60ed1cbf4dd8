"""The bound of a diffusion model term by term: L = L_T + Σ_{t>1} L_{t−1} + L_0, in expectation over the data.

Each term is averaged over data points, with draws of its own for each point and t; its standard error is that of a mean
over points and holds for new data of the same law. The terms of one point are not independent, so the error of their
sum comes from the sums. Beside them stand the terms of the best affine denoiser for data with these moments, in closed
form: the best denoiser does no worse, and on Gaussian data no better.
"""

import math
from typing import Any

import torch
from torch import Tensor

from vi_core.datasets.base import Data
from vi_core.models.base import HasDenoisingTerms, denoising_terms

POINTS_AT_ONCE = 1000  # data points in one piece, which bounds memory


@torch.no_grad()
def denoising_report(model: HasDenoisingTerms, data: Data, draws: int) -> dict[str, Any]:
    """Return the table of terms on the held-out data, or on all where there are none.

    Args:
        model: The fitted model, with its forward process.
        data: The data set.
        draws: Draws of the noise for each t, over all points; each point has at least one.

    Returns:
        Entries for summary.json: the sums L_0, L_t, L_T and total, the terms by step, and those of the affine denoiser.
    """
    stored = data.train if data.test is None else data.test
    repeats = math.ceil(draws / len(stored))
    batches = [data.decode(part) for part in stored.split(POINTS_AT_ONCE)]
    terms = torch.cat([denoising_terms(model, x, repeats) for x in batches], dim=1).double()
    start = model.process.lift(torch.cat(batches)).flatten(1)
    affine = model.affine_optimum(start.mean(dim=0), start.T.cov(correction=0).reshape(start.shape[1], -1)).double()
    sums = {"L_0": terms[0], "L_t": terms[1:-1].sum(dim=0), "L_T": terms[-1], "total": terms.sum(dim=0)}
    return {
        "points": len(stored),
        "draws_per_point": repeats,
        "units": model.units,
        **{name: summed(values, start.shape[1]) for name, values in sums.items()},
        "by_step": {
            "first": "L_0, then L_(t-1) for t = 2, ..., T, then L_T",
            "nats": terms.mean(dim=1).tolist(),
            "se": standard_error(terms).tolist(),
            "bits_per_dim": (terms.mean(dim=1) / (start.shape[1] * math.log(2))).tolist(),
            "affine": affine.tolist(),
        },
        "affine": {"total": affine.sum().item(), "excess": summed(terms.sum(dim=0) - affine.sum(), start.shape[1])},
    }


def summed(values: Tensor, size: int) -> dict[str, float]:
    """Return mean and standard error of `values`, (N,) in nats, also in bits for each of `size` dimensions."""
    mean, se, bit = values.mean().item(), standard_error(values).item(), size * math.log(2)
    return {"nats": mean, "se": se, "bits_per_dim": mean / bit, "bits_per_dim_se": se / bit}


def standard_error(values: Tensor) -> Tensor:
    """Return the standard error of the mean over the last axis, NaN for a single value."""
    return values.std(dim=-1) / math.sqrt(values.shape[-1])

"""Values of bounds, with no gradient: held-out data while training, and the final q with many fresh samples."""

from typing import Any

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.datasets.base import Data
from vi_core.families.base import Family
from vi_core.models.base import Model

CHUNK = 1000
"""Data points evaluated at once."""


def log_weights(model: Model, family: Family, x: Any, num_samples: int) -> Tensor:
    """Return log p(x, z_k) − log q(z_k) for fresh z_1..z_K ~ q, with shape (K, *batch)."""
    with torch.no_grad():
        q = family.distribution(family.variational(x))
        z = q.sample(num_samples)
        return model.log_joint(z, x) - q.log_prob(z)


def bound_value(model: Model, family: Family, bound: Bound, x: Any, num_samples: int, repeats: int) -> Tensor:
    """Average `repeats` values of the bound with K = `num_samples`, with shape (*batch)."""
    values = [bound(log_weights(model, family, x, num_samples)) for _ in range(repeats)]
    return torch.stack(values).mean(dim=0)


def held_out_bound(model: Model, family: Family, bound: Bound, data: Data, num_samples: int) -> Tensor:
    """Return the bound per held-out data point, averaged, (R,).

    The random stream is put back afterwards: evaluating does not change what training draws.
    """
    assert data.test is not None
    devices = [data.test.device] if data.test.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        total = torch.zeros(family.replicates, device=data.test.device)
        for stored in data.test.split(CHUNK):
            total += bound_value(model, family, bound, data.decode(stored), num_samples, 1).sum(dim=1)
    return total / len(data.test)

"""What a run of a diffusion model shows: the states that lead from noise to samples, and the table of its bound."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.models.diffusion.protocols import HasDenoisingTerms
from vi_core.problem import Problem

POINTS, IMAGES = 2000, 64
FRAMES = (1.0, 0.5, 0.25, 0.1, 0.02, 0.0)
"""Where generation is shown, t/T."""


def generated(problem: Problem, model: HasDenoisingTerms) -> dict[str, np.ndarray]:
    """Return `data` and `generated`, (N, *event), and `reverse`, (frame, N, *event), at steps `reverse_t`, (frame,)."""
    data = problem.data
    shape = data.image_shape or (-1,)
    stored = data.train if data.test is None else data.test
    count = min(POINTS if data.image_shape is None else IMAGES, len(stored))
    with torch.no_grad():
        states = model.generate(count)  # x_T first
    steps = sorted({round(share * model.num_steps) for share in FRAMES}, reverse=True)
    frames = torch.stack([states[model.num_steps - step] for step in steps])
    found = {"data": data.decode(stored[:count]), "generated": states[-1], "reverse": frames}
    return {name: _host(value, shape) for name, value in found.items()} | {"reverse_t": np.array(steps)}


def _host(value: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    return value.reshape(*value.shape[:-1], *shape).cpu().numpy()


def table(found: dict[str, Any]) -> list[str]:
    """Return the lines of the result table for `diagnostics.denoising`."""
    lines = [f"{'':14}{'nats':>14}{'± se':>12}{found['units']:>36}"]
    names = {"L_T": "L_T", "L_t": "sum L_(t-1)", "L_0": "L_0", "total": "L"}
    for key, name in names.items():
        row = found[key]
        lines.append(f"{name:14}{row['nats']:14.6f}{row['se']:12.2g}{row['bits_per_dim']:36.6f}")
    affine = found["affine"]
    if np.isfinite(affine["total"]):
        excess = affine["excess"]
        lines.append(f"{'affine L':14}{affine['total']:14.6f}{'':12}  the best affine denoiser's, in closed form")
        lines.append(f"{'L - affine L':14}{excess['nats']:14.6f}{excess['se']:12.2g}")
    return lines

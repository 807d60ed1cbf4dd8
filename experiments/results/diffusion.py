"""Samples of a fitted diffusion model, with the states of the reverse process that lead to them, for samples.npz."""

import numpy as np
import torch
from torch import Tensor

from vi_core.models.base import HasDenoisingTerms
from vi_core.problem import Problem

POINTS, IMAGES = 2000, 64  # how many are generated
FRAMES = (1.0, 0.5, 0.25, 0.1, 0.02, 0.0)  # t/T of the states that are kept


def generated(problem: Problem, model: HasDenoisingTerms) -> dict[str, np.ndarray]:
    """Generate samples by the model's reverse process: as many as there are held-out points, at most 64 images or 2000.

    They are drawn from torch's default random stream, after training.

    Returns:
        `data` and `generated`, (N, *event); `reverse`, (F, N, *event), the states at the steps `reverse_t`, (F,). An
        event is (rows, columns) for images and (D,) for other data.
    """
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

"""Posterior means of images in the plane of the two latents that vary most, with the class of each image.

A latent that the encoder uses has a posterior mean that varies from image to image; one that it does not use has the
prior as its posterior (Burda, Grosse, Salakhutdinov 2016, section 5.2). So the two of the largest variance are kept.
"""

import logging
from typing import NamedTuple

import torch
from numpy import ndarray
from torch import Tensor

from vi_core.datasets.base import Dataset
from vi_core.errors import LabError
from vi_core.models.base import GeneratesImages
from vi_core.problem import POINTS_AT_ONCE, Problem

log = logging.getLogger(__name__)
MOST = 2000  # images in the plane, the first ones
CLASSES = range(2, 21)  # how many a figure can tell apart


class Plane(NamedTuple):
    """Images in the plane of two latents.

    Attributes:
        points: Posterior means, (N, 2).
        classes: Of the N images.
        names: Of the two latents.
        total: How many latents there are.
        held_out: Whether the images are held out.
    """

    points: ndarray
    classes: list[str]
    names: tuple[str, str]
    total: int
    held_out: bool


def plane(problem: Problem, dataset: Dataset) -> Plane | None:
    """Return the plane of a trained autoencoder; None for other models, and for images without classes.

    Equal calls draw equal pixels where `decode` draws them, and leave every random stream as it was.

    Args:
        problem: Its model and data.
        dataset: The settings that its data come from, which know the classes.
    """
    model, data = problem.model, problem.data
    wide = [name for name, latent in model.latents.items() if not latent.support.discrete and latent.shape > (1,)]
    if not (model.has_local and isinstance(model, GeneratesImages) and data.image_shape and wide):
        return None
    classes, stored = classes_of(dataset), data.train if data.test is None else data.test
    if classes is None or len(classes) != len(stored) or len(set(classes)) not in CLASSES:
        return None
    means = posterior_means(problem, stored[:MOST], wide[0])
    spread = means.var(dim=0)
    first, second = sorted(spread.topk(2).indices.tolist())
    names = (f"{wide[0]}[{first}]", f"{wide[0]}[{second}]")
    return Plane(means[:, [first, second]].numpy(), classes[:MOST], names, len(spread), data.test is not None)


def classes_of(dataset: Dataset) -> list[str] | None:
    """Return the classes of a data set; None, with a warning, where their file has gone since the images were read."""
    try:
        return dataset.classes()
    except (LabError, OSError) as error:
        log.warning("the classes of the images cannot be read, so that no figure shows them: %s", error)
        return None


@torch.no_grad()
def posterior_means(problem: Problem, stored: Tensor, name: str) -> Tensor:
    """Return E[z] under q(z | x) of the latent `name` for stored images (N, pixels), (N, D), on the CPU."""
    family, found = problem.family, []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for images in stored.split(POINTS_AT_ONCE):
            q = family.distribution(family.variational(problem.data.decode(images)))
            found.append(q.moments()[name][0][0].flatten(1).cpu().double())
    return torch.cat(found)

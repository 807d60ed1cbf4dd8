"""Protocol of models that generate images, for figures."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from vi_core.types import Latents


@runtime_checkable
class GeneratesImages(Protocol):
    """A model that maps latents to the means of pixels."""

    def pixel_means(self, z: Latents) -> Tensor:
        """Return E[x | z] in [0, 1], with shape (K, *batch, pixels)."""
        ...

    def sample_prior(self, num_samples: int) -> Latents:
        """Draw z ~ p(z), each (num_samples, 1, 1, *event)."""
        ...

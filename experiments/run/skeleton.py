"""A logistic regression: probability of y = 1 from the features x. Change it into a model of your own.

    python run.py experiment=own model=file model.path=my_model.py dataset=table dataset.path=my.csv dataset.target=y

A model has two methods. They see one value of each latent, and use the laws of torch.distributions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from vi_core import BayesianModel


class Logistic(BayesianModel):
    """Logistic regression with Normal priors."""

    # Each argument is a setting: model.settings.scale=1.0 on the command line.
    def __init__(self, scale: float = 2.5):
        super().__init__()
        self.scale = scale

    def prior(self, data: dict[str, Tensor]) -> Iterator[tuple[str, Distribution]]:
        """Yield name and law of each latent; data["x"] has a row for each point and a column for each feature."""
        features = data["x"].shape[1]
        yield "intercept", Normal(0.0, 5.0)
        # A vector: Independent(..., 1) makes one latent with several elements of one law for each element.
        yield "slopes", Independent(Normal(torch.zeros(features), self.scale * torch.ones(features)), 1)
        # A law may depend on earlier latents: yield "b", lambda z: Normal(0.0, z["a"])

    def likelihood(self, z: dict[str, Tensor], data: dict[str, Tensor]) -> Distribution:
        """Return the law of data["y"], with one element for each row of data."""
        return Bernoulli(logits=z["intercept"] + data["x"] @ z["slopes"])

    def weights(self, data: dict[str, Tensor]) -> Tensor | None:
        """Return how often each row counts, where dataset.weights names a column of them."""
        return data.get("weights")

    def quantities(self, z: dict[str, Tensor], data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return functions of the latents, which are reported too: here the odds ratio of each feature."""
        return {"odds_ratio": z["slopes"].exp()}

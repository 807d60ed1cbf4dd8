"""Pyro's stochastic variational inference on the same problems, as its tutorials write it.

Both latents of the Normal–Gamma problem have reparameterised draws, so that Pyro's gradient is the pathwise one.
"""

# pyright: reportMissingImports=false

from itertools import pairwise

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.distributions.constraints import positive

from .images import PIXELS, read_images
from .protocol import Answer, Contender, Settings, seconds_of

MU_0, LAMBDA_0, A_0, B_0 = 1.0, 0.1, 1.0, 2.0


def build(settings: Settings) -> Contender:
    """Return the loop of a problem."""
    pyro.clear_param_store()
    pyro.set_rng_seed(settings.get("seed", 0))
    return BlackBox(settings) if settings["problem"] == "bbvi" else Autoencoder(settings)


class BlackBox(Contender):
    """Mean field on the Normal–Gamma problem, K particles at once.

    Its settings are `data`, a .npy file, `num_samples`, `lr` and `start`, the first parameters of q.
    """

    def __init__(self, settings: Settings):
        self.x = torch.from_numpy(np.load(settings["data"]))
        self.start = {name: torch.tensor(float(value)) for name, value in settings["start"].items()}
        particles = settings["num_samples"]
        loss = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
        self.svi = SVI(self.model, self.guide, PyroOptim(torch.optim.Adam, {"lr": settings["lr"]}), loss)
        self.losses: list[float] = []

    def model(self) -> None:
        """p(x, mu, tau)."""
        tau = pyro.sample("tau", dist.Gamma(A_0, B_0))
        mu = pyro.sample("mu", dist.Normal(MU_0, (LAMBDA_0 * tau).rsqrt()))
        with pyro.plate("data", len(self.x)):
            pyro.sample("x", dist.Normal(mu, tau.rsqrt()), obs=self.x)

    def guide(self) -> None:
        """q(mu) q(tau)."""
        a = pyro.param("concentration", self.start["concentration"], constraint=positive)
        b = pyro.param("rate", self.start["rate"], constraint=positive)
        loc = pyro.param("loc", self.start["loc"])
        scale = pyro.param("scale", self.start["scale"], constraint=positive)
        pyro.sample("tau", dist.Gamma(a, b))
        pyro.sample("mu", dist.Normal(loc, scale))

    def run(self, steps: int) -> float:
        """Make more updates; return the seconds."""
        self.losses = []
        return seconds_of(lambda: self.losses.extend(self.svi.step() for _ in range(steps)))  # type: ignore[arg-type]

    def answer(self) -> Answer:
        """Return what has been found."""
        loc, a, b = (pyro.param(name).item() for name in ("loc", "concentration", "rate"))
        return {"mu": loc, "tau": a / b, "elbo": -float(np.mean(self.losses))}


def layers(*sizes: int) -> nn.Sequential:
    """Return linear layers with leaky rectifiers between them."""
    stack: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        stack += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*stack[:-1])


class Autoencoder(Contender):
    """The VAE with its KL in closed form; images in memory, minibatches by indexing.

    Its settings are `data`, `batch_size`, `hidden`, `latent` and `lr`.
    """

    def __init__(self, settings: Settings):
        self.images = torch.from_numpy(read_images(settings["data"]) > 127).float()
        self.size, self.latent, hidden = settings["batch_size"], settings["latent"], settings["hidden"]
        self.encoder = layers(PIXELS, hidden, hidden, 2 * self.latent)
        self.decoder = layers(self.latent, hidden, hidden, PIXELS)
        self.svi = SVI(
            self.model, self.guide, PyroOptim(torch.optim.Adam, {"lr": settings["lr"]}), TraceMeanField_ELBO()
        )
        self.order, self.losses, self.seen = torch.empty(0, dtype=torch.long), 0.0, 0

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), self.latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z), validate_args=False).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z | x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("images", len(x)):
            mean, log_variance = self.encoder(x).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(mean, torch.exp(0.5 * log_variance)).to_event(1))

    def run(self, steps: int) -> float:
        """Make more updates; return the seconds."""
        self.losses, self.seen = 0.0, 0
        return seconds_of(lambda: [self._step() for _ in range(steps)])

    def _step(self) -> None:
        if not len(self.order):
            self.order = torch.randperm(len(self.images))
        chosen, self.order = self.order[: self.size], self.order[self.size :]
        self.losses += self.svi.step(self.images[chosen])  # type: ignore[operator]
        self.seen += len(chosen)

    def answer(self) -> Answer:
        """Return what has been found."""
        return {"bound": -self.losses / self.seen}

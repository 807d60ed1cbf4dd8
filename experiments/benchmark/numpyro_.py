"""NumPyro's stochastic variational inference on the same problems.

`SVI.run` has two ways, and both are here: with its progress bar, which is the default, it calls one compiled update
after the other; without it, it makes all of them in one compiled scan.

Both latents of the Normal–Gamma problem have reparameterised draws, so that the gradient is the pathwise one.
"""

# pyright: reportMissingImports=false

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax
from jax.example_libraries.optimizers import exponential_decay
from numpyro.distributions.constraints import positive
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal

from .images import PIXELS, read_images
from .protocol import Answer, Contender, Settings, seconds_of

MU_0, LAMBDA_0, A_0, B_0 = 1.0, 0.1, 1.0, 2.0
SCAN, SCAN_IMAGES = 200, 10
"""Updates in one call of a scan."""


def build(settings: Settings) -> Contender:
    """Return the loop of a problem."""
    kinds = {"bbvi": BlackBox, "logistic": FullRank}
    return kinds.get(settings["problem"], Autoencoder)(settings)


class Scanned(Contender):
    """Updates of `svi` from `state`, `stride` of them in a compiled call."""

    svi: SVI
    state: Any
    stride: int

    def compile(self) -> None:
        """Compile a call; a stride of one is an update alone."""
        self.scan = jax.jit(self.svi.update if self.stride == 1 else self._updates)
        self.losses: list[Any] = []

    def _updates(self, state: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda s, _: self.svi.update(s), state, None, length=self.stride)

    def run(self, steps: int) -> float:
        """Make more updates; return the seconds."""
        self.losses = []
        return seconds_of(lambda: self._scans(steps // self.stride))

    def _scans(self, count: int) -> None:
        for _ in range(count):
            self.state, losses = self.scan(self.state)
            self.losses.append(losses)
        jax.block_until_ready((self.state, self.losses))

    @property
    def elbo(self) -> float:
        """Average over the updates of the last run."""
        return -float(np.mean([np.asarray(losses) for losses in self.losses]))


class BlackBox(Scanned):
    """Mean field on the Normal–Gamma problem, K particles at once.

    Its settings are `data`, a .npy file, `num_samples`, `lr`, `start`, the first parameters of q, and `scan`, the
    number of updates in one call: 1 is the way with a progress bar.
    """

    def __init__(self, settings: Settings):
        self.x, self.start = jnp.asarray(np.load(settings["data"])), settings["start"]
        loss = Trace_ELBO(num_particles=settings["num_samples"])
        self.svi = SVI(self.model, self.guide, numpyro.optim.Adam(settings["lr"]), loss)
        self.state = self.svi.init(jax.random.PRNGKey(settings.get("seed", 0)))
        self.stride = settings.get("scan", SCAN)
        self.compile()

    def model(self) -> None:
        """p(x, mu, tau)."""
        tau = numpyro.sample("tau", dist.Gamma(A_0, B_0))
        mu = numpyro.sample("mu", dist.Normal(MU_0, 1 / jnp.sqrt(LAMBDA_0 * tau)))
        with numpyro.plate("data", len(self.x)):
            numpyro.sample("x", dist.Normal(mu, 1 / jnp.sqrt(tau)), obs=self.x)

    def guide(self) -> None:
        """q(mu) q(tau)."""
        a = numpyro.param("concentration", self.start["concentration"], constraint=positive)
        b = numpyro.param("rate", self.start["rate"], constraint=positive)
        loc = numpyro.param("loc", self.start["loc"])
        scale = numpyro.param("scale", self.start["scale"], constraint=positive)
        numpyro.sample("tau", dist.Gamma(a, b))
        numpyro.sample("mu", dist.Normal(loc, scale))

    def answer(self) -> Answer:
        """Return what has been found."""
        found = {name: float(value) for name, value in self.svi.get_params(self.state).items()}
        return {"mu": found["loc"], "tau": found["concentration"] / found["rate"], "elbo": self.elbo}


class FullRank(Scanned):
    """A full-rank Normal for logistic regression, K particles at once, with a rate that falls to a tenth.

    Its settings are `data`, an .npz file, `num_samples`, `lr` and `steps`, over which the rate falls.
    """

    stride = SCAN

    def __init__(self, settings: Settings):
        with np.load(settings["data"]) as data:
            self.x, self.y = jnp.asarray(data["x"], jnp.float32), jnp.asarray(data["y"], jnp.float32)
        self.guide = AutoMultivariateNormal(self.model)
        rate = exponential_decay(settings["lr"], settings["steps"], 0.1)
        loss = Trace_ELBO(num_particles=settings["num_samples"])
        self.svi = SVI(self.model, self.guide, numpyro.optim.Adam(rate), loss)
        self.state = self.svi.init(jax.random.PRNGKey(settings.get("seed", 0)))
        self.compile()

    def model(self) -> None:
        """p(y, alpha, beta)."""
        alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
        beta = numpyro.sample("beta", dist.Normal(0.0, 2.5).expand([self.x.shape[1]]).to_event(1))
        with numpyro.plate("data", len(self.y)):
            numpyro.sample("y", dist.Bernoulli(logits=alpha + self.x @ beta), obs=self.y)

    def answer(self) -> Answer:
        """Return what has been found."""
        median = self.guide.median(self.svi.get_params(self.state))
        return {"alpha": float(median["alpha"]), "beta": float(median["beta"].mean()), "elbo": self.elbo}


def layers(*sizes: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return linear layers with leaky rectifiers between them, as a pair that initialises and applies."""
    rectifier = stax.elementwise(lambda h: jnp.where(h > 0, h, 0.2 * h))
    stack = [part for inputs, outputs in pairwise(sizes) for part in (linear(inputs, outputs), rectifier)]
    return stax.serial(*stack[:-1])


def linear(inputs: int, outputs: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a layer with weights drawn as `torch.nn.Linear` draws them, so that all train from the same law."""
    limit = inputs**-0.5

    def draw(key: Any, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Any:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return stax.Dense(outputs, W_init=draw, b_init=draw)


class Autoencoder(Contender):
    """The VAE with its KL in closed form; images on the device, minibatches by indexing in the scan.

    Its settings are `data`, `batch_size`, `hidden`, `latent` and `lr`.
    """

    stride = SCAN_IMAGES

    def __init__(self, settings: Settings):
        self.images = jnp.asarray(read_images(settings["data"]) > 127, dtype=jnp.float32)
        self.size, self.latent, hidden = settings["batch_size"], settings["latent"], settings["hidden"]
        self.encoder, self.decoder = (
            layers(PIXELS, hidden, hidden, 2 * self.latent),
            layers(self.latent, hidden, hidden, PIXELS),
        )
        self.svi = SVI(self.model, self.guide, numpyro.optim.Adam(settings["lr"]), TraceMeanField_ELBO())
        key, self.key = jax.random.split(jax.random.PRNGKey(settings.get("seed", 0)))
        self.state = self.svi.init(key, self.images[: self.size])
        self.per_epoch = len(self.images) // self.size
        self.scan = jax.jit(self._scan)
        self.position, self.losses = self.per_epoch, []

    def model(self, x: Any) -> None:
        """p(x, z)."""
        decode = numpyro.module("decoder", self.decoder, (self.size, self.latent))
        with numpyro.plate("images", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(self.latent), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def guide(self, x: Any) -> None:
        """q(z | x)."""
        encode = numpyro.module("encoder", self.encoder, (self.size, PIXELS))
        with numpyro.plate("images", len(x)):
            mean, log_variance = jnp.split(encode(x), 2, axis=-1)
            numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_variance)).to_event(1))

    def _scan(self, state: Any, images: Any, order: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda s, chosen: self.svi.update(s, images[chosen]), state, order)

    def run(self, steps: int) -> float:
        """Make more updates; return the seconds."""
        self.losses = []
        return seconds_of(lambda: self._scans(steps // SCAN_IMAGES))

    def _scans(self, count: int) -> None:
        for _ in range(count):
            if self.position + SCAN_IMAGES > self.per_epoch:
                self.key, key = jax.random.split(self.key)
                order = jax.random.permutation(key, len(self.images))
                self.order = order[: self.per_epoch * self.size].reshape(self.per_epoch, self.size)
                self.position = 0
            chosen = jax.lax.dynamic_slice_in_dim(self.order, self.position, SCAN_IMAGES)
            self.state, losses = self.scan(self.state, self.images, chosen)
            self.losses.append(losses)
            self.position += SCAN_IMAGES
        jax.block_until_ready((self.state, self.losses))

    def answer(self) -> Answer:
        """Return what has been found."""
        return {"bound": -float(np.mean([np.asarray(losses) for losses in self.losses])) / self.size}

"""Black-box VI written by hand in JAX: the algorithm of `experiment=bbvi` in one compiled scan, for R replicates.

The score function with leave-one-out control variates and Adam on log-parameters, with the data's sufficient
statistics. Nothing is general here: it says how fast this machine can be made to go by whoever writes for one problem.
"""

# pyright: reportMissingImports=false

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, gammaln

from .protocol import Answer, Contender, Settings, seconds_of

MU_0, LAMBDA_0, A_0, B_0 = 1.0, 0.1, 1.0, 2.0
LOG_2PI = float(np.log(2 * np.pi))
SCAN = 200
"""Steps in one call."""


def build(settings: Settings) -> Contender:
    """Return the loop of a problem."""
    return BlackBox(settings)


class BlackBox(Contender):
    """Mean field on the Normal–Gamma problem.

    Its settings are `data`, a .npy file, `num_samples`, `replicates`, `lr` and `start`, the first parameters of q.
    """

    stride = SCAN

    def __init__(self, settings: Settings):
        x, start = np.load(settings["data"]).astype(np.float64), settings["start"]
        self.n, self.mean, self.squares = len(x), float(x.mean()), float(((x - x.mean()) ** 2).sum())
        self.num_samples, self.lr, replicates = settings["num_samples"], settings["lr"], settings["replicates"]
        logs = [np.log(start[name]) for name in ("scale", "concentration", "rate")]
        first = jnp.tile(jnp.array([start["loc"], *logs], dtype=jnp.float32), (replicates, 1))
        self.state = (first, jnp.zeros_like(first), jnp.zeros_like(first), jnp.zeros(()))
        self.key = jax.random.PRNGKey(settings.get("seed", 0))
        self.scan = jax.jit(lambda state, keys: jax.lax.scan(self._step, state, keys))
        self.elbos: list[Any] = []

    def _step(self, state: Any, key: Any) -> tuple[Any, Any]:
        """Adam on the parameters (R, 4) of all replicates."""
        parameters, first, second, t = state
        keys = jax.random.split(key, len(parameters))
        elbo, gradient = jax.vmap(self._gradient)(parameters, keys)
        first, second, t = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2, t + 1
        direction = first / (1 - 0.9**t) / (jnp.sqrt(second / (1 - 0.999**t)) + 1e-8)
        return (parameters + self.lr * direction, first, second, t), elbo

    def _gradient(self, parameters: Any, key: Any) -> tuple[Any, Any]:
        """Return the ELBO's estimate and its gradient (4,) for one replicate."""
        loc, (scale, a, b) = parameters[0], jnp.exp(parameters[1:])
        key_mu, key_tau = jax.random.split(key)
        mu = loc + scale * jax.random.normal(key_mu, (self.num_samples,))
        tau = jax.random.gamma(key_tau, a, (self.num_samples,)) / b
        log_tau, distance = jnp.log(tau), (mu - loc) / scale
        log_q = -0.5 * (distance**2 + LOG_2PI) - jnp.log(scale)
        log_q += a * jnp.log(b) - gammaln(a) + (a - 1) * log_tau - b * tau
        log_w = self._log_joint(mu, tau, log_tau) - log_q
        h = jnp.stack(
            [distance / scale, distance**2 - 1, a * (jnp.log(b) - digamma(a) + log_tau), a - b * tau], axis=-1
        )
        f = log_w[:, None] * h
        return log_w.mean(), (f - leave_one_out(f, h) * h).mean(axis=0)

    def _log_joint(self, mu: Any, tau: Any, log_tau: Any) -> Any:
        likelihood = 0.5 * self.n * (log_tau - LOG_2PI) - 0.5 * tau * (self.squares + self.n * (mu - self.mean) ** 2)
        prior_mu = 0.5 * (log_tau + np.log(LAMBDA_0) - LOG_2PI) - 0.5 * LAMBDA_0 * tau * (mu - MU_0) ** 2
        return likelihood + prior_mu + A_0 * np.log(B_0) - gammaln(A_0) + (A_0 - 1) * log_tau - B_0 * tau

    def run(self, steps: int) -> float:
        """Make more updates; return the seconds."""
        self.elbos = []
        return seconds_of(lambda: self._scans(steps // SCAN))

    def _scans(self, count: int) -> None:
        for _ in range(count):
            self.key, key = jax.random.split(self.key)
            self.state, elbos = self.scan(self.state, jax.random.split(key, SCAN))
            self.elbos.append(elbos)
        jax.block_until_ready((self.state, self.elbos))

    def answer(self) -> Answer:
        """Return what has been found."""
        parameters = np.asarray(self.state[0], dtype=np.float64)
        tau = np.exp(parameters[:, 2] - parameters[:, 3])
        elbo = float(np.mean([np.asarray(elbos) for elbos in self.elbos]))
        return {"mu": float(parameters[:, 0].mean()), "tau": float(tau.mean()), "elbo": elbo}


def leave_one_out(f: Any, h: Any) -> Any:
    """Return Cov(f, h)/Var(h) over the other K − 1 samples, for each of f and h, all (K, 4)."""
    others = len(f) - 1
    f_mean, h_mean = (f.sum(axis=0) - f) / others, (h.sum(axis=0) - h) / others
    covariance = ((f * h).sum(axis=0) - f * h) / others - f_mean * h_mean
    return covariance / (((h * h).sum(axis=0) - h * h) / others - h_mean**2)

"""The loop of report 001, written anew: black-box VI with a Python loop over the samples.

The structured family q(tau) q(mu | tau), log-parameters in one tensor, stochastic gradient ascent. Each sample is drawn
by itself, with distributions built anew for it and for its densities; the loss adds them up.
"""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Gamma, Normal

from .protocol import Answer, Contender, Settings, seconds_of

MU_0, LAMBDA_0, A_0, B_0 = 1.0, 0.1, 1.0, 2.0
HISTORY_EVERY = 10


def build(settings: Settings) -> Contender:
    """Return the loop of a problem."""
    torch.manual_seed(settings.get("seed", 0))
    return SampleBySample(settings)


class SampleBySample(Contender):
    """The score function on the structured family: the report's first algorithm.

    Its settings are `data`, a .npy file, `num_samples`, `lr` and `start`: loc, precision_ratio, concentration, rate.
    """

    def __init__(self, settings: Settings):
        self.x = torch.from_numpy(np.load(settings["data"]))
        self.num_samples = settings["num_samples"]
        start = settings["start"]
        logs = [np.log(start[name]) for name in ("precision_ratio", "concentration", "rate")]
        self.parameters = torch.tensor([start["loc"], *logs], dtype=torch.float32, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.parameters], lr=settings["lr"])
        self.history: list[tuple[int, float, float, float]] = []
        self.done, self.elbo, self.steps = 0, 0.0, 0

    def run(self, steps: int) -> float:
        self.elbo, self.steps = 0.0, steps
        return seconds_of(lambda: [self._step() for _ in range(steps)])

    def _step(self) -> None:
        self.optimizer.zero_grad()
        elbo, loss = torch.zeros(()), torch.zeros(())
        for _ in range(self.num_samples):
            mu, tau = self._sample()
            log_q = self._log_q(mu, tau)
            signal = (self._log_joint(mu, tau) - log_q).detach()
            elbo = elbo + signal
            loss = loss - log_q * signal
        elbo, loss = elbo / self.num_samples, loss / self.num_samples
        loss.backward()
        self.optimizer.step()
        self.done += 1
        self.elbo += elbo.item()
        if self.done % HISTORY_EVERY == 0:
            loc, _, a, b = self._actual()
            self.history.append((self.done, elbo.item(), loc.item(), (a / b).item()))

    def _actual(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return loc, precision ratio, concentration and rate."""
        loc, *logs = self.parameters
        ratio, a, b = (torch.exp(log) for log in logs)
        return loc, ratio, a, b

    def _sample(self) -> tuple[Tensor, Tensor]:
        loc, ratio, a, b = self._actual()
        tau = Gamma(a, b).sample()
        return Normal(loc, 1 / torch.sqrt(ratio * tau)).sample(), tau

    def _log_q(self, mu: Tensor, tau: Tensor) -> Tensor:
        loc, ratio, a, b = self._actual()
        return Gamma(a, b).log_prob(tau) + Normal(loc, 1 / torch.sqrt(ratio * tau)).log_prob(mu)

    def _log_joint(self, mu: Tensor, tau: Tensor) -> Tensor:
        likelihood = Normal(mu, 1 / torch.sqrt(tau)).log_prob(self.x).sum()
        prior_mu = Normal(MU_0, 1 / torch.sqrt(LAMBDA_0 * tau)).log_prob(mu)
        return likelihood + prior_mu + Gamma(A_0, B_0).log_prob(tau)

    def answer(self) -> Answer:
        loc, _, a, b = (value.item() for value in self._actual())
        return {"mu": loc, "tau": a / b, "elbo": self.elbo / self.steps}

"""The loops of report 000, written anew: black-box VI on all samples at once, the VAE and the IWAE.

What costs time there is kept: `torch.distributions` with their checks, a likelihood that passes over all data points
for each sample, four scalar parameters under `torch.optim.Adam`, numbers fetched for the history after each step; for
images a loader that turns each one from an 8-bit picture into a tensor by itself, a decoder that ends in
probabilities, and a second layer of the encoder for the log-variances.
"""

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Gamma, Normal
from torch.nn.functional import binary_cross_entropy, softplus
from torch.utils.data import DataLoader, Dataset

from vi_core.datasets._torchvision import import_torchvision

from .images import PIXELS, SIDE, read_images
from .protocol import Answer, Contender, Settings, seconds_of

MU_0, LAMBDA_0, A_0, B_0 = 1.0, 0.1, 1.0, 2.0


def build(settings: Settings) -> Contender:
    """Return the loop of a problem."""
    torch.manual_seed(settings.get("seed", 0))
    return BlackBox(settings) if settings["problem"] == "bbvi" else Autoencoder(settings)


class BlackBox(Contender):
    """The score function on mean field, with softplus and Adam: the report's first algorithm.

    Its settings are `data`, a .npy file, `num_samples`, `lr` and `start`, the first parameters of q.
    """

    def __init__(self, settings: Settings):
        self.x = torch.from_numpy(np.load(settings["data"]))
        self.num_samples = settings["num_samples"]
        start = settings["start"]
        self.loc = nn.Parameter(torch.tensor(float(start["loc"])))
        raw = (nn.Parameter(inverse_softplus(start[name])) for name in ("scale", "concentration", "rate"))
        self.raw_scale, self.raw_concentration, self.raw_rate = raw
        moving = [self.loc, self.raw_scale, self.raw_concentration, self.raw_rate]
        self.optimizer = torch.optim.Adam(moving, lr=settings["lr"])
        self.history: dict[str, list[float]] = {"elbo": [], "mu": [], "tau": []}

    def run(self, steps: int) -> float:
        self.history = {name: [] for name in self.history}
        return seconds_of(lambda: [self._step() for _ in range(steps)])

    def _step(self) -> None:
        self.optimizer.zero_grad()
        mu, tau, log_q = self._draw()
        with torch.no_grad():
            log_p = self._log_joint(mu, tau)
        reward = log_p - log_q.detach()
        loss = -torch.mean(reward * log_q)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.history["elbo"].append(torch.mean(log_p - log_q).item())
            self.history["mu"].append(self.loc.item())
            self.history["tau"].append((softplus(self.raw_concentration) / softplus(self.raw_rate)).item())

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return mu and tau, each (K,), and log q (K,)."""
        q_mu = Normal(self.loc, softplus(self.raw_scale))
        q_tau = Gamma(softplus(self.raw_concentration), softplus(self.raw_rate))
        mu = q_mu.rsample((self.num_samples,)).detach()
        tau = q_tau.rsample((self.num_samples,)).detach()
        return mu, tau, q_mu.log_prob(mu) + q_tau.log_prob(tau)

    def _log_joint(self, mu: Tensor, tau: Tensor) -> Tensor:
        """Return log p(x, mu, tau), (K,), from the densities of all points, (K, N)."""
        prior_mu = Normal(MU_0, torch.sqrt(1 / (LAMBDA_0 * tau))).log_prob(mu)
        prior_tau = Gamma(A_0, B_0).log_prob(tau)
        likelihood = Normal(mu.unsqueeze(1), (1 / torch.sqrt(tau)).unsqueeze(1)).log_prob(self.x.unsqueeze(0))
        return prior_mu + prior_tau + likelihood.sum(dim=1)

    def answer(self) -> Answer:
        last = {name: self.history[name][-1] for name in ("mu", "tau")}
        return last | {"elbo": float(np.mean(self.history["elbo"]))}


def inverse_softplus(value: float) -> Tensor:
    """Return what softplus maps to `value`."""
    wide = torch.tensor(float(value), dtype=torch.float64)
    return (wide + torch.log(-torch.expm1(-wide))).float()


class Pictures(Dataset):
    """Images that become tensors one at a time, as torchvision's MNIST with `ToTensor` does it."""

    def __init__(self, path: str):
        self.pictures = torch.from_numpy(read_images(path)).reshape(-1, SIDE, SIDE)
        self.transform = import_torchvision("torchvision.transforms").ToTensor()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image (1, 28, 28) and a label, which nothing reads."""
        from PIL import Image

        return self.transform(Image.fromarray(self.pictures[index].numpy())), 0


class Encoder(nn.Module):
    """Mean and log-variance of q(z | x)."""

    def __init__(self, hidden: int, latent: int):
        super().__init__()
        self.first, self.second = nn.Linear(PIXELS, hidden), nn.Linear(hidden, hidden)
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 784) to two tensors (B, D)."""
        h = self.activation(self.second(self.activation(self.first(x))))
        return self.mean(h), self.log_variance(h)


class Decoder(nn.Module):
    """Probabilities of the pixels."""

    def __init__(self, hidden: int, latent: int):
        super().__init__()
        self.first, self.second = nn.Linear(latent, hidden), nn.Linear(hidden, hidden)
        self.output, self.activation = nn.Linear(hidden, PIXELS), nn.LeakyReLU(0.2)

    def forward(self, z: Tensor) -> Tensor:
        """Map latents (..., D) to probabilities (..., 784)."""
        return torch.sigmoid(self.output(self.activation(self.second(self.activation(self.first(z))))))


class Autoencoder(Contender):
    """The VAE with its KL in closed form, or the IWAE with K samples for each image.

    Its settings are `problem`, `data`, `batch_size`, `hidden`, `latent`, `num_samples` and `lr`.
    """

    def __init__(self, settings: Settings):
        self.loader = DataLoader(Pictures(settings["data"]), batch_size=settings["batch_size"], shuffle=True)
        self.encoder = Encoder(settings["hidden"], settings["latent"])
        self.decoder = Decoder(settings["hidden"], settings["latent"])
        moving = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(moving, lr=settings["lr"])
        self.num_samples = settings["num_samples"]
        self.loss = self._loss_vae if settings["problem"] == "vae" else self._loss_iwae
        self.images = self._endless()
        self.total, self.seen = 0.0, 0

    def _endless(self) -> Iterator[Tensor]:
        while True:
            yield from (x for x, _ in self.loader)

    def run(self, steps: int) -> float:
        self.total, self.seen = 0.0, 0
        return seconds_of(lambda: [self._step() for _ in range(steps)])

    def _step(self) -> None:
        x = torch.round(next(self.images).view(-1, PIXELS))
        self.optimizer.zero_grad()
        loss = self.loss(x)
        loss.backward()
        self.optimizer.step()
        self.total += loss.item() * len(x)
        self.seen += len(x)

    def _loss_vae(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x)
        theta = self.decoder(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
        distortion = binary_cross_entropy(theta, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return (distortion + kl) / len(x)

    def _loss_iwae(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x)
        noise = torch.randn(len(x), self.num_samples, mean.shape[1])
        mean, log_variance = mean.unsqueeze(1), log_variance.unsqueeze(1)
        z = mean + torch.exp(0.5 * log_variance) * noise
        theta = self.decoder(z.view(-1, z.shape[-1])).view(len(x), self.num_samples, -1)
        log_p = -binary_cross_entropy(theta, x.unsqueeze(1).expand_as(theta), reduction="none").sum(dim=2)
        log_two_pi = float(np.log(2 * np.pi))
        log_prior = -0.5 * (z.pow(2) + log_two_pi).sum(dim=2)
        log_q = -0.5 * ((z - mean) ** 2 / log_variance.exp() + log_variance + log_two_pi).sum(dim=2)
        log_w = log_p + log_prior - log_q
        bound = torch.logsumexp(log_w, dim=1) - cast(float, np.log(self.num_samples))
        return -bound.mean()

    def answer(self) -> Answer:
        return {"bound": -self.total / self.seen}

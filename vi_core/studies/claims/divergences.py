"""Claims on divergences and entropies in closed form: report 003, 2.2, and the terms of the ELBO of Normal–Gamma."""

import numpy as np
import torch
from scipy import special, stats

from vi_core.distributions.gamma import Gamma, kl_gamma
from vi_core.distributions.normal import Normal, kl_normal
from vi_core.studies.base import Quantity
from vi_core.studies.claims.base import NODES


def divergences() -> dict[str, Quantity]:
    """Check the KL of diagonal Normals against torch, KL of Gammas by quadrature, entropies against scipy."""
    loc, scale = torch.tensor([[0.3, -1.2, 2.0], [0.5, 1.0, 1.7]], dtype=torch.float64)
    standard = Normal(torch.zeros_like(loc), torch.ones_like(scale))
    theirs = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(loc, torch.diag(scale.square())),
        torch.distributions.MultivariateNormal(standard.loc, torch.eye(3, dtype=torch.float64)),
    )
    q, p = (Gamma(*torch.tensor(values, dtype=torch.float64)) for values in ((3.5, 1.5), (2.0, 4.0)))
    return {
        "kl_normal": Quantity(kl_normal(Normal(loc, scale), standard).sum().item(), None, theirs.item()),
        "kl_gamma": Quantity(kl_gamma(q, p).item(), None, _gamma_divergence((3.5, 1.5), (2.0, 4.0))),
        "entropy_normal": Quantity(Normal(loc, scale).entropy().sum().item(), None, _normal_entropy(scale)),
        "entropy_gamma": Quantity(q.entropy().item(), None, float(stats.gamma(3.5, scale=1 / 1.5).entropy())),
    }


def _normal_entropy(scale: torch.Tensor) -> float:
    return float(sum(stats.norm(scale=s).entropy() for s in scale.tolist()))


def _gamma_divergence(q: tuple[float, float], p: tuple[float, float]) -> float:
    """Return E_q[log q − log p] of two Gammas by quadrature.

    The singular part of the integrand is left out of the quadrature: E_q[log z] = ψ(a) − log b is known.
    """
    standard, weights = special.roots_genlaguerre(NODES, q[0] - 1)
    z = standard / q[1]
    difference = stats.gamma.logpdf(z, q[0], scale=1 / q[1]) - stats.gamma.logpdf(z, p[0], scale=1 / p[1])
    smooth = difference - (q[0] - p[0]) * np.log(z)
    mean_log = special.digamma(q[0]) - np.log(q[1])
    return float(weights @ smooth / weights.sum() + (q[0] - p[0]) * mean_log)

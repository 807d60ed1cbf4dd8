"""A Bayesian network of Normals, two branches that meet in the data, with N + 4 latents.

    v ~ N(0, v_scale²),   z | v ~ N(v, z_scale²),   w_1, w_2 ~ N(0, w_scale²),
    y_n | w_1, w_2 ~ N(w_1 + w_2 t_n, y_scale²),    x_n | z, y_n ~ N(z + y_n, x_scale²),

with known places t_1, ..., t_N, evenly from −1 to 1.

Every factor is a Normal of one linear form, N(t_f | a_f·u, s_f²) with u the latents in their order, so that with the
rows a_f in A, S = diag(s_f²) and t the targets (the data, or zero)

    posterior precision Λ = Aᵀ S⁻¹ A,   mean m = Λ⁻¹ Aᵀ S⁻¹ t,
    log p(x) = −½ Σ_f [log 2π s_f² + t_f²/s_f²] + ½ mᵀ Λ m + (L/2) log 2π − ½ log |Λ|.

A row's nonzeros are the latents that its factor mentions: the graph is read off the densities. Each y_n is a latent of
its own and not an element of a vector, because a vector is one node, whose Markov blanket is the whole lower branch.
The optimum of a mean field has the exact means, variances 1/Λ_ii and KL to the posterior ½ (Σ_i log Λ_ii − log |Λ|).
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution

from vi_core.distributions import supports
from vi_core.distributions.normal import HALF_LOG_2PI
from vi_core.errors import Unsupported
from vi_core.models.base import Factors, Model
from vi_core.per_replicate import require_positive
from vi_core.types import Latent, Latents, Params

MOST_POINTS = 200  # each data point adds a scalar latent, with two columns in the trace


class LinearForms(NamedTuple):
    """The factors N(target | design · u, scale²) of the model, with those of the data.

    Attributes:
        design: A, (F, L).
        target: t, (F): zero for the latents' own factors, x_n for the data's.
        scale: s, (F).
    """

    design: Tensor
    target: Tensor
    scale: Tensor


class GaussianNetwork(Model):
    """The network, with real scalar latents v, z, w_1, w_2, y_1, ..., y_N.

    Args:
        num_points: N, known from the data.
        v_scale, z_scale, w_scale, y_scale, x_scale: Standard deviations, each given the parents.
    """

    def __init__(
        self,
        num_points: int = 20,
        /,
        *,
        v_scale: float = 1.0,
        z_scale: float = 1.0,
        w_scale: float = 1.0,
        y_scale: float = 1.0,
        x_scale: float = 1.0,
    ):
        super().__init__()
        scales = {"v": v_scale, "z": z_scale, "w": w_scale, "y": y_scale, "x": x_scale}
        require_positive("model", **{f"{name}_scale": value for name, value in scales.items()})
        if num_points > MOST_POINTS:
            raise Unsupported(
                f"model=gaussian_network has a latent for each data point, at most {MOST_POINTS}, and the data have "
                f"{num_points}; use dataset=gaussian_network."
            )
        self.num_points = num_points
        names = ["v", "z", "w_1", "w_2", *(f"y_{n}" for n in range(1, num_points + 1))]
        self.latents = {name: Latent(supports.real) for name in names}
        self.layouts = (dict.fromkeys(names, frozenset({"loc", "scale"})),)
        self.forms = self._forms()
        self.scopes = {name: frozenset(z for z, slope in form.items() if slope) for name, form in self.forms.items()}
        self.scales = [scales[name.partition("_")[0]] for name in self.forms]

    def _forms(self) -> dict[str, dict[str, float]]:
        """Return each factor's coefficients of the latents: of variable minus mean, and for x_n of the mean alone."""
        places = torch.linspace(-1, 1, self.num_points, dtype=torch.float64).tolist()
        forms = {"v": {"v": 1.0}, "z": {"z": 1.0, "v": -1.0}, "w_1": {"w_1": 1.0}, "w_2": {"w_2": 1.0}}
        rows = list(enumerate(places, start=1))
        forms |= {f"y_{n}": {f"y_{n}": 1.0, "w_1": -1.0, "w_2": -place} for n, place in rows}
        return forms | {f"x_{n}": {"z": 1.0, f"y_{n}": 1.0} for n, _ in rows}

    def check_data(self, x: Tensor) -> None:
        if x.dim() != 1:
            raise Unsupported("model=gaussian_network describes single numbers; use dataset=gaussian_network.")

    def summarize(self, x: Tensor) -> LinearForms:
        """Put data (N,) into the targets of their factors."""
        design = [[form.get(latent, 0.0) for latent in self.latents] for form in self.forms.values()]
        target = torch.cat([x.new_zeros(len(design) - len(x)), x])
        return LinearForms(x.new_tensor(design), target, x.new_tensor(self.scales))

    def log_densities(self, z: Latents, x: LinearForms) -> Tensor:
        """Return log N(t_f | a_f·u, s_f²) of every factor, (F, K, *batch)."""
        u = torch.stack([z[name] for name in self.latents], dim=-1)
        standard = (torch.nn.functional.linear(u, x.design) - x.target) / x.scale
        return torch.addcmul(-x.scale.log() - HALF_LOG_2PI, standard, standard, value=-0.5).movedim(-1, 0)

    def factors(self, z: Latents, x: LinearForms) -> Factors:
        values = self.log_densities(z, x).unbind()
        return {name: (value, scope) for (name, scope), value in zip(self.scopes.items(), values, strict=True)}

    def log_joint(self, z: Latents, x: LinearForms) -> Tensor:
        return self.log_densities(z, x).sum(dim=0)

    def expected_bound(self, params: Params, x: LinearForms) -> Tensor:
        """E_q[log p] + H(q) of q = Π_i N(m_i, s_i²): E[(t − a·u)²] = (t − a·m)² + Σ_i a_i² s_i²; (*batch)."""
        loc = torch.stack([params[name]["loc"] for name in self.latents], dim=-1)
        scale = torch.stack([params[name]["scale"] for name in self.latents], dim=-1)
        squares = (loc @ x.design.T - x.target).square() + scale.square() @ x.design.square().T
        energy = -0.5 * (squares / x.scale.square()).sum(-1) - x.scale.log().sum() - len(x.scale) * HALF_LOG_2PI
        return energy + scale.log().sum(-1) + scale.shape[-1] * (0.5 + HALF_LOG_2PI)

    def posterior(self, x: LinearForms) -> tuple[Tensor, Tensor]:
        """Return m, (L), and R with Λ = RᵀR, (L, L), in float64.

        R comes from a QR factorisation of S^(−½) A with pivoted columns, its heaviest rows first. Λ itself is never
        formed: where scales differ by 10⁸, its small eigenvalues are below the rounding of its entries.
        Björck 1996, section 4.4.
        """
        from scipy.linalg import qr, solve_triangular  # slow to import, and needed once

        design, target, scale = (value.cpu().double() for value in x)
        weighted, values = (design / scale.unsqueeze(-1)).numpy(), (target / scale).numpy()
        rows = abs(weighted).max(axis=1).argsort()[::-1]
        orthogonal, upper, columns = cast(Any, qr(weighted[rows], mode="economic", pivoting=True))
        mean, factor = torch.empty(len(columns)).double(), torch.empty(upper.shape).double()
        mean[columns] = torch.from_numpy(solve_triangular(upper, orthogonal.T @ values[rows]))
        factor[:, columns] = torch.from_numpy(upper)
        return mean, factor

    def exact(self, x: LinearForms) -> dict[str, float]:
        mean, factor = self.posterior(x)
        design, target, scale = (value.cpu().double() for value in x)
        residuals = (target - design @ mean) / scale
        deviations = torch.linalg.inv(factor).norm(dim=1)
        constants = 2 * (scale.log().sum() + torch.linalg.slogdet(factor).logabsdet)
        evidence = -0.5 * (residuals.square().sum() + constants) - (len(scale) - len(mean)) * HALF_LOG_2PI
        found = dict(zip(self.latents, mean.tolist(), strict=True))
        spreads = {f"{name}.std": value for name, value in zip(self.latents, deviations.tolist(), strict=True)}
        return found | spreads | {"log_evidence": evidence.item()}

    def exact_marginals(self, x: LinearForms) -> dict[str, Distribution]:
        """A Normal for each latent."""
        found = self.exact(x)
        moments = {name: torch.tensor([found[name], found[f"{name}.std"]]).double() for name in self.latents}
        return {name: distributions.Normal(mean, deviation) for name, (mean, deviation) in moments.items()}

    def update(self, block: str, params: Params, x: LinearForms) -> dict[str, Tensor]:
        """Return the optimum of one factor: precision Λ_ii, and the loc that leaves its weighted residuals no slope."""
        i = list(self.latents).index(block)
        loc = torch.stack([params[name]["loc"] for name in self.latents], dim=-1)
        weighted = x.design[:, i] / x.scale.square()
        precision = weighted @ x.design[:, i]
        residual = x.target - loc @ x.design.T
        return {"loc": loc[..., i] + residual @ weighted / precision, "scale": precision.rsqrt().expand(loc.shape[:-1])}

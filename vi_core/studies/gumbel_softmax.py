"""The Gumbel-softmax relaxation: reports 000, 001, 002 and 003 compare a histogram of its argmax with direct draws.

The argmax has the categorical law at every temperature, so that the reports' histogram tests the Gumbel noise and
nothing of the relaxation. The study adds tests of the relaxed law: its density has integral one and gives
log z_i − log z_j a logistic law with location log π_i/π_j over τ and scale 1/τ. And it adds what depends on the
temperature: the mean of the largest coordinate, and bias and deviation of gradients of E[f(z)] in log π, with the
nonlinear f(z) = (Σ_c c z_c)², c = 1, ..., C. At one-hot z the exact gradient is π_c (f(e_c) − E f).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vi_core.distributions.categorical import GumbelSoftmax, OneHotCategorical, StraightThrough
from vi_core.errors import require
from vi_core.per_replicate import require_positive
from vi_core.studies.base import Figures, Finding, Form, Quantity, Records, Study, average, doubles, entries

NODES = 500_000  # largest number of points of the grid that the density is integrated on
GRADIENTS = ("score_function", "gumbel_softmax", "straight_through")
REACH = 25.0  # of that grid in w, the log-ratio times the temperature: the density falls as e^(−|w|)


class GumbelSoftmaxStudy(Study):
    """Draws, density and gradients of the relaxation of one categorical law.

    Args:
        probabilities: π, 2 to 4 positive numbers that sum to one.
        temperature: τ of the draws and of the density, positive.
        num_draws: Draws of each sampler that are compared, at least 2.
        temperatures: Values of τ at which gradients are measured, all positive.
        num_samples: Draws of each gradient, at least 2.
    """

    def __init__(
        self,
        *,
        probabilities: Sequence[float] = (0.1, 0.2, 0.5, 0.2),
        temperature: float = 0.1,
        num_draws: int = 1000,
        temperatures: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0),
        num_samples: int = 50_000,
    ):
        values = list(probabilities)
        is_law = 2 <= len(values) <= 4 and min(values) > 0 and abs(sum(values) - 1) < 1e-9
        require(is_law, f"study.probabilities={values} must be 2 to 4 positive numbers that sum to one.")
        require_positive("study", temperature=temperature, temperatures=temperatures)
        for name, value in {"num_draws": num_draws, "num_samples": num_samples}.items():
            require(value >= 2, f"study.{name}={value} must be at least 2.")
        self.temperature, self.num_draws, self.num_samples = temperature, num_draws, num_samples
        self.temperatures = list(temperatures)
        self.probabilities = doubles(values)
        self.logits = self.probabilities.log()
        self.location = (self.logits[-1] - self.logits[0]).item()  # of τ (log z_C − log z_1), whose law is logistic

    def run(self) -> Finding:
        relaxed = GumbelSoftmax(self.logits, doubles(self.temperature))
        log_z = relaxed.rsample_log(self.num_draws)
        direct = torch.multinomial(self.probabilities, self.num_draws, replacement=True)
        draws = {"direct": direct, "relaxed": log_z.argmax(dim=-1)}
        ratio = self.temperature * (log_z[:, -1] - log_z[:, 0])
        frequencies = {key: q for name, index in draws.items() for key, q in self._frequencies(name, index).items()}
        p_value = stats.kstest(ratio.numpy(), stats.logistic(self.location).cdf)[1]
        law = {"log_ratio_ks_p_value": Quantity(float(p_value))}
        gradients, records = self._over_temperatures()
        records |= {name: index.numpy() for name, index in draws.items()} | {"log_ratio": ratio.numpy()}
        return Finding(frequencies | law | self._density(relaxed, log_z.exp()) | gradients, records)

    def _frequencies(self, name: str, index: Tensor) -> dict[str, Quantity]:
        """Return the share of each class among indices (N,), and the p-value of Pearson's test of them all.

        The share of a class has variance π_c (1 − π_c)/N. Pearson's statistic Σ_c (n_c − N π_c)²/(N π_c) has a χ² law
        with C − 1 degrees of freedom for large N.
        """
        shares = torch.bincount(index, minlength=len(self.probabilities)).double() / len(index)
        errors = (self.probabilities * (1 - self.probabilities) / len(index)).sqrt()
        p_value = stats.chisquare(shares * len(index), self.probabilities * len(index))[1]
        found = entries(f"{name}_share", shares, self.probabilities, errors)
        return found | {f"{name}_chi2_p_value": Quantity(float(p_value))}

    def _density(self, law: GumbelSoftmax, z: Tensor) -> dict[str, Quantity]:
        """Return the integral of the density, and its largest difference in nats from report 001's formula at z.

        With C classes the formula is (C − 1)! τ^(C−1) (Σ_c π_c z_c^−τ)^−C Π_c π_c z_c^−(τ+1). The integral is over the
        C − 1 log-ratios of coordinates to the last one, on an even grid around the log-ratios of π.
        """
        classes, tau = len(self.probabilities), law.temperature
        nodes = min(1000, round(NODES ** (1 / (classes - 1))))
        axis = torch.linspace(-REACH, REACH, nodes, dtype=torch.float64)
        axes = torch.meshgrid(*[axis + shift for shift in self.logits[:-1] - self.logits[-1]], indexing="ij")
        log_z = torch.stack([*(w.flatten() / tau for w in axes), axes[0].new_zeros(axes[0].numel())], dim=-1)
        cell = (math.log(axis[1] - axis[0]) - tau.log()) * (classes - 1)
        mass = (law.log_prob_log(log_z.log_softmax(dim=-1)).logsumexp(dim=0) + cell).exp().item()
        formula = math.gamma(classes) * tau ** (classes - 1) * (self.probabilities / z**tau).sum(dim=-1) ** -classes
        formula = formula * (self.probabilities / z ** (tau + 1)).prod(dim=-1)
        difference = (law.log_prob(z) - formula.log()).abs().max().item()
        return {"density_mass": Quantity(mass, None, 1.0), "density_difference": Quantity(difference, None, 0.0)}

    def exact_gradient(self) -> Tensor:
        """Return ∇ E[f(z)] in log π at one-hot z, (C,), by enumeration."""
        values = square(torch.eye(len(self.probabilities), dtype=torch.float64))
        return self.probabilities * (values - (self.probabilities * values).sum())

    def gradients(self, temperature: float) -> dict[str, Tensor]:
        """Return single-draw estimates of `exact_gradient`, (N, C), by estimator."""
        tau = doubles(temperature)
        z = OneHotCategorical(self.logits).sample(self.num_samples)
        found = {"score_function": square(z).unsqueeze(-1) * (z - self.probabilities)}
        for name, law in {"gumbel_softmax": GumbelSoftmax, "straight_through": StraightThrough}.items():
            logits = self.logits.expand(self.num_samples, -1).clone().requires_grad_()
            (found[name],) = torch.autograd.grad(square(law(logits, tau).rsample(1)).sum(), logits)
        return found

    def _over_temperatures(self) -> tuple[dict[str, Quantity], dict[str, np.ndarray]]:
        """Return the components of each gradient at the study's temperature, and the curves over all temperatures."""
        curves = [self._curves_at(temperature) for temperature in self.temperatures]
        records = {"temperatures": np.array(self.temperatures)}
        records |= {name: np.array([row[name] for row in curves]) for name in curves[0]}
        records["sampling_error"] = records["score_function_sd"] / math.sqrt(self.num_samples)
        quantities = {}
        for name, samples in self.gradients(self.temperature).items():
            errors = samples.std(dim=0) / math.sqrt(self.num_samples)
            quantities |= entries(f"{name}_gradient", samples.mean(dim=0), self.exact_gradient(), errors)
        return quantities, records

    def _curves_at(self, temperature: float) -> dict[str, float]:
        """Return the largest coordinate's mean and its error, and relative bias and deviation of each gradient."""
        exact = self.exact_gradient()
        largest = average(GumbelSoftmax(self.logits, doubles(temperature)).rsample(self.num_samples).amax(dim=-1))
        row = {"largest": largest.value, "largest_se": largest.se or 0.0}
        for name, samples in self.gradients(temperature).items():
            row[f"{name}_bias"] = ((samples.mean(0) - exact).norm() / exact.norm()).item()
            row[f"{name}_sd"] = (samples.var(dim=0).sum().sqrt() / exact.norm()).item()
        return row

    def forms(self) -> dict[str, Form]:
        index = Form((self.num_draws,), "integer", least=0, below=len(self.probabilities))
        curves = ("temperatures", "largest", "largest_se", "sampling_error")
        curves += tuple(f"{name}_{what}" for name in GRADIENTS for what in ("bias", "sd"))
        return {
            "direct": index,
            "relaxed": index,
            "log_ratio": Form((self.num_draws,)),
            **dict.fromkeys(curves, Form((len(self.temperatures),), least=0)),
        }

    def figures(self, records: Records) -> Figures:
        from vi_core.plots.studies import class_figure, temperature_figure

        classes = self.probabilities.numpy()
        shares = {name: np.bincount(records[name], minlength=len(classes)) for name in ("direct", "relaxed")}
        title = f"gumbel_softmax: {self.num_draws} draws at temperature {self.temperature:g}"
        return {
            "histograms": class_figure(shares, classes, records["log_ratio"], self.location, title=title),
            "temperatures": temperature_figure(records, len(classes), title="gumbel_softmax: over temperatures"),
        }


def square(z: Tensor) -> Tensor:
    """Return f(z) = (Σ_c c z_c)² with c = 1, ..., C, for z (..., C)."""
    return (z @ torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)).square()

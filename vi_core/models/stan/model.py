"""A model that is a program in the language Stan: what `model=stan model.path=my.stan` and `vi_core.StanModel` fit.

The latents are Stan's unconstrained parameters, on which the density is log p(u) with the transforms' log-determinants
in it, so that every family on unconstrained space applies with supports of real numbers. Results describe the
constrained values, under the names of the program: `reported`.
"""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vi_core.distributions import supports
from vi_core.errors import Unsupported, require
from vi_core.models.base import Factors, Model
from vi_core.models.files import located, read
from vi_core.models.stan.program import LIBRARIES, Program
from vi_core.types import Latent, Latents

log = logging.getLogger(__name__)
OWN_DATASETS = {"lotka_volterra": "lynx_hare"}
"""Data sets on which the command line runs the programs of this library where it gives none."""


class StanModel(Model):
    """A Stan program, interpreted or compiled.

    Args:
        path: The program, `my.stan`; or a library that BridgeStan compiled from one; or the name of a program of this
            library, `lotka_volterra`.
        transformed_parameters: Whether results describe the program's transformed parameters too.
        generated_quantities: Whether results describe its generated quantities too.
        checksum: Of the file, as `vi_core.models.files.checksum_of` has it; None to accept any. A run fills it in.
    """

    recordable: ClassVar[bool] = False
    reports_latents: ClassVar[bool] = False

    def __init__(
        self,
        *,
        path: str | None = None,
        transformed_parameters: bool = False,
        generated_quantities: bool = False,
        checksum: str | None = None,
    ):
        super().__init__()
        require(bool(path), "model=stan needs a program: model.path=<my.stan>.")
        self.file, _ = located(str(path))
        wanted = "must end in .stan, or in .so, .dylib or .dll where BridgeStan compiled it"
        require(self.file.suffix in (".stan", *LIBRARIES), f"model.path={path} {wanted}.")
        self.content = read(self.file, checksum)
        self.transformed, self.generated = transformed_parameters, generated_quantities
        self.latents, self.told = {}, False

    def observe(self, data: Mapping[str, Tensor], num_points: int) -> None:
        """Give the program its data, and declare a latent for each of its parameters.

        Args:
            data: By the names that the program declares.
            num_points: N, which the program does not see.
        """
        if not isinstance(data, Mapping):
            raise Unsupported("a Stan program needs data by name, and these have none; use dataset=json.")
        self.program = Program(self.file, self.content, data)
        self.lacks = "the program's dropped constants" if self.program.drops_constants else ""
        shapes = {name: variable.shape for name, variable in self.program.unconstrained().items()}
        self.latents = {name: Latent(supports.real, shape) for name, shape in shapes.items()}
        self.variables = self.program.variables(self.transformed, self.generated)
        self.program.first_look()

    def factors(self, z: Latents, x: Any) -> Factors:
        """Return the program's density as one factor, (K, R, 1)."""
        u = self.coordinates(z)
        flat, shape = u.reshape(-1, u.shape[-1]), u.shape[:-1]
        if torch.is_grad_enabled() and u.requires_grad:
            value = cast(Tensor, LogDensity.apply(flat, self.program))
        else:
            value = torch.from_numpy(self.program.values(numbers(flat))).to(flat)
        self._tell_errors()
        return {"program": (value.reshape(shape), frozenset(self.latents))}

    def coordinates(self, z: Latents) -> Tensor:
        """Return the latents side by side, in the program's order, (K, R, 1, D)."""
        return torch.cat([z[name].reshape(*z[name].shape[:3], -1) for name in self.latents], dim=-1)

    def _tell_errors(self) -> None:
        """Say once that the program failed at a point, and why; forget what it said since."""
        if self.program.errors and not self.told:
            log.info("%s fails at a point, whose density is zero: %s", self.file.name, self.program.errors[0])
            self.told = True
        self.program.errors.clear()

    def reported(self, z: Latents, x: Any) -> dict[str, Tensor]:
        """Return the constrained values of the program's variables at each draw, (K, R, 1, *shape) by name."""
        u = self.coordinates(z)
        flat, shape = numbers(u.reshape(-1, u.shape[-1])), u.shape[:-1]
        seed = int(torch.randint(2**31, ())) if self.generated else None
        values = torch.from_numpy(self.program.constrained(flat, self.transformed, seed)).to(u)
        self._tell_errors()
        return {
            name: values[:, list(variable.places)].reshape(*shape, *variable.shape)
            for name, variable in self.variables.items()
        }

    def log_predictive(self, z: Latents, x: Any) -> Tensor:
        """Raise `Unsupported`: a program has one density for all data."""
        raise Unsupported(
            "a Stan program has no density of each data point; write one as a generated quantity, such as log_lik, and "
            "ask for it with generated_quantities."
        )


class LogDensity(torch.autograd.Function):
    """log p(u) of a program at points (S, D), whose gradient the program computes with the value."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, program: Program) -> Tensor:
        """Return the values (S,), and keep the gradients."""
        value, slope = program.gradients(numbers(u))
        ctx.save_for_backward(torch.from_numpy(slope).to(u))
        return torch.from_numpy(value).to(u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the gradients (S, D), each times the derivative by its value."""
        (slope,) = ctx.saved_tensors
        return upstream.unsqueeze(-1) * slope, None


def numbers(u: Tensor) -> np.ndarray:
    """Return points as float64 on the host, in rows that lie in one piece."""
    return np.ascontiguousarray(u.detach().cpu().double().numpy())

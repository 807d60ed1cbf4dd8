"""`family.start=run:<folder>`: coordinates of a family on unconstrained space from a finished run.

With the mean m and the covariance Σ of the coordinates u under q of the run's best replicate, the origin is m, and the
preconditioner is that of a Normal density with these moments, whose Hessian is −Σ⁻¹: A Aᵀ = Σ, or the diagonal
[(Σ⁻¹)_ii]^(−½). Every replicate begins there, whatever the family of the run was.
"""

from pathlib import Path

import torch

from vi_core.algorithms.whitening import scaled
from vi_core.errors import ConfigError, LabError
from vi_core.families.unconstrained import EARLIER, UnconstrainedFamily
from vi_core.storage.archive import read_archive


def place_as_in_run(family: UnconstrainedFamily) -> None:
    """Set the coordinates of a family whose `start` names a run's folder.

    Raises:
        ConfigError: In one line, where the folder is not that of a finished run with the same latents.
    """
    folder = family.start.removeprefix(EARLIER)
    try:
        run = read_archive(Path(folder))
    except LabError as error:
        raise ConfigError(f"family.start=run:{folder} cannot be read: {error}") from error
    theirs, values = run.problem.family, run.summary["final"]["values"]
    if not isinstance(theirs, UnconstrainedFamily):
        raise ConfigError(
            f"family.start=run:{folder} has family={theirs.name}, which is not on unconstrained space; give a run of "
            "family=full_rank_normal, or of another such family."
        )
    if theirs.space.latents != family.space.latents:
        found, wanted = (
            ", ".join(f"{name} ({latent})" for name, latent in own.items())
            for own in (theirs.space.latents, family.space.latents)
        )
        raise ConfigError(f"family.start=run:{folder} has the latents {found}, and this model has {wanted}.")
    alive = [i for i, value in enumerate(values) if value is not None]
    if not alive:
        raise ConfigError(f"family.start=run:{folder} has no replicate with a finite bound; give another run.")
    best = max(alive, key=lambda i: values[i])
    with torch.no_grad():
        mean, covariance = theirs.distribution(theirs.variational()).coordinate_moments()
        origin = mean[best].expand(family.origin.shape).to(family.origin)
        factor = None
        if family.preconditioner != "none":
            own = scaled(-torch.linalg.inv(covariance[best, 0]), family.preconditioner)
            factor = own.to(family.factor).expand(family.factor.shape)
    family.place(origin, factor)

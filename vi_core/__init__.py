"""A laboratory for variational inference: models, families, bounds, estimators and optimizers that combine freely.

`vi_core.fit(model, data)` fits a `BayesianModel` of one's own, or a `StanModel`; `vi_core.load(folder)` reopens a run,
and `vi_core.load(file, model, data)` a saved fit. The other public names are the base classes of the parts, to derive
new ones from. They are imported when they are first used, so that `import vi_core` does not import torch. The library
seeds nothing, prints nothing and changes no global setting of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vi_core.bounds.base import Bound
    from vi_core.datasets.base import Dataset
    from vi_core.estimators.base import Estimator
    from vi_core.families.base import Family
    from vi_core.fits.fitting import fit
    from vi_core.models.base import Model
    from vi_core.models.bayesian.base import BayesianModel
    from vi_core.models.stan.model import StanModel
    from vi_core.optimizers.base import Optimizer
    from vi_core.storage.archive import load

__version__ = "0.2.0"
__all__ = ["BayesianModel", "Bound", "Dataset", "Estimator", "Family", "Model", "Optimizer", "StanModel", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'vi_core' has no attribute '{name}'")
    folders = {
        "BayesianModel": "models.bayesian.base",
        "Family": "families.base",
        "StanModel": "models.stan.model",
        "fit": "fits.fitting",
        "load": "storage.archive",
    }
    return getattr(import_module(f"vi_core.{folders.get(name, f'{name.lower()}s.base')}"), name)

"""Which sweeper goes through a sweep: Hydra's own, or the one that trains jobs together."""

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from vi_core.errors import ConfigError

HYDRAS_OWN = Plugins.instantiate_sweeper


def install() -> None:
    """Let `sweep.batched` choose the sweeper: as plugins Hydra takes those from a package of its own alone."""
    Plugins.instantiate_sweeper = choose  # type: ignore[method-assign]


def choose(
    plugins: Plugins, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Sweeper:
    """Return the sweeper that `sweep.batched` asks for."""
    if not config.sweep.batched:
        return HYDRAS_OWN(plugins, hydra_context=hydra_context, task_function=task_function, config=config)
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        raise ConfigError("sweep.batched=true goes through grids, with a sweeper of its own; leave hydra/sweeper out.")
    from .batched_sweeper import BatchedSweeper  # torch, only where it is used

    sweeper = BatchedSweeper()
    sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    return sweeper

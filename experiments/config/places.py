"""Where the program's own packages lie: beside `vi_core` in a checkout, inside it once installed."""

from importlib import import_module
from types import ModuleType

from vi_core.errors import ConfigError

PROGRAM = __name__.removesuffix(".config.places")
"""This package: `experiments` or `vi_core.experiments`."""
CONF = f"{PROGRAM.removesuffix('experiments')}conf"
"""The package of the YAML files: `conf` or `vi_core.conf`."""


def benchmark_module(name: str) -> ModuleType:
    """Import a module of the benchmark, which is in a checkout only: it is no part of the installed package.

    Raises:
        ConfigError: Where this is an installed package.
    """
    try:
        return import_module(f"{PROGRAM}.benchmark.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{PROGRAM}.benchmark":
            raise
        raise ConfigError(
            "experiment=benchmark needs a checkout of the sources, as it is not installed with the package;"
            " clone them and use python run.py there."
        ) from error

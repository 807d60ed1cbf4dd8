"""Where the program's own packages lie: beside `vi_core` in a checkout, inside it once installed."""

PROGRAM = __name__.removesuffix(".config.places")
"""This package: `experiments` or `vi_core.experiments`."""
CONF = f"{PROGRAM.removesuffix('experiments')}conf"
"""The package of the YAML files: `conf` or `vi_core.conf`."""

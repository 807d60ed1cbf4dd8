"""Parts of the user's own: the modules that YAML files in a folder of theirs name may be imported, no others.

A `_target_` can come from a command line, from a run's folder, or from a YAML file. Only the last, in a folder that the
user names as theirs, is their word that a module is meant: importing a module runs its code.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from vi_core.storage.reading import read_text

TARGET = re.compile(r"""_target_["']?\s*:\s*["']?([\w.]+)""")
DEPTHS = ("*.yaml", "*/*.yaml", "*/*/*.yaml")  # a folder of configurations, its groups, and theirs
modules: set[str] = set()
"""Modules outside the program in which `vi_core.schema.locate_part` looks for parts."""


def know(folders: Iterable[Path]) -> None:
    """Let parts be looked for in the modules that the YAML files in these folders name."""
    for folder in folders:
        for path in (path for depth in DEPTHS for path in folder.glob(depth) if path.is_file()):
            modules.update(target.rpartition(".")[0] for target in TARGET.findall(read_text(path)))

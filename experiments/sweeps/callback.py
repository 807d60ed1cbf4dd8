"""What happens at the end of a sweep."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from vi_core.errors import LabError

from ..config.messages import one_line
from ..run.jobs import failures


class Collect(Callback):
    """Write the sweep's table and figure, and let the exit code say whether every job finished."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from .collect import run

        folder = Path(config.hydra.sweep.dir)
        try:
            if not run(config, folder):
                failures.append(str(folder))
        except LabError as error:
            sys.stderr.write(f"error: {one_line(error)}\n")
            failures.append(str(folder))

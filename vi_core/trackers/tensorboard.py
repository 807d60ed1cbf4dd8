"""The course of a run for TensorBoard: scalars while it lives, bands over replicates, then figures and summary."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vi_core.extras import needed
from vi_core.trackers.base import Row, Tracker


class TensorBoard(Tracker):
    """Writes events that `tensorboard --logdir outputs` shows; bands are on its page Custom Scalars.

    Args:
        subfolder: Where, in the run's folder.
    """

    def __init__(self, *, subfolder: str = "tensorboard"):
        self.subfolder, self.bands = subfolder, set[str]()
        needed("tensorboard", "tensorboard")
        self.open = needed("torch.utils.tensorboard", "tensorboard").SummaryWriter

    def begin(self, config: Mapping[str, Any], done: int) -> None:
        # TensorBoard leaves out what earlier files have of the steps that come again
        again = {"purge_step": done + 1} if done else {}
        self.writer = self.open(str(self.folder / self.subfolder), **again)
        self.writer.add_text("settings", f"```json\n{json.dumps(config, indent=2, default=str)}\n```", done)
        self.writer.flush()

    def note_rows(self, rows: list[Row]) -> None:
        banded = {name for _, values in rows for name in values if f"{name}/low" in values}
        if banded - self.bands:
            self.bands |= banded
            charts = {name: ["Margin", [name, f"{name}/low", f"{name}/high"]] for name in sorted(self.bands)}
            self.writer.add_custom_scalars({"mean and middle 90 % of the replicates": charts})
        for step, values in rows:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, summary: Mapping[str, Any], figures: list[Path]) -> None:
        from matplotlib.image import imread

        for path in figures:
            if path.suffix == ".png":
                self.writer.add_image(path.stem, imread(path), dataformats="HWC")
        self.writer.add_text("summary", f"```json\n{json.dumps(summary, indent=2, default=str)}\n```")
        self.writer.close()

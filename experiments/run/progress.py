"""How a run shows that it lives: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time

from tqdm import tqdm

from vi_core.training.recorder import Recorder

log = logging.getLogger(__name__)
LINE_EVERY = 10.0
"""Seconds between plain lines."""


class Progress:
    """Called by the loop with (steps done, recorder)."""

    def __init__(self, total: int, name: str, start: int):
        self.total, self.name = total, name
        self.bar = tqdm(total=total, initial=start, desc=name, unit="step", disable=None, leave=False, file=sys.stderr)
        self.last_line = self.last_value = time.perf_counter()

    def __call__(self, done: int, recorder: Recorder) -> None:
        now = time.perf_counter()
        if self.bar.disable:
            if now - self.last_line >= LINE_EVERY:
                self.last_line = now
                log.info("step %d of %d: %s", done, self.total, self._value(recorder))
            return
        if now - self.last_value >= 0.5:
            self.last_value = now
            self.bar.set_postfix_str(self._value(recorder), refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    @staticmethod
    def _value(recorder: Recorder) -> str:
        if not recorder.rows:
            return ""
        return f"{recorder.metrics[0]} {recorder.latest().nanmedian().item():.4f}"

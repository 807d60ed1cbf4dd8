"""This program as a contender: a configuration, composed and assembled as for a run, in the loop that every run has.

A block of n iterations is the last n of a run of `trainer.steps`, with recording and without checkpoints.
"""

from importlib import import_module
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from vi_core.execution.choice import CALLS, CHUNK
from vi_core.problem import assemble
from vi_core.run import Run as Fit

from ..config.hydra_adapter import register_schema
from ..config.places import CONF
from ..config.validate import plain_values, validate
from .protocol import Answer, Contender, Settings

STEPS = 10_000
"""Of the run whose iterations are timed: as long as the reports' and the default one."""
STRIDE = CHUNK * CALLS
"""Replayed and compiled steps come several in a call, and calls several at a time where all see the same data."""


def build(settings: Settings) -> Contender:
    """Return the run of a problem."""
    return Run(settings)


def compose(overrides: list[str]) -> DictConfig:
    """Return the configuration that a command with these overrides would have."""
    register_schema()
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        cfg = hydra.compose("config", overrides)
    cfg.name, cfg.parts = "benchmark", {}
    return cfg


class Run(Contender):
    """A run of this program.

    Its settings are `overrides`, `threads`, for images their file `data` and `batch_size`, and `model`, a class in
    place of the one that the overrides choose.
    """

    def __init__(self, settings: Settings):
        cfg = compose([*settings["overrides"], f"threads={settings['threads']}"])
        cfg.trainer.steps, cfg.trainer.epochs = STEPS, None
        cfg.trainer.eval_every, cfg.trainer.checkpoint_every = 0, STEPS
        images = "batch_size" in settings
        if images:
            target = f"{__package__}.images.StoredImages"
            stored = {"_target_": target, "path": settings["data"], "batch_size": settings["batch_size"]}
            cfg.dataset = OmegaConf.create(stored)
        if "model" in settings:
            import_module(settings["model"].rpartition(".")[0])  # classes outside the library are taken where imported
            cfg.model = OmegaConf.create({"_target_": settings["model"]})
        self.problem, self.loop = self._assemble(cfg)
        several = self.loop.execution.mode in ("replay", "compiled")
        self.stride = 1 if not several else STRIDE if self.problem.batches.full is not None else CHUNK
        self.blank = self.loop.recorder.state_dict()

    def _assemble(self, cfg: DictConfig) -> tuple[Any, Any]:
        from ..run.process import compiled_folder, prepare

        config = plain_values(cfg)
        validate(config)
        problem = assemble(config, *prepare(config))
        return problem, Fit(config, problem, code=compiled_folder() / "steps").loop

    def run(self, steps: int) -> float:
        seconds = 0.0
        for first in range(0, steps, STEPS):
            seconds += self._advance(min(STEPS, steps - first))
        return seconds

    def _advance(self, steps: int) -> float:
        """Make the last `steps` of the run again, and return the loop's own time, without the checkpoint at the end."""
        loop = self.loop
        loop.recorder.load_state_dict(self.blank | {"metrics": loop.recorder.metrics})
        loop.done, before = STEPS - steps, loop.seconds
        status = loop.run()
        assert status == "completed"
        return loop.seconds - before

    def answer(self) -> Answer:
        trace = self.loop.recorder.trace()
        bound = float(trace.columns[trace.bound].mean())
        if self.problem.model.has_local:
            return {"bound": bound}
        family = self.problem.family
        with torch.no_grad():
            moments = family.distribution(family.variational()).moments()
        return {name: mean.mean().item() for name, (mean, _) in moments.items()} | {"elbo": bound}

"""`hydra/sweeper=optuna`: a search for the settings with the largest objective, by optuna's own ask and tell.

What is searched is written as for Hydra's sweeps: `optimizer.lr=tag(log,interval(1e-4,1e-1))`, `seed=range(4)`, and
`estimator=pathwise,exact` or `choice(...)`. The study lies in `study.db`, an SQLite file in the sweep's folder, and
`sweep.resume` goes on with it: trials that were running when the sweep ended are asked again.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from vi_core.errors import ConfigError, require
from vi_core.extras import needed

from ..config.hydra_adapter import choose_launcher

log = logging.getLogger(__name__)
STUDY = "study.db"


class Search(Sweeper):
    """Asks optuna for settings, lets the launcher run them, and tells optuna the objective, which it maximises.

    Args:
        n_trials: Most trials of the study, those before a resume included.
        at_once: How many are asked for together, for launchers that run several jobs at a time.
        seed: Of the sampler, optuna's TPE.
        params: Settings that the experiment searches by itself.
    """

    config: Any
    launcher: Any

    def __init__(self, n_trials: int = 20, at_once: int = 1, seed: int = 0, params: Mapping[str, str] | None = None):
        require(n_trials >= 1, f"hydra.sweeper.n_trials={n_trials} must be at least 1.")
        require(at_once >= 1, f"hydra.sweeper.at_once={at_once} must be at least 1.")
        self.n_trials, self.at_once, self.seed, self.params = n_trials, at_once, seed, dict(params or {})
        self.optuna = needed("optuna", "search")

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over what Hydra knows."""
        self.context, self.config = hydra_context, config
        self.launcher = choose_launcher(Plugins.instance(), hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> float:
        """Run the trials that are missing; return the largest objective.

        Raises:
            ConfigError: For a setting that cannot be searched, or where nothing is searched.
        """
        folder = Path(self.config.hydra.sweep.dir)
        texts = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = OverridesParser.create(self.context.config_loader).parse_overrides(texts)
        space = {each.get_key_element(): self.distribution(each) for each in overrides if each.is_sweep_override()}
        fixed = [str(each.input_line) for each in overrides if not each.is_sweep_override()]
        require(bool(space), "hydra/sweeper=optuna searches nothing; write optimizer.lr=interval(1e-4,1e-1) or so.")
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study, done = self.study(folder), 0
        while (missing := self.n_trials - self.counted(study)) > 0:
            trials = [study.ask(space) for _ in range(min(missing, self.at_once))]
            jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
            for trial, result in zip(trials, self.launcher.launch(jobs, done), strict=True):
                value = result.return_value
                failed = None if math.isfinite(value) else self.optuna.trial.TrialState.FAIL
                study.tell(trial, None if failed else value, failed)
            done += len(trials)
        return self.report(study)

    def study(self, folder: Path) -> Any:
        """Return the study in the folder, a new one if there is none; what was running in it is asked again."""
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        place = f"sqlite:///{(folder / STUDY).absolute()}"
        study = self.optuna.create_study(storage=place, study_name="vi-lab", direction="maximize", load_if_exists=True)
        for trial in study.get_trials(states=(self.optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
            study.set_user_attr("interrupted", [*study.user_attrs.get("interrupted", []), trial.number])
        study.sampler = self.optuna.samplers.TPESampler(seed=self.seed + len(study.trials))  # or it would repeat itself
        return study

    def counted(self, study: Any) -> int:
        """Return how many trials have been told, without those that were interrupted."""
        ended = study.get_trials(states=(self.optuna.trial.TrialState.COMPLETE, self.optuna.trial.TrialState.FAIL))
        return len(ended) - len(study.user_attrs.get("interrupted", []))

    def distribution(self, override: Override) -> Any:
        """Return what optuna draws a setting from.

        Raises:
            ConfigError: For a glob, or tags that mean nothing here.
        """
        value, kinds = override.value(), self.optuna.distributions
        if isinstance(value, IntervalSweep):
            whole = isinstance(value.start, int) and isinstance(value.end, int)
            kind = kinds.IntDistribution if whole else kinds.FloatDistribution
            return kind(value.start, value.end, log="log" in value.tags)
        if isinstance(value, (ChoiceSweep, RangeSweep)):
            return kinds.CategoricalDistribution(list(override.sweep_iterator(transformer=Transformer.encode)))
        raise ConfigError(f"{override.input_line} cannot be searched; write interval(), range() or a list of values.")

    def report(self, study: Any) -> float:
        """Say which trial is the best; return its objective, NaN where none has one."""
        if not study.get_trials(states=(self.optuna.trial.TrialState.COMPLETE,)):
            return float("nan")
        best = study.best_trial
        chosen = " ".join(f"{key}={value}" for key, value in best.params.items())
        log.info("best of %d trials: %.9g with %s", self.counted(study), best.value, chosen)
        return best.value

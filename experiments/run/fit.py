"""`task=fit`: compose a problem, train it in the common loop, write what it found."""

import time
from functools import partial

from vi_core.problem import assemble
from vi_core.run import Run
from vi_core.storage.archive import read_config
from vi_core.storage.files import remove_leftovers
from vi_core.training import checkpoint

from ..config.schema import config_hash
from ..results.diagnostics import check_likelihood
from ..results.noise import NoiseAlong
from ..results.trust import check_combination
from .interrupt import interruptible
from .jobs import Job, Summary
from .outcome import ConfigWriter, measure_gradient, write_results
from .process import compiled_folder, prepare
from .progress import Progress
from .resuming import continued
from .settings import check_folder, resolved


def fit(job: Job) -> Summary:
    """Train and write the run's files: settings, checkpoints, history, draws, figures, summary.

    Args:
        job: With `resume` it goes on from the checkpoint in its folder, and the settings that differ from those saved
            there are noted as changes.

    Returns:
        The content of summary.json.

    Raises:
        LabError: For what the user can mend: settings that cannot run, a folder that is taken, data or a checkpoint
            that cannot be read, a replicate that diverged under trainer.on_nonfinite=raise.
        SystemExit: Where a signal ended training, after all files are written: 130 for Ctrl-C, 143 for SIGTERM.
    """
    started = time.perf_counter()
    check_folder(job)
    remove_leftovers(job.folder)
    config = resolved(job)
    content = checkpoint.load(job.folder / "checkpoint.pt") if job.resume else None
    if content is not None:
        config = continued(config, read_config(job.folder), content)
    measures = config["trainer"].get("gradient_draws", 0)  # at the first parameters, which a checkpoint has no more
    problem = assemble(config, *prepare(config), begin=content is None or bool(measures))
    with interruptible() as interrupt:
        run = Run(
            config,
            problem,
            job.folder,
            own=[ConfigWriter(), Progress(config["name"])],
            interrupted=interrupt.requested,
            content=content,
            code=compiled_folder() / "steps",
            identity=config_hash(config),
        )
        check_likelihood(problem, run.trainer.likelihood_samples)
        check_combination(run)
        # a resumed run begins with the same parameters and stream
        if draws := run.trainer.gradient_draws:
            measure_gradient(problem, draws, run.diagnostics, "start")
            run.callbacks.own.append(NoiseAlong(problem, draws, run.diagnostics))
        return run.fit(partial(write_results, job, started))

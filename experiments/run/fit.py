"""`task=fit`: compose a problem, train it in the common loop, write what it found."""

import time
from functools import partial

from vi_core.archive import read_config
from vi_core.files import remove_leftovers
from vi_core.problem import assemble
from vi_core.run import Run
from vi_core.training import checkpoint

from ..config.schema import config_hash
from ..results.diagnostics import check_likelihood
from .interrupt import Interrupt
from .jobs import Job, Summary
from .outcome import ConfigWriter, measure_gradient, write_results
from .process import compiled_folder, prepare
from .progress import Progress
from .resuming import continued
from .settings import check_folder, resolved


def fit(job: Job) -> Summary:
    """Train and write the run's files; return its summary. Raises `LabError` for what the user can mend."""
    started = time.perf_counter()
    check_folder(job)
    remove_leftovers(job.folder)
    config = resolved(job)
    content = checkpoint.load(job.folder / "checkpoint.pt") if job.resume else None
    if content is not None:
        config = continued(config, read_config(job.folder), content)
    measures = config["trainer"].get("gradient_draws", 0)  # at the first parameters, which a checkpoint has no more
    problem = assemble(config, *prepare(config), begin=content is None or bool(measures))
    with Interrupt() as interrupt:
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
        measure_gradient(
            problem, run.trainer.gradient_draws, run.diagnostics, "start"
        )  # a resumed run begins with the same parameters and stream
        result = run.fit(partial(write_results, job, started))
    interrupt.leave()
    return result

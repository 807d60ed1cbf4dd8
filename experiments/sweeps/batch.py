"""Jobs of a sweep that differ in plain numbers alone, trained as replicates of one program; each then writes as a run.

What may differ is the seed, and what the constructors declare as `PerReplicate`. J jobs of R replicates become one
problem of J · R replicates, with one stream of random numbers that starts from all their seeds, and one loop. Jobs with
networks, which have one replicate each, are stacked instead (`vi_core.stacking.networks`).
`vi_core.stacking.shares` cuts out of it the checkpoint of each job, and the job ends as if it had resumed from there.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from vi_core.errors import LabError, Unsupported
from vi_core.execution.base import rehearse
from vi_core.per_replicate import values_of
from vi_core.problem import Loaded, Problem, StackedProblem, assemble, can_stack, load_data, stacked
from vi_core.run import Run
from vi_core.schema import construct, per_replicate_settings
from vi_core.stacking.shares import Share, Shares, cut
from vi_core.training import checkpoint
from vi_core.training.callbacks import Callback
from vi_core.training.loop import Loop, Status
from vi_core.training.trainer import Trainer

from ..config.schema import config_hash, names, set_setting, setting_at
from ..config.validate import PARTS
from ..results.files import write_text
from ..results.noise import NoiseAlong, noise_text
from ..run.interrupt import Interrupt
from ..run.jobs import Job, Summary, is_expected
from ..run.outcome import ConfigWriter, measure_gradient, write_results
from ..run.process import compiled_folder, prepare
from ..run.progress import Progress
from ..run.settings import check_folder

log = logging.getLogger(__name__)
# the most in one batch:
MOST_REPLICATES = 2048  # with more, the arrays of a step leave the processor's cache
MOST_CELLS = 5_000_000  # rows of the history times replicates: some 400 MB
MOST_NUMBERS = 4_000_000  # numbers of the data, as the model keeps them, and of the parameters, times replicates


@dataclass
class Point:
    """A job of a batch.

    Attributes:
        config: Its resolved settings.
        diagnostics: What was measured at its first parameters.
        problem: Its model, family and step, once they are known to be possible.
        status, content: Why its training ended, and its checkpoint without the random state, once it is trained.
    """

    job: Job
    config: dict[str, Any]
    diagnostics: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(init=False)
    problem: Problem = field(init=False)
    status: Status = field(init=False)
    content: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.trainer = construct(self.config["trainer"], "trainer")


def batchable(config: dict[str, Any]) -> list[str]:
    """Return the paths of the settings in which jobs of one batch may differ: the seed, and numbers per replicate.

    Args:
        config: Resolved settings of one job.
    """
    parts = (part for part in PARTS if config[part] is not None)
    return ["seed", *(path for part in parts for path in per_replicate_settings(config[part], part))]


def group_key(config: dict[str, Any]) -> str:
    """Return a text that is the same for jobs which may share a batch.

    Args:
        config: Resolved settings of one job. Those that training does not look at, and those of `batchable`, have no
            part in the text.
    """
    own = names("batch")
    shared = deepcopy({key: value for key, value in config.items() if key not in own})
    for path in batchable(config):
        set_setting(shared, path, None)
    return json.dumps(shared, sort_keys=True, default=str)


def merged(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the configuration of all replicates of all jobs: lists where the jobs differ."""
    whole, each = deepcopy(dict(configs[0])), configs[0]["replicates"]
    whole["replicates"] = each * len(configs)
    for path in batchable(whole)[1:]:
        own = [values_of(setting_at(config, path)) for config in configs]
        values = [value for values in own for value in (values * each if len(values) == 1 else values)]
        set_setting(whole, path, values[0] if len(set(values)) == 1 else values)
    return whole


def stream_seed(points: Sequence[Point]) -> int:
    """Return the seed of a batch's stream: a hash of the seeds of its points, in their order."""
    seeds = json.dumps([point.config["seed"] for point in points])
    return int.from_bytes(hashlib.sha256(seeds.encode()).digest()[:8], "big") >> 1


def train(points: Sequence[Point], interrupt: Interrupt) -> Iterator[Point]:
    """Train the points of a group, batch after batch.

    Args:
        points: Jobs with one `group_key`.
        interrupt: Ends training in good order.

    Yields:
        Each point that could be trained with others, once it is; the missing ones have to run alone.
    """
    batch: list[Point] = []
    loaded, size = None, 0
    for point in points:
        if interrupt.requested():
            return
        try:
            device, dtype, generator = prepare(point.config)
            loaded = loaded or load_data(point.config, device, dtype)
            point.problem = assemble(point.config, device, dtype, generator, loaded)
        except Exception:  # the job will say which when it is run alone
            continue
        if not size:
            size = points_at_once(point)
            if size < 2 or not fits_twice(point, loaded):
                return
        batch.append(point)
        if len(batch) == size:
            yield from attempt(batch, loaded, interrupt)
            batch = []
    if loaded and len(batch) > 1 and not interrupt.requested():
        yield from attempt(batch, loaded, interrupt)


def points_at_once(point: Point) -> int:
    """Return how many points like this make a batch within `MOST_REPLICATES`, `MOST_CELLS` and `MOST_NUMBERS`.

    Args:
        point: With its problem, whose data and parameters are counted.
    """
    batches, replicates = point.problem.batches, point.config["replicates"]
    plan = point.trainer.plan(batches.steps_per_epoch, replicates)
    full = batches.full
    kept = full.values() if isinstance(full, dict) else [full] if isinstance(full, Tensor) else full or ()
    numbers = sum(value.numel() for value in (*kept, *point.problem.step.moving) if isinstance(value, Tensor))
    most = min(MOST_REPLICATES, MOST_CELLS // plan.rows, MOST_NUMBERS // max(1, numbers))
    return max(1, most // replicates)


def fits_twice(point: Point, loaded: Loaded) -> bool:
    """Return whether two points like this one can make a step together; say why not.

    Args:
        point: With its problem. Stacked networks make a step on trial, since only that shows what `torch.func` maps.
        loaded: The data set that all points share.
    """
    try:
        whole = combine([point, point], 0, loaded)
        if isinstance(whole, StackedProblem):
            rehearse(whole.step, whole.batches)
    except LabError as error:
        reason = str(error)
    except RuntimeError:  # in which torch.func speaks of its own insides
        reason = "torch.func cannot map their steps over stacked networks"
    else:
        return True
    log.info("jobs like this one run one by one (%s)", reason)
    return False


def combine(points: Sequence[Point], seed: int, loaded: Loaded) -> Problem:
    """Set the process up for a batch; return its problem, of J · R replicates or of J stacked networks.

    Args:
        points: The J jobs, each with its problem. Where networks are stacked, theirs become views of the whole.
        seed: Where the random stream of the batch starts.
        loaded: The data set that all points share.

    Raises:
        Unsupported: Where networks would be stacked whose settings differ.
    """
    config = merged([point.config for point in points])
    device, dtype, generator = prepare(config | {"seed": seed})
    if not can_stack(points[0].problem):
        return assemble(config, device, dtype, generator, loaded)
    inside = [path for path in batchable(config)[1:] if not path.startswith("optimizer.")]
    if any(isinstance(setting_at(config, path), list) for path in inside):
        raise Unsupported(f"{' or '.join(inside)} differs, and networks are stacked only with one value for all.")
    return stacked(config, [point.problem for point in points])


def attempt(points: Sequence[Point], loaded: Loaded, interrupt: Interrupt) -> list[Point]:
    """Train a batch, or say why it cannot be trained; its jobs then run one by one, and only one of them may fail."""
    try:
        return train_batch(points, loaded, interrupt)
    except Exception as error:
        if not is_expected(error):
            raise
        log.warning("a batch of %d jobs failed, and they run one by one (%s)", len(points), error)
        return []


def train_batch(points: Sequence[Point], loaded: Loaded, interrupt: Interrupt) -> list[Point]:
    """Train all points in one loop, from one random stream; return them with their status and content.

    A replicate that is not finite is frozen, whatever its job says: `Shares` ends the job as its own setting asks. The
    callbacks that a user chooses see no batch: they would mistake it for a run.
    """
    seed, config = stream_seed(points), points[0].config
    problem = combine(points, seed, loaded)
    log.info("%d jobs of %d replicates in one batch", len(points), config["replicates"])
    for point in points:
        point.job.batch = {"jobs": len(points), "replicates": problem.family.replicates, "seed": seed}
    shares = [share_of(point, number, problem) for number, point in enumerate(points)]
    watch = Shares(shares, points[0].trainer.on_nonfinite)
    noise = [NoiseOfPoints(points, shares)] if points[0].trainer.gradient_draws else []
    run = Run(
        config | {"trainer": config["trainer"] | {"on_nonfinite": "skip"}, "callbacks": {}},
        problem,
        own=[watch, Progress(config["name"]), *noise],
        interrupted=lambda: watch.all_ended() or interrupt.requested(),
        code=compiled_folder() / "steps",
    )
    run.fit(lambda run: {})
    for point, end in zip(points, watch.contents(run.loop), strict=True):
        point.status, point.content = end
    return list(points)


class NoiseOfPoints(Callback):
    """Measures the noise of the gradient of each point of a batch in its course, as `NoiseAlong` does of a run.

    Args:
        points: With their problems, which take the parameters that the batch has at a checkpoint.
        shares: Of the points, until they end.
    """

    def __init__(self, points: Sequence[Point], shares: Sequence[Share]):
        self.measured = [
            (NoiseAlong(point.problem, point.trainer.gradient_draws, point.diagnostics), point.problem.step, share)
            for point, share in zip(points, shares, strict=True)
        ]

    def on_start(self, loop: Loop, config: Mapping[str, Any], folder: Path | None) -> None:
        for along, _, _ in self.measured:
            along.on_start(loop, config, folder)

    def on_checkpoint(self, loop: Loop) -> None:
        if loop.status is not None:
            return
        state = loop.step.state_dict()
        for along, step, share in self.measured:
            if share.end is None:
                step.load_state_dict(cut(state, share.step, share.replicates))
                along.on_checkpoint(loop)


def share_of(point: Point, number: int, whole: Problem) -> Share:
    """Return a point's share of the batch; measure the noise of its first gradient where that is asked for.

    Args:
        point: With its own problem. Where noise is measured, it takes the parameters that the batch has drawn for it.
        number: Its place in the batch.
        whole: The problem of the batch.
    """
    own, each = point.problem, point.config["replicates"]
    replicates = slice(number * each, (number + 1) * each)
    point.trainer.stopping.bind(own.step.moving, each)
    share = Share(replicates, own.step.state_dict(), point.trainer.stopping.state_dict())
    if point.trainer.gradient_draws:
        own.step.load_state_dict(cut(whole.step.state_dict(), share.step, replicates))
        measure_gradient(own, point.trainer.gradient_draws, point.diagnostics, "start")
    return share


def finish(point: Point, job: Job) -> Summary:
    """Write the run's files from where training left it, and return its summary; the stream is that of its own seed.

    Args:
        point: After its training.
        job: Whose folder it is. A run alone would have the same files, but for numbers that depend on its draws.

    Raises:
        Occupied: Where the folder holds another run.
    """
    started = time.perf_counter() - point.content["seconds"]
    check_folder(job)
    device, _, _ = prepare(point.config)
    content = point.content | {"random": checkpoint.random_state(device)}
    identity = config_hash(point.config)
    run = Run(point.config, point.problem, job.folder, own=[ConfigWriter()], content=content, identity=identity)
    run.diagnostics = point.diagnostics
    if rows := point.diagnostics.get("gradient", {}).get("along"):
        write_text(job.folder / "noise.csv", noise_text(rows))
    return run.fit(partial(write_results, job, started), point.status)

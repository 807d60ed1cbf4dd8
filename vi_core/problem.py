"""From a configuration to objects: the constructor is the schema.

A part is a mapping with `_target_`, the dotted name of a class, and exactly the keyword-only arguments of its
constructor. Positional-only arguments are context, filled by name from what the other parts provide (`latents`,
`replicates`, `event_size`, `num_points`, `steps_per_epoch`, `data_mean`, `process`). Keys and types are checked against
the signature before anything is built, so that adding a part takes one class and one YAML file and no registry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vi_core.algorithms.base import Step
from vi_core.algorithms.coordinate_ascent import CoordinateAscent, CoordinateAscentStep
from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.base import Bound
from vi_core.datasets.base import Data, Dataset
from vi_core.errors import Unsupported
from vi_core.estimators.base import Estimator
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.models.diffusion.protocols import HasDenoisingTerms
from vi_core.models.mixtures.protocols import HasConstants
from vi_core.networks.mlp import multiply_in
from vi_core.optimizers.base import Optimizer
from vi_core.schema import Config, check_part, construct
from vi_core.stacking.networks import StackedBatches, StackedStep
from vi_core.training.batches import Batches, steps_per_epoch
from vi_core.training.evaluate import held_out_bound
from vi_core.training.trainer import Trainer

KINDS: dict[str, type | tuple[type, ...]] = {
    "model": Model,
    "family": Family,
    "bound": Bound,
    "estimator": Estimator,
    "optimizer": (Optimizer, CoordinateAscent),
    "dataset": Dataset,
    "trainer": Trainer,
}
"""What the part of each group must be."""


@dataclass
class Problem:
    """Everything that a run moves and sees."""

    data: Data
    checksum: str
    """Of the data as they were read or drawn, before any cast."""
    model: Model
    family: Family
    bound: Bound
    estimator: Estimator
    step: Step
    batches: Batches

    def held_out(self) -> Tensor:
        """Return the bound per data point on the held-out part, or on all data where there is none, (R,)."""
        return held_out_bound(self.estimator, self.model, self.family, self.bound, self.data)


@dataclass
class StackedProblem(Problem):
    """Several problems whose networks are stacked, as one."""

    singles: Sequence[Problem]

    def held_out(self) -> Tensor:
        return torch.cat([single.held_out() for single in self.singles])


class Loaded(NamedTuple):
    """A data set in place, which several problems may share."""

    data: Data
    checksum: str
    """Of the data as they were read or drawn, before any cast."""


def load(config: Config, device: torch.device, dtype: torch.dtype) -> Loaded:
    """Read or draw the data set of a resolved configuration."""
    check_part(config["dataset"], "dataset", KINDS["dataset"])
    data: Data = construct(config["dataset"], "dataset").load()
    return Loaded(data.to(device, dtype), data.checksum)


def assemble(
    config: Config,
    device: torch.device,
    dtype: torch.dtype,
    generator: torch.Generator,
    loaded: Loaded | None = None,
) -> Problem:
    """Build data, model, family and step from the groups of a resolved configuration.

    Parameters are created in torch's default dtype, which the caller sets to `dtype`, from the default random stream.

    Args:
        config: With the groups dataset, model, family, bound, estimator, optimizer and the integer `replicates`;
            optionally `matmul`, a key of `vi_core.networks.mlp.PRODUCTS`.
        device: Where tensors live.
        dtype: Of data and parameters.
        generator: Orders minibatches.
        loaded: The data, where they are in place already.
    """
    for group in ("dataset", "model", "family", "bound", "estimator", "optimizer"):
        check_part(config[group], group, KINDS[group])
    dataset: Dataset = construct(config["dataset"], "dataset")
    bound: Bound = construct(config["bound"], "bound")
    estimator: Estimator = construct(config["estimator"], "estimator")
    data, checksum = load(config, device, dtype) if loaded is None else loaded
    context: dict[str, Any] = {
        "event_size": data.train[0].numel(),
        "num_points": len(data.train),
        "replicates": config["replicates"],
        "steps_per_epoch": steps_per_epoch(len(data.train), dataset.batch_size),
        "data_mean": data.mean,
    }
    optimizer = construct(config["optimizer"], "optimizer", context)
    model: Model = construct(config["model"], "model", context)
    context["latents"] = model.latents
    context["process"] = model.process if isinstance(model, HasDenoisingTerms) else None
    family: Family = construct(config["family"], "family", context)
    model.to(device)
    family.to(device)
    multiply_in(config.get("matmul", "auto"), model, family)
    step = make_step(model, family, bound, estimator, optimizer).to(device)
    batches = Batches(data, model, dataset.batch_size, generator)
    step.begin(batches.full)
    return Problem(data, checksum, model, family, bound, estimator, step, batches)


def can_stack(problem: Problem) -> bool:
    """Whether a problem has networks that a gradient moves, so that problems like it can be stacked."""
    return isinstance(problem.step, GradientStep) and problem.step.named is None and problem.family.replicates == 1


def stacked(config: Config, singles: Sequence[Problem]) -> StackedProblem:
    """Return problems that `can_stack` as one, whose tensors theirs become views of.

    Args:
        config: With the optimizer of all of them; it has numbers for each where they differ.
        singles: Problems that differ in their parameters and the order of their minibatches alone.
    """
    first, steps = singles[0], [single.step for single in singles if isinstance(single.step, GradientStep)]
    context = {"steps_per_epoch": first.batches.steps_per_epoch}
    step = StackedStep(steps, construct(config["optimizer"], "optimizer", context), first.batches.full is not None)
    step.to(first.data.train.device)
    parts = (first.data, first.checksum, step.model, step.family, first.bound, step.estimator)
    return StackedProblem(*parts, step, StackedBatches([single.batches for single in singles]), singles)


def make_step(model: Model, family: Family, bound: Bound, estimator: Estimator, optimizer: object) -> Step:
    """Return the step that `optimizer` asks for."""
    if isinstance(optimizer, CoordinateAscent):
        return CoordinateAscentStep(model, family, bound, estimator, optimizer.keep)
    if isinstance(model, HasConstants) and model.estimates_constants:
        raise Unsupported(
            "model/hyperparameters=empirical_bayes is a block of coordinate ascent; use optimizer=coordinate_ascent, "
            "or model/hyperparameters=fixed."
        )
    assert isinstance(optimizer, Optimizer)
    if family.replicates > 1 and any(True for _ in model.parameters()):
        raise Unsupported(
            f"replicates={family.replicates} needs a model without weights of its own, and {type(model).__name__} "
            "has one set; use replicates=1 and sweep the seed: -m 'seed=range(3)'."
        )
    return GradientStep(model, family, bound, estimator, optimizer)

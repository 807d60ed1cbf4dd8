"""From a configuration to objects: the constructor is the schema.

A part is a mapping with `_target_`, the dotted name of a class, and exactly the keyword-only arguments of its
constructor. Positional-only arguments are context, filled by name from what the other parts provide (`latents`,
`replicates`, `event_size`, `num_points`, `steps_per_epoch`, `data_mean`, `process`). Keys and types are checked against
the signature before anything is built, so that adding a part takes one class and one YAML file and no registry.
"""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.datasets.base import Data, Dataset
from vi_core.errors import ConfigError, did_you_mean
from vi_core.estimators.base import Estimator
from vi_core.families.base import Family
from vi_core.models.base import HasDenoisingTerms, Model
from vi_core.networks import multiply_in
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.coordinate_ascent import CoordinateAscent
from vi_core.replicated import PerReplicate
from vi_core.training.batches import Batches, steps_per_epoch
from vi_core.training.evaluate import held_out_bound
from vi_core.training.stacked import StackedBatches, StackedStep
from vi_core.training.steps import GradientStep, Step, make_step
from vi_core.training.trainer import Trainer

Config = Mapping[str, Any]
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


def locate(target: str, path: str) -> type:
    """Import the class with a dotted name."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_='{target}' names no class that can be imported ({error}).") from error


def check_part(config: Any, path: str, kind: type | tuple[type, ...]) -> None:
    """Raise `ConfigError` unless a part is of its kind and fits its constructor, and so do the parts inside."""
    if not isinstance(config, Mapping) or not isinstance(config.get("_target_"), str):
        raise ConfigError(f"{path} must be a part with a _target_; choose one on the command line with {path}=<name>.")
    cls = locate(config["_target_"], path)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        wanted = kind.__name__ if isinstance(kind, type) else " or ".join(option.__name__ for option in kind)
        raise ConfigError(f"{path}._target_='{config['_target_']}' names no {wanted}.")
    accepted = keyword_arguments(cls)
    for key, value in config.items():
        if key == "_target_":
            continue
        if key not in accepted:
            known = ", ".join(accepted) or "none"
            raise ConfigError(
                f"{path}.{key} is not a setting of {cls.__name__}.{did_you_mean(key, accepted)} Known: {known}."
            )
        check_value(value, accepted[key], f"{path}.{key}")


@cache
def constructor_arguments(cls: type) -> tuple[inspect.Parameter, ...]:
    """Return the arguments of a constructor."""
    return tuple(inspect.signature(cls).parameters.values())


@cache
def keyword_arguments(cls: type) -> dict[str, Any]:
    """Return the type of each keyword-only argument of a constructor, by name."""
    hints = typing.get_type_hints(cls.__init__)
    return {
        p.name: hints.get(p.name, Any) for p in constructor_arguments(cls) if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_value(value: Any, hint: Any, path: str) -> None:
    """Raise `ConfigError` unless a plain value has the type that the constructor declares."""
    options = (hint, *typing.get_args(hint))
    kinds = tuple(option for option in options if isinstance(option, type) and inspect.isabstract(option))
    if kinds and not (value is None and conforms(None, hint)):
        check_part(value, path, kinds)
    elif not conforms(value, hint):
        raise ConfigError(f"{path}={value!r} must be {describe(hint)}.")


def conforms(value: Any, hint: Any) -> bool:
    """Whether a plain YAML value has the type `hint`; an integer is a float, a boolean is not an integer."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (list, Sequence):
        return isinstance(value, list) and all(conforms(element, arguments[0]) for element in value)
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    """Return a type in words for an error message."""
    names = {float: "a number", int: "an integer", str: "a text", bool: "true or false", type(None): "null"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is typing.Literal:
        return ", ".join(map(str, arguments)) if len(arguments) == 1 else "one of " + ", ".join(map(str, arguments))
    if origin in (list, Sequence):
        return f"a list, each element {describe(arguments[0])}"
    return names.get(hint, str(hint))


def construct(config: Config, path: str, context: Config | None = None) -> Any:
    """Build a part that `check_part` accepts, with the parts inside it; `context` fills positional-only arguments."""
    cls = locate(config["_target_"], path)
    settings = {
        key: construct(value, f"{path}.{key}", context) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key != "_target_"
    }
    positional = [p for p in constructor_arguments(cls) if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    missing = [
        p.name
        for p in constructor_arguments(cls)
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is p.empty and p.name not in settings
    ]
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is not set, and {cls.__name__} needs it.")
    return cls(*(context[p.name] for p in positional if context), **settings)


def per_replicate_settings(config: Config, path: str) -> list[str]:
    """Return the paths of the settings, of a part and the parts inside, that may have a value for each replicate."""
    accepted = keyword_arguments(locate(config["_target_"], path))
    found = [f"{path}.{key}" for key in config if accepted.get(key) == PerReplicate]
    inside = [key for key, value in config.items() if isinstance(value, Mapping) and "_target_" in value]
    return found + [setting for key in inside for setting in per_replicate_settings(config[key], f"{path}.{key}")]


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
            optionally `matmul`, a key of `vi_core.networks.PRODUCTS`.
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

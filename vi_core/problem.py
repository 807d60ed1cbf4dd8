"""Assembly of a `Problem`, all objects that a run trains, from a resolved configuration.

Each group of the configuration is a part, which `vi_core.schema` checks and builds. Its positional-only arguments are
filled with what other parts provide: `latents`, `replicates`, `event_size`, `image_shape`, `levels`, `num_points`,
`steps_per_epoch`, `data_mean` and `process`.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vi_core.algorithms.base import Step
from vi_core.algorithms.coordinate_ascent import CoordinateAscent, CoordinateAscentStep
from vi_core.algorithms.fixed import FixedStep
from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.base import Bound
from vi_core.datasets.base import Data, Dataset
from vi_core.errors import ConfigError, DataError, Unsupported, matrices_factorized
from vi_core.estimators.base import Estimator
from vi_core.families.base import Family, HasCoordinates
from vi_core.families.unconstrained import EARLIER, UnconstrainedFamily
from vi_core.models.base import HasColumns, HasConstants, HasDenoisingTerms, Model
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.bayesian.explain import mapped_code
from vi_core.models.bayesian.file import FileModel
from vi_core.networks.mlp import multiply_in
from vi_core.optimizers.base import Optimizer
from vi_core.schema import Config, check_part, construct
from vi_core.stacking.networks import StackedBatches, StackedStep
from vi_core.training.batches import Batches, steps_per_epoch
from vi_core.training.checkpoint import same_draws_after
from vi_core.training.trainer import Trainer
from vi_core.types import Latent

log = logging.getLogger(__name__)
PREDICTIVE_DRAWS = 100  # of q, for the predictive density while training
POINTS_AT_ONCE = 1000  # held-out data points in a call, for the sake of memory
ROWS, ROWS_EACH = 20_000, 100  # data points at least from which a fit by minibatches starts, and for each coordinate
KEPT_DIGITS = 100  # least spread of data in units of the distance of neighbouring numbers, for two digits of it
# Base class of the part of each group.
KINDS: dict[str, type | tuple[type, ...]] = {
    "model": Model,
    "family": Family,
    "bound": Bound,
    "estimator": Estimator,
    "optimizer": (Optimizer, CoordinateAscent),
    "dataset": Dataset,
    "trainer": Trainer,
}


@dataclass(repr=False)
class Problem:
    """Data and parts of one run, with the step that trains them.

    Attributes:
        data: The data set, on the device and in the type of the run.
        checksum: Of the data as they were read or drawn, before any cast.
        model, family, bound, estimator: The parts.
        step: One iteration of the algorithm; it holds the parameters and the optimizer's state.
        batches: Source of minibatches.
    """

    data: Data
    checksum: str
    model: Model
    family: Family
    bound: Bound
    estimator: Estimator
    step: Step
    batches: Batches

    def __repr__(self) -> str:
        parts = (self.model, self.family, self.bound, self.estimator)
        names = ", ".join(type(part).__name__ for part in parts)
        return f"{names} on {len(self.data.train)} points, {self.family.replicates} replicates"

    @property
    def gradients_each(self) -> int:
        """Gradients of the density that a replicate takes in a step: at K samples, and at the anchor of minibatches."""
        anchored = isinstance(self.step, GradientStep) and self.step.anchor is not None
        return self.estimator.num_samples + anchored

    def held_out(self) -> Tensor:
        """Return the bound per data point averaged over the held-out part, or over all data where there is none, (R,).

        It is the log predictive density where the model `HasColumns`. The random stream is
        put back afterwards: evaluating does not change what training draws.
        """
        data = self.data
        points = data.train if data.test is None else data.test
        with same_draws_after(points.device):
            batches = [self._value(data.decode(stored)).sum(dim=1) for stored in points.split(POINTS_AT_ONCE)]
        return torch.stack(batches).sum(dim=0) / len(points)

    def _value(self, x: Any) -> Tensor:
        """Return the bound of each data point, or its log predictive density, (R, B)."""
        if not isinstance(self.model, HasColumns):
            return self.estimator.value(self.model, self.family, self.bound, x)
        return self.model.log_predictive(
            self.family.distribution(self.family.variational()).sample(PREDICTIVE_DRAWS), x
        )

    def log_weights(self, num_samples: int, x: Any = None) -> Tensor:
        """Return log p(x, z_k) − log q(z_k) of K fresh draws z_k ~ q(z | x), (K, *batch), without gradients.

        Args:
            num_samples: K.
            x: A batch as the model sees it; by default what each step sees where that is the whole data set.
        """
        x = self.batches.full if x is None else x
        with torch.no_grad():
            q = self.family.distribution(self.family.variational(x))
            z = q.sample(num_samples)
            return self.model.log_joint(z, x) - q.log_prob(z)


@dataclass(repr=False)
class StackedProblem(Problem):
    """Several problems that are trained as one, with their networks stacked; `singles` are its parts."""

    singles: Sequence[Problem]

    def held_out(self) -> Tensor:
        return torch.cat([single.held_out() for single in self.singles])


class Loaded(NamedTuple):
    """A data set on its device, which several problems may share.

    Attributes:
        data: The tensors, after the cast to the type of the run.
        checksum: Of the data as they were read or drawn, before any cast.
        wide: Training points as they were read, in float64 on the CPU, where the cast made them narrower.
    """

    data: Data
    checksum: str
    wide: Tensor | None = None


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Context manager: tensors made of plain numbers inside have a floating type; the previous one is put back."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


def load_data(config: Config, device: torch.device, dtype: torch.dtype) -> Loaded:
    """Read or draw the data set of a resolved configuration; raise `ConfigError` or `DataError` where that fails."""
    check_part(config["dataset"], "dataset", KINDS["dataset"])
    data: Data = construct(config["dataset"], "dataset").load()
    if not data.train.is_floating_point() or dtype == torch.float64:
        return Loaded(data.to(device, dtype), data.checksum)
    spacing = data.train.abs().amax(dim=0) * torch.finfo(dtype).eps  # of neighbouring numbers
    if len(data.train) > 1 and bool((data.train.std(dim=0) < KEPT_DIGITS * spacing).any()):
        log.warning("dtype=%s rounds away the spread of these data around their mean; use dtype=float64", dtype)
    return Loaded(data.to(device, dtype), data.checksum, data.train.double())


@matrices_factorized()
def assemble(
    config: Config,
    device: torch.device,
    dtype: torch.dtype,
    generator: torch.Generator,
    loaded: Loaded | None = None,
    begin: bool = True,
) -> Problem:
    """Build data, model, family and step from the groups of a resolved configuration.

    Parameters are created in torch's default dtype, which the caller sets to `dtype`, from the default random stream.

    Args:
        config: Resolved, with the groups dataset, model, family, bound, estimator, optimizer and the integer
            `replicates`; optionally `matmul`, a key of `vi_core.networks.mlp.PRODUCTS`.
        device: Where tensors live.
        dtype: Of data and parameters.
        generator: Random stream of the order of minibatches.
        loaded: The data set, where it has been read already.
        begin: Whether the step sets its first parameters from the data, which may take a search for a mode. A state
            that is loaded afterwards has them.

    Raises:
        ConfigError: For a part that does not fit its constructor.
        Unsupported: For parts that have no meaning together.
    """
    if "trainer" in config:  # first, because schedules repeat its number of steps
        check_part(config["trainer"], "trainer", KINDS["trainer"])
        construct(config["trainer"], "trainer")
    for group in ("dataset", "model", "family", "bound", "estimator", "optimizer"):
        check_part(config[group], group, KINDS[group])
    dataset: Dataset = construct(config["dataset"], "dataset")
    bound, estimator = (construct(config[group], group) for group in ("bound", "estimator"))
    data, checksum, wide = load_data(config, device, dtype) if loaded is None else loaded
    context: dict[str, Any] = {
        "event_size": data.train[0].numel(),
        "image_shape": data.image_shape,
        "levels": data.levels,
        "num_points": len(data.train),
        "replicates": config["replicates"],
        "steps_per_epoch": steps_per_epoch(len(data.train), dataset.batch_size),
        "data_mean": data.mean,
    }
    optimizer = construct(config["optimizer"], "optimizer", context)
    model: Model = construct(config["model"], "model", context)
    model = model.own if isinstance(model, FileModel) else model
    if isinstance(model, HasColumns):
        with torch.device(device), left_out_named(data):  # laws that the model makes of plain numbers
            model.observe(data.decode(data.train), len(data.train))
    elif isinstance(seen := data.decode(data.train[:1]), dict):
        raise Unsupported(
            f"{type(model).__name__} does not describe columns by name, which these data have ({', '.join(seen)}); "
            "use a model of prior and likelihood, such as model=logistic_regression."
        )
    context["latents"] = model.latents
    context["process"] = model.process if isinstance(model, HasDenoisingTerms) else None
    family: Family = construct(config["family"], "family", context)
    if family is config["family"]:
        require_made_for(family, model.latents, config["replicates"])
        family.to(device, dtype)
    if begin and isinstance(family, UnconstrainedFamily) and family.start.startswith(EARLIER):
        from vi_core.storage.earlier import place_as_in_run  # which assembles the earlier problem here

        place_as_in_run(family)
    multiply_in(config.get("matmul", "auto"), model.to(device), family.to(device))
    step = make_step(model, family, bound, estimator, optimizer).to(device)
    batches = Batches(data, model, dataset.batch_size, generator, wide)
    if begin and not type(model).__module__.startswith("vi_core."):
        check_factors(model, family, batches, estimator.num_samples)
    if batches.full is None and isinstance(step, GradientStep) and isinstance(family, HasCoordinates):
        step.anchored()
        if begin:
            begin_by_rows(step, batches, family.origin.shape[-1])
    elif begin:
        step.begin(batches.whole(model) if isinstance(family, HasCoordinates) else batches.full)
    return Problem(data, checksum, model, family, bound, estimator, step, batches)


@contextmanager
def left_out_named(data: Data) -> Iterator[None]:
    """Context manager: where a model asks for data that are not there, the error names the columns left out."""
    try:
        yield
    except DataError as error:
        if not data.left_out or "no data called" not in str(error):
            raise
        names = ", ".join(data.left_out)
        raise DataError(f"{error} Columns of text were left out: {names}; encode them as numbers.") from error


def require_made_for(family: Family, latents: dict[str, Latent], replicates: int) -> None:
    """Raise `ConfigError` for a family, passed as an object, that was made for other latents or replicates."""
    name, made_for = type(family).__name__, getattr(family, "latents", None)
    if made_for is None:
        raise ConfigError(f"{name} does not say its latents; set self.latents in its constructor, or pass settings.")
    if list(made_for.items()) != list(latents.items()):
        found, wanted = (", ".join(f"{n} ({z})" for n, z in each.items()) for each in (made_for, latents))
        raise ConfigError(f"the family was made for {found}, and the model has {wanted}; make it of model.latents.")
    if family.replicates != replicates:
        raise ConfigError(
            f"the family was made for {family.replicates} replicates; use replicates={family.replicates}, or make it "
            f"for {replicates}."
        )


@torch.no_grad()
def check_factors(model: Model, family: Family, batches: Batches, draws: int) -> None:
    """Evaluate the factors of a model of the user's own at draws of q, and look at their shapes.

    Args:
        model: Of the user's.
        family: At its first parameters; the random stream is put back.
        batches: Which have an example of what a step sees.
        draws: K, of a step.

    Raises:
        Unsupported: Naming the first factor that is no tensor of one number for each draw, replicate and data point.
    """
    with same_draws_after(batches.data.train.device):
        example, count = batches.example(), len(batches.data.train)
        x = batches.decode(example)
        q = family.distribution(family.variational(x))
        z = q.sample(draws)
        rows = f" with {len(example)} of {count} rows" if batches.full is None else ""
        with mapped_code(model, rows) if isinstance(model, BayesianModel) else nullcontext():
            wanted, found = q.log_prob(z).shape, model.factors(z, x)
    for name, (value, _) in found.items():
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        if not isinstance(value, torch.Tensor) or not fits(value.shape, wanted):
            raise Unsupported(
                f"{type(model).__name__}.factors: '{name}' is {shape}, and a log density {tuple(wanted)} is needed, "
                "a number for each draw, replicate and data point; sum over the axes of an event, and over no other."
            )


def fits(shape: torch.Size, wanted: torch.Size) -> bool:
    """Whether a shape (K, R, B) is the wanted one, or has B = 1 in place of its B."""
    return len(shape) == len(wanted) and shape[:-1] == wanted[:-1] and shape[-1] in (1, wanted[-1])


def begin_by_rows(step: GradientStep, batches: Batches, size: int) -> None:
    """Let a step that sees minibatches begin from some of the data points, for each of D coordinates a hundred."""
    step.begin_by_rows(batches.sample(max(ROWS, ROWS_EACH * size)), partial(batches.blocks, ROWS))


def can_stack(problem: Problem) -> bool:
    """Whether a problem has networks that a gradient moves and that have no replicates, so that it can be stacked."""
    has_networks = isinstance(problem.step, GradientStep) and problem.step.named is None
    return has_networks and problem.family.replicates == 1 and not isinstance(problem.family, UnconstrainedFamily)


def stacked(config: Config, singles: Sequence[Problem]) -> StackedProblem:
    """Return one problem in place of several; their tensors become views of its tensors.

    Args:
        config: With the group optimizer; settings in which the problems differ are lists with a value for each.
        singles: Problems that `can_stack`, and differ only in their parameters and the order of their minibatches.
    """
    first, steps = singles[0], [single.step for single in singles if isinstance(single.step, GradientStep)]
    context = {"steps_per_epoch": first.batches.steps_per_epoch}
    step = StackedStep(steps, construct(config["optimizer"], "optimizer", context), first.batches.full is not None)
    step.to(first.data.train.device)
    parts = (first.data, first.checksum, step.model, step.family, first.bound, step.estimator)
    return StackedProblem(*parts, step, StackedBatches([single.batches for single in singles]), singles)


def make_step(model: Model, family: Family, bound: Bound, estimator: Estimator, optimizer: object) -> Step:
    """Return the step of the algorithm that `optimizer` belongs to; `Unsupported` where the model has none."""
    if isinstance(optimizer, CoordinateAscent):
        return CoordinateAscentStep(model, family, bound, estimator, optimizer.keep)
    if isinstance(model, HasConstants) and model.estimates_constants:
        raise Unsupported(
            "model/hyperparameters=empirical_bayes is a block of coordinate ascent; use optimizer=coordinate_ascent, "
            "or model/hyperparameters=fixed."
        )
    assert isinstance(optimizer, Optimizer)
    if family.fixed:
        return FixedStep(model, family, bound, estimator)
    if family.replicates > 1 and any(True for _ in model.parameters()):
        raise Unsupported(
            f"replicates={family.replicates} needs a model without weights of its own, and {type(model).__name__} "
            "has one set; use replicates=1 and sweep the seed: -m 'seed=range(3)'."
        )
    return GradientStep(model, family, bound, estimator, optimizer)

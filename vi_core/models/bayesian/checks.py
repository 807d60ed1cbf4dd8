"""What a model of one's own declares, and whether that is right, found by calling its methods at draws from its prior.

Latents, supports, shapes and scopes follow from the calls. Everything that is not as it should be is an error of one
line that names the method and the latent, column or factor; `vi_core.models.bayesian.parameters` has the rule for
parameters.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from vi_core.errors import ConfigError, DataError, Unsupported
from vi_core.models.bayesian.explain import called
from vi_core.models.bayesian.laws import Named, Values, observations, support_of
from vi_core.models.bayesian.parameters import DRAWS, Parameters
from vi_core.types import Latent

if TYPE_CHECKING:
    from vi_core.models.bayesian.base import BayesianModel

PAIRS = 'yield pairs such as ("mu", Normal(0.0, 1.0))'
FULL_LOOKS, MANY_ROWS = 2, 10_000  # draws at which all rows are looked at where there are more than these


class Declared(NamedTuple):
    """The prior: latents by name, those that each of its factors mentions, and draws of all of them."""

    latents: dict[str, Latent]
    scopes: dict[str, frozenset[str]]
    draws: list[Values]


class Observed(NamedTuple):
    """The likelihood; the attributes are those of `BayesianModel`, with statistics among the columns.

    Attributes:
        read: Latents that it mentions.
    """

    pointwise: bool
    observables: frozenset[str]
    columns: frozenset[str]
    by_logits: frozenset[str]
    read: frozenset[str]


def tensors(model: "BayesianModel", method: str, call: Callable[[], Any]) -> Values:
    """Return what a method of the subclass returns, tensors by name; raise `ConfigError` for anything else."""
    found, owner = called(model, method, call), f"{type(model).__name__}.{method}"
    if not isinstance(found, Mapping):
        raise ConfigError(
            f'{owner} must return tensors by name, as in {{"ratio": z["a"] / z["b"]}}, not {type(found).__name__}.'
        )
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ConfigError(
                f"{owner}: {name!r} is {type(value).__name__}, and a tensor by name is needed; compute it from "
                "latents and data, or use torch.as_tensor."
            )
    return dict(found)


# --- the prior ------------------------------------------------------------------------------------------------------


def declared(model: "BayesianModel", data: Named) -> Declared:
    """Return what the prior declares, after a look at its laws."""
    parameters = Parameters(f"{type(model).__name__}.prior")
    latents, scopes = dict[str, Latent](), dict[str, frozenset[str]]()
    draws = [draw for _ in range(DRAWS) if (draw := _drawn(model, data, parameters, latents, scopes)) is not None]
    parameters.judge()
    if not draws:
        raise ConfigError(f"{type(model).__name__}.prior has a wrong parameter at each of {DRAWS} draws.")
    if not latents:
        raise ConfigError(f"{type(model).__name__}.prior yields no latent; {PAIRS}.")
    return Declared(latents, scopes, draws)


def _drawn(
    model: "BayesianModel",
    data: Named,
    parameters: Parameters,
    latents: dict[str, Latent],
    scopes: dict[str, frozenset[str]],
) -> Values | None:
    """Return a draw from the prior, and note what it declares; None where a law cannot be drawn from."""
    draw = Values()
    for name, given in _pairs(model, data):
        _check_name(model, name, draw, data)
        earlier = Named(draw, "latent")
        law = _law(model, name, given, earlier, data)
        if not parameters.look(name, law):
            if not earlier.read:
                parameters.judge()
            return None
        support = support_of(law, name)
        draw[name] = called(model, "prior", law.sample)
        latents[name] = Latent(support, tuple(draw[name].shape))
        scopes[name] = frozenset({name, *earlier.read})
        if earlier.read:
            _check_bounds(model, name, law, given, draw)
    return draw


def _pairs(model: "BayesianModel", data: Named) -> Iterable[tuple[str, Any]]:
    """Return what `prior` yields; raise `ConfigError` for anything but pairs of a name and a law."""
    owner = f"{type(model).__name__}.prior"
    found = called(model, "prior", lambda: model.prior(data), data)
    if not isinstance(found, Iterable):
        raise ConfigError(f"{owner} returns {type(found).__name__}; {PAIRS}.")
    pairs = called(model, "prior", lambda: list(found), data)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ConfigError(f"{owner} must yield pairs, not {' '.join(repr(pair).split()):.60}; {PAIRS}.")
    return pairs


def _check_name(model: "BayesianModel", name: str, draw: Values, data: Named) -> None:
    clash = "is declared twice" if name in draw else "is also a name of the data"
    clash = clash if name.isidentifier() else "is no identifier"
    if name in draw or name in data or not name.isidentifier():
        raise ConfigError(f"{type(model).__name__}.prior: the name '{name}' {clash}; choose another.")


def _law(model: "BayesianModel", name: str, given: Any, earlier: Named, data: Named) -> Distribution:
    """Return the law of a latent, given those that were declared before; raise `ConfigError` where it has none."""
    law = given
    if callable(given) and not isinstance(given, (Distribution, type)):
        law = called(model, "prior", lambda: given(earlier), earlier, data)
    if not isinstance(law, Distribution):
        raise ConfigError(
            f"{type(model).__name__}.prior: '{name}' has no density, it is {kind(law)}; give a law of "
            "torch.distributions, such as Normal(0.0, 1.0), or a function of earlier latents that returns one."
        )
    return law


def _check_bounds(model: "BayesianModel", name: str, law: Distribution, given: Any, draw: Values) -> None:
    """Raise `Unsupported` where the support of a latent moves with earlier latents, by a law at other values."""
    other = called(model, "prior", lambda: given({latent: value * 0.5 for latent, value in draw.items()}))
    if support_of(other, name) != support_of(law, name):
        raise Unsupported(
            f"{type(model).__name__}.prior: the bounds of '{name}' depend on other latents; declare a fraction "
            "between constant bounds, and compute from it in the likelihood."
        )


# --- the likelihood -------------------------------------------------------------------------------------------------


def checked(model: "BayesianModel", draws: list[Values], known: Values) -> Observed:
    """Return what the likelihood observes, after a look at its names, shapes, supports and laws.

    Args:
        model: Whose latents are declared.
        draws: From the prior.
        known: All data and statistics.
    """
    draw, owner = draws[0], f"{type(model).__name__}.likelihood"
    z, data, parameters = Named(draw, "latent"), Named(known, "data"), Parameters(owner)
    laws: dict[str, Any] = called(model, "likelihood", lambda: model.laws_of_data(z, data), z, data)
    for name, law in laws.items():
        _check_law(model, name, law)
        parameters.look(name, law)
    values = {name: observations(data[name], draw) for name in laws}
    dims = [_density_dims(model, name, law, values[name], (z, data)) for name, law in laws.items()]
    pointwise = all(dims)
    for n, other in enumerate(draws[1:], start=1):
        few = n >= FULL_LOOKS and pointwise and model.num_points > MANY_ROWS
        rows = {name: some_rows(value, model.num_points) for name, value in known.items()} if few else known
        seen = (Named(other, "latent"), Named(rows, "data"))
        for name, law in called(model, "likelihood", partial(model.laws_of_data, *seen), *seen).items():
            parameters.look(name, law)
    parameters.judge()
    if not z.read:
        raise ConfigError(f"{owner} uses no latent.")
    columns, read = frozenset(data.read), frozenset(z.read)
    weighted = _check_others(model, pointwise, draw, data)
    each = {name for name, law in laws.items() if type(law) is Bernoulli and known[name].shape == (model.num_points,)}
    return Observed(pointwise, frozenset(laws), columns, frozenset() if weighted else frozenset(each), read)


def some_rows(value: Tensor, num_points: int) -> Tensor:
    """Return the first rows of a column, and a constant as it is."""
    return value[:MANY_ROWS] if value.dim() and len(value) == num_points else value


def _check_law(model: "BayesianModel", name: str, law: Any) -> None:
    """Raise `ConfigError` where the likelihood returns something else than the law of an observed variable."""
    owner = f"{type(model).__name__}.likelihood"
    if not isinstance(law, Distribution):
        raise ConfigError(
            f"{owner} must return laws of torch.distributions, not {kind(law)}; write return Normal(...), or a dict "
            "of laws by the names of several observed variables."
        )
    if name in model.latents:
        raise ConfigError(f"{owner}: '{name}' is a latent, and cannot be observed too.")


def _density_dims(
    model: "BayesianModel", name: str, law: Distribution, value: Tensor, seen: tuple[Named, Named]
) -> int:
    """Return the number of axes of a density, 1 with one for each data point; raise where law and data do not fit."""
    owner = f"{type(model).__name__}.likelihood"

    def density_of_data() -> Tensor:
        try:
            return law.log_prob(value)
        except (IndexError, RuntimeError) as error:
            if "out of bounds" in str(error):  # a category that the law does not have
                _check_support(owner, name, law, value)
            raise

    density = called(model, f"likelihood of '{name}'", density_of_data, *seen)
    _check_support(owner, name, law, value)
    if density.shape not in ((), (model.num_points,)):
        raise ConfigError(
            f"{owner}: the density of '{name}' has shape {tuple(density.shape)}, and {model.num_points} data "
            f"points need ({model.num_points},); compare the law's shape {tuple(law.batch_shape)} with that of "
            f"data['{name}'], {tuple(value.shape)}{_way_out(density, value)}."
        )
    return density.dim()


def _way_out(density: Tensor, value: Tensor) -> str:
    """Return how observations (N, 1) become numbers, or those of several elements points."""
    if value.dim() == 2 and value.shape[1] == 1:
        return "; give numbers, as in y.squeeze(1)"
    if density.dim() == 2 and density.shape == value.shape:
        return "; wrap the law in Independent(law, 1) where a point has several elements"
    return ""


def _check_others(model: "BayesianModel", pointwise: bool, draw: Values, data: Named) -> bool:
    """Check `weights` and `quantities`; return whether there are weights."""
    name, count = type(model).__name__, model.num_points
    weights = called(model, "weights", lambda: model.weights(data), data)
    found = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
    if weights is not None and not (pointwise and found == (count,)):
        raise ConfigError(
            f"{name}.weights has shape {found}; weights need shape ({count},), one number for each data point, and a "
            "likelihood with one density for each."
        )
    if weights is not None and not bool((weights >= 0).all()):
        place = int((~(weights >= 0)).nonzero()[0])
        shown = f"weights[{place}] = {weights[place].item():g}"
        raise DataError(f"{name}: {shown} is negative or not a number; a point counts 0 or more times.")
    clash = [q for q in tensors(model, "quantities", lambda: model.quantities(draw, data)) if q in model.latents]
    if clash:
        raise ConfigError(f"{name}.quantities: '{clash[0]}' is also a latent; choose another name.")
    return weights is not None


def _check_support(owner: str, name: str, law: Distribution, value: Tensor) -> None:
    """Raise `DataError` for the first data point outside the support of its law."""
    support = law.support
    inside = torch.ones(()) if support is None else support.check(value)
    if bool(inside.all()):
        return
    place = torch.nonzero(~inside)[0].tolist()
    where = f"{name}{place if place else ''}"
    found = value[tuple(place)]
    shown = f"{found.item():g}" if found.dim() == 0 else str(found.tolist())[:60]
    raise DataError(f"{owner}: {where} = {shown} is outside the support of {type(law).__name__} ({support}).")


def kind(value: Any) -> str:
    """Return what a thing is that should be a law."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__

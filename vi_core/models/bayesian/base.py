"""A model written as a prior and a likelihood for one draw of its latents: what a person writes for an own problem.

    log p(y, z) = Σ_i log p(z_i | z_<i) + Σ_n log p(y_n | z, data_n)

Both methods use the laws of `torch.distributions` and see one value of each latent, without axes for samples or
replicates; their log densities are mapped over those by `torch.func.vmap`. From them follow supports and shapes of the
latents, the factor graph, log p(y, z), the scale N/B of a minibatch's likelihood, densities of single points, and draws
from prior and posterior predictive laws. Draws are made one by one, because the samplers of several laws cannot be
mapped.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from operator import add
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution

from vi_core.distributions.bernoulli import sum_of_log_densities
from vi_core.errors import ConfigError, DataError, Unsupported, require
from vi_core.models.base import Factors, Model
from vi_core.models.bayesian.checks import checked, declared, tensors
from vi_core.models.bayesian.explain import called, mapped_code, require_arguments
from vi_core.models.bayesian.laws import (
    Named,
    Prior,
    Values,
    as_normal,
    kind_of,
    log_density,
    observations,
    side_by_side,
    unvalidated,
)
from vi_core.types import Latents


class BayesianModel(Model):
    """A density p(y, z) given by a prior and a likelihood; subclasses write the two.

    Attributes:
        observed: Name of the observed variable among the data, where `likelihood` returns a single law.
        own_dataset: Name of the data set on which the command line runs the model where it gives none; empty for none.
        num_points: N, data points in the whole data set.
        columns: Names of the data that the likelihood reads.
        observables: Names of the observed variables.
        by_logits: Those with a Bernoulli law for each data point, and without weights.
        kept: What `statistics` returned.
        laws, laws_of: The law of each latent, and those of each replicate where their data differ.
        pointwise: Whether each observed variable has one density for each data point, so that minibatches have a
            meaning.
    """

    observed: ClassVar[str] = "y"
    own_dataset: ClassVar[str] = ""
    num_points: int
    columns: frozenset[str]
    observables: frozenset[str]
    by_logits: frozenset[str]
    pointwise: bool
    kept: Values
    laws: dict[str, Prior]
    laws_of: list[dict[str, Prior]]
    _normal_prior: tuple[Tensor, Tensor] | None

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        missing = sorted(cls.__abstractmethods__)
        named = f"the method{'s' * (len(missing) > 1)} {' and '.join(missing)}"
        require(not missing, f"{cls.__name__} lacks {named}; write {'them' if len(missing) > 1 else 'it'}.")
        model = super().__new__(cls)
        nn.Module.__init__(model)  # a subclass need not call it in a constructor of its own
        return model

    def __init__(self) -> None:
        nn.Module.__init__(self)

    @abstractmethod
    def prior(self, data: Values) -> Iterable[tuple[str, Prior]]:
        """Yield name and law of each latent; a law that depends on earlier latents is a function of them.

        Args:
            data: All data, by name: one row for each data point, and constants.
        """

    @abstractmethod
    def likelihood(self, z: Values, data: Values) -> Distribution | dict[str, Distribution]:
        """Return the law of the observed data given one value of each latent, with one batch element for each point.

        Args:
            z: One value of each latent, with its event shape.
            data: Rows of the data, by name; all, or those of a minibatch.

        Returns:
            The law of `data[observed]`, or laws of several observed variables by name.
        """

    def quantities(self, z: Values, data: Values) -> dict[str, Tensor]:
        """Return functions of the latents that are reported like latents; none by default."""
        return {}

    def statistics(self, data: Values) -> Values:
        """Return numbers of all data that the other methods find among the rows of a minibatch too; none by default."""
        return {}

    def weights(self, data: Values) -> Tensor | None:
        """Return how often each point counts, (B,), or None where each counts once."""
        return None

    def observe(self, data: Mapping[str, Tensor], num_points: int) -> None:
        """Take in the data: declare the latents, and check prior and likelihood at draws from the prior.

        Parameters of laws are checked by the rule of `vi_core.models.bayesian.parameters`: what no latent moves must be
        valid, and what latents move may be invalid in the far tails of the prior alone.

        Args:
            data: All data, by name.
            num_points: N.

        Raises:
            LabError: In one line that names the method and the latent, column or factor that is wrong.
        """
        self.num_points, name = num_points, type(self).__name__
        if not isinstance(data, Mapping):
            raise Unsupported(f"{name} needs named columns, and these data have none; dataset=eight_schools has them.")
        if not any(value.dim() for value in data.values()):
            raise DataError("data hold no array with a row for each point; every value is a single number.")
        self.kept, count = {}, next((data[column].shape[1] for column in self.per_replicate), 1)
        require_arguments(self)
        shown = [Named(self.data_of(replicate, data), "data") for replicate in range(count)]
        each = [tensors(self, "statistics", partial(self.statistics, own)) for own in shown]
        clash = [statistic for statistic in each[0] if statistic in data]
        if clash:
            raise ConfigError(f"{name}.statistics: '{clash[0]}' is also a name of the data; rename the column.")
        stacked = {statistic: torch.stack([one[statistic] for one in each]) for statistic in each[0]}
        self.kept = stacked if self.per_replicate else each[0]
        known = Named(self.data_of(0, data), "data")
        with torch.random.fork_rng(devices=[]), torch.no_grad(), unvalidated():
            torch.random.default_generator.manual_seed(0)  # a model is refused for every seed of a run, or for none
            self.latents, self.scopes, draws = declared(self, known)
            found = checked(self, draws, self.data_of(0, data))
            for replicate in range(1, count):
                checked(self, draws[:2], self.data_of(replicate, data))
        with unvalidated():
            self.laws_of = [self._laws_of_prior(self.data_of(replicate, data)) for replicate in range(count)]
            self.laws, self._normal_prior = self.laws_of[0], None
        self.pointwise, self.observables = found.pointwise, found.observables
        self.columns, self.by_logits = found.columns - self.kept.keys(), found.by_logits
        self.scopes |= dict.fromkeys(found.observables, found.read)
        two = {latent: value.expand(2, count, 1, *value.shape) for latent, value in draws[0].items()}
        with mapped_code(self):
            self.factors(two, data)
            if self.has_quantities:
                self.quantities_at(two, dict(data))

    @property
    def has_points(self) -> bool:
        return self.pointwise

    @property
    def has_quantities(self) -> bool:
        """Whether the class has `quantities` of its own."""
        return type(self).quantities is not BayesianModel.quantities

    @property
    def axes(self) -> dict[str, int]:
        """The axis of replicates of each name that has one, empty where all replicates see the same data."""
        return dict.fromkeys(self.per_replicate, 1) | (dict.fromkeys(self.kept, 0) if self.per_replicate else {})

    def data_of(self, replicate: int, x: Mapping[str, Tensor]) -> Values:
        """Return data and statistics as `prior` and `likelihood` of one replicate see them."""
        axes = self.axes
        return {n: v.select(axes[n], replicate) if n in axes else v for n, v in {**self.kept, **x}.items()}

    def seen_by(self, replicate: int, x: Values) -> Values:
        axes = self.axes
        return {n: v.narrow(axes[n], replicate, 1) if n in axes else v for n, v in {**self.kept, **x}.items()}

    def _laws_of_prior(self, data: Values) -> dict[str, Prior]:
        return dict(called(self, "prior", lambda: list(self.prior(Named(data, "data")))))

    def laws_of_data(self, z: Values, data: Values) -> dict[str, Distribution]:
        """Return what `likelihood` returns, by the names of the observed variables."""
        found = self.likelihood(z, data)
        return found if isinstance(found, dict) else {self.observed: found}

    def _summands(self, z: Values, data: Values) -> Values:
        """Return the log density of each latent at one value, and of each observed variable what `_total` sums."""
        laws = dict(self.prior(data)) if self.per_replicate else self.laws
        return {name: at(law, z).log_prob(z[name]).sum() for name, law in laws.items()} | self._observed(z, data)

    def _observed(self, z: Values, data: Values) -> Values:
        """Return of each observed variable what `_total` sums, at one value of each latent."""
        found, weights = Values(), self.weights(data)
        for name, law in self.laws_of_data(z, data).items():
            value = observations(data[name], z)
            if name in self.by_logits:
                found[name] = cast(Bernoulli, law).logits.expand_as(value)
            else:
                density = log_density(law, value)
                found[name] = density if weights is None else weights * density
        return found

    def _total(self, name: str, summands: Tensor, data: Values) -> Tensor:
        """Return the log likelihood of all N points, (K, R, 1), from (K, R, 1, B), or (K, R, 1) without points."""
        if summands.dim() == 3:
            return summands
        if name in self.by_logits:
            y = data[name].to(summands.dtype)
            total = sum_of_log_densities(summands, y.mT.unsqueeze(1) if name in self.axes else y)
        else:
            total = summands.sum(dim=-1)
        rows = summands.shape[-1]
        return total if rows == self.num_points else total * (self.num_points / rows)

    def _points(self, z: Values, data: Values) -> Values:
        """Return the log density of each observed variable at one value of each latent: (B,), without weights."""
        return {name: log_density(law, observations(data[name], z)) for name, law in self.laws_of_data(z, data).items()}

    def mapped(self, function: Callable[[Values, Values], Values], z: Latents, data: Values) -> Values:
        """Return function(z_s, data) for each draw, and the data of its replicate, mapped over the axes that all share.

        Args:
            function: Of one value of each latent.
            z: Latents (K, R, 1, *event).
            data: By name.

        Returns:
            Its results by name, each (K, R, 1, *shape).
        """
        seen, axes = {**self.kept, **data}, self.axes
        with unvalidated():
            if not axes:
                shape = next(iter(z.values())).shape[:3]
                flat = {name: z[name].flatten(0, 2) for name in self.latents}
                found = torch.func.vmap(function, in_dims=(0, None))(flat, seen)
                return {name: value.reshape(*shape, *value.shape[1:]) for name, value in found.items()}
            own = {name: z[name].squeeze(2) for name in self.latents}
            each = torch.func.vmap(function, in_dims=(0, {name: axes.get(name) for name in seen}))
            return {n: v.unsqueeze(2) for n, v in torch.func.vmap(each, in_dims=(0, None))(own, seen).items()}

    def factors(self, z: Latents, x: Any) -> Factors:
        values, data = self.mapped(self._summands, z, x), {**self.kept, **x}
        totals = {name: self._total(name, values[name], data) for name in self.observables}
        return {name: (totals.get(name, value), self.scopes[name]) for name, value in values.items()}

    def log_likelihood(self, z: Latents, x: Any) -> Tensor:
        """Return log p(y | z) of all N points, (K, R, 1), as a minibatch estimates it."""
        values, data = self.mapped(self._observed, z, x), {**self.kept, **x}
        return reduce(add, [self._total(name, value, data) for name, value in values.items()])

    def normal_prior(self) -> tuple[Tensor, Tensor]:
        if self._normal_prior is None:
            each = [side_by_side([self._normal(*one) for one in laws.items()]) for laws in self.laws_of]
            mean, whitening = (torch.stack(parts).unsqueeze(1) for parts in zip(*each, strict=True))
            self._normal_prior = mean, whitening
        return self._normal_prior

    def _normal(self, name: str, given: Prior) -> tuple[Tensor, Tensor]:
        """Return the prior of a latent as `as_normal` has it; raise `Unsupported` where it is another law."""
        law = at(given, {}) if self.scopes[name] == {name} else None
        found = None if law is None else as_normal(law)
        if found is None:
            reason = "depends on other latents" if law is None else f"is {kind_of(law)}, not a Normal"
            raise Unsupported(
                f"{type(self).__name__} has no KL in closed form: the prior of '{name}' {reason}; "
                "use estimator=pathwise."
            )
        return found

    def log_likelihoods(self, z: Latents, x: Values) -> Values:
        """Return log p(y_n | z) of each observed variable by name, (K, R, 1, B), or (K, R, 1) without points."""
        return self.mapped(self._points, z, x)

    def log_likelihood_of_points(self, z: Latents, x: Values) -> Tensor:
        """Return log p(y_n | z), (K, R, 1, B), summed over the observed variables."""
        return torch.stack(list(self.log_likelihoods(z, x).values())).sum(dim=0)

    def log_predictive(self, z: Latents, x: Values) -> Tensor:
        """Return log (1/K) Σ_k p(y_n | z_k) of each data point, (R, B), in nats, for draws z of q."""
        with torch.no_grad():
            with mapped_code(self):
                density = self.log_likelihood_of_points(z, x)
            return (density.logsumexp(dim=0) - math.log(len(density))).squeeze(1)

    def quantities_at(self, z: Latents, x: Values) -> Values:
        """Return `quantities` at each draw, (K, R, 1, *shape) by name."""
        return self.mapped(self.quantities, z, x)

    def reported(self, z: Latents, x: Values) -> Values:
        """Return latents and `quantities` at each draw, (K, R, 1, *shape) by name."""
        return dict(z) | self.quantities_at(z, x)

    def prior_draw(self) -> Values:
        """Return one value of each latent, drawn from the prior."""
        drawn = Values()
        for name, law in self.laws.items():
            drawn[name] = at(law, drawn).sample()
        return drawn

    def predictive(self, draws: Values, data: Mapping[str, Tensor], replicate: int = 0) -> Values:
        """Draw observations, one set for each draw of the latents.

        Args:
            draws: Values of the latents, (S, *event) by name.
            data: Rows to predict for, by name; the observed variables are not needed.
            replicate: Whose data they are, where each replicate has its own.

        Returns:
            Observed variables by name, (S, B, *shape).
        """
        known = Named(self.data_of(replicate, data), "data")
        with torch.no_grad(), unvalidated():
            found = [
                called(self, "likelihood", lambda z=z: self._drawn(dict(zip(draws, z, strict=True)), known), known)
                for z in zip(*draws.values(), strict=True)
            ]
        return {name: torch.stack([values[name] for values in found]) for name in found[0]}

    def _drawn(self, z: Values, data: Values) -> Values:
        return {name: law.sample() for name, law in self.laws_of_data(z, data).items()}


def at(law: Prior, z: Values) -> Distribution:
    """Return the law of a latent, given those that were declared before."""
    return law if isinstance(law, Distribution) else law(z)

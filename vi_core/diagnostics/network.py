"""The Bayesian network of a model, read off its factors: nodes, edges, plates and Markov blankets.

A factor is the conditional density of one node given the other latents that it mentions. Its name tells which: that of
a latent, or `prior_` before it; `prior` of a model with one latent; and else an observed variable, called `x` in the
factor `likelihood`. Nodes y_1, y_2, y_3, ... become one, y_n, in the plate of the data.
"""

import re
from collections.abc import Mapping

from vi_core.families.base import Family
from vi_core.models.base import HasNetwork, Model, Network
from vi_core.types import Graph

FEW = 2  # numbered nodes that are drawn one by one


def network(model: Model, family: Family, mentioned: Graph, points: int) -> Network | None:
    """Return the network of a model; None where its factors do not tell whose density each is.

    Args:
        model: Its own `network` goes before what the factors tell.
        family: An amortised one has edges from the data to the latents.
        mentioned: By factor the latents that it mentions.
        points: Number of data points.
    """
    if isinstance(model, HasNetwork):
        return model.network(points)
    parents: dict[str, set[str]] = {}
    for factor, latents in mentioned.items():
        child = node_of(factor, latents, model)
        parents.setdefault(numbered(child, mentioned), set()).update(
            numbered(other, mentioned) for other in latents if other != child
        )
    own = {numbered(name, mentioned) for name in model.latents}
    if not own <= parents.keys():
        return None
    observed = frozenset(parents.keys() - own)
    inside = {name for name in parents if name.endswith("_n")} | (
        observed if model.has_points or model.has_local else set()
    )
    inside |= {name for name, latent in model.latents.items() if latent.local}
    if not model.has_points and all(not name.endswith("_n") for name in parents):
        inside |= observed
    plates = {f"N = {points}": frozenset(inside)} if inside else {}
    back = tuple((x, z) for x in observed for z in model.latents) if family.amortized else ()
    return Network({name: tuple(sorted(above)) for name, above in parents.items()}, observed, plates, back)


def node_of(factor: str, latents: frozenset[str], model: Model) -> str:
    """Return the variable whose density a factor is."""
    if factor in model.latents:
        return factor
    if factor.removeprefix("prior_") in model.latents:
        return factor.removeprefix("prior_")
    if factor == "prior" and len(latents) == 1:
        return next(iter(latents))
    return "x" if factor == "likelihood" else factor


def numbered(name: str, factors: Graph) -> str:
    """Return y_n for one of many nodes y_1, y_2, ..., and other names as they are."""
    found = re.fullmatch(r"(.+)_\d+", name)
    if found is None:
        return name
    alike = sum(bool(re.fullmatch(rf"{re.escape(found[1])}_\d+", other)) for other in factors)
    return f"{found[1]}_n" if alike > FEW else name


def markov_blanket(parents: Mapping[str, tuple[str, ...]], node: str) -> frozenset[str]:
    """Return the Markov blanket of a node: its parents, its children and their other parents."""
    children = {name for name, above in parents.items() if node in above}
    others = {other for child in children for other in parents[child]}
    return frozenset((set(parents[node]) | children | others) - {node})

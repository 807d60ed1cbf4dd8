"""Figure of a Bayesian network: nodes in layers below their parents, plates as boxes, and one Markov blanket."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Patch

from vi_core.plots.drawing.style import GREY, INK, blank, symbol, theme

RADIUS = 0.3
GAP = 1.0  # between the centres of neighbouring nodes
BETWEEN = 0.35  # plates, more
FILL = {"latent": "white", "observed": "#CFCFCF", "chosen": "#56B4E9", "blanket": "#F6C7A3"}

Places = dict[str, tuple[float, float]]


@theme()
def network_figure(
    parents: Mapping[str, tuple[str, ...]],
    *,
    observed: frozenset[str],
    plates: Mapping[str, frozenset[str]],
    dotted: frozenset[tuple[str, str]] = frozenset(),
    back: tuple[tuple[str, str], ...] = (),
    chosen: str = "",
    blanket: frozenset[str] = frozenset(),
    title: str = "",
) -> Figure:
    """Draw the network.

    Args:
        parents: By node; the nodes stand in an order in which parents come first, or in any other.
        observed: Nodes that are grey.
        plates: Nodes inside by label of the plate.
        dotted: Edges that stand for several nodes in a chain.
        back: Edges of q, dashed.
        chosen: The node whose Markov blanket is marked.
        blanket: That blanket.
        title: Title of the figure; none if empty.
    """
    places = layout(parents, plates)
    left, right = (end(x for x, _ in places.values()) for end in (min, max))
    low = min(y for _, y in places.values())
    figure = blank(max(1.1 * (right - left + 2), 3.8), 2.5 - low, title)
    axes = figure.subplots()
    for label, inside in plates.items():
        _draw_plate(axes, label, [places[name] for name in inside])
    for child, above in parents.items():
        for parent in above:
            (x, y), (other, lower) = places[parent], places[child]
            passes = x == other and y - lower > 1.5 * GAP  # over the node between
            style = "dotted" if (parent, child) in dotted else "solid"
            _arrow(axes, places[parent], places[child], style, -0.6 if passes else 0.0)
    for tail, head in back:
        _arrow(axes, places[tail], places[head], "dashed", 0.35)
    for name, place in places.items():
        kind = "chosen" if name == chosen else "observed" if name in observed else "latent"
        face = FILL["blanket"] if name in blanket and kind == "latent" else FILL[kind]
        edge, width = ("#D55E00", 2.2) if name in blanket else (INK, 1.1)
        axes.add_patch(Circle(place, RADIUS, facecolor=face, edgecolor=edge, linewidth=width, zorder=3))
        size = 11 if len(symbol(name)) < 12 or symbol(name).startswith("$") else 7
        axes.text(*place, symbol(name), ha="center", va="center", fontsize=size, zorder=4)
    axes.set(xlim=(left - 0.9, right + 0.9), ylim=(low - 0.9, 0.8), aspect="equal")
    axes.axis("off")
    _legend(figure, chosen, blanket, back)
    return figure


def _legend(figure: Figure, chosen: str, blanket: frozenset[str], back: tuple[tuple[str, str], ...]) -> None:
    entries = [Patch(facecolor=FILL["observed"], edgecolor=INK, label="observed")]
    if chosen:
        entries.append(Patch(facecolor=FILL["chosen"], edgecolor=INK, label=symbol(chosen)))
    if blanket:
        label = f"Markov blanket of {symbol(chosen)}"
        entries.append(Patch(facecolor=FILL["blanket"], edgecolor="#D55E00", linewidth=2, label=label))
    if back:
        entries.append(Patch(facecolor="white", edgecolor=GREY, linestyle="dashed", label="dashed: q"))
    figure.legend(handles=entries, loc="outside lower center", ncols=2)


def layout(parents: Mapping[str, tuple[str, ...]], plates: Mapping[str, frozenset[str]]) -> Places:
    """Return the centre of each node: below its parents, plates beside the nodes outside, or below where they fit.

    A chain goes from left to right.
    """
    depth: dict[str, int] = {}
    while len(depth) < len(parents):
        depth |= {
            name: 1 + max((depth[one] for one in above), default=-1)
            for name, above in parents.items()
            if name not in depth and all(one in depth for one in above)
        }
    if len(depth) > 2 and all(len(above) <= 1 for above in parents.values()) and len({*depth.values()}) == len(depth):
        return {name: (GAP * 1.25 * level, 0.0) for name, level in depth.items()}
    inside = frozenset(name for nodes in plates.values() for name in nodes)
    outside = [name for name in parents if name not in inside]
    places: Places = {}
    left = 0.0
    for block in filter(None, (outside, *map(sorted, plates.values()))):
        rows = [[name for name in block if depth[name] == level] for level in sorted({depth[name] for name in block})]
        below = bool(places) and depth[rows[0][0]] > max(depth[name] for name in places)
        start, room = (0.0, left - BETWEEN) if below else (left, GAP * max(map(len, rows)))
        for row in rows:
            shift = start + (room - len(row) * GAP) / 2
            places |= {name: (shift + GAP * i, -GAP * 1.15 * depth[name]) for i, name in enumerate(row)}
        left = max(left, start + room + BETWEEN)
    return places


def _draw_plate(axes: Axes, label: str, centres: list[tuple[float, float]]) -> None:
    xs, ys = zip(*centres, strict=True)
    reach = RADIUS + 0.14
    corner, width = (min(xs) - reach, min(ys) - reach - 0.18), max(xs) - min(xs) + 2 * reach
    height = max(ys) - min(ys) + 2 * reach + 0.18
    look = {"boxstyle": "round,pad=0,rounding_size=0.1", "facecolor": "none", "edgecolor": GREY, "linewidth": 1.0}
    axes.add_patch(FancyBboxPatch(corner, width, height, **look))
    axes.text(corner[0] + width - 0.06, corner[1] + 0.06, label, ha="right", va="bottom", fontsize=7.5)


def _arrow(axes: Axes, tail: tuple[float, float], head: tuple[float, float], style: str, bend: float) -> None:
    """Draw an edge between the rims of two nodes."""
    length = ((head[0] - tail[0]) ** 2 + (head[1] - tail[1]) ** 2) ** 0.5
    ux, uy = (head[0] - tail[0]) / length, (head[1] - tail[1]) / length
    turn = complex(ux, uy) * (1 - 2j * bend) / abs(1 - 2j * bend)  # the direction in which a bent edge leaves
    back = complex(ux, uy) * (1 + 2j * bend) / abs(1 + 2j * bend)
    ends = [
        (tail[0] + RADIUS * turn.real, tail[1] + RADIUS * turn.imag),
        (head[0] - RADIUS * back.real, head[1] - RADIUS * back.imag),
    ]
    look = {"arrowstyle": "-|>", "color": INK if style != "dashed" else GREY, "linestyle": style, "linewidth": 1.1}
    look |= {"shrinkA": 0, "shrinkB": 0, "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", ends[1], ends[0], arrowprops=look, zorder=2)

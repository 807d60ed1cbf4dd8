"""Figure of the noise of gradient estimates by latent, at the first and at the last parameters of the runs of a sweep.

The noise is drawn as points, because the length of a bar on a logarithmic axis depends on where the axis begins.
"""

import numpy as np
from matplotlib.figure import Figure

from vi_core.plots.drawing.style import blank, group_colors, legend_below, themed

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANELS = {"start": "at the first parameters", "final": "at the last parameters"}

Noise = dict[str, dict[str, float]]  # `start` and `final` -> latent -> √tr Cov of its gradient


@themed
def gradient_noise_figure(groups: dict[str, Noise], *, title: str = "", legend_title: str = "") -> Figure:
    """Draw each latent's noise on a logarithmic axis, one marker for each group, in panels for start and end.

    Args:
        groups: Noise by label of the group; latents that a group lacks are left out.
        title: Title of the figure; none if empty.
        legend_title: The setting that the groups differ in.
    """
    latents = list(next(iter(groups.values()))["start"])
    figure = blank(7.4, 3.9, title)
    panels = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(latents))
    for axes, (when, words) in zip(panels, PANELS.items(), strict=True):
        for i, (color, (label, noise)) in enumerate(zip(group_colors([*groups]), groups.items(), strict=True)):
            values = [noise[when].get(name, np.nan) for name in latents]
            axes.plot(places, values, MARKERS[i % len(MARKERS)], color=color, markersize=4.5, label=label)
        axes.set(title=words, yscale="log", xlabel="latent")
        axes.set_xticks(places, latents, rotation=90 if len(latents) > 8 else 0, fontsize=8)
        axes.margins(x=0.04)
    panels[0].set_ylabel("standard deviation of the gradient")
    legend_below(figure, title=legend_title)
    return figure

"""Figures of single reports: what they draw, as it stands there, beside what is right."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, GREY, INK, PALETTE, blank_panels, legend_below, theme

CONTROL_VARIATES = {"naive": "plain score function", "as_written": "control variate as written", "right": "put right"}


@theme()
def control_variates_figure(records: Mapping[str, ndarray], *, title: str) -> Figure:
    """Draw the ELBO over the steps, and the deviation of E[mu] over runs, for three gradients.

    Args:
        records: `steps` (T,), and E[mu], E[tau] and the ELBO of R runs, (T, 3, R), by `CONTROL_VARIATES`.
        title: Title of the figure.
    """
    figure, (bound, noise) = blank_panels(8.4, 3.6, title, columns=2)
    steps = records["steps"]
    for (name, label), color, dash in zip(CONTROL_VARIATES.items(), PALETTE, ("solid", *DASHES), strict=False):
        low, middle, high = np.quantile(records[name][:, 2], [0.05, 0.5, 0.95], axis=1)
        line = {"color": color, "linestyle": dash}
        bound.plot(steps, middle, label=label, **line)
        bound.fill_between(steps, low, high, color=color, alpha=BAND_ALPHA, linewidth=0)
        noise.plot(steps, records[name][:, 0].std(axis=1, ddof=1), **line)
    late = np.stack([records[name][len(steps) // 4 :, 2] for name in CONTROL_VARIATES])
    low, high = np.quantile(late, 0.02), late.max()
    bound.set(ylabel="ELBO (nats)", ylim=(low, high + 0.1 * (high - low)), title="median and 90 % of the runs")
    noise.set(ylabel="deviation of E[mu] over the runs", yscale="log")
    for axes in (bound, noise):
        axes.set(xlabel="step")
    return legend_below(figure)


@theme()
def replay_figure(records: Mapping[str, ndarray], *, title: str) -> Figure:
    """Draw E[mu] and E[tau] of two algorithms, one run in the band of independent ones, and the difference of ELBOs.

    Args:
        records: `steps` (T,), `gain` (2, T), the mean ELBO of the second algorithm less that of the first with its
            standard error, and by `table_1` and `table_2` the run `..._replay` (T, 2) and `..._band` (2, T, 2).
        title: Title of the figure.
    """
    figure, panels = blank_panels(10.2, 3.6, title, columns=3)
    names, steps = {"table_1": "score function", "table_2": "with control variates"}, records["steps"]
    for i, (axes, latent) in enumerate(zip(panels[:2], ("mu", "tau"), strict=True)):
        for (key, label), color, dash in zip(names.items(), PALETTE, ("solid", *DASHES), strict=False):
            low, high = records[f"{key}_band"][..., i]
            band = {"color": color, "alpha": BAND_ALPHA, "linewidth": 0}
            axes.fill_between(steps, low, high, label=f"{label}, 95 % of runs" * (i == 0), **band)
            run = records[f"{key}_replay"][:, i]
            axes.plot(steps, run, color=color, linestyle=dash, label=f"{label}, the report's" * (i == 0))
        axes.set(xlabel="step", ylabel=f"E[{latent}]")
    gain, error = records["gain"]
    panels[2].fill_between(steps, gain - 2 * error, gain + 2 * error, color=GREY, alpha=BAND_ALPHA, linewidth=0)
    panels[2].plot(steps, gain, color=INK)
    panels[2].axhline(0, color=GREY, linewidth=0.8)
    panels[2].set(xlabel="step", xscale="log", ylabel="difference of ELBOs (nats)")
    panels[2].set_title("with control variates less without, ± 2 se")
    return legend_below(figure)


@theme()
def histograms_figure(records: Mapping[str, ndarray], density: tuple[ndarray, ndarray], *, title: str) -> Figure:
    """Draw a histogram of each sample, with the density that it is from, side by side.

    Args:
        records: The samples in the order of their panels, each (N,), by the number of bars: 10, 20 or 30.
        density: Grid and density on it, (G,).
        title: Title of the figure.
    """
    figure, panels = blank_panels(10.2, 3.2, title, columns=len(records))
    for axes, (bars, sample) in zip(panels, records.items(), strict=True):
        axes.hist(sample, int(bars), density=True, color=PALETTE[0], alpha=0.55, label="data")
        axes.plot(*density, color=INK, label="the law of the data")
        axes.axvline(sample.mean(), color=PALETTE[1], linestyle=DASHES[0], label="mean of the data")
        axes.set(xlabel="x", title=f"n = {len(sample)}", xlim=(density[0][0], density[0][-1]))
    panels[0].set_ylabel("density")
    return legend_below(figure)


@theme()
def first_epoch_figure(records: Mapping[str, ndarray], *, title: str) -> Figure:
    """Draw the first step of gradient descent and of natural gradient descent over the contours of the NLL.

    Args:
        records: `shape` (X,) and `scale` (Y,), a grid; on it, (Y, X), the `nll` and the `divergence` from the law at
            the start, in nats; `level` (1,), a value of the divergence; `start` (2,), and `steps` (2, 2), that of
            gradient descent first.
        title: Title of the figure.
    """
    figure, (axes,) = blank_panels(5.8, 4.4, title)
    grid = records["shape"], records["scale"]
    contours = axes.contour(*grid, records["nll"], 12, colors=GREY, linewidths=0.7)
    axes.clabel(contours, fontsize=7.5)
    start, names = records["start"], ("gradient descent", "natural gradient descent")
    for name, step, color in zip(names, records["steps"], PALETTE, strict=False):
        arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 2.0, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", start + step, start, arrowprops=arrow)
        axes.plot(
            [], [], color=color, linewidth=2.0, label=f"{name}: ({step[0]:+.3f}, {step[1]:+.3f})".replace("-", "−")
        )
    axes.contour(*grid, records["divergence"], records["level"], colors=[INK], linestyles=[DASHES[1]])
    axes.plot([], [], color=INK, linestyle=DASHES[1], label="as far in KL as the natural step")
    axes.plot(*start, "o", color=INK, markersize=5)
    axes.set(xlabel="shape", ylabel="scale")
    return legend_below(figure, title="contours: negative log-likelihood per point, in nats")

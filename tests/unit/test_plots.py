"""Figures from synthetic records: what they show is asserted on the artists, not on pixels."""

import ast
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from tests.conftest import ROOT
from vi_core.errors import ConfigError, Unwritable
from vi_core.plots.density import density_figure
from vi_core.plots.drawing.panels import ascends, asinh_ticks
from vi_core.plots.drawing.series import MAX_POINTS, envelope, quantiles, robust_limits, smooth, thin
from vi_core.plots.drawing.style import PALETTE, Look, group_colors, look, save, use_symbols
from vi_core.plots.images import image_figure, mosaic, noise_figure, plane_figure
from vi_core.plots.sweep import Points, gradient_noise_figure, heat_figure, numbers_figure, pool, sweep_figure
from vi_core.plots.trajectories import bound_figure, epochs_figure, records_figure, trajectories_figure

REFERENCES = {"mean-field optimum": -185.942, "log evidence": -185.937}
NOISE = {"start": {"v": (12.0, 1.0), "z": (30.0, 2.0)}, "final": {"v": (0.1, 0.02), "z": (2.0, 0.1)}}
PACKAGE = ROOT / "vi_core" / "plots"


def trace(rows: int, replicates: int, *, seed: int = 0, rate: float = 1.0) -> tuple[ndarray, ndarray]:
    """Steps (T,) and an ELBO (T, R) that rises from −20,000 to −186 under skewed, heavy-tailed noise."""
    random = np.random.default_rng(seed)
    step = 10 * np.arange(rows)
    gap = 20_000 * np.exp(-((rate * step[:, None] / 60) ** 0.7)) * random.uniform(0.5, 2, replicates)
    noise = random.standard_t(3, (rows, replicates)) - random.standard_exponential((rows, replicates)) ** 1.5
    return step, -185.942 - gap + noise


def line(axes: Axes, label: str) -> Line2D:
    """The line of `axes` whose legend text begins with `label`."""
    return next(line for line in axes.lines if str(line.get_label()).startswith(label))


def height(axes: Axes, label: str) -> float:
    """Where the horizontal line called `label` is."""
    return float(np.unique(line(axes, label).get_ydata())[0])


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def example_figures() -> dict[str, Callable[[], Figure]]:
    step, elbo = trace(120, 4)
    grid = np.linspace(-3, 3, 50)
    images = np.random.default_rng(0).random((5, 6, 7))
    return {
        "bound": lambda: bound_figure(step, elbo, name="ELBO", window=5, references=REFERENCES),
        "density": lambda: density_figure(grid, grid, {"fit": np.exp(-(grid**2))}),
        "gradient noise": lambda: gradient_noise_figure({"plain": NOISE}, title="noise"),
        "images": lambda: image_figure({"test image": images}),
        "noise": lambda: noise_figure(images),
        "plane": lambda: plane_figure(images[0, :, :2], ["a", "b"] * 3, labels=("z[0]", "z[1]")),
    }


@pytest.mark.parametrize("window", [1, 5, 51])
def test_smoothing_is_a_convolution_once_the_window_is_complete(window: int) -> None:
    step, values = trace(1000, 3)
    at, average = smooth(step, values, window)
    exact = np.stack([np.convolve(column, np.ones(window) / window, "valid") for column in values.T], axis=1)
    full = 6 * (window // 2)
    np.testing.assert_array_equal(at, step[: len(step) - window // 2])
    np.testing.assert_allclose(average[full:], exact[full - window // 2 :], rtol=1e-12)
    np.testing.assert_array_equal(average[:6], values[:6])


def test_smoothing_keeps_a_huge_start_and_missing_entries_local() -> None:
    step, values = np.arange(100), np.full((100, 2), -186.0)
    values[0, 0], values[40:, 1] = -1e20, np.nan
    average = smooth(step, values, 11)[1]
    np.testing.assert_array_equal(average[6:, 0], -186.0)
    np.testing.assert_array_equal(average[:45, 1], -186.0)
    assert np.isnan(average[45:, 1]).all()


def test_quantiles_are_those_of_numpy_over_the_finite_replicates() -> None:
    values = np.random.default_rng(0).standard_normal((50, 9))
    values[10:, 3], values[20:, 5] = np.nan, -np.inf
    levels = (0.05, 0.5, 0.95)
    exact = np.nanquantile(np.where(np.isfinite(values), values, np.nan), levels, axis=1)
    np.testing.assert_allclose(quantiles(values, levels), exact, rtol=1e-13)
    assert np.isnan(quantiles(np.full((2, 3), np.nan))).all()


def test_thinning_keeps_the_ends_and_the_envelope_its_extremes() -> None:
    rows = thin(100_000)
    assert len(rows) <= MAX_POINTS and rows[0] == 0 and rows[-1] == 99_999
    assert set(range(20)) <= set(rows.tolist())
    noise = np.random.default_rng(0).standard_t(2, 100_000)
    x, y = envelope(np.arange(100_000), noise)
    assert len(x) == len(y) <= 2 * MAX_POINTS
    assert (y.min(), y.max()) == (noise.min(), noise.max())


def test_robust_limits_ignore_outliers_and_references_that_are_far() -> None:
    values = np.append(np.linspace(-1, 1, 2000), [1e6, np.nan, -np.inf])
    low, high = robust_limits(values, [3.0, 500.0, np.nan])
    assert -1.5 < low < -1 and 3 < high < 4
    assert np.isfinite(robust_limits(np.full(3, np.nan), [])).all()
    assert robust_limits(np.full(3, -185.942), [-185.937])[1] > -185.937


@pytest.mark.parametrize(("smallest", "width"), [(-2e4, 0.5), (-1e30, 1e22), (-5e4, 186.0), (-1e-5, 1e-9)])
def test_ticks_of_the_whole_run_are_round_few_and_inside(smallest: float, width: float) -> None:
    ticks = asinh_ticks(float(np.arcsinh(smallest / width)), 0.2, width)
    assert 3 <= len(ticks) <= 12 and ticks == sorted(ticks)
    assert min(ticks) >= smallest and 0.0 in ticks
    digits = {f"{abs(tick):.0e}"[0] for tick in ticks}
    assert digits <= set("0125")


def test_bound_shows_the_distance_to_the_best_reference_and_the_bound_itself() -> None:
    step, values = trace(1000, 64)
    values[500:, 3] = np.nan
    figure = bound_figure(step, values, name="ELBO (nats)", window=24, references=REFERENCES, title="run " * 40)
    whole, end = figure.axes
    assert (whole.get_ylabel(), end.get_ylabel()) == ("ELBO − log evidence (nats)", "ELBO (nats)")
    assert whole.get_xlabel() == end.get_xlabel() == "step"
    assert max(map(len, figure.get_suptitle().splitlines())) < 90
    assert height(whole, "log evidence") == 0.0
    assert height(whole, "mean-field") == pytest.approx(-0.005)
    assert height(end, "mean-field") == -185.942
    at, average = smooth(step, values, 25)
    for axes, shift in ((whole, -185.937), (end, 0.0)):
        median = line(axes, "median of 64 replicates (1 ended early)")
        np.testing.assert_array_equal(median.get_xdata(), at)
        np.testing.assert_allclose(np.asarray(median.get_ydata()), np.nanmedian(average, axis=1) - shift, rtol=1e-9)
    assert whole.get_ylim()[0] < -20_000 < end.get_ylim()[0]
    assert end.get_ylim()[0] < -185.942 < end.get_ylim()[1]
    assert "5–95 %" in legend_texts(figure) and "log evidence = −185.937" in legend_texts(figure)
    assert figure.legends[0].get_title().get_text() == "moving average of 25 records"


def test_bound_of_one_replicate_has_its_records_behind_the_average() -> None:
    step, values = trace(500, 1)
    figure = bound_figure(step, values, name="IWELBO", window=20, references={})
    whole, end = figure.axes
    np.testing.assert_array_equal(line(whole, "IWELBO, each record").get_ydata(), values[:, 0])
    np.testing.assert_array_equal(line(end, "IWELBO, averaged").get_ydata(), smooth(step, values, 20)[1][:, 0])
    assert not any(isinstance(artist, PolyCollection) for artist in whole.collections)
    assert whole.get_ylabel() == "IWELBO"


def test_bound_shows_held_out_points_and_makes_room_for_them() -> None:
    step, values = trace(500, 2)
    held_out = (step[100::100], np.full((4, 3), -200.0))
    figure = bound_figure(step, values, name="ELBO", window=20, references=REFERENCES, held_out=held_out)
    whole, end = figure.axes
    np.testing.assert_allclose(np.asarray(line(whole, "held out").get_ydata()), -200.0 + 185.937)
    np.testing.assert_array_equal(line(end, "held out").get_ydata(), -200.0)
    assert end.get_ylim()[0] < -200.0


@pytest.mark.parametrize("references", [{}, REFERENCES])
@pytest.mark.parametrize("values", [np.full((6, 3), np.nan), np.full((1, 2), -186.0), np.full((9, 1), -186.0)])
def test_bound_survives_runs_that_failed_stopped_at_once_or_are_exact(
    values: ndarray, references: dict[str, float]
) -> None:
    step = np.arange(len(values))
    bound = bound_figure(step, values, name="ELBO", window=4, references=references)
    trajectories = trajectories_figure(step, {"mu": values}, truth={}, exact={"mu": 1.0})
    for figure in (bound, trajectories):
        figure.draw_without_rendering()
        limits = [limit for axes in figure.axes for limit in (*axes.get_xlim(), *axes.get_ylim())]
        assert np.isfinite(limits).all()


def test_trajectories_have_a_panel_each_with_the_lines_that_are_known() -> None:
    step, values = trace(300, 8)
    series = {f"theta[{i}]": values + i for i in range(5)}
    series["theta[0]"][200:, 2] = np.nan
    figure = trajectories_figure(step, series, truth={"theta[1]": 3.0}, exact={"theta[1]": 4.0, "tau": 1.0})
    assert [axes.get_ylabel() for axes in figure.axes] == list(series)
    assert all(axes.get_xlabel() == "step" for axes in figure.axes)
    assert (height(figure.axes[1], "true"), height(figure.axes[1], "exact posterior")) == (3.0, 4.0)
    assert [len(axes.lines) for axes in figure.axes] == [1, 3, 1, 1, 1]
    for axes, expected in zip(figure.axes, series.values(), strict=True):
        median = np.asarray(axes.lines[0].get_ydata())
        np.testing.assert_allclose(median, np.nanmedian(expected, axis=1), rtol=1e-12)
    assert legend_texts(figure)[0] == "median of 8 replicates (1 ended early)"
    assert len(legend_texts(figure)) == 4


def test_trajectory_of_one_replicate_is_the_line_itself() -> None:
    step, values = trace(300, 1)
    axes = trajectories_figure(step, {"mu": values}, truth={}, exact={}).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), values[:, 0])
    assert not axes.collections


def test_density_has_a_normalised_histogram_and_a_band_over_replicates() -> None:
    random = np.random.default_rng(0)
    data = np.append(random.standard_normal(4999), 1e9)
    grid = np.linspace(-6, 6, 200)
    fits = np.exp(-(grid[:, None] ** 2) / 2) * random.uniform(0.3, 0.5, 16)
    fits[:, 4] = np.nan
    figure = density_figure(data, grid, {"fit": fits, "truth": np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)})
    axes = figure.axes[0]
    heights, edges, _ = axes.patches[0].get_data()  # type: ignore[attr-defined]
    assert np.sum(heights * np.diff(edges)) == pytest.approx(4999 / 5000)
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata()), np.nanmedian(fits, axis=1))
    assert axes.lines[0].get_linestyle() == "-" and axes.lines[1].get_linestyle() != "-"
    assert len([artist for artist in axes.collections if isinstance(artist, PolyCollection)]) == 1
    assert "5–95 % over 16 replicates" in legend_texts(figure)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "density")


def test_density_is_not_flattened_by_a_degenerate_curve() -> None:
    grid = np.linspace(-3, 3, 601)
    data = np.random.default_rng(0).standard_normal(1000)
    axes = density_figure(data, grid, {"collapsed": 1e4 * (grid == grid[300])}).axes[0]
    assert 0.4 < axes.get_ylim()[1] < 2


def test_images_are_laid_out_in_rows_with_labels() -> None:
    images = np.random.default_rng(0).random((12, 4, 5))
    figure = image_figure({"test image": images, "reconstruction": images[:3]}, columns=10)
    assert [axes.get_ylabel() for axes in figure.axes] == ["test image", "reconstruction"]
    shapes = [np.asarray(axes.images[0].get_array()).shape for axes in figure.axes]
    assert shapes == [(4, 10 * 6 - 1)] * 2
    assert noise_figure(images, columns=5).axes[0].images[0].get_clim() == (0.0, 1.0)


def test_mosaic_puts_each_image_in_its_place() -> None:
    images = np.random.default_rng(0).random((5, 4, 3))
    pixels = mosaic(images, columns=2)
    assert pixels.shape == (3 * 5 - 1, 2 * 4 - 1)
    np.testing.assert_array_equal(pixels[5:9, 4:7], images[3])
    assert np.isnan(pixels[4]).all() and np.isnan(pixels[10:, 3:]).all()


def test_coloured_images_and_those_that_are_not_square() -> None:
    images = np.random.default_rng(0).random((5, 4, 8, 3))
    images[0, 0, 0] = 1.4
    pixels = mosaic(images, columns=2)
    assert pixels.shape == (3 * 5 - 1, 2 * 9 - 1, 4)
    np.testing.assert_array_equal(pixels[5:9, 9:17, :3], images[3])
    assert (pixels[4, :, 3] == 0).all() and (pixels[10:, 8:, 3] == 0).all() and (pixels[:4, :8, 3] == 1).all()
    assert pixels[0, 0, 0] == 1
    wide, high = (noise_figure(each).get_size_inches() for each in (images, images.swapaxes(1, 2)))
    square = noise_figure(np.zeros((5, 4, 4))).get_size_inches()
    assert wide[0] == pytest.approx(2**0.5 * square[0]) and high[0] == pytest.approx(square[0] / 2**0.5)
    assert wide[1] < square[1] < high[1]
    rows = image_figure({"image": images, "reconstruction": images[:3]})
    assert [np.asarray(axes.images[0].get_array()).shape for axes in rows.axes] == [(4, 5 * 9 - 1, 4)] * 2


def test_classes_have_a_colour_each_and_their_name_at_the_median() -> None:
    classes = [str(i % 12) for i in range(120)]
    points = np.random.default_rng(0).standard_normal((120, 2))
    figure = plane_figure(points, classes, labels=("posterior mean of z[3]", "posterior mean of z[7]"))
    axes = figure.axes[0]
    drawn = {str(one.get_label()): one for one in axes.lines}
    assert list(drawn) == legend_texts(figure) == [str(i) for i in range(12)]
    assert len({(one.get_color(), one.get_marker()) for one in axes.lines}) == 12
    own = points[3::12]
    np.testing.assert_array_equal(drawn["3"].get_xydata(), own)
    assert axes.texts[3].get_text() == "3"
    np.testing.assert_allclose(axes.texts[3].get_position(), np.median(own, axis=0))


def test_pooling_interpolates_onto_the_steps_that_all_jobs_cover() -> None:
    fine, coarse = np.arange(0, 66, 5), np.arange(0, 101, 20)
    grid, values = pool([(fine, np.stack([2.0 * fine, 3.0 * fine], axis=1)), (coarse, -1.0 * coarse[:, None])])
    np.testing.assert_array_equal(grid, [0, 20, 40, 60])
    np.testing.assert_allclose(values, grid[:, None] * np.array([2.0, 3.0, -1.0]))


def test_sweep_draws_a_median_per_group_and_shows_the_end_of_each() -> None:
    rates = ("10", "0.01", "5")
    jobs = {(f"lr = {r}",): [trace(300 - 40 * i, 4, seed=i, rate=float(r)) for i in range(2)] for r in rates}
    figure = sweep_figure(jobs, name="ELBO", references={"log evidence": -185.937})
    whole, end = figure.axes
    assert legend_texts(figure) == ["lr = 10", "lr = 0.01", "lr = 5", "log evidence = −185.937"]
    assert figure.legends[0].get_title().get_text() == "median and 5–95 %"
    grid, pooled = pool(jobs["lr = 5",])
    for axes in (whole, end):  # 0.01 ends thousands of nats below the others, so that both have the same axis
        np.testing.assert_array_equal(curve(axes, "lr = 5").get_xdata(), grid)
        shown = np.asarray(curve(axes, "lr = 5").get_ydata())
        np.testing.assert_allclose(shown, np.median(pooled, axis=1) + 185.937, rtol=1e-9)
        slow = np.asarray(curve(axes, "lr = 0.01").get_ydata())[-1]
        assert axes.get_ylim()[0] < slow < -1000 and axes.get_ylim()[1] > 0
    near = sweep_figure(
        {key: jobs[key] for key in jobs if "0.01" not in key[0]}, name="ELBO", references={"log evidence": -185.937}
    )
    assert -300 < near.axes[1].get_ylim()[0] < -186 and near.axes[0].get_ylim()[0] < -10_000
    shown = np.asarray(curve(near.axes[1], "lr = 5").get_ydata())  # as it is, where no group is far
    np.testing.assert_allclose(shown, np.median(pooled, axis=1), rtol=1e-12)


def curve(axes: Axes, labels: str) -> Line2D:
    """The line of the group with these labels."""
    return next(line for line in axes.lines if line.get_gid() == labels)


def test_sweep_colours_by_one_label_and_dashes_by_the_other() -> None:
    jobs = {(f"lr = {r}", f"K = {k}"): [trace(50, 1)] for r in (0.1, 1) for k in (1, 5)}
    figure = sweep_figure(jobs, name="ELBO")
    assert legend_texts(figure) == ["lr = 0.1", "lr = 1", "K = 1", "K = 5"]
    lines = {gid: curve(figure.axes[0], gid) for gid in map(", ".join, jobs)}
    same = [lines["lr = 1, K = 1"].get_color(), lines["lr = 0.1, K = 5"].get_linestyle()]
    assert same == [lines["lr = 1, K = 5"].get_color(), lines["lr = 1, K = 5"].get_linestyle()]
    assert lines["lr = 0.1, K = 1"].get_color() != same[0] and lines["lr = 1, K = 1"].get_linestyle() != same[1]


def test_the_legend_of_many_groups_names_some_and_the_figure_keeps_its_size() -> None:
    curves = {(f"lr = {rate}",): [trace(30, 1, seed=rate)] for rate in range(1, 301)}
    figure = sweep_figure(curves, name="ELBO")
    assert len(figure.axes[0].lines) >= 300
    texts = legend_texts(figure)
    assert (len(texts), texts[0], texts[-1]) == (12, "lr = 1", "lr = 300")
    assert "12 of 300 curves are named" in figure.legends[0].get_title().get_text()
    assert figure.get_figheight() < 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


def test_sweep_survives_a_group_that_diverged_and_single_runs() -> None:
    step, values = trace(50, 1)
    jobs = {("sgd",): [(step, np.full_like(values, np.nan))], ("adam",): [(step, values)]}
    figure = sweep_figure(jobs, name="ELBO", note="moving average of 3 records")
    assert figure.legends[0].get_title().get_text() == "moving average of 3 records"
    assert legend_texts(figure) == ["sgd (diverged)", "adam"]
    assert np.isfinite([axes.get_ylim() for axes in figure.axes]).all()


def test_final_bounds_against_a_rate_have_error_bars_on_a_log_axis() -> None:
    points = Points(np.array([1e-3, 1e-2, 1e-1]), np.array([-200.0, -190, -187]), np.array([3.0, 2, np.nan]))
    figure = numbers_figure({"pathwise": points}, name="final ELBO", xlabel="lr", logarithmic=True, note="mean ± se")
    (axes,) = figure.axes
    (bars,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    lengths = [float(np.ptp(np.asarray(segment)[:, 1])) for segment in bars.get_segments()]
    assert axes.get_xscale() == "log" and legend_texts(figure) == ["pathwise"]
    np.testing.assert_allclose(lengths, [6, 4, 0])


def test_a_map_of_two_numbers_shows_distances_to_the_evidence_and_marks_what_is_missing() -> None:
    values = np.array([[-187.0, -200.0, np.nan], [-186.5, -188.0, -190.0]])
    figure = heat_figure(values, ["1", "2", "3"], ["5", "50"], name="ELBO", xlabel="lr", ylabel="K", evidence=-186.0)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1", "14", "×", "0.5", "2", "4"]
    plain = heat_figure(values, ["1", "2", "3"], ["5", "50"], name="ELBO", xlabel="lr", ylabel="K", evidence=-187.5)
    assert next(text.get_text() for text in plain.axes[0].texts) == "−187"


def test_group_colours_follow_numbers_and_fall_back_on_the_palette() -> None:
    assert group_colors(["0.1", "1e-3", "10"]) == [group_colors(["1", "2", "3"])[i] for i in (1, 0, 2)]
    assert group_colors(["adam", "0.1"]) == list(PALETTE[:2])


@pytest.mark.parametrize(("kind", "suffix"), [("bound", "png"), ("bound", "pdf"), ("bound", "svg"), ("noise", "png")])
def test_saved_bytes_are_reproducible_and_alone_in_their_folder(kind: str, suffix: str, tmp_path: Path) -> None:
    draw = example_figures()[kind]
    first, again = (save(draw(), tmp_path / folder / f"{kind}.{suffix}") for folder in ("a", "b"))
    content = first.read_bytes()
    assert content == again.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
    assert b"Software" not in content and b"CreationDate" not in content
    assert list(first.parent.iterdir()) == [first]


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bound.png"
    path.write_bytes(b"old")

    def half_written(self: Figure, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half_written)
    with pytest.raises(Unwritable, match="disk full"):
        save(Figure(), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_saving_refuses_other_formats(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bound\.gif is none of png, pdf, svg"):
        save(Figure(), tmp_path / "bound.gif")


@pytest.mark.parametrize("kind", ["bound", "density", "images"])
def test_drawing_ignores_and_keeps_global_settings(kind: str, tmp_path: Path) -> None:
    draw = example_figures()[kind]
    plain = save(draw(), tmp_path / "plain.png").read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "axes.labelweight": "bold", "xtick.direction": "in"}):
        before = dict(mpl.rcParams)
        assert save(draw(), tmp_path / "themed.png").read_bytes() == plain
        assert dict(mpl.rcParams) == before


def test_ticks_keep_the_theme_when_a_notebook_draws_the_figure() -> None:
    figure = example_figures()["bound"]()
    with mpl.rc_context({"xtick.labelsize": 40, "ytick.labelsize": 40}):
        figure.draw_without_rendering()
        sizes = {
            label.get_fontsize() for axes in figure.axes for label in axes.get_xticklabels() + axes.get_yticklabels()
        }
    assert sizes == {9.0}


def test_the_package_imports_only_numpy_and_matplotlib_and_never_pyplot() -> None:
    allowed = {"numpy", "matplotlib", *sys.stdlib_module_names}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert (
                    name.startswith(("vi_core.plots.", "vi_core.errors", "vi_core.storage.files"))
                    or name.split(".")[0] in allowed
                ), path
                assert "pyplot" not in name, path


def test_gradient_noise_has_error_bars_on_a_logarithmic_axis_and_a_0_where_there_is_none() -> None:
    louder = {when: {name: (10 * sd, se) for name, (sd, se) in table.items()} for when, table in NOISE.items()}
    louder["final"]["z"] = (1e-14, 0.0)  # rounding
    figure = gradient_noise_figure({"plain": louder, "blankets": NOISE}, title="noise")
    assert legend_texts(figure) == ["plain", "blankets"]
    for axes, when in zip(figure.axes, ("start", "final"), strict=True):
        assert axes.get_yscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["v", "z"]
        for noise, drawn in zip((louder, NOISE), axes.containers, strict=True):
            points, _, (bars,) = drawn
            expected = np.array([*noise[when].values()])
            seen = expected[:, 0] > 1e-10
            np.testing.assert_array_equal(points.get_ydata()[seen], expected[seen, 0])
            ends = np.array([bar[:, 1] for bar, kept in zip(bars.get_segments(), seen, strict=True) if kept])
            np.testing.assert_allclose(ends, expected[seen, :1] + expected[seen, 1:] * [-1, 1])
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["0"]
    assert figure.axes[1].get_ylim()[0] > 1e-3


def test_a_bound_without_noise_is_not_smoothed_and_its_distance_has_a_floor() -> None:
    step = np.arange(1, 31)
    values = -186.0 - np.stack([np.exp(-0.9 * step), 3 + np.exp(-0.5 * step)], axis=1)
    assert ascends(values) and not ascends(trace(1000, 2)[1]) and not ascends(values[::-1])
    figure = bound_figure(step, values, name="ELBO (nats)", window=9, references=REFERENCES)
    whole, end = figure.axes
    assert np.size(line(whole, "ELBO, the highest of 2").get_ydata()) == 30 and line(whole, "other replicates")
    shown = np.asarray(line(end, "ELBO, the highest of 2").get_ydata(), float)
    np.testing.assert_allclose(shown[:10], values[:, 0].max() - values[:10, 0], rtol=1e-9)
    assert shown[-1] == height(end, "rounding") == pytest.approx(5e-7)
    assert end.get_yscale() == "log"


def test_an_axis_covers_its_least_range_and_the_truth_near_it() -> None:
    flat = np.full(50, 0.89)
    low, high = robust_limits(flat, [1.0], 0.15)
    assert low < 0.89 < 1.0 < high
    low, high = robust_limits(flat, [], 0.15)
    assert high - low == pytest.approx(0.15)
    assert robust_limits(flat, [5.0], 0.15)[1] < 1


def test_records_stand_behind_their_average() -> None:
    step, values = trace(400, 1)
    figure = records_figure({"n = 10": (step, values[:, 0])}, name="ELBO", windows={"n = 10": 5})
    (axes,) = figure.axes
    np.testing.assert_array_equal(line(axes, "each record").get_ydata(), values[:, 0])
    np.testing.assert_array_equal(line(axes, "moving average of 5").get_ydata(), smooth(step, values, 5)[1][:, 0])


def test_epochs_count_from_one() -> None:
    averages = np.array([[-170.0, -171.0], [-120.0, -119.0]])
    (axes,) = epochs_figure({"vae": averages}, name="ELBO").axes
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [1, 2]
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [-170.5, -119.5]


def test_a_figure_for_paper_has_its_width_its_letters_and_symbols() -> None:
    step, values = trace(50, 2)
    with look(Look(style="paper")):
        narrow = records_figure({"n": (step, values[:, 0])}, name="ELBO", windows={"n": 1}, title="a title")
        wide = trajectories_figure(step, {"E[mu]": values}, truth={}, exact={}, title="a title")
        wider = bound_figure(step, values, name="ELBO", window=3, references={}, title="a title")
    assert (narrow.get_figwidth(), wider.get_figwidth()) == (3.3, 6.8)
    assert wide.axes[0].yaxis.label.get_fontsize() == 8.0
    assert narrow.get_suptitle() == ""
    use_symbols(wide)
    assert wide.axes[0].get_ylabel() == r"$\mathrm{E}[\mu]$"
    with look(Look(width=5.0, title="mine")):
        chosen = bound_figure(step, values, name="ELBO", window=3, references={}, title="a title")
    assert (chosen.get_figwidth(), chosen.get_suptitle()) == (5.0, "mine")
    assert bound_figure(step, values, name="ELBO", window=3, references={}).get_figwidth() == 7.4


def test_pixels_follow_the_look(tmp_path: Path) -> None:
    with look(Look(dpi=50)):
        path = save(example_figures()["density"](), tmp_path / "figure.png")
    assert int.from_bytes(path.read_bytes()[16:20]) == 300

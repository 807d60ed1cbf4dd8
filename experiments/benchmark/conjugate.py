"""Problems on the Normal–Gamma model: black-box VI, and what it costs against n, K and the number of replicates.

Who converges in 2,000 steps has to be at the mean-field optimum then. The reports' loops do not converge: they have to
be where 256 replicates of the same algorithm are after as many steps, from the start of the report. Tolerances are five
standard deviations of one run over those replicates; for E[tau] there is room for the 0.007 that Adam still has to go.
With 100,000 points all start at the optimum, where the average of a few estimates of the ELBO is exact to a nat: there
the density is checked, and not the update.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from vi_core.datasets.synthetic import NormalDraws
from vi_core.models.conjugate.normal_gamma import NormalGamma

from .entries import Answers, Entry, Place, Problem, ours

MICROSECONDS = 1e6
START = {"loc": 0.0, "scale": 1.0, "concentration": 1.0, "rate": 1.0}
START_000 = {"loc": 0.0, "scale": 1.3132617, "concentration": 1.3132617, "rate": 1.3132617}
"""softplus(1), as in report 000, which draws its loc."""
START_001 = {"loc": 1.481584, "precision_ratio": 2.354285, "concentration": 3.022350, "rate": 0.874788}
STEPS, STEPS_001 = 2000, 200
FLOAT32, FLOAT64 = {"dtype": "float32"}, {"dtype": "float64"}
"""All contenders have float32; this program's default for small problems is float64, and has a row of its own."""
OPTIMUM: Answers = {"mu": (0.890227, 0.04), "tau": (0.463315, 0.03)}
NEAR_OPTIMUM: Answers = {"mu": (0.890227, 0.11), "tau": (0.463315, 0.15)}
"""With K = 1, whose noise Adam follows: E[tau] is 0.486 ± 0.025 after these steps."""
AFTER_000: Answers = {"mu": (0.898, 0.60), "tau": (0.530, 0.12)}
AFTER_001: Answers = {"mu": (1.271, 0.13), "tau": (1.506, 0.20)}


def overrides(start: Mapping[str, float], **settings: object) -> list[str]:
    """Return the overrides of `experiment=bbvi` from a given start, in float32 if not set otherwise."""
    first, settings = [f"family.{name}={value}" for name, value in start.items()], FLOAT32 | settings
    return ["experiment=bbvi", *first, "family.loc_std=0", *(f"{key}={value}" for key, value in settings.items())]


def bbvi(place: Place) -> Problem:
    """100 points, one run."""
    common = {"problem": "bbvi", "data": place.points(100), "num_samples": 50, "lr": 1e-2, "start": START}
    single = common | {"num_samples": 1}
    report_000 = common | {"start": START_000}
    report_001 = common | {"start": START_001, "num_samples": 30, "lr": 1e-5}
    scale = MICROSECONDS
    entries = [
        *ours(place, "bbvi", overrides(START, replicates=1), scale=scale, answers=OPTIMUM),
        *in_float64(place, "bbvi", 1, scale),
        Entry("report_000", "loop", "report_000", report_000, scale, AFTER_000),
        Entry("report_001", "loop over K = 30", "report_001", report_001, scale, AFTER_001, steps=STEPS_001),
        Entry("pyro", "pathwise", "pyro_", common, scale, OPTIMUM),
        Entry("numpyro", "pathwise, scan", "numpyro_", common, scale, OPTIMUM),
        Entry("numpyro_k1", "pathwise, K = 1", "numpyro_", single | {"scan": 1}, scale, NEAR_OPTIMUM),
        Entry("numpyro_k1_scan", "pathwise, K = 1, scan", "numpyro_", single, scale, NEAR_OPTIMUM),
        Entry("jax_scan", "by hand", "jax_scan", common | {"replicates": 1}, scale, OPTIMUM),
    ]
    return Problem("bbvi", "µs per iteration", entries, steps=STEPS, tail=200)


def in_float64(place: Place, name: str, replicates: int, scale: float) -> list[Entry]:
    """Return this program's fastest mode in its own precision."""
    chosen = overrides(START, replicates=replicates, **FLOAT64)
    (entry,) = ours(place, f"{name}_float64", chosen, ("compiled",), scale=scale, answers=OPTIMUM)
    return [replace(entry, contender="ours_float64")]


def bbvi_large(place: Place) -> Problem:
    """100,000 points."""
    best = optimum(100_000)
    start, answers = {name: best[name] for name in START}, {"elbo": (best["elbo"], 5.0)}
    common = {"problem": "bbvi", "data": place.points(100_000), "num_samples": 50, "lr": 1e-9, "start": start}
    settings = {"replicates": 1, "dataset.num_points": 100_000, "optimizer.lr": 1e-9}
    scale = MICROSECONDS
    entries = [
        *ours(place, "bbvi_large", overrides(start, **settings), scale=scale, answers=answers),
        Entry("report_000", "loop", "report_000", common, scale, answers),
        Entry("pyro", "pathwise", "pyro_", common, scale, answers),
        Entry("numpyro", "pathwise, scan", "numpyro_", common, scale, answers),
        Entry("jax_scan", "by hand", "jax_scan", common | {"replicates": 1}, scale, answers),
    ]
    return Problem("bbvi_large", "µs per iteration", entries, steps=30, tail=20)


def bbvi_replicates(place: Place) -> Problem:
    """512 runs at once, and one of the report, whose time on a machine is the yardstick for it."""
    replicates = 512
    common = {"problem": "bbvi", "data": place.points(100), "num_samples": 50, "lr": 1e-2, "start": START}
    scale = MICROSECONDS / replicates
    entries = [
        *ours(place, "bbvi_replicates", overrides(START, replicates=replicates), scale=scale, answers=OPTIMUM),
        *in_float64(place, "bbvi_replicates", replicates, scale),
        Entry("report_000", "one run", "report_000", common | {"start": START_000}, MICROSECONDS, AFTER_000),
        Entry("jax_scan", "by hand", "jax_scan", common | {"replicates": replicates}, scale, OPTIMUM),
    ]
    return Problem("bbvi_replicates", "µs per replicate and iteration", entries, steps=STEPS, tail=200)


def cost_n(place: Place) -> Problem:
    """Against the number of points; the report's loop as far as it fits."""
    entries: list[Entry] = []
    for count in (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        settings = {"replicates": 1, "dataset.num_points": count}
        entries += ours(
            place, "cost_n", overrides(START, **settings), ("eager", "compiled"), scale=MICROSECONDS, at=count
        )
        if count <= 100_000:
            entries.append(loop_000(place.points(count), 50, count))
    return Problem("cost_n", "µs per iteration", entries, steps=20, tail=10)


def cost_k(place: Place) -> Problem:
    """Against the number of samples."""
    entries: list[Entry] = []
    for count in (5, 50, 500, 5_000):
        settings = {"replicates": 1, "estimator.num_samples": count}
        entries += ours(
            place, "cost_k", overrides(START, **settings), ("eager", "compiled"), scale=MICROSECONDS, at=count
        )
        entries.append(loop_000(place.points(100), count, count))
    return Problem("cost_k", "µs per iteration", entries, steps=20, tail=10)


def loop_000(data: str, num_samples: int, at: float) -> Entry:
    """Return the loop of report 000 as a point of a curve."""
    settings = {"problem": "bbvi", "data": data, "num_samples": num_samples, "lr": 1e-3, "start": START_000}
    return Entry("report_000", "loop", "report_000", settings, MICROSECONDS, at=at)


def cost_replicates(place: Place) -> Problem:
    """Against the number of replicates."""
    entries: list[Entry] = []
    for count in (1, 8, 64, 512, 4096):
        chosen = overrides(START, replicates=count)
        entries += ours(place, "cost_replicates", chosen, ("eager", "compiled"), scale=MICROSECONDS / count, at=count)
    return Problem("cost_replicates", "µs per replicate and iteration", entries, steps=20, tail=10)


def optimum(count: int) -> dict[str, float]:
    """Return the best mean-field q of `count` points, by coordinate ascent, and its `elbo`."""
    model = NormalGamma()
    x = model.summarize(NormalDraws(num_points=count).load().train.double())
    one = torch.ones(1, 1, dtype=torch.float64)
    params = {"mu": {"loc": one, "scale": one}, "tau": {"concentration": one, "rate": one}}
    for _ in range(100):
        params = params | {"mu": model.update("mu", params, x)}
        params = params | {"tau": model.update("tau", params, x)}
    elbo = model.expected_bound(params, x).item()
    return {name: value.item() for group in params.values() for name, value in group.items()} | {"elbo": elbo}

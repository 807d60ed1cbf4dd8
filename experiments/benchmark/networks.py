"""Problems on images: VAE and IWAE 784-200-200-20 on batches of 128, their memory, and what threads bring.

The bound that a contender reaches has no exact value, and depends a little on how weights are drawn and images ordered:
all are compared with the median of all, within five standard deviations of one run over seeds, rounded up: 2.5 nats for
the VAE (six seeds), 1.0 for the IWAE (four).
"""

from typing import Any

from .entries import MODES, Entry, Place, Problem, ours

BATCH, EPOCH, HIDDEN, LATENT = 128, 469, 200, 20
"""Images in a step, steps in an epoch of 60,000, widths of layers."""
MILLISECONDS = 1e3
IMPORTANCE = 50
BFLOAT16 = "matmul=bfloat16"
CHUNKED = "estimator.chunk_size=10"


def overrides(variant: str) -> list[str]:
    """Return the overrides of an image model."""
    return [
        "experiment=iwae", f"variant={variant}", "optimizer.lr=1e-3", f"model.latent_dim={LATENT}",
        f"model.hidden=[{HIDDEN},{HIDDEN}]", f"family.hidden=[{HIDDEN},{HIDDEN}]",
    ]  # fmt: skip


def others(place: Place, problem: str, num_samples: int) -> dict[str, Any]:
    """Return the settings of a contender that is not ours."""
    sizes = {"batch_size": BATCH, "hidden": HIDDEN, "latent": LATENT, "num_samples": num_samples, "lr": 1e-3}
    return {"problem": problem, "data": str(place.images), **sizes}


def stored(place: Place) -> dict[str, Any]:
    """Return where this program finds the images."""
    return {"data": str(place.images), "batch_size": BATCH}


def this_program(place: Place, name: str, variant: str, scale: float) -> list[Entry]:
    """Return this program in float32, and with products in bfloat16."""
    found = ours(place, name, overrides(variant), ("eager", "replay", "compiled"), more=stored(place), scale=scale)
    short = dict(found[-1].settings) | {"overrides": [*found[-1].settings["overrides"], BFLOAT16]}
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(place.folder / f"cache_{name}_bfloat16")}
    return [*found, Entry("ours_bfloat16", "compiled", "ours", short, scale, environment=cache)]


def vae(place: Place) -> Problem:
    """The VAE with its KL in closed form; an epoch has 60,000 images."""
    settings = others(place, "vae", 1)
    entries = [
        *this_program(place, "vae", "vae", EPOCH),
        Entry("report_000", "loop", "report_000", settings, EPOCH),
        Entry("pyro", "images in memory", "pyro_", settings, EPOCH),
        Entry("numpyro", "images in memory", "numpyro_", settings, EPOCH),
    ]
    return Problem("vae", "s per epoch", entries, steps=200, tail=40, agree=13.0)


def iwae(place: Place) -> Problem:
    """The IWAE with K = 50."""
    entries = [
        *this_program(place, "iwae", "iwae_50", MILLISECONDS),
        Entry("report_000", "loop", "report_000", others(place, "iwae", IMPORTANCE), MILLISECONDS),
    ]
    return Problem("iwae", "ms per step", entries, steps=50, tail=10, agree=8.0)


def memory(place: Place) -> Problem:
    """Peak memory of training steps, above what the process has between them."""
    eager = [*overrides("iwae_50"), MODES["eager"]]
    settings = {"threads": 1, **stored(place)}
    entries = [
        Entry("ours", "chunks of 10 samples", "peak_memory", settings | {"overrides": [*eager, CHUNKED]}),
        Entry("whole", "all samples at once", "peak_memory", settings | {"overrides": eager}),
    ]
    return Problem("memory", "MiB in a step", entries, fresh=True)


def cost_threads(place: Place) -> Problem:
    """Against the number of threads."""
    entries: list[Entry] = []
    for threads in sorted({2**i for i in range(8) if 2**i <= place.cores} | {place.cores}):
        for variant, name in (("vae", "VAE"), ("iwae_50", "IWAE, K = 50")):
            settings = {"overrides": [*overrides(variant), MODES["eager"]], "threads": threads, **stored(place)}
            entries.append(Entry("ours", name, "ours", settings, MILLISECONDS, at=threads, threads=threads))
    return Problem("cost_threads", "ms per step", entries, steps=10, tail=5)

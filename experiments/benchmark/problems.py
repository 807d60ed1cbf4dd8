"""All problems, in the order of the table."""

from collections.abc import Callable

from . import commands, conjugate, networks, regression
from .entries import Place, Problem

PROBLEMS: dict[str, Callable[[Place], Problem]] = {
    "bbvi": conjugate.bbvi,
    "bbvi_large": conjugate.bbvi_large,
    "bbvi_replicates": conjugate.bbvi_replicates,
    "logistic": regression.logistic,
    "vae": networks.vae,
    "iwae": networks.iwae,
    "memory": networks.memory,
    "sweep": commands.sweep,
    "command": commands.command,
    "startup": commands.startup,
    "cost_n": conjugate.cost_n,
    "cost_k": conjugate.cost_k,
    "cost_replicates": conjugate.cost_replicates,
    "cost_threads": networks.cost_threads,
}
ON_IMAGES = {"vae", "iwae", "memory", "cost_threads"}
"""Problems that need the file of images."""
CONTENDERS = (
    "ours", "ours_float64", "ours_bfloat16", "by_factors", "report_000", "report_001", "pyro", "numpyro", "numpyro_k1",
    "numpyro_k1_scan", "jax_scan", "whole", "one_by_one", "off", "help", "default_run", "figures",
)  # fmt: skip
AXES = {
    "cost_n": "number of points n",
    "cost_k": "number of samples K",
    "cost_replicates": "number of replicates",
    "cost_threads": "number of threads",
}
"""What curves are drawn against."""
TITLES = {
    "bbvi": "black-box VI, Normal–Gamma, n = 100, K = 50, one run",
    "bbvi_large": "the same with n = 100,000",
    "bbvi_replicates": "the same with n = 100, 512 replicates",
    "logistic": "logistic regression 569 × 31, full-rank Normal, K = 8, 8 replicates",
    "vae": "VAE 784-200-200-20, batch 128, an epoch of 60,000 images",
    "iwae": "IWAE with K = 50, the same network and batch",
    "memory": "peak memory of steps of that IWAE",
    "sweep": "a grid of 8 learning rates × 16 seeds of bbvi, 2,000 steps each",
    "command": "the whole command of one run of 10,000 steps, with nothing compiled before",
    "startup": "starting, and drawing figures",
    "cost_n": "cost against the number of points",
    "cost_k": "cost against the number of samples",
    "cost_replicates": "cost against the number of replicates",
    "cost_threads": "cost of an image model's step against threads",
}

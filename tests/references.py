"""Reference posteriors of the shipped models by NUTS: `python -m tests.references [name ...]`, with the extra `bench`.

Each is a run of NumPyro's NUTS (Hoffman, Gelman 2014) on the same density, written there anew: 4 chains in float64 with
a dense mass matrix, from the seed below. Mean and deviation of each latent, the largest split R̂ and the smallest
effective sample size go to `tests/data/references/<name>.json`, which the tests read without NumPyro.
"""

# pyright: reportMissingImports=false

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "data" / "references"
SEED, CHAINS, WARMUP, DRAWS = 0, 4, 2000, 10_000
TARGET = 0.9  # acceptance: small steps, for the narrow ends of posteriors with a deviation among the latents
MOST_RHAT = 1.01

Columns = dict[str, Any]


def cancer() -> Columns:
    """569 tumours with 30 measurements, standardised; whether each is benign."""
    from sklearn.datasets import load_breast_cancer

    x, y = map(np.asarray, load_breast_cancer(return_X_y=True))
    return {"x": (x - x.mean(0)) / x.std(0), "y": y}


def counts() -> Columns:
    """80 counts with exposures and weights."""
    g = np.random.default_rng(1)
    x, offset = g.standard_normal((80, 2)), np.log(g.uniform(0.5, 2, 80))
    weights = g.integers(1, 4, 80).astype(float)
    y = g.poisson(np.exp(0.4 + x @ [0.5, -0.3] + offset))
    return {"x": x, "y": y, "offset": offset, "weights": weights}


def grouped(groups: int = 6, size: int = 10, effect: float = 0.8, seed: int = 2) -> Columns:
    """Groups of equal size, whose effects have a deviation around 1."""
    g = np.random.default_rng(seed)
    count = groups * size
    group, x, effects = np.arange(count) % groups, g.standard_normal(count), 1 + effect * g.standard_normal(groups)
    return {"x": x, "group": group, "y": effects[group] + 0.7 * x + 0.5 * g.standard_normal(count)}


def many_groups() -> Columns:
    """20 groups of 10."""
    return grouped(groups=20, seed=3)


def sparse_groups() -> Columns:
    """20 groups of 2, whose effects are smaller than the noise."""
    return grouped(groups=20, size=2, effect=0.3, seed=4)


def schools() -> Columns:
    """Effects of coaching in eight schools, with their errors."""
    return {
        "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
    }


def logistic_regression(data: Columns) -> None:
    """Normal priors of deviation 10 and 2.5."""
    import numpyro
    from numpyro import distributions as dist

    alpha = numpyro.sample("alpha", dist.Normal(0, 10))
    beta = numpyro.sample("beta", dist.Normal(0, 2.5).expand([30]))
    numpyro.sample("y", dist.Bernoulli(logits=alpha + data["x"] @ beta), obs=data["y"])


def poisson_regression(data: Columns) -> None:
    """Normal priors of deviation 5 and 1; a weight is a power of the density."""
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]))
    rate = jnp.exp(alpha + data["x"] @ beta + data["offset"])
    numpyro.factor("likelihood", (data["weights"] * dist.Poisson(rate).log_prob(data["y"])).sum())


def hierarchical_regression(data: Columns) -> None:
    """The shipped priors; the effects themselves are latents where data say much of each, else standardised ones."""
    import numpyro
    from numpyro import distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0, 10))
    tau = numpyro.sample("tau", dist.HalfNormal(2.5))
    beta = numpyro.sample("beta", dist.Normal(0, 2.5).expand([1]))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.5))
    groups = int(data["group"].max()) + 1
    if len(data["y"]) / groups > 5:
        alpha = numpyro.sample("alpha", dist.Normal(mu, tau).expand([groups]))
    else:
        alpha = numpyro.deterministic("alpha", mu + tau * numpyro.sample("raw", dist.Normal(0, 1).expand([groups])))
    numpyro.sample("y", dist.Normal(alpha[data["group"]] + data["x"] * beta, sigma), obs=data["y"])


def eight_schools(data: Columns) -> None:
    """Non-centred."""
    import numpyro
    from numpyro import distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    theta = numpyro.deterministic("theta", mu + tau * numpyro.sample("raw", dist.Normal(0, 1).expand([8])))
    numpyro.sample("y", dist.Normal(theta, data["sigma"]), obs=data["y"])


PROBLEMS: dict[str, tuple[Callable[[Columns], None], Callable[[], Columns]]] = {
    "logistic_regression": (logistic_regression, cancer),
    "poisson_regression": (poisson_regression, counts),
    "hierarchical_regression": (hierarchical_regression, grouped),
    "hierarchical_regression_20": (hierarchical_regression, many_groups),
    "hierarchical_regression_sparse": (hierarchical_regression, sparse_groups),
    "eight_schools": (eight_schools, schools),
}


def sampled(name: str) -> dict[str, Any]:
    """Run NUTS on one problem; return what its file holds."""
    import jax
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)
    model, data = PROBLEMS[name]
    kernel = NUTS(model, dense_mass=True, target_accept_prob=TARGET)
    chains: dict[str, Any] = {"num_warmup": WARMUP, "num_samples": DRAWS, "num_chains": CHAINS}
    mcmc = MCMC(kernel, **chains, chain_method="vectorized", progress_bar=False)
    columns = data()
    mcmc.run(jax.random.PRNGKey(SEED), columns, extra_fields=("diverging",))
    draws = {key: np.asarray(value) for key, value in mcmc.get_samples(group_by_chain=True).items()}
    return described(name, draws, int(np.asarray(mcmc.get_extra_fields()["diverging"]).sum()))


def described(name: str, draws: dict[str, np.ndarray], divergences: int) -> dict[str, Any]:
    """Return moments and diagnostics of draws (chains, draws, *shape); raise where the chains do not agree."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    rhat = max(float(np.max(split_gelman_rubin(value))) for value in draws.values())
    ess = min(float(np.min(effective_sample_size(value))) for value in draws.values())
    assert rhat < MOST_RHAT, f"{name}: split R̂ is {rhat:.4f}"
    flat = {key: value.reshape(-1, *value.shape[2:]) for key, value in draws.items() if key != "raw"}
    return {
        "command": f"python -m tests.references {name}",
        "sampler": f"NUTS of NumPyro {version('numpyro')}, JAX {version('jax')}",
        "seed": SEED,
        "chains": CHAINS,
        "warmup": WARMUP,
        "draws": DRAWS,
        "split_rhat": round(rhat, 5),
        "least_ess": round(ess),
        "divergences": divergences,
        "mean": {key: rounded(value.mean(0)) for key, value in flat.items()},
        "sd": {key: rounded(value.std(0)) for key, value in flat.items()},
    }


def rounded(value: np.ndarray) -> Any:
    """Return numbers of five digits, in lists."""
    return np.vectorize(lambda number: float(f"{number:.5g}"))(value).tolist()


def reference(name: str) -> dict[str, Any]:
    """Return the stored numbers of a problem."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def main() -> None:
    """Write the references that the command line names, or all."""
    for name in sys.argv[1:] or PROBLEMS:
        (FOLDER / f"{name}.json").write_text(json.dumps(sampled(name), indent=1) + "\n")
        print(name)


if __name__ == "__main__":
    main()

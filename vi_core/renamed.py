"""Table from names of earlier versions to present ones, so that old runs and users' own YAML stay readable.

A run's `config.yaml` holds the dotted names of its parts and its settings as they were when it was written. Everything
that reads a configuration passes it through `modernised` first; `vi_core.schema.locate` looks single names up.
"""

from typing import Any

TARGETS = {
    "families.natural_mean_field.NaturalMeanField": "families.mean_field.NaturalMeanField",
    "families.amortized.normal_chain.AmortizedNormalChain": "families.amortized.normal.AmortizedNormalChain",
    "families.amortized.temperature.GumbelSoftmaxRelaxation": "families.amortized.categorical.GumbelSoftmaxRelaxation",
    "families.amortized.temperature.StraightThroughRelaxation": (
        "families.amortized.categorical.StraightThroughRelaxation"
    ),
    "models.autoencoders.categorical_vae.CategoricalVAE": "models.autoencoders.vae.CategoricalVAE",
    "models.autoencoders.hierarchical_vae.HierarchicalVAE": "models.autoencoders.vae.HierarchicalVAE",
    "optimizers.robbins_monro.RobbinsMonro": "optimizers.sgd.RobbinsMonro",
    "estimators.sticking_the_landing.StickingTheLanding": "estimators.pathwise.StickingTheLanding",
    "estimators.detached_latent.DetachedLatent": "estimators.closed_form_kl.DetachedLatent",
    "estimators.diffusion_simple.DiffusionSimple": "estimators.diffusion.DiffusionSimple",
    "estimators.diffusion_variational.DiffusionVariational": "estimators.diffusion.DiffusionVariational",
    "datasets.fashion_mnist.FashionMNIST": "datasets.mnist.FashionMNIST",
    "datasets.gaussian_2d.Gaussian2D": "datasets.synthetic.Gaussian2D",
    "datasets.earthquakes.EarthquakeDraws": "datasets.synthetic.EarthquakeDraws",
    "datasets.gamma.GammaDraws": "datasets.synthetic.GammaDraws",
    "datasets.gaussian_network.GaussianNetworkDraws": "datasets.synthetic.GaussianNetworkDraws",
    "datasets.normal.NormalDraws": "datasets.synthetic.NormalDraws",
    "datasets.normal_numpy.NormalNumpyDraws": "datasets.synthetic.NormalNumpyDraws",
    "datasets.two_moons.TwoMoons": "datasets.synthetic.TwoMoons",
    "datasets.earthquakes.Earthquakes": "datasets.synthetic.EarthquakeDraws",
    "datasets.gamma.Gamma": "datasets.synthetic.GammaDraws",
    "datasets.gaussian_network.GaussianNetwork": "datasets.synthetic.GaussianNetworkDraws",
    "datasets.normal.Normal": "datasets.synthetic.NormalDraws",
    "datasets.normal_numpy.NormalNumpy": "datasets.synthetic.NormalNumpyDraws",
    "estimators.score_function.ScoreFunction": "estimators.score_function.estimator.ScoreFunction",
    "estimators.coefficients.LeaveOneOut": "estimators.score_function.coefficients.LeaveOneOut",
    "estimators.scopes.Everything": "estimators.score_function.scopes.Everything",
    "estimators.coefficients.InSample": "estimators.score_function.coefficients.InSample",
    "estimators.coefficients.NoControl": "estimators.score_function.coefficients.NoControl",
    "estimators.scopes.MarkovBlanket": "estimators.score_function.scopes.MarkovBlanket",
    "families.amortized_categorical.AmortizedCategorical": "families.amortized.categorical.AmortizedCategorical",
    "families.amortized_normal.AmortizedNormal": "families.amortized.normal.AmortizedNormal",
    "families.amortized_normal_chain.AmortizedNormalChain": "families.amortized.normal.AmortizedNormalChain",
    "initialization.Glorot": "networks.initialization.Glorot",
    "transforms.Clamp": "distributions.transforms.Clamp",
    "transforms.Exponential": "distributions.transforms.Exponential",
    "transforms.Softplus": "distributions.transforms.Softplus",
    "relaxations.GumbelSoftmaxRelaxation": "families.amortized.categorical.GumbelSoftmaxRelaxation",
    "relaxations.StraightThroughRelaxation": "families.amortized.categorical.StraightThroughRelaxation",
    "transforms.Precision": "distributions.transforms.Precision",
    "models.categorical_vae.CategoricalVAE": "models.autoencoders.vae.CategoricalVAE",
    "models.ddpm.DDPM": "models.diffusion.ddpm.DDPM",
    "models.decoders.DiscretizedDecoder": "models.diffusion.decoders.DiscretizedDecoder",
    "models.decoders.GaussianDecoder": "models.diffusion.decoders.GaussianDecoder",
    "models.denoisers.GreyLevelDenoiser": "models.diffusion.denoisers.GreyLevelDenoiser",
    "models.denoisers.NetworkDenoiser": "models.diffusion.denoisers.NetworkDenoiser",
    "models.earthquakes.Earthquakes": "models.mixtures.earthquakes.Earthquakes",
    "models.gamma.Gamma": "models.conjugate.gamma.GammaLikelihood",
    "models.gaussian_network.GaussianNetwork": "models.conjugate.gaussian_network.GaussianNetwork",
    "models.hierarchical_vae.HierarchicalVAE": "models.autoencoders.vae.HierarchicalVAE",
    "models.hyperparameters.EmpiricalBayes": "models.mixtures.hyperparameters.EmpiricalBayes",
    "models.hyperparameters.Fixed": "models.mixtures.hyperparameters.Fixed",
    "models.normal_gamma.NormalGamma": "models.conjugate.normal_gamma.NormalGamma",
    "initialization.DataLogits": "networks.initialization.DataLogits",
    "diffusion.Beta": "models.diffusion.process.Beta",
    "diffusion.BetaTilde": "models.diffusion.process.BetaTilde",
    "diffusion.Cosine": "models.diffusion.process.Cosine",
    "diffusion.Linear": "models.diffusion.process.Linear",
    "diffusion.LogSNR": "models.diffusion.process.LogSNR",
    "models.vae.VAE": "models.autoencoders.vae.VAE",
    "optimizers.coordinate_ascent.CoordinateAscent": "algorithms.coordinate_ascent.CoordinateAscent",
}
"""Dotted name of a part below `vi_core`, as it was once -> as it is now."""

SETTINGS = {"trainer.compile": "trainer.execution"}
"""Setting, as version 0.1 had it -> as it is now."""
EXECUTIONS = {"off": "eager", "step": "compiled", "chunk": "compiled"}
"""Value of `trainer.compile`, as version 0.1 had it -> of `trainer.execution`."""


def current_target(target: str) -> str:
    """Return the present dotted name of a part, which is `target` itself unless an earlier version had another."""
    name = target.removeprefix("vi_core.")
    return f"vi_core.{TARGETS[name]}" if name in TARGETS and name != target else target


def modernised(config: Any) -> Any:
    """Return a copy of a configuration in plain dicts and lists, with present names in place of earlier ones."""
    if isinstance(config, list):
        return [modernised(element) for element in config]
    if not isinstance(config, dict):
        return config
    content = {key: modernised(value) for key, value in config.items()}
    if isinstance(content.get("_target_"), str):
        content["_target_"] = current_target(content["_target_"])
    if content.get("_target_") == "vi_core.training.trainer.Trainer" and "compile" in content:
        compiled = content.pop("compile")
        content.setdefault("execution", EXECUTIONS.get(compiled, compiled))
    return content

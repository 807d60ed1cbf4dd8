"""What a model of prior and likelihood, or a Stan program, brings along: parts that fit it, and data of its own.

`python run.py model=eight_schools` is `python run.py experiment=own model=eight_schools dataset=eight_schools`.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.errors import HydraException

from vi_core.errors import ConfigError
from vi_core.families.base import Family
from vi_core.models.base import HasColumns, Model
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.bayesian.file import FileModel
from vi_core.models.stan.model import OWN_DATASETS
from vi_core.schema import locate

from .hydra_adapter import own_choices, part_settings


def recipe(given: Mapping[str, str], folders: Sequence[Path]) -> list[str]:
    """Return the overrides that stand before those of the command line; none for models of other kinds.

    Args:
        given: Values of the command line by key, with `model`; it may sweep over several.
        folders: Of the user's own YAML files.

    Raises:
        ConfigError: Where a model has no data of its own, and none are chosen.
    """
    names = [name.strip() for name in given["model"].split(",")]
    try:
        classes = [model_class(name, folders) for name in names]
    except HydraException:
        return []  # composing the whole will say what is wrong
    if not all(issubclass(cls, (HasColumns, FileModel)) for cls in classes):
        return []
    own = {own_dataset(name, cls, folders) for name, cls in zip(names, classes, strict=True)}
    return ([] if "experiment" in given else ["experiment=own"]) + data_for(names, own, given)


def fitting_recipe(given: Mapping[str, str], folders: Sequence[Path]) -> list[str]:
    """Return the choice of a recipe without what the chosen optimizers do not have: averages, or a schedule."""
    if "optimizer" not in given:
        return []
    try:
        settings = [part_settings("optimizer", name.strip(), folders) for name in given["optimizer"].split(",")]
    except HydraException:
        return []  # composing the whole will say what is wrong
    known = [inspect.signature(locate(str(chosen["_target_"]), "optimizer")).parameters for chosen in settings]
    if not all("schedule" in names for names in known):
        return ["recipe=plain"]
    averages = all("averaging" in names for names in known)
    return [] if averages or given.get("recipe") == "none" else ["recipe=auto_by_rate"]


def check_recipe(experiments: Sequence[str]) -> None:
    """Refuse `recipe=auto` for experiments that it does not fit: VAEs, diffusion models, coordinate ascent.

    Raises:
        ConfigError: Naming the experiment, what it has, and what to do.
    """
    for experiment in experiments:
        try:
            choices = own_choices(experiment)
        except HydraException:
            return  # composing the whole will say what is wrong
        family: type[Family] = locate(str(part_settings("family", choices["family"])["_target_"]), "family")
        has = ""
        if family.amortized or family.name == "forward_process":
            has = f"family={choices['family']}, with latents for each data point"
        elif choices["optimizer"] == "coordinate_ascent":
            has = "optimizer=coordinate_ascent"
        if has:
            raise ConfigError(
                "recipe=auto trains by gradients a model whose latents all data points share, and "
                f"experiment={experiment} has {has}; leave recipe=auto out."
            )


def model_class(name: str, folders: Sequence[Path]) -> type[Model]:
    """Return the class of a model by the name of its YAML file."""
    return locate(str(part_settings("model", name, folders).get("_target_")), "model")


def own_dataset(name: str, cls: type[Model], folders: Sequence[Path]) -> str:
    """Return the data set that a model brings, or nothing."""
    if issubclass(cls, BayesianModel):
        return cls.own_dataset
    return OWN_DATASETS.get(str(part_settings("model", name, folders).get("path")), "")


def data_for(names: Sequence[str], own: set[str], given: Mapping[str, str]) -> list[str]:
    """Return the choice of the data that the models have in common, where none is given."""
    if "dataset" in given:
        return []
    if len(own) > 1 or "" in own:
        raise ConfigError(
            f"model={','.join(names)} needs data: add dataset=table dataset.path=<file.csv> dataset.target=<column>, "
            "dataset=npz or dataset=json."
        )
    return [f"dataset={own.pop()}"]

"""The parts that `vi_core.fit` chooses where they are named alone: those of conf/recipe, by the same names.

`auto` trains in stages of doubling length, each of which ends in an average of its last iterates, until a stage changes
nothing; `none` makes all steps, at a rate that falls to a tenth.
"""

from typing import Any

from vi_core.fits.parts import part
from vi_core.schema import construct

RECIPES = ("auto", "none")
LEARNING_RATE = 0.05  # in whitened coordinates


def named_estimator(estimator: Any, bound: Any) -> Any:
    """Return the part; `auto` is sticking the landing where the bound leaves its gradient unbiased, else pathwise."""
    if isinstance(estimator, str) and estimator == "auto":
        return "sticking_the_landing" if construct(bound, "bound").additive else "pathwise"
    return estimator


def chosen_estimator(estimator: Any, bound: Any, num_samples: int) -> Any:
    """Return the part with its number of samples, if it has one, where it was chosen by its name."""
    named = named_estimator(estimator, bound)
    if not isinstance(named, str):
        return named
    chosen = part("estimator", named)
    return chosen | ({"num_samples": num_samples} if "num_samples" in chosen else {})


def chosen_optimizer(optimizer: Any, recipe: str, steps: int) -> Any:
    """Return the part with rate, schedule and averages of a recipe, as far as it has them, where a name chose it."""
    if not isinstance(optimizer, str):
        return optimizer
    chosen = part("optimizer", optimizer)
    if "schedule" not in chosen:
        return chosen
    schedule = part("optimizer/schedule", "decay" if recipe == "none" else "doubling", steps=steps)
    chosen |= {"lr": LEARNING_RATE, "schedule": schedule}
    if recipe == "none" or "averaging" not in chosen:
        return chosen
    return chosen | {"averaging": part("optimizer/averaging", "tail", steps=steps)}


def chosen_trainer(recipe: str, **settings: Any) -> dict[str, Any]:
    """Return the trainer with the stopping rule of a recipe."""
    rule = part("trainer/stopping", "fixed" if recipe == "none" else "settled")
    return part("trainer", "default", stopping=rule, **settings)

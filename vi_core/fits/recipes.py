"""The parts that `vi_core.fit` chooses where they are named alone: those of conf/recipe, by the same names.

`auto` trains in stages of doubling length, each of which ends in an average of its last iterates, until a stage changes
nothing; `none` makes all steps, at a rate that falls to a tenth.
"""

from typing import Any

from vi_core.fits.parts import part
from vi_core.schema import construct

RECIPES = ("auto", "none")
LEARNING_RATE = 0.05  # in whitened coordinates


def chosen_estimator(estimator: Any, bound: Any, num_samples: int) -> Any:
    """Return the part; `auto` is sticking the landing where the bound leaves its gradient unbiased, else pathwise."""
    if not isinstance(estimator, str):
        return estimator
    if estimator == "auto":
        estimator = "sticking_the_landing" if construct(bound, "bound").additive else "pathwise"
    return part("estimator", estimator, **of_these(part("estimator", estimator), num_samples=num_samples))


def chosen_optimizer(optimizer: Any, recipe: str, steps: int) -> Any:
    """Return the part with the rate, schedule and averages of a recipe, where it was chosen by its name."""
    if not isinstance(optimizer, str):
        return optimizer
    schedule = part("optimizer/schedule", "decay" if recipe == "none" else "doubling", steps=steps)
    own = part("optimizer", optimizer)
    chosen = own | of_these(own, lr=LEARNING_RATE, schedule=schedule)
    if recipe == "none" or "averaging" not in chosen:
        return chosen
    return chosen | {"averaging": part("optimizer/averaging", "tail", steps=steps)}


def of_these(chosen: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Return those settings that a part has; exact gradients have no samples, and coordinate ascent has no rate."""
    return {key: value for key, value in settings.items() if key in chosen}


def chosen_trainer(recipe: str, **settings: Any) -> dict[str, Any]:
    """Return the trainer with the stopping rule of a recipe."""
    rule = part("trainer/stopping", "fixed" if recipe == "none" else "settled")
    return part("trainer", "default", stopping=rule, **settings)

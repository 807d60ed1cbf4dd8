"""Tables of a sweep: what differs without having been swept, and means over seeds, against the same by hand."""

from typing import Any

import numpy as np
import pytest

from experiments.config.messages import one_line
from experiments.results.expectations import limits
from experiments.sweeps.differences import beside, flat, label, unequal, value_of, warnings
from experiments.sweeps.groups import groups_of, mean_and_error, statuses
from experiments.sweeps.race import at_equal_time, errors_of
from vi_core.errors import ConfigError
from vi_core.training.history import History

PATHWISE = {"_target_": "vi_core.estimators.pathwise.Pathwise", "num_samples": 1, "chunk_size": None}
SCORE = {
    "_target_": "vi_core.estimators.score_function.estimator.ScoreFunction", "num_samples": 50,
    "coefficient": {"_target_": "x.LeaveOneOut"},
}  # fmt: skip


def job(*overrides: str, **settings: Any) -> dict[str, Any]:
    return {"overrides": list(overrides), "settings": settings, "status": "completed"}


def test_settings_are_found_by_path_and_a_setting_of_one_part_alone_does_not_differ() -> None:
    one = flat({"parts": {"estimator": "control_variate"}, "estimator": SCORE, "replicates": 4})
    two = flat({"parts": {"estimator": "pathwise"}, "estimator": PATHWISE, "replicates": 4})
    assert one == {
        "estimator": "control_variate", "estimator.num_samples": 50, "estimator.coefficient": "LeaveOneOut",
        "replicates": 4,
    }  # fmt: skip
    assert unequal([one, two]) == ["estimator", "estimator.num_samples"]
    assert beside([one, two], ["estimator"]) == ["estimator.num_samples"]
    assert beside([one, two], ["estimator", "estimator.num_samples"]) == []


def test_what_a_variant_changes_together_is_no_surprise() -> None:
    jobs = [job(f"variant=v{k}", **{"estimator.num_samples": k}) for k in (1, 5)]
    assert warnings(jobs, ["variant"], ["estimator.num_samples"]) == []
    assert len(warnings(jobs, ["bound"], ["estimator.num_samples"])) == 1
    assert warnings(jobs, ["bound"], ["family.scale"]) == []


def test_labels_name_parts_alone_and_numbers_by_their_symbols() -> None:
    one = job("estimator=pathwise", "estimator.num_samples=5", "optimizer.lr=0.01", **{"estimator.num_samples": 5})
    assert label(one, ["estimator", "estimator.num_samples", "optimizer.lr"]) == "pathwise, K = 5, lr = 0.01"
    assert label(one, ["bound.alpha"]) == "alpha = default"
    exact = job("estimator=exact", "++estimator.num_samples=5", **{"estimator": "exact"})
    assert value_of(exact, "estimator.num_samples") == "none"


def test_groups_are_those_of_all_keys_but_the_seed() -> None:
    jobs = [job(f"a={a}", f"seed={s}") | final(a + s) for a in (1, 10) for s in (0, 1, 5)]
    first, second = groups_of(jobs, ["a", "seed"])
    assert (first.values, second.values) == ({"a": "1"}, {"a": "10"})
    assert second.final() == pytest.approx((12.0, float(np.std([0, 1, 5], ddof=1)) / 3**0.5))


def final(value: float | None, error: float | None = 0.5) -> dict[str, Any]:
    return {"objective": {}, "final": {"mean": value, "se": error}}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(3.0, 0.5)], (3.0, 0.5)),
        ([(3.0, 0.5), (np.nan, 0.1)], (3.0, 0.5)),
        ([(1.0, 9.0), (3.0, 9.0)], (2.0, 1.0)),
        ([], (np.nan, np.nan)),
    ],
)
def test_one_number_keeps_its_own_error_and_several_have_that_of_their_mean(pairs: Any, expected: Any) -> None:
    np.testing.assert_allclose(mean_and_error(pairs), expected)


def test_statuses_are_counted_where_they_differ() -> None:
    assert statuses(["completed"] * 3) == "completed"
    assert statuses(["completed", "failed", "completed"]) == "2 completed, 1 failed"


def history(seconds: list[float], means: list[float]) -> History:
    columns = {"elbo": np.array([[-9.0, -9], [-5, -5], [-2, -2]]), "E[mu]": np.array([means, [-m for m in means]]).T}
    return History("elbo", np.arange(1, 4), np.array(seconds), columns)


def test_at_equal_time_each_is_where_it_was_when_the_first_ended() -> None:
    """Means 3, 2 and 1 deviations off, above in one replicate and below in the other; the slow job is at its first."""
    known = {"estimates": {"mu": {"exact": 0.0, "exact_sd": 0.5}}}
    fast, slow = history([1.0, 2.0, 3.0], [1.5, 1.0, 0.5]), history([7.0, 17.0, 27.0], [1.5, 1.0, 0.5])
    errors = errors_of(known, fast)
    assert errors is not None and errors.tolist() == pytest.approx([3, 2, 1])
    first, second = at_equal_time([known, known], [fast, slow])
    assert first == pytest.approx({"equal_s": 2.0, "final_in_time": -2.0, "error": 1.0, "error_in_time": 1.0})
    assert second == pytest.approx({"equal_s": 2.0, "final_in_time": -9.0, "error": 1.0, "error_in_time": 3.0})
    assert errors_of({"estimates": {}}, fast) is None


@pytest.mark.parametrize(
    ("name", "expected", "tolerance", "words"),
    [
        ("estimates.ks_p_value.mean", 0.5, 0.499999, "> 1e-6"),
        ("estimates.rank.mean", 0.5, 0.475, "from 0.025 to 0.975"),
        ("final.median", -185.942036, 0.002, "-185.942036 ± 0.002"),
        ("estimates.mu.replicate_sd", 0.0, 0.01, "0 ± 0.01"),
    ],
)
def test_checks_read_as_what_they_are(name: str, expected: float, tolerance: float, words: str) -> None:
    assert limits(name, expected, tolerance) == words


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lr", "Did you mean 'optimizer.lr'?"),
        ("steps", "It is one of trainer.steps, plot.steps."),
        ("num_samples", "Did you mean 'estimator.num_samples'?"),
        ("seeed", "Did you mean 'seed'?"),
    ],
)
def test_a_setting_without_its_group_is_known_by_its_name(key: str, words: str) -> None:
    error = ConfigError(f"Could not override '{key}'. Key '{key}' is not in struct")
    assert words in one_line(error)

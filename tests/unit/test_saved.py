"""Fits that are saved and reopened: the same numbers to the last bit, and files, models and data that are refused.

Every check of a file is met by a file in which the one thing is wrong that it looks for.
"""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import vi_core
from vi_core.bounds.elbo import ELBO
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential
from vi_core.errors import LabError
from vi_core.estimators.pathwise import Pathwise, StickingTheLanding
from vi_core.families.mean_field import MeanField
from vi_core.families.normals import FullRankNormal, LowRank
from vi_core.fits.fitted import Fit
from vi_core.fits.parts import CONF, described, name_of, part
from vi_core.optimizers.adam import Adam
from vi_core.optimizers.averaging import Tail
from vi_core.optimizers.schedules import Decay
from vi_core.schema import construct
from vi_core.types import Latent

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(40, 2))
Y = X @ np.array([1.0, -2.0]) + 0.5 * GENERATOR.normal(size=40)
DATA = {"x": X, "y": Y}
LATENTS = {"beta": Latent(supports.real, (2,))}
MANY = np.stack([Y, 2 * Y])


class Linear(vi_core.BayesianModel):
    """y_n ~ N(x_n · beta, 0.5²), beta ~ N(0, scale²)."""

    def __init__(self, scale: float = 2.0) -> None:
        self.scale = scale

    def prior(self, data: Any) -> Iterator[Any]:
        yield "beta", Normal(0.0, self.scale).expand([data["x"].shape[1]])

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(data["x"] @ z["beta"], 0.5)


class Renamed(Linear):
    """The same density, of a latent with another name."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "gamma", Normal(0.0, self.scale).expand([data["x"].shape[1]])

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(data["x"] @ z["gamma"], 0.5)


class Ridge(vi_core.BayesianModel):
    """A scalar latent, which a family of two numbers cannot describe."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "beta", Normal(0.0, 2.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(data["x"].sum(dim=1) * z["beta"], 0.5)


class Own(FullRankNormal):
    """A family of somebody else."""


@pytest.fixture(autouse=True)
def _single() -> None:
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)


def fitted(**settings: Any) -> Fit:
    return vi_core.fit(Linear(), DATA, **{"steps": 20, "replicates": 2, **settings})


def numbers(fit: Fit) -> list[Any]:
    """What a fit says, by draws of one seed."""
    torch.manual_seed(1)
    drawn, predicted = fit.draws(5)["beta"], fit.predict({"x": X[:3]}, 4)
    weights = fit._weighed.log_w  # of which the verdict is made, computed anew
    tensors = [drawn, predicted, weights, *fit.q.moments()["beta"]]
    texts = [repr(fit), repr(fit.summary()), fit.verdict, fit.gradients, fit.dtype, fit.best]
    history = [fit.history.bound, *fit.history.columns]
    columns = [fit.elbo, fit.history.step, fit.history.seconds, fit.run.alive, *fit.history.columns.values()]
    return [*texts, *history, *([(v.dtype, v.shape, v.tolist()) for v in (*tensors, *columns)])]


def assert_same(saved: Fit, path: Path, **again: Any) -> Fit:
    """Save a fit, reopen it by the data in another order, and compare all numbers; return what was reopened."""
    saved.save(path)
    before = torch.get_rng_state()
    found = vi_core.load(path, Linear(), dict(reversed(DATA.items())), **again)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == torch.float32
    assert repr(numbers(found)) == repr(numbers(saved))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "laplace"},
        {"combine": "evidence"},
        {"family": "low_rank_normal", "rank": 1, "dtype": torch.float32, "batch_size": 10},
        {"family": {**part("family", "mean_field"), "scale": 0.3}, "bound": "iwelbo"},
    ],
    ids=["laplace", "evidence", "minibatches", "mapping"],
)
def test_a_round_trip(settings: dict[str, Any], tmp_path: Path) -> None:
    found = assert_same(fitted(**settings), tmp_path / "fit.npz")
    assert_same(found, tmp_path / "again.npz")


@pytest.mark.slow
def test_a_round_trip_of_a_flow(tmp_path: Path) -> None:
    pytest.importorskip("zuko")
    assert_same(fitted(family="flow", steps=2, transforms=1, hidden=[4]), tmp_path / "fit.npz")


def test_data_per_replicate(tmp_path: Path) -> None:
    data = {"x": X, "y": MANY}
    fit = vi_core.fit(Linear(), data, steps=20, replicates=2, per_replicate=["y"])
    fit.save(tmp_path / "fit.npz")
    found = vi_core.load(tmp_path / "fit.npz", Linear(), data)
    for r in range(2):
        assert repr(numbers(found.at(r))) == repr(numbers(fit.at(r)))
    with np.load(tmp_path / "fit.npz") as content:
        drawn = content["draws.beta"]
    assert drawn.shape == (2, 2000, 2)
    np.testing.assert_allclose(drawn[1].mean(0), 2 * drawn[0].mean(0), atol=0.1)
    fit.at(1).save(tmp_path / "one.npz")
    one = vi_core.load(tmp_path / "one.npz", Linear(), data)
    assert one.best == 1 and repr(one) == repr(fit.at(1))


def test_a_replicate_that_diverged_stays_so(tmp_path: Path) -> None:
    fit = fitted(replicates=3)
    fit.problem.step.alive[1] = False
    del vars(fit)["elbo"]
    found = assert_same(fit, tmp_path / "fit.npz")
    assert found.run.alive.tolist() == [True, False, True] and found.elbo[1] == -np.inf


def test_the_bound_is_the_one_that_was_saved(saved: Path, tmp_path: Path) -> None:
    """Draws of another device have another mean, by which another replicate could be the best."""
    with np.load(saved) as content:
        arrays = dict(content)
    arrays["elbo"] = arrays["elbo"][::-1] + 0.01
    np.savez(tmp_path / "fit.npz", **arrays)
    found = vi_core.load(tmp_path / "fit.npz", Linear(), DATA)
    assert np.array_equal(found.elbo, arrays["elbo"]) and found.best == arrays["elbo"].argmax()


# --- parts that are objects -------------------------------------------------------------------------------------------


def test_objects_of_the_library_come_back(tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "family": FullRankNormal(LATENTS, 2, start="mode", preconditioner="diagonal"),
        "bound": ELBO(),
        "estimator": Pathwise(num_samples=3),
        "optimizer": Adam(lr=[0.1, 0.2], schedule=Decay(steps=20), averaging=Tail(steps=20)),
    }
    fit = fitted(**parts, recipe="none")
    found = assert_same(fit, tmp_path / "fit.npz")
    assert found.problem.family.preconditioner == "diagonal" and found.problem.estimator.num_samples == 3
    assert repr(found).startswith("Linear: full_rank_normal, pathwise;")


def test_a_class_of_ones_own_is_given_again(tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    made = Own(LATENTS, 2, start="mode")
    found = assert_same(fitted(family=made), path, family=Own(LATENTS, 2, start="mode"))
    assert repr(found).startswith("Linear: Own,") and type(found.problem.family) is Own
    assert_refused(path, r"object of Own, a class of your own, .* family=Own\(\.\.\.\)\)")
    assert_refused(path, "object of Own", family=FullRankNormal(LATENTS, 2))
    assert_refused(path, "the family was made for 3 replicates", family=Own(LATENTS, 3, start="mode"))
    assert_refused(path, "fit.npz has the settings of its bound; leave bound= out", family=made, bound=ELBO())


@pytest.mark.parametrize("group", ["bound", "estimator", "optimizer"])
def test_an_object_is_described_as_its_file_is(group: str) -> None:
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    assert len(names) >= 2
    for name in names:
        made = construct(part(group, name), group)
        assert described(made) == part(group, name) and name_of(group, made) == name


def test_a_family_is_described_by_what_it_was_given() -> None:
    low = {"_target_": "vi_core.families.normals.LowRank", "rank": 1, "scale": [0.1, 0.2]}
    assert described(LowRank(LATENTS, 2, rank=1, scale=[0.1, 0.2])) == low
    own = MeanField(LATENTS, 2, positive=Exponential())
    transform = {"_target_": "vi_core.distributions.transforms.Exponential"}
    assert described(own) == {"_target_": "vi_core.families.mean_field.MeanField", "positive": transform}
    assert described(Own(LATENTS, 2)) == "Own" == name_of("family", Own(LATENTS, 2))


def test_names_are_those_of_the_command_line() -> None:
    assert repr(fitted()).startswith("Linear: full_rank_normal, sticking_the_landing;")
    assert name_of("estimator", StickingTheLanding()) == "sticking_the_landing"
    plain, control = part("estimator", "score_function"), part("estimator", "control_variate")
    assert name_of("estimator", plain | {"num_samples": 7}) == "score_function"
    assert name_of("estimator", plain | {"coefficient": control["coefficient"]}) == "control_variate"
    odd = plain | {"coefficient": part("estimator", "control_variate_in_sample")["coefficient"]}
    odd["scope"] = part("estimator", "rao_blackwell")["scope"]
    assert name_of("estimator", odd) == "ScoreFunction"


# --- what is refused --------------------------------------------------------------------------------------------------


def assert_refused(path: Path, words: str, model: Any = None, data: Any = None, **again: Any) -> None:
    with pytest.raises(LabError, match=words) as caught:
        vi_core.load(path, Linear() if model is None else model, DATA if data is None else data, **again)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_default_dtype(torch.float32)
    path = tmp_path_factory.mktemp("saved") / "fit.npz"
    fitted(steps=2).save(path)
    return path


def test_another_model_is_refused(saved: Path) -> None:
    assert_refused(
        saved, r"the model has the latents gamma \(real \(2,\)\), and the fit beta \(real \(2,\)\)", Renamed()
    )
    assert_refused(saved, r"the model has the latents beta \(real\), and the fit beta \(real \(2,\)\)", Ridge())
    assert_refused(
        saved, r"log p\(x, z\) at a stored draw is .*; pass the model of the fit, as it was then", Linear(2.02)
    )
    assert_refused(
        saved, "must be a vi_core.BayesianModel or a StanModel, not the class Linear; make one of it", Linear
    )
    assert_refused(saved, "not Sequential", torch.nn.Sequential(torch.nn.Linear(1, 1)))


def test_other_data_are_refused(saved: Path) -> None:
    changed = Y.copy()
    changed[3] += 1e-9
    assert_refused(saved, r"the data are not those of the fit \(checksum", data={"x": X, "y": changed})
    assert_refused(saved, r"the data are not those of the fit \(checksum", data={"x": X[::-1], "y": Y[::-1]})
    assert_refused(saved, "the data lack 'y'; pass the data of the fit, which are x, y", data={"x": X})
    assert_refused(saved, "the fit does not know 'w'", data={"x": X, "y": Y, "w": Y})


def test_model_and_data_are_needed_and_nothing_else(saved: Path) -> None:
    for given in ((), (Linear(),), (None, DATA)):
        with pytest.raises(
            LabError, match=r"without its model and data, .*; use vi_core.load\('.*fit.npz', model, data"
        ):
            vi_core.load(saved, *given)
    assert_refused(saved, "load has no argument 'famly'", famly="full_rank_normal")
    assert_refused(saved, "fit.npz has the settings of its family; leave family= out", family="full_rank_normal")
    assert_refused(saved.with_name("none.npz"), "none.npz is not there; give a file that Fit.save has written")
    assert_refused(saved.parent, r"is the folder of a run, with a model and data of its own; use vi_core.load\('")


def entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change settings in the entry `fit`."""

    def change(arrays: dict[str, Any]) -> None:
        arrays["fit"] = np.array(json.dumps(json.loads(str(arrays["fit"])) | changes))

    return change


def array(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    """Change an array; None leaves it out."""

    def changed(arrays: dict[str, Any]) -> None:
        found = change(arrays.pop(name))
        arrays.update({} if found is None else {name: found})

    return changed


def classes(target: str) -> dict[str, Any]:
    """Parts that all have one class."""
    return {group: {"_target_": target} for group in ("family", "bound", "estimator", "optimizer")}


def infinite(content: np.ndarray) -> np.ndarray:
    """Return the entry `fit` with a number that is not finite."""
    return np.array(str(content).replace('"gradients": ', '"gradients": 1e999, "other": '))


PARAMETERS = "state.family.packed.raw"
DAMAGE: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("foreign", array("fit", lambda v: None), "is no fit that can be reopened: it has no entry 'fit'"),
    ("later", entry(schema=2, version="7.0"), "is of version 7.0 of vi_core, and .* cannot read it"),
    ("no json", array("fit", lambda v: np.array("{")), "fit.npz is damaged"),
    ("a wrong type", entry(seconds="long"), r"damaged \(seconds must be a number"),
    ("infinite", array("fit", infinite), "1e999 is no finite number"),
    ("no part", entry(parts={}), "its parts are others"),
    ("no names", entry(names={}), "its parts are others"),
    ("no history", entry(history=[]), "it has no history, or no replicates"),
    ("more replicates than memory", entry(replicates=10**12), r"'elbo' has type float64 and shape \(2,\), not \(10"),
    ("no replicate", entry(replicate=2), "there is no replicate 2"),
    ("a class of elsewhere", entry(parts=classes("os.path.x")), "family._target_='os.path.x' names no Family"),
    ("a module of elsewhere", entry(parts=classes("tabnanny.x")), "is in no module of this program"),
    ("a class of another kind", entry(parts=classes("vi_core.bounds.elbo.ELBO")), "names no Family"),
    ("no parameters", array(PARAMETERS, lambda v: None), "its state does not fit its parts"),
    ("other parameters", array(PARAMETERS, lambda v: v[:1]), "its state does not fit its parts"),
    ("words for parameters", array(PARAMETERS, lambda v: v.astype("U")), "its state does not fit its parts"),
    ("moved parameters", array(PARAMETERS, lambda v: v + 1e-3), r"log q\(z\) at a stored draw"),
    ("moved draws", array("looks.beta", lambda v: v + 1e-3), r"log p\(x, z\) at a stored draw"),
    ("no draws", array("looks.beta", lambda v: None), "no array 'looks.beta'"),
    ("other draws", array("looks.beta", lambda v: v[:1]), r"'looks.beta' has type float64 and shape \(1, 2, 1, 2\)"),
    ("fewer bounds", array("elbo", lambda v: v[:1]), r"'elbo' has type float64 and shape \(1,\), not \(2,\)"),
    ("no number", array("elbo", lambda v: v * np.nan), "an ELBO is no number"),
    ("a short history", array("bound", lambda v: v[1:]), "'bound' has type"),
    ("a column less", array("history.grad_norm", lambda v: None), "no array 'history.grad_norm'"),
    ("steps in disorder", array("step", lambda v: v[::-1]), "its steps are not in order"),
    ("an object", array("elbo", lambda v: np.array([{}, {}], dtype=object)), "holds no numbers but object"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_damage_is_one_line(change: Callable[[dict[str, Any]], None], words: str, saved: Path, tmp_path: Path) -> None:
    with np.load(saved) as content:
        arrays = dict(content)
    change(arrays)
    np.savez_compressed(tmp_path / "fit.npz", **arrays)
    assert_refused(tmp_path / "fit.npz", words)


def test_a_file_that_is_cut_off_or_no_archive(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    path = tmp_path / "fit.npz"
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for wrong in (content[:-200], bytes(flipped), b"", pickle.dumps({})):
        path.write_bytes(wrong)
        assert_refused(path, "fit.npz is damaged")


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    fit = fitted(family="laplace")
    with pytest.raises(LabError, match=r"not '.*fit\.csv'"):
        fit.save(tmp_path / "fit.csv")
    with pytest.raises(LabError, match="gone"):
        fit.save(tmp_path / "gone" / "fit.npz")
    assert list(tmp_path.iterdir()) == []

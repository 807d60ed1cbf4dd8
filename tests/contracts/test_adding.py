"""Adding a bound or an estimator takes two files: one of each is added from a temporary folder, and run.

The contract checks that discover the parts of conf/ (`tests/discovery.py`) accept the right parts and reject the same
ones with a sign flipped. The bound is the example of docs/adding.md, read from there, so that following the page gives
a part that passes. False alarms and power are those of `tests/contracts/test_discovered.py`.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests import discovery
from tests.conftest import ROOT, SMOKE, CommandLine, summary_of
from vi_core.bounds.base import Bound
from vi_core.estimators.base import Estimator
from vi_core.schema import construct
from vi_core.training.history import read_history

ESTIMATOR = '''"""The pathwise gradient of the mean of two independent estimates of a bound, each from K samples."""

from typing import Any

from vi_core.bounds.base import Bound
from vi_core.estimators.base import Estimate, Estimator, refuse_relaxed
from vi_core.families.base import Family
from vi_core.models.base import Model


class Twice(Estimator):
    """Unbiased for every bound.

    Args:
        num_samples: K, samples per estimate.
    """

    def __init__(self, *, num_samples: int = 1):
        super().__init__(num_samples=num_samples)

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        refuse_relaxed("twice", family)

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        q = family.distribution(family.variational(x))
        draws = [q.rsample(self.num_samples) for _ in range(2)]
        values = [bound(model.log_joint(z, x) - q.log_prob(z)) for z in draws]
        value = (values[0] + values[1]) / 2
        return Estimate(value.detach(), value, None, {})
'''
FLIPPED = {
    "bound": ("return ((power * log_w)", "return -((power * log_w)"),
    "signal": ("return self(log_w) -", "return self(log_w) +"),
    "estimator": ("Estimate(value.detach(), value, None, {})", "Estimate(value.detach(), -value, None, {})"),
}
"""What is flipped, and how."""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str, str], Path]]:
    """`mine(group, name, class, source)` writes a module on sys.path and its YAML; returns the configuration folder."""
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    written = []

    def write(group: str, name: str, kind: str, source: str, settings: str = "") -> Path:
        module, folder = f"{name}_{tmp_path.name}", tmp_path / "mine" / group
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / f"{module}.py").write_text(source)
        (folder / f"{name}.yaml").write_text(f"_target_: {module}.{kind}\n{settings}")
        importlib.invalidate_caches()
        written.append(module)
        return tmp_path / "mine"

    yield write
    for module in written:
        sys.modules.pop(module, None)


def documented_bound() -> str:
    """The Python block that docs/adding.md gives for a bound."""
    page = (ROOT / "docs" / "adding.md").read_text()
    found = re.search(r"```python[^\n]*\n(.*?)```", page.partition("## Example: a bound")[2], flags=re.DOTALL)
    assert found
    return found[1]


def flip(source: str, what: str) -> str:
    old, new = FLIPPED[what]
    assert old in source
    return source.replace(old, new)


def built(folder: Path, group: str, name: str) -> Bound | Estimator:
    """The part that a YAML file names."""
    return construct(yaml.safe_load((folder / group / f"{name}.yaml").read_text()), group)


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the pairs of the conjugate model: an estimator of conf/ is tried on all."""
    torch.set_default_dtype(torch.float64)
    chosen = [one for one in discovery.pairs() if one.name.startswith("normal_gamma")]
    monkeypatch.setattr(discovery, "pairs", lambda: chosen)
    discovery.reference_samples.cache_clear()  # which goes by their places
    yield
    discovery.reference_samples.cache_clear()


def test_the_documented_bound_runs_and_is_right(mine: Callable[..., Path], cli: CommandLine, tmp_path: Path) -> None:
    folder = mine("bound", "renyi", "Renyi", documented_bound(), "alpha: 0.5\n")
    arguments = ("bound=renyi", "estimator=pathwise", "estimator.num_samples=10", "hydra.run.dir=run")
    result = cli(*SMOKE, f"--config-dir={folder}", *arguments)
    assert (result.code, result.err) == (0, "")
    assert summary_of(tmp_path / "run")["final"]["name"] == "renyi"
    assert np.isfinite(read_history(tmp_path / "run" / "trace.csv").columns["renyi"]).all()
    refused = cli(*SMOKE, f"--config-dir={folder}", "bound=renyi", "hydra.run.dir=refused")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    bound = built(folder, "bound", "renyi")
    assert isinstance(bound, Bound) and discovery.bound_faults(bound) == []


@pytest.mark.parametrize("what", ["bound", "signal"])
def test_the_documented_bound_with_a_sign_flipped_is_caught(what: str, mine: Callable[..., Path]) -> None:
    folder = mine("bound", "renyi", "Renyi", flip(documented_bound(), what), "alpha: 0.5\n")
    bound = built(folder, "bound", "renyi")
    assert isinstance(bound, Bound) and discovery.bound_faults(bound)


@pytest.mark.usefixtures("few_pairs")
def test_a_new_estimator_runs_and_is_right(mine: Callable[..., Path], cli: CommandLine, tmp_path: Path) -> None:
    folder = mine("estimator", "twice", "Twice", ESTIMATOR, "num_samples: 6\n")
    estimator = built(folder, "estimator", "twice")
    assert isinstance(estimator, Estimator)
    found = discovery.estimator_faults(estimator)
    assert found and not any(found.values()), found
    arguments = ("estimator=twice", "bound=iwelbo", "hydra.run.dir=run")
    result = cli(*SMOKE, f"--config-dir={folder}", *arguments)
    assert (result.code, result.err) == (0, "")
    assert summary_of(tmp_path / "run")["status"] == "completed"


@pytest.mark.usefixtures("few_pairs")
def test_a_new_estimator_with_its_sign_flipped_is_caught(mine: Callable[..., Path]) -> None:
    folder = mine("estimator", "twice", "Twice", flip(ESTIMATOR, "estimator"), "num_samples: 6\n")
    estimator = built(folder, "estimator", "twice")
    assert isinstance(estimator, Estimator)
    found = discovery.estimator_faults(estimator)
    assert found and all(found.values()), found

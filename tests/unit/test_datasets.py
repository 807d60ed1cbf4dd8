"""Data sets: the numbers of the reports, the images that a model sees, and one line for every file that is wrong.

The statistical assertions (the means of binarized pixels, and of normal points) use fixed seeds, and each would reject
a right implementation for one seed in a million; wrong draws must be rejected by the same assertions.
"""

import hashlib
import importlib
import inspect
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from types import ModuleType
from typing import Any
from urllib.error import URLError

import pytest
import torch
import yaml
from torch import Tensor

from tests.conftest import ROOT
from vi_core.datasets import _idx as idx
from vi_core.datasets import _images as images
from vi_core.datasets import _torchvision as torchvision_import
from vi_core.datasets import mnist
from vi_core.datasets.base import Data, Dataset
from vi_core.datasets.csv import CSV
from vi_core.datasets.digits import Digits
from vi_core.datasets.mnist import MNIST, FashionMNIST
from vi_core.datasets.synthetic import Gaussian2D, NormalDraws, NormalNumpyDraws, TwoMoons
from vi_core.errors import ConfigError, DataError, LabError

REPO = ROOT
SHARED = Path(os.environ.get("VI_DATA", REPO.parent / "shared" / "data"))
CONFIGS = sorted((REPO / "conf" / "dataset").glob("*.yaml"))
FALSE_ALARM = 1e-6
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]

needs_mnist = pytest.mark.skipif(
    not (SHARED / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file(), reason=f"no MNIST in {SHARED} (set VI_DATA)"
)


def refusal(request: Callable[[], object], kind: type[LabError]) -> str:
    """The message with which `request` is refused: one line that ends a sentence."""
    with pytest.raises(kind) as caught:
        request()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


# --- contract -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_yaml_repeats_the_constructor(config: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    module, _, name = settings.pop("_target_").rpartition(".")
    assert module.startswith("vi_core.datasets.")
    cls = getattr(importlib.import_module(module), name)
    assert issubclass(cls, Dataset)
    parameters = inspect.signature(cls).parameters
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    required = {key for key, p in parameters.items() if p.default is p.empty}
    defaults = {key: settings.get(key) if key in required else as_yaml(p.default) for key, p in parameters.items()}
    assert list(settings) == list(defaults)
    assert settings == defaults


def as_yaml(value: object) -> object:
    """A default as YAML has it: lists for tuples, at every depth."""
    return [as_yaml(element) for element in value] if isinstance(value, tuple) else value


def test_every_data_set_has_a_yaml() -> None:
    modules = {f"vi_core.datasets.{path.stem}" for path in (REPO / "vi_core" / "datasets").glob("*.py")}
    found = [value for module in modules for value in vars(importlib.import_module(module)).values()]
    classes = [cls for cls in found if inspect.isclass(cls) and issubclass(cls, Dataset)]
    parts = {f"{cls.__module__}.{cls.__name__}" for cls in classes if not inspect.isabstract(cls)}
    parts -= {"vi_core.datasets.columns.InMemory"}  # of columns that are passed from Python
    assert parts == {yaml.safe_load(path.read_text())["_target_"] for path in CONFIGS}


@pytest.mark.parametrize(
    "dataset", [NormalDraws(), NormalNumpyDraws(), Digits(), Gaussian2D(), TwoMoons()], ids=lambda d: type(d).__name__
)
def test_load_is_repeatable_silent_and_leaves_the_default_stream(
    dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state()
    first, second = dataset.load(), dataset.load()
    assert torch.equal(torch.get_rng_state(), before)
    assert first.checksum == second.checksum
    assert first.provenance
    assert "\n" not in first.provenance
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_slow_packages_are_imported_only_when_used() -> None:
    code = (
        "import sys, vi_core.datasets.mnist, vi_core.datasets.digits, vi_core.datasets.synthetic, vi_core.datasets.csv;"
        "assert not {'torchvision', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- base -----------------------------------------------------------------------------------------------------------


def plain(train: Tensor) -> Data:
    return Data(train, "here")


def test_checksum_is_of_type_shape_and_bytes() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    raw = struct.pack("<4f", 1, 2, 3, 4)
    assert plain(x).checksum == hashlib.sha256(b"torch.float32 (2, 2) " + raw).hexdigest()[:16]
    assert plain(x.t()).checksum == plain(x.t().contiguous()).checksum
    others = [x.t(), x.double(), x.flatten(), x.view(torch.int32), x + torch.eye(2) * 1e-6, x.bfloat16()]
    assert len({plain(other).checksum for other in [x, *others]}) == 7


@pytest.mark.parametrize("device", DEVICES)
def test_to_casts_floats_and_keeps_pixels(device: str) -> None:
    numbers = NormalDraws(num_points=5).load().to(device, torch.float64)
    assert numbers.train.dtype is torch.float64
    assert torch.equal(numbers.train.cpu(), NormalDraws(num_points=5).load().train.double())
    assert numbers.test is None

    for rule in images.RULES:
        digits = Digits(binarization=rule).load().to(device, torch.float64)
        assert digits.test is not None
        assert digits.train.dtype is digits.test.dtype is torch.uint8
        batch = digits.decode(digits.train[:7])
        assert (batch.dtype, batch.shape, batch.device.type) == (torch.float64, (7, 64), device)


# --- synthetic numbers ----------------------------------------------------------------------------------------------


def test_normal_gives_the_points_of_the_reports() -> None:
    data = NormalDraws(seed=10, num_points=100).load()
    assert (data.train.shape, data.train.dtype) == ((100,), torch.float32)
    assert data.train.mean().item() == pytest.approx(0.8901, abs=5e-5)
    assert 1 / data.train.var().item() == pytest.approx(0.4580, abs=5e-5)
    assert data.truth == {"mu": 1.0, "tau": 0.5}


def test_normal_has_the_law_it_names() -> None:
    data = NormalDraws(loc=-3.0, precision=4.0, num_points=200_000, seed=1).load()
    assert data.truth == {"mu": -3.0, "tau": 4.0}
    points = data.train.double()
    assert abs(points.mean().item() + 3.0) < z_limit(1) * 0.5 / 200_000**0.5
    assert abs(points.var().item() / 0.25 - 1.0) < z_limit(1) * (2 / 200_000) ** 0.5


@pytest.mark.parametrize(("num_points", "mean"), [(10, 2.0437), (100, 1.0261), (1000, 0.9244)])
def test_normal_numpy_gives_the_points_of_report_000(num_points: int, mean: float) -> None:
    data = NormalNumpyDraws(num_points=num_points).load()
    assert (data.train.shape, data.train.dtype) == ((num_points,), torch.float64)
    assert data.train.mean().item() == pytest.approx(mean, abs=5e-5)
    assert data.truth == {"mu": 1.0, "tau": 0.5}


BAD_SETTINGS: list[tuple[type[Dataset], dict[str, Any], str]] = [
    (NormalDraws, {"num_points": 0}, "dataset.num_points=0 must be at least 1."),
    (NormalDraws, {"num_points": 2.5}, "dataset.num_points=2.5 must be a whole number."),
    (NormalDraws, {"num_points": None}, "dataset.num_points=None must be a whole number."),
    (NormalDraws, {"precision": 0}, "dataset.precision=0 must be above 0."),
    (NormalDraws, {"precision": float("nan")}, "dataset.precision=nan must be a finite number."),
    (NormalDraws, {"loc": "one"}, "dataset.loc=one must be a finite number."),
    (NormalDraws, {"seed": -1}, "dataset.seed=-1 must be at least 0."),
    (NormalDraws, {"batch_size": 0}, "dataset.batch_size=0 must be at least 1."),
    (NormalDraws, {"batch_size": True}, "dataset.batch_size=True must be a whole number."),
    (NormalNumpyDraws, {"num_points": 50}, "dataset.num_points=50 must be one of dataset.sizes=[10, 100, 1000]."),
    (NormalNumpyDraws, {"sizes": [1, 10], "num_points": 10}, "dataset.sizes=1 must be at least 2."),
    (NormalNumpyDraws, {"seed": 2**32}, "dataset.seed=4294967296 must be at most 4294967295."),
    (Digits, {"num_test": 1796}, "dataset.num_test=1796 must be at most 1795."),
    (Digits, {"num_test": 0}, "dataset.num_test=0 must be at least 1."),
    (
        MNIST,
        {"binarization": "dynamik"},
        "dataset.binarization=dynamik must be one of none, threshold, dynamic, fixed. Did you mean 'dynamic'?",
    ),
    (FashionMNIST, {"binarization": "?"}, "dataset.binarization=? must be one of none, threshold, dynamic, fixed."),
    (CSV, {}, "dataset=csv needs a file: dataset.path=<file.csv>, and dataset.column=<name> in it."),
    (CSV, {"path": "x.csv", "num_points": 0}, "dataset.num_points=0 must be at least 1."),
]


@pytest.mark.parametrize(("cls", "settings", "expected"), BAD_SETTINGS, ids=lambda x: str(x)[:40])
def test_settings_out_of_range_are_refused(cls: type[Dataset], settings: dict[str, Any], expected: str) -> None:
    assert refusal(lambda: cls(**settings), ConfigError) == expected


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 15, 16, 255])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threshold_rounds(levels: int, dtype: torch.dtype) -> None:
    pixels = torch.arange(levels + 1, dtype=torch.uint8).unsqueeze(0)
    seen = images.Pixels(levels, images.threshold, dtype)(pixels)
    assert seen.dtype is dtype
    assert torch.equal(seen, torch.round(pixels.to(dtype) / levels))


def test_grey_values_run_from_0_to_1() -> None:
    seen = images.Pixels(16, images.grey)(torch.tensor([[0, 4, 8, 16]], dtype=torch.uint8))
    assert torch.equal(seen, torch.tensor([[0.0, 0.25, 0.5, 1.0]]))


def largest_z(draws: Tensor, probability: Tensor) -> float:
    """Largest standardised error of the means of 0s and 1s; draws (N, P), probability (P) inside (0, 1)."""
    scale = (probability * (1 - probability) / len(draws)).sqrt()
    return ((draws.double().mean(0) - probability) / scale).abs().max().item()


def z_limit(num: int) -> float:
    """What the largest of `num` standard normal variables exceeds in absolute value with probability FALSE_ALARM."""
    return NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * num))


LADDER = torch.arange(17, dtype=torch.uint8).expand(20_000, 17)  # every grey level of the digits, 20,000 times
INSIDE = torch.arange(1, 16, dtype=torch.float64) / 16


def draw_again(pixels: Tensor, levels: int) -> Tensor:
    return images.Pixels(levels, images.dynamic)(pixels)


def test_dynamic_draws_have_the_grey_value_as_mean() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second, wrong = draw_again(LADDER, 16), draw_again(LADDER, 16), draw_again(LADDER, 17)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    assert first[:, 0].max() == 0
    assert first[:, 16].min() == 1
    assert largest_z(first[:, 1:16], INSIDE) < z_limit(15)
    agreement = (first * second)[:, 1:16]  # independent draws are both 1 with probability p^2
    assert largest_z(agreement, INSIDE**2) < z_limit(15)
    assert largest_z(wrong[:, 1:16], INSIDE) > z_limit(15)
    assert largest_z((first * first)[:, 1:16], INSIDE**2) > z_limit(15)
    assert largest_z(images.threshold(LADDER, 16, torch.float32)[:, 1:16], INSIDE) > z_limit(15)


def test_dynamic_uses_the_default_stream() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = draw_again(LADDER[:5], 16)
        torch.manual_seed(3)
        assert torch.equal(draw_again(LADDER[:5], 16), first)


def fixed_data(seed: int) -> Data:
    ladder = LADDER.unsqueeze(1)
    return images.image_data(ladder, ladder[:100], 16, "fixed", torch.Generator().manual_seed(seed), "ladder")


def test_fixed_is_one_draw() -> None:
    data, again, other = fixed_data(0), fixed_data(0), fixed_data(1)
    assert data.train.dtype is torch.uint8
    assert data.train.shape == (20_000, 17)
    assert data.test is not None
    assert data.image_shape == (1, 17)
    assert data.checksum == again.checksum != other.checksum
    before = torch.get_rng_state()
    seen = data.decode(data.train)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(seen, data.decode(data.train))
    assert torch.equal(seen, data.train.float())
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert largest_z(seen[:, 1:16], INSIDE) < z_limit(15)
    assert not torch.equal(data.test, data.train[:100])  # train and test are different draws


def test_digits_are_all_there_once() -> None:
    from sklearn.datasets import load_digits

    data = Digits().load()
    assert data.test is not None
    assert (data.train.shape, data.test.shape, data.image_shape) == ((1500, 64), (297, 64), (8, 8))
    assert data.train.dtype is torch.uint8
    everything = torch.cat([data.train, data.test])
    original = torch.from_numpy(load_digits(return_X_y=True)[0]).to(torch.uint8)
    assert not torch.equal(everything, original)
    assert sorted(everything.tolist()) == sorted(original.tolist())
    assert torch.equal(data.decode(data.train), torch.round(data.train.float() / 16))


def test_binarization_is_chosen_by_name() -> None:
    seen = {}
    for name in images.RULES:
        data = Digits(binarization=name).load()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            seen[name], again = data.decode(data.train), data.decode(data.train)
        assert torch.equal(seen[name], again) == (name != "dynamic")
        assert name in data.provenance
    assert list(seen) == ["none", "threshold", "dynamic", "fixed"]
    assert torch.equal(seen["threshold"], torch.round(seen["none"]))
    assert set(seen["none"].unique().tolist()) == {i / 16 for i in range(17)}
    assert all(set(seen[name].unique().tolist()) == {0.0, 1.0} for name in ("threshold", "dynamic", "fixed"))


def test_digits_split_is_fixed_by_the_seed() -> None:
    data, other = Digits().load(), Digits(seed=1).load()
    assert not torch.equal(data.train, other.train)
    small = Digits(num_test=100).load()
    assert torch.equal(small.train[:1500], data.train)
    assert Digits(binarization="dynamic").load().checksum == data.checksum


def test_classes_of_digits_are_those_of_the_held_out_images() -> None:
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    known = {tuple(map(int, row)): str(target) for row, target in zip(pixels, targets, strict=True)}
    data = Digits(seed=3, num_test=200).load()
    assert data.test is not None
    assert Digits(seed=3, num_test=200).classes() == [known[tuple(row)] for row in data.test.tolist()]


# --- IDX files ------------------------------------------------------------------------------------------------------

SIZES = {"train": 6, "t10k": 4}


def idx_bytes(shape: tuple[int, ...]) -> bytes:
    numbers = bytes(i * 37 % 256 for i in range(torch.Size(shape).numel()))
    return struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape) + numbers


def write_raw(folder: Path) -> dict[str, str]:
    """Write four small files of 6 and 4 images of 3 x 2 pixels, and return their MD5 by name."""
    folder.mkdir(parents=True)
    for name, dimensions in idx.DIMENSIONS.items():
        num = SIZES[name.split("-")[0]]
        (folder / name).write_bytes(idx_bytes((num, 3, 2) if dimensions == 3 else (num,)))
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in idx.DIMENSIONS}


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with small files in MNIST/raw, known to the checksums, and no network."""
    monkeypatch.setattr(mnist, "CHECKSUMS", write_raw(tmp_path / "MNIST" / "raw"))
    forbid_network(monkeypatch)
    return tmp_path


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("Network is unreachable")

    monkeypatch.setattr(torchvision_mnist(), "download_and_extract_archive", refuse)


def torchvision_mnist() -> ModuleType:
    return torchvision_import.import_torchvision("torchvision.datasets.mnist")


def test_small_files_are_read(small_mnist: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = MNIST(root=str(small_mnist)).load()
    assert data.test is not None
    assert (data.train.shape, data.test.shape, data.image_shape) == ((6, 6), (4, 6), (3, 2))
    assert data.train.flatten().tolist() == [i * 37 % 256 for i in range(36)]
    assert torch.equal(data.decode(data.train), torch.round(data.train.float() / 255))
    assert capfd.readouterr() == ("", "")


def test_labels_of_test_images_are_read(small_mnist: Path) -> None:
    assert MNIST(root=str(small_mnist)).classes() == ["0", "37", "74", "111"]


def test_relative_root_starts_at_the_working_directory(small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_mnist.parent)
    assert len(MNIST(root=small_mnist.name).load().train) == 6


def test_refusal_shows_the_whole_path(small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_mnist)
    message = refusal(MNIST(root="elsewhere", download=False).load, DataError)
    assert message.startswith(str(small_mnist / "elsewhere" / "MNIST" / "raw"))


def test_stale_processed_files_are_not_read(small_mnist: Path) -> None:
    stale = small_mnist / "MNIST" / "processed"
    stale.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1, 3, 2, dtype=torch.uint8), torch.zeros(1)), stale / name)
    assert len(MNIST(root=str(small_mnist)).load().train) == 6


@pytest.mark.parametrize("name", idx.DIMENSIONS)
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda raw: raw[:-5], "is truncated: "),
        (lambda raw: raw[:7], "is truncated: 7 bytes are not even a header"),
        (lambda raw: b"", "is truncated: 0 bytes"),
        (lambda raw: raw + b"x", "is too long: "),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "is corrupt: its MD5 is "),
        (lambda raw: b"\x1f\x8b\x08" + raw[3:], "is no uncompressed IDX file"),
    ],
    ids=["truncated", "half a header", "empty", "too long", "one bit", "compressed"],
)
def test_damaged_file_is_named(small_mnist: Path, name: str, damage: Callable[[bytes], bytes], expected: str) -> None:
    path = small_mnist / "MNIST" / "raw" / name
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(MNIST(root=str(small_mnist)).load, DataError)
    assert message.startswith(f"{path} {expected}")
    assert "delete it and run again" in message


def test_fashion_mnist_needs_no_checksum(tmp_path: Path) -> None:
    write_raw(tmp_path / "FashionMNIST" / "raw")
    data = FashionMNIST(root=str(tmp_path)).load()
    assert data.train.shape == (6, 6)
    (tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(idx_bytes((4, 3, 2))[:-1])
    assert "t10k-images-idx3-ubyte is truncated" in refusal(FashionMNIST(root=str(tmp_path)).load, DataError)


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_missing_files_without_network(
    cls: type[MNIST] | type[FashionMNIST], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_network(monkeypatch)
    message = refusal(cls(root=str(tmp_path)).load, DataError)
    assert message.startswith(f"{tmp_path / cls.__name__ / 'raw'} lacks train-images-idx3-ubyte, ")
    assert "the download failed" in message
    assert "Network is unreachable" in message
    assert "put the four uncompressed files there" in message
    assert "dataset.root=" in message
    assert "dataset=digits" in message
    assert not list(tmp_path.iterdir())


def test_missing_file_without_download(small_mnist: Path) -> None:
    (small_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    message = refusal(MNIST(root=str(small_mnist), download=False).load, DataError)
    assert "raw lacks t10k-labels-idx1-ubyte, and dataset.download=false: put" in message


def test_root_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_network(monkeypatch)
    (tmp_path / "file").touch()
    assert "File exists" in refusal(MNIST(root=str(tmp_path / "file")).load, DataError)
    assert "cannot be read" in refusal(MNIST(root="x" * 5000).load, DataError)


def test_download_fills_in_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    timeouts = []

    def archive(url: str, download_root: str, filename: str, md5: str) -> None:
        timeouts.append(socket.getdefaulttimeout())
        print("progress", file=sys.stderr)
        name = filename.removesuffix(".gz")
        num = SIZES[name.split("-")[0]]
        (Path(download_root) / name).write_bytes(idx_bytes((num, 3, 2) if "idx3" in name else (num,)))

    monkeypatch.setattr(torchvision_mnist(), "download_and_extract_archive", archive)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx_bytes((2, 3, 2)))
    data = FashionMNIST(root=str(tmp_path)).load()
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (6, 2)
    assert sorted(path.name for path in raw.iterdir()) == sorted(idx.DIMENSIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["FashionMNIST"]
    assert timeouts == [idx.TIMEOUT_S] * 4
    assert socket.getdefaulttimeout() is None
    assert capfd.readouterr() == ("", "")


@needs_mnist
def test_mnist_is_the_one_of_the_reports() -> None:
    data = MNIST(root=str(SHARED), download=False).load()
    assert data.test is not None
    assert (data.train.shape, data.test.shape, data.image_shape) == ((60_000, 784), (10_000, 784), (28, 28))
    assert data.checksum == "ae58593a4298ff33"
    batch = data.decode(data.train[:100])
    assert (batch.shape, batch.dtype) == ((100, 784), torch.float32)
    assert torch.equal(batch, torch.round(data.train[:100].float() / 255))


@needs_mnist
def test_checksums_are_those_of_the_files() -> None:
    raw = SHARED / "MNIST" / "raw"
    assert {name: hashlib.md5((raw / name).read_bytes()).hexdigest() for name in idx.DIMENSIONS} == mnist.CHECKSUMS


# --- torchvision ----------------------------------------------------------------------------------------------------


def test_torchvision_is_imported_beside_any_torch() -> None:
    assert torchvision_import.import_torchvision() is sys.modules["torchvision"]
    assert torchvision_mnist().__name__ == "torchvision.datasets.mnist"


def test_missing_operators_are_declared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    missing, declared = ["torchvision::nms", "torchvision::qnms"], []

    def load(name: str) -> str:
        for operator in missing:
            if operator not in declared:
                raise RuntimeError(f"operator {operator} does not exist")
        return f"module {name}"

    monkeypatch.setattr(torchvision_import.importlib, "import_module", load)
    monkeypatch.setattr(torch.library, "define", lambda name, schema: declared.append(name))
    assert torchvision_import.import_torchvision() == "module torchvision"
    assert declared == missing


def test_other_import_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> str:
        raise RuntimeError("operator other::nms does not exist")

    monkeypatch.setattr(torchvision_import.importlib, "import_module", load)
    with pytest.raises(RuntimeError, match="other::nms"):
        torchvision_import.import_torchvision()


# --- CSV ------------------------------------------------------------------------------------------------------------


def write_csv(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "points.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("x\n1\n2.5\n-3e2\n", {}, [1.0, 2.5, -300.0]),
        ("x\n1\n2.5\n-3e2", {"num_points": 2}, [1.0, 2.5]),
        ("\ufeffx\r\n1\r\n2\r\n\r\n\r\n", {"column": "x"}, [1.0, 2.0]),
        ("\ufeffx\n1\n2\n", {}, [1.0, 2.0]),
        ("name,x\na,1\nb,2\n", {}, [1.0, 2.0]),
        ("x,code,note\n1,7,\n2,B,\n", {}, [1.0, 2.0]),
        ("x,note\n1,\n2,\n", {}, [1.0, 2.0]),
        ('"name", "x y"\n"a, b", 1\n"c", " 2 "\n', {"column": "x y"}, [1.0, 2.0]),
        ("x,y\n1,nan\n2,word\n", {"column": "x"}, [1.0, 2.0]),
        ("2023,2024\n1,3\n2,4\n", {"column": 2024}, [3.0, 4.0]),
        ("x\n1\n2\nword\n", {"num_points": 2}, [1.0, 2.0]),
    ],
)
def test_csv_is_read(tmp_path: Path, text: str, settings: dict[str, Any], expected: list[float]) -> None:
    data = CSV(path=write_csv(tmp_path, text), **settings).load()
    assert data.train.dtype is torch.float64
    assert data.train.tolist() == expected
    assert (data.test, data.truth, data.image_shape) == (None, {}, None)
    assert str(tmp_path / "points.csv") in data.provenance


BAD_CSV: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "empty file": ("", {}, "is empty"),
    "only blank lines": ("\n\n", {}, "is empty"),
    "header only": ("x\n", {}, "has no row below its column names; at least 1 is needed."),
    "underscore": ("x\n1_000\n2\n", {}, ", row 1 (line 2), column 'x': '1_000' is not a finite number"),
    "other digits": ("x\n1\n٢\n", {}, ", row 2 (line 3), column 'x': '٢' is not a finite number"),
    "two columns that read alike": ("1e3,1000\n1,2\n", {"column": 1000.0}, "has columns 1e3, 1000; put the name"),
    "unknown column": ("mag,lat\n1,2\n3,4\n", {"column": "mga"}, "which has mag, lat. Did you mean 'mag'?"),
    "far column": ("mag,lat\n1,2\n3,4\n", {"column": "zzzzz"}, "dataset.column=zzzzz is not in "),
    "two of a name": ("x,x\n1,2\n3,4\n", {"column": "x"}, "has 2 columns called 'x'"),
    "choice needed": ("id,x,name\n1,2,a\n3,4,b\n", {}, "choose one with dataset.column=<name>: id, x."),
    "no numeric column": ("a,b\nc,d\ne,f\n", {}, "has no numeric column among a, b."),
    "no header": ("1.5\n2.5\n3.5\n", {}, "starts with numbers; its first line must name the columns."),
    "nan": ("x\n1\nnan\n", {}, ", row 2 (line 3), column 'x': 'nan' is not a finite number"),
    "inf": ("x\n1\n-inf\n", {}, ", row 2 (line 3), column 'x': '-inf' is not a finite number"),
    "overflow": ("x\n1\n1e999\n", {}, ", row 2 (line 3), column 'x': '1e999' is not a finite number"),
    "empty cell": ("x,y\n1,2\n,4\n", {"column": "x"}, ", row 2 (line 3), column 'x': the cell is empty"),
    "blank cell": ("x,y\n1,2\n  ,4\n", {"column": "x"}, ", row 2 (line 3), column 'x': the cell is empty"),
    "empty cell, column omitted": ("x,y\n1,a\n,b\n", {}, ", row 2 (line 3), column 'x': the cell is empty"),
    "word further down, column omitted": ("x,y\n1,a\nz,b\n", {}, ", row 2 (line 3), column 'x': 'z' is not a finite"),
    "blank line": ("x\n1\n\n\n2\n", {}, ", row 2 (line 3) is blank"),
    "word": ("x\n1\ntwo\n", {}, ", row 2 (line 3), column 'x': 'two' is not a finite number"),
    "decimal comma": ('x\n"1,5"\n2\n', {}, ", row 1 (line 2), column 'x': '1,5' is not a finite number"),
    "words": ("a,b\nc,1\nd,2\n", {"column": "a"}, ", row 1 (line 2), column 'a': 'c' is not a finite number"),
    "short row": ("x,y\n1,2\n3\n", {"column": "x"}, ", row 2 (line 3) has 1 cells where the first line names 2"),
    "long row": ("x,y\n1,2\n3,4,5\n", {}, ", row 2 (line 3) has 3 cells where the first line names 2"),
    "row after two lines": ('n,x\n"a\nb",1\nc,?\n', {"column": "x"}, ", row 2 (line 4), column 'x': '?'"),
    "latin-1": ("x,né\n1,2\n3,4\n".encode("latin-1"), {}, "is not UTF-8 text"),
    "late latin-1": (b"x\n" + b"1\n" * 10_000 + b"\xe9\n", {}, "is not UTF-8 text"),
    "open quote": ('x\n1\n"2\n', {}, "is not a valid CSV file: "),
    "too few": ("x\n1\n2\n", {"num_points": 3}, "dataset.num_points=3 must be at most 2, the number of rows of "),
}


@pytest.mark.parametrize(("text", "settings", "expected"), BAD_CSV.values(), ids=BAD_CSV.keys())
def test_bad_csv_is_refused(tmp_path: Path, text: str | bytes, settings: dict[str, Any], expected: str) -> None:
    message = refusal(CSV(path=write_csv(tmp_path, text), **settings).load, LabError)
    assert expected in message
    assert str(tmp_path / "points.csv") in message


def test_csv_that_is_not_a_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(CSV(path=str(tmp_path / "none.csv")).load, DataError)
    assert "is a folder" in refusal(CSV(path=str(tmp_path)).load, DataError)
    assert "cannot be read: File name too long" in refusal(CSV(path="x" * 5000).load, DataError)


def test_csv_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path, "x\n1\n2\n")
    monkeypatch.chdir(tmp_path)
    data = CSV(path="points.csv").load()
    assert data.train.tolist() == [1.0, 2.0]
    assert data.provenance == f"column 'x' of {tmp_path / 'points.csv'}, 2 rows"


@pytest.mark.skipif(not (SHARED / "quakes" / "quakes.csv").is_file(), reason=f"no quakes in {SHARED} (set VI_DATA)")
def test_csv_reads_a_catalogue() -> None:
    data = CSV(path=str(SHARED / "quakes" / "quakes.csv"), column="stations").load()
    assert data.train.shape == (1000,)
    assert data.train[:3].tolist() == [41.0, 15.0, 43.0]


def test_gaussian_2d_has_the_covariance_of_its_settings() -> None:
    """Off by at most 5 standard errors (false alarms: the draws are fixed); a correlation 0.05 off is found."""
    points = Gaussian2D(num_points=20_000).load().train.double()
    expected = torch.tensor([[1.44, 0.576], [0.576, 0.64]], dtype=torch.float64)
    scale = torch.tensor([1.2, 0.8], dtype=torch.float64)
    error = (points.T.cov() - expected) / torch.outer(scale, scale)
    assert error.abs().max() < 5 * (2 / 20_000) ** 0.5

"""Images of one's own: what is read is compared with the arrays that the files were written from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CommandLine
from vi_core.datasets import image_files
from vi_core.datasets.image_files import ImageFiles
from vi_core.errors import DataError, LabError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 5, 7), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def write(folder: Path, images: np.ndarray, suffix: str = "png") -> Path:
    """Write images into a folder and one inside it."""
    (folder / "inside").mkdir(parents=True)
    for place, pixels in enumerate(images):
        name = f"inside/{place}.{suffix}" if place > 3 else f"{place}.{suffix}"
        Image.fromarray(pixels).save(folder / name)
    return folder


def train(**settings: Any) -> torch.Tensor:
    """The training images as they are stored, in their shape."""
    data = ImageFiles(**settings).load()
    assert data.image_shape is not None
    return data.train.unflatten(1, data.image_shape)


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
def test_png_files_are_read_as_they_are(images: np.ndarray, tmp_path: Path) -> None:
    folder = write(tmp_path / "images", images)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    data = ImageFiles(path=str(folder)).load()
    assert (data.image_shape, data.levels, data.test) == (images.shape[1:], 256, None)
    assert torch.equal(data.train, torch.from_numpy(images).flatten(1))
    torch.testing.assert_close(data.decode(data.train), torch.from_numpy(images).flatten(1) / 255)
    assert str(folder) in data.provenance and "6 images, 5 x 7" in data.provenance
    assert ImageFiles(path=str(folder), binarization="threshold").load().levels == 2


def test_jpeg_files_are_read_and_turned(tmp_path: Path) -> None:
    """Smooth images, which JPEG keeps; the camera's note 6 says that the picture is to be turned to the right."""
    ramp = np.tile(np.linspace(0, 250, 40, dtype=np.uint8), (24, 1))
    note = Image.Exif()
    note[0x0112] = 6
    for name in ("a.jpg", "b.JPEG"):
        Image.fromarray(ramp).save(tmp_path / name, quality=95, exif=note if name == "b.JPEG" else b"")
    with pytest.raises(DataError, match=r"b.JPEG is 40 x 24 grey, and .*a.jpg is 24 x 40 grey; set dataset.size="):
        ImageFiles(path=str(tmp_path)).load()
    (tmp_path / "a.jpg").rename(tmp_path / "c.jpg.old")
    Image.fromarray(ramp).save(tmp_path / "c.jpg", quality=95, exif=note)
    found = train(path=str(tmp_path))
    assert found.shape == (2, 40, 24)
    assert int((found[1].int() - torch.from_numpy(np.rot90(ramp, -1).copy()).int()).abs().max()) < 8


def test_transparent_pixels_are_white_and_16_bits_become_8(tmp_path: Path) -> None:
    clear = np.zeros((5, 7, 4), dtype=np.uint8)
    clear[2, 3] = (10, 20, 30, 255)
    Image.fromarray(clear).save(tmp_path / "a.png")
    Image.fromarray(COLOUR[0]).quantize(16).convert("RGB").quantize(16).save(tmp_path / "b.png")
    found = train(path=str(tmp_path))
    assert found[0, 2, 3].tolist() == [10, 20, 30]
    assert found[0, 0, 0].tolist() == [255, 255, 255]
    deep = tmp_path / "deep"
    deep.mkdir()
    for name in "ab":
        Image.fromarray((GREY[0].astype(np.uint16) << 8) + 77).save(deep / f"{name}.png")
    assert torch.equal(train(path=str(deep))[0], torch.from_numpy(GREY[0]))


def test_a_wanted_size_covers_and_cuts_evenly(tmp_path: Path) -> None:
    """A wide image loses its sides: three stripes of one width, of which the middle one is left."""
    stripes = np.repeat(np.array([20, 120, 220], dtype=np.uint8), 10)[None].repeat(10, axis=0)
    for name in "ab":
        Image.fromarray(stripes).save(tmp_path / f"{name}.png")
    found = train(path=str(tmp_path), size=4)
    assert found.shape == (2, 4, 4)
    assert int((found[0, :, 1:3].int() - 120).abs().max()) < 8
    assert train(path=str(tmp_path), size=[2, 6]).shape == (2, 2, 6)


@pytest.mark.parametrize(("colour", "shape"), [("grey", (6, 5, 7)), ("rgb", (6, 5, 7, 3))])
def test_colours_are_as_wanted(colour: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    folder = write(tmp_path / "images", COLOUR)
    Image.fromarray(GREY[0]).save(folder / "0.png")
    with pytest.raises(DataError, match=r"in colour, and .*0.png is 5 x 7 grey; set dataset.colour=grey or rgb"):
        ImageFiles(path=str(folder)).load()
    found = train(path=str(folder), colour=colour)
    assert found.shape == shape
    assert torch.equal(found[0] if colour == "grey" else found[0, ..., 1], torch.from_numpy(GREY[0]))
    np.save(tmp_path / "images.npy", COLOUR)
    again = train(path=str(tmp_path / "images.npy"), colour=colour)
    assert torch.equal(again[1:], found[1:])


def test_held_out_images_are_by_share_or_of_their_own(tmp_path: Path) -> None:
    folder = write(tmp_path / "images", GREY)
    data, other = (ImageFiles(path=str(folder), test_fraction=0.34, seed=seed).load() for seed in (0, 1))
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (4, 2)
    together = torch.cat([data.train, data.test])
    assert sorted(together.tolist()) == sorted(torch.from_numpy(GREY).flatten(1).tolist())
    assert not torch.equal(data.train, other.train)
    np.save(tmp_path / "test.npy", GREY[:3])
    own = ImageFiles(path=str(folder), test_path=str(tmp_path / "test.npy")).load()
    assert own.test is not None
    assert torch.equal(own.test, torch.from_numpy(GREY[:3]).flatten(1))
    assert len(own.train) == 6


def test_classes_are_folders_in_the_order_of_the_held_out_images(tmp_path: Path) -> None:
    levels = {"cats": 10, "dogs": 200, "eels": 90}
    for name, level in levels.items():
        (tmp_path / name).mkdir()
        for place in range(7):
            Image.fromarray(np.full((3, 3), level + place, dtype=np.uint8)).save(tmp_path / name / f"{place}.png")
    shared = ImageFiles(path=str(tmp_path), test_fraction=0.4, seed=2)
    data, classes = shared.load(), shared.classes()
    assert data.test is not None and classes is not None
    assert classes != sorted(classes)
    assert [levels[name] // 10 for name in classes] == [int(row[0]) // 10 for row in data.test]
    assert ImageFiles(path=str(tmp_path)).classes() == [name for name in levels for _ in range(7)]
    assert ImageFiles(path=str(write(tmp_path / "loose", GREY))).classes() is None


# --- arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (GREY[:, None], GREY),
        (COLOUR, COLOUR),
        (np.moveaxis(COLOUR, 3, 1), COLOUR),
        (GREY / 255, GREY),
        ((GREY / 255).astype(np.float32), GREY),
        (GREY.astype(np.int64), GREY),
        (GREY > 100, (GREY > 100) * np.uint8(255)),
    ],
    ids=["grey", "1 last", "1 second", "colour", "3 second", "shares", "float32", "int64", "bool"],
)
def test_arrays_are_read_in_each_layout(array: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", images=array)
    for name in ("x.npy", "x.npz"):
        assert torch.equal(train(path=str(tmp_path / name)), torch.from_numpy(expected))


# --- refusals -------------------------------------------------------------------------------------------------------


def cut(folder: Path) -> None:
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(content[: len(content) // 2])


def flipped(folder: Path) -> None:
    content = bytearray((folder / "1.png").read_bytes())
    content[45] ^= 255
    (folder / "1.png").write_bytes(content)


def two_arrays(folder: Path) -> None:
    np.savez(folder / "x.npz", a=GREY, b=GREY)


def saved(array: Any) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "x.npy", array)


@pytest.mark.parametrize(
    ("spoil", "settings", "said"),
    [
        (lambda f: None, {"path": "none"}, "none does not exist; name a folder"),
        (lambda f: (f / "empty").mkdir(), {"path": "empty"}, "hold no file that ends in .png, .jpg, .jpeg"),
        (lambda f: (f / "x.txt").write_text("a"), {"path": "x.txt"}, "neither a folder nor an .npy or .npz file"),
        (lambda f: (f / "1.png").write_text("no image"), {}, "1.png is neither a PNG nor a JPEG image"),
        (lambda f: Image.fromarray(GREY[0]).save(f / "1.png", format="BMP"), {}, "1.png is neither a PNG nor"),
        (cut, {}, "1.png is damaged or cannot be read"),
        (flipped, {}, "1.png is damaged or cannot be read"),
        (lambda f: (f / "1.png").write_bytes(b""), {}, "1.png is neither"),
        (lambda f: (f / "2a.png").mkdir(), {}, ""),
        (lambda f: Image.fromarray(GREY[0].T).save(f / "3.png"), {}, "3.png is 7 x 5 grey, and"),
        (lambda f: None, {"size": [3, 4, 5]}, "dataset.size=[3, 4, 5] must be one number, or rows and columns"),
        (lambda f: None, {"size": 0}, "dataset.size=0 must be at least 1"),
        (lambda f: None, {"size": [9, 5000]}, "dataset.size=5000 must be at most 4096"),
        (lambda f: None, {"test_fraction": 1.0}, "dataset.test_fraction=1.0 must lie between 0 and 1"),
        (lambda f: None, {"test_fraction": 0.5, "test_path": "x"}, "both choose the held-out images"),
        (lambda f: None, {"path": None}, "dataset=images needs a folder or an array"),
        (lambda f: None, {"binarization": "treshold"}, "Did you mean 'threshold'?"),
        (
            lambda f: np.save(f / "t.npy", GREY[:, 1:]),
            {"test_path": "t.npy"},
            "the images of dataset.test_path are 4 x",
        ),
        (saved(GREY[0]), {"path": "x.npy"}, "an array of shape (5, 7); images are (N, rows, columns)"),
        (saved(GREY[..., None].repeat(2, axis=-1)), {"path": "x.npy"}, "shape (6, 5, 7, 2); images are"),
        (saved(GREY[:1]), {"path": "x.npy"}, "has only 1 image; at least 2 are needed"),
        (saved(GREY[:0]), {"path": "x.npy"}, "shape (0, 5, 7); images are"),
        (saved(GREY * 1.0), {"path": "x.npy"}, "of type float64, which should lie between 0 and 1"),
        (saved(GREY.astype(int) - 300), {"path": "x.npy"}, "which should lie between 0 and 255"),
        (saved(np.where(GREY > 9, np.nan, 0.5)), {"path": "x.npy"}, "from nan to nan of type float64"),
        (saved(GREY.astype(str)), {"path": "x.npy"}, "holds <U3; images are bytes"),
        (saved(np.array([None, 1])), {"path": "x.npy"}, "x.npy is no file of one array of numbers"),
        (lambda f: (f / "x.npy").write_bytes(b"no array"), {"path": "x.npy"}, "is no file of one array of numbers"),
        (lambda f: (f / "x.npz").write_bytes(b"PK no zip"), {"path": "x.npz"}, "is no file of one array of numbers"),
        (two_arrays, {"path": "x.npz"}, "x.npz holds 2 arrays (a, b); save the images alone"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    spoil: Callable[[Path], object], settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "images", GREY)
    spoil(folder)
    places = {key: str(folder / value) for key, value in settings.items() if "path" in key and value}
    chosen = {"path": str(folder), **settings, **places}
    if not said:  # what has the name of an image and is a folder is looked into
        assert len(train(**chosen)) == 6
        return
    with pytest.raises(LabError) as caught:
        ImageFiles(**chosen).load()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "?"))


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "images", COLOUR)
    np.save(tmp_path / "x.npy", COLOUR)
    monkeypatch.setattr(image_files, "MOST_BYTES", 600)
    for path in (folder, tmp_path / "x.npy"):
        with pytest.raises(DataError, match=r"6 images, 5 x 7 in colour, take .* GB .*; set a smaller dataset.size"):
            ImageFiles(path=str(path)).load()
    assert train(path=str(folder), size=4).shape == (6, 4, 4, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"0.png has more than 20 pixels; make it smaller"):
        ImageFiles(path=str(folder), size=4).load()


def test_the_command_line_says_it_in_one_line(cli: CommandLine, tmp_path: Path) -> None:
    for settings, said in (((), "dataset.path=<folder"), (("dataset.path=here",), "here does not exist")):
        result = cli("experiment=convolutional_vae", "dataset=images", *settings)
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert said in result.err

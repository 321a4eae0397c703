"""The ``predict.py`` of a bundle reads an image as trainkit does, to the same numbers, whatever its form."""

from __future__ import annotations

import importlib.util
import json
import struct
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import trainkit.exports
from trainkit.data.images import BadImageError, decode_image
from trainkit.data.pixel_rules import PixelRules, make_rules

TEMPLATE = Path(trainkit.exports.__file__).parent / "templates" / "predict_image.py"
ENTRY = {"front_outside": [], "input": {"dtypes": ["uint8"]}}


def bundled(folder: Path, channels: int, pixels: dict[str, Any] | None) -> ModuleType:
    """The script as it lies in a bundle."""
    preprocessing = {"channels": channels, "front": []} | ({} if pixels is None else {"pixels": pixels})
    signature = {"programs": {}, "preprocessing": preprocessing}
    (folder / "signature.json").write_text(json.dumps(signature))
    (folder / "labels.json").write_text("[]")
    (folder / "predict.py").write_bytes(TEMPLATE.read_bytes())
    (folder / "front.py").write_bytes(TEMPLATE.with_name("static_transforms.py").read_bytes())
    spec = importlib.util.spec_from_file_location("bundled_predict", folder / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    broken = struct.pack("<HHI", 0x011A, 5, 1) + b"\xf0\xff\0\0"
    return b"Exif\0\0II*\0\x08\0\0\0\2\0" + entry + broken + bytes(4)


def write_all(folder: Path) -> list[Path]:
    """A picture of each form that has a rule."""
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    color = Image.fromarray(rgb)
    clear = Image.fromarray(np.concatenate([rgb, rng.integers(0, 256, (6, 9, 1), dtype=np.uint8)], axis=2))
    palette = color.quantize(16)
    index = int(np.asarray(palette)[3, 4])
    images: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "rgb.png": (color, {}),
        "gray.png": (color.convert("L"), {}),
        "one bit.png": (color.convert("1"), {}),
        "rgba.png": (clear, {}),
        "la.png": (clear.convert("LA"), {}),
        "opaque.png": (color.convert("RGBA"), {}),
        "palette.png": (palette, {"transparency": index}),
        "palette.gif": (palette, {"transparency": index}),
        "key.png": (color, {"transparency": tuple(rgb[2, 2].tolist())}),
        "cmyk.jpg": (color.convert("CMYK"), {}),
        "wide.png": (Image.fromarray(rng.integers(0, 65536, (6, 9)).astype(np.uint16)), {}),
        "unit.tif": (Image.fromarray(rng.random((6, 9), dtype=np.float32)), {}),
        **{f"turned{k}.jpg": (color, {"exif": exif(k)}) for k in range(1, 10)},
        "broken.jpg": (color, {"exif": b"Exif\0\0nothing"}),
        "frames.gif": (color, {"save_all": True, "append_images": [clear.convert("RGB")]}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
    head = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 2, 32, 0, 0, 9, 6, 8, 0x20)  # two colors, the second is transparent
    pixels = rng.integers(0, 2, (6, 9), dtype=np.uint8)
    (folder / "palette.tga").write_bytes(head + bytes([0, 0, 200, 255, 50, 60, 70, 0]) + pixels.tobytes())
    deep = rng.integers(1030, 1271, (6, 9)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png", transparency=int(deep[1, 1]))
    return [folder / name for name in (*images, "palette.tga")]


RULES = [
    PixelRules(),
    make_rules("black"),
    make_rules([10, 200, 30]),
    PixelRules(background=None),
    make_rules("white", [1030, 1270]),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rules", RULES)
def test_every_form_gives_the_same_numbers(tmp_path: Path, rules: PixelRules, channels: int) -> None:
    script = bundled(tmp_path, channels, rules.to_json())
    files = write_all(tmp_path)
    for path in [*files, *([] if rules.value_range is None else [tmp_path / "deep.png"])]:
        expected = decode_image(path, channels=channels, rules=rules)
        script.SIGNATURE["preprocessing"]["input_shape"] = list(expected.shape)
        found = script.read_image(path, ENTRY)
        assert found.dtype == rules.dtype, path
        assert np.array_equal(found[0], expected), path


def test_the_bundle_of_an_earlier_version_drops_transparency(tmp_path: Path) -> None:
    script = bundled(tmp_path, 3, None)
    [path] = [path for path in write_all(tmp_path) if path.name == "rgba.png"]
    script.SIGNATURE["preprocessing"]["input_shape"] = [3, 6, 9]
    with Image.open(path) as image:
        assert np.array_equal(script.read_image(path, ENTRY)[0], np.asarray(image)[..., :3].transpose(2, 0, 1))


def test_8_bits_for_a_model_of_more_are_refused(tmp_path: Path) -> None:
    script = bundled(tmp_path, 1, PixelRules(value_range=(1030.0, 1270.0)).to_json())
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit, match=r"a\.png: 8 bits, and the images of the training have more, with values"):
        script.read_image(tmp_path / "a.png", ENTRY)


def test_a_folder_is_named_as_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="a folder; give the images in it"):
        bundled(tmp_path, 1, None).read_image(tmp_path, ENTRY)


def odd_files(folder: Path) -> list[Path]:
    """Files that are no images, are damaged, or whose values cannot be used as 8 bits."""
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (6, 9), dtype=np.uint8)
    Image.fromarray(gray).save(folder / "signed.tif", tiffinfo={339: 2})
    Image.fromarray(rng.integers(0, 2000, (6, 9)).astype(np.uint16)).save(folder / "twelve bits.png")
    Image.fromarray(np.full((6, 9), 1.5, np.float32)).save(folder / "above 1.tif")
    Image.fromarray(np.full((6, 9), np.nan, np.float32)).save(folder / "nan.tif")
    Image.fromarray(np.full((6, 9), 70_000, np.int32)).save(folder / "large.tif")
    rows = b"".join(b"\0" + rng.integers(0, 2000, 27).astype(">u2").tobytes() for _ in range(6))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    (folder / "dark color.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    Image.fromarray(gray).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-40])
    (folder / "whole.jpg").unlink()
    (folder / "text.png").write_bytes(b"hello there, this is a text")
    (folder / "empty.png").write_bytes(b"")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(12))
    return sorted(folder.glob("*.*"))


def test_what_trainkit_refuses_is_refused_in_the_same_words(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "files").mkdir()
    script = bundled(tmp_path / "bundle", 3, PixelRules().to_json())
    paths = odd_files(tmp_path / "files")
    assert len(paths) == 11
    for path in paths:
        with pytest.raises(BadImageError) as expected:
            decode_image(path, channels=3)
        with pytest.raises(ValueError) as found:  # noqa: PT011  (the words are compared)
            script.decode(path.read_bytes(), ENTRY)
        assert str(found.value) == str(expected.value)

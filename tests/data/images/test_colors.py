"""Every color mode by its rule: transparency, palettes, CMYK, and gray values of more than 8 bits."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainkit.data.images.colors import BadImageError, describe_traits
from trainkit.data.images.decode import decode_bytes, decode_image, probe_file
from trainkit.data.pixel_rules import PixelRules, make_rules, rules_of

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (5, 7), dtype=np.uint8)
GRAY = Image.fromarray(RGB[..., 0])
DEEP = np.array([[1030, 1100, 1150], [1200, 1250, 1270]], dtype=np.uint16)
RANGE = PixelRules(value_range=(1030.0, 1270.0))


def save(folder: Path, image: Image.Image, name: str = "image.png", **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def blended(colors: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    share = alpha[..., None].astype(float) / 255
    return colors * share + np.array(background) * (1 - share)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 90)])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_alpha_is_blended_on_the_background(tmp_path: Path, background: tuple[int, int, int], name: str) -> None:
    image = Image.fromarray(np.dstack([RGB, ALPHA]))
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    decoded = decode_image(save(tmp_path, image, name, **options), channels=3, rules=PixelRules(background))
    assert np.abs(decoded.transpose(1, 2, 0) - blended(RGB, ALPHA, background)).max() <= 1


def test_gray_with_alpha_is_blended_and_stays_gray(tmp_path: Path) -> None:
    path = save(tmp_path, Image.merge("LA", [GRAY, Image.fromarray(ALPHA)]))
    assert probe_file(path).channels == 1
    expected = blended(RGB[..., :1], ALPHA, (255, 255, 255))[..., 0]
    assert np.abs(decode_image(path, channels=1)[0] - expected).max() <= 1
    assert np.array_equal(*decode_image(path, channels=3)[:2])


def with_transparent_color(mode: str) -> tuple[Image.Image, dict[str, Any], tuple[int, int]]:
    """An image with one color that stands for transparency, how to save it, and the place of such a pixel."""
    if mode == "L":
        return GRAY, {"transparency": int(RGB[2, 3, 0])}, (2, 3)
    if mode == "1":
        image = Image.fromarray(RGB[..., 0] > 128)
        return image, {"transparency": 0}, tuple(np.argwhere(RGB[..., 0] <= 128)[0])
    if mode == "RGB":
        return Image.fromarray(RGB), {"transparency": tuple(RGB[2, 3].tolist())}, (2, 3)
    image = Image.fromarray(RGB).quantize(8)
    return image, {"transparency": int(np.asarray(image)[2, 3])}, (2, 3)


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.png"), ("1", "a.png"), ("RGB", "a.png"), ("P", "a.png"), ("P", "a.gif")]
)
def test_a_transparent_color_shows_the_background(tmp_path: Path, mode: str, name: str) -> None:
    image, options, (row, column) = with_transparent_color(mode)
    path = save(tmp_path, image, name, **options)
    for rules, expected in ((PixelRules(), 255), (PixelRules((0, 0, 0)), 0)):
        assert decode_image(path, channels=3, rules=rules)[:, row, column].tolist() == [expected] * 3
    opaque = decode_image(save(tmp_path, image, "opaque.png"), channels=3)
    assert not np.array_equal(opaque, decode_image(path, channels=3, rules=PixelRules((0, 255, 0))))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_an_opaque_alpha_changes_nothing_and_is_not_mentioned(tmp_path: Path, mode: str) -> None:
    solid = np.full((5, 7, 1), 255, np.uint8)
    image = Image.fromarray(np.concatenate([RGB, solid], axis=2))
    if mode == "PA":
        image = Image.fromarray(RGB).quantize(8).convert("RGBA")
    elif mode == "LA":
        image = Image.merge("LA", [GRAY, Image.fromarray(solid[..., 0])])
    traits: set[str] = set()
    data = save(tmp_path, image).read_bytes()
    decoded = decode_bytes(data, channels=3, traits=traits)
    assert np.array_equal(decoded.transpose(1, 2, 0), np.asarray(image.convert("RGB")))
    assert "transparent" not in traits


def test_checkpoints_of_earlier_versions_drop_transparency(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(np.dstack([RGB, ALPHA])))
    assert np.array_equal(decode_image(path, channels=3, rules=rules_of({"kind": "image"})), RGB.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "rules", [PixelRules(), RANGE, PixelRules(None), make_rules("black", [0, 4095]), make_rules([1, 2, 3])]
)
def test_rules_come_back_from_a_checkpoint(rules: PixelRules) -> None:
    assert rules_of({"pixels": rules.to_json()}) == rules


def adobe(data: bytes, transform: int) -> bytes:
    """A JPEG with the marker of Photoshop, which says how four colors are meant."""
    block = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)
    return data[:2] + b"\xff\xee" + struct.pack(">H", 2 + len(block)) + block + data[2:]


@pytest.mark.parametrize("transform", [None, 0])
def test_cmyk_jpeg(tmp_path: Path, transform: int | None) -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    data = save(tmp_path, ink, "a.jpg", quality=100).read_bytes()
    if transform is not None and b"Adobe" not in data:
        data = adobe(data, transform)
    traits: set[str] = set()
    decoded = decode_bytes(data, channels=3, traits=traits)
    assert decoded[0].min() > 240
    assert decoded[1:].max() < 15
    assert traits == {"CMYK"}


def test_ycck_jpeg_is_read_as_other_viewers_do(tmp_path: Path) -> None:
    data = save(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "a.jpg", quality=100).read_bytes()
    position = data.find(b"Adobe")
    data = data[: position + 11] + b"\2" + data[position + 12 :] if position > 0 else adobe(data, 2)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode_bytes(data, channels=3), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LAB"])
def test_tiff_of_any_mode(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RGB[..., 0] > 128) if mode == "1" else Image.new(mode, (4, 3))
    decoded = decode_image(save(tmp_path, image, "a.tif"), channels=3)
    assert decoded.shape == (3, image.height, image.width)


def test_without_a_range_16_bits_keep_the_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    path = save(tmp_path, Image.fromarray(values))
    expected = [[0, 0, 1], [128, 254, 255]]
    assert decode_image(path, channels=1).tolist() == [expected]
    assert decode_image(path, channels=3).tolist() == [expected] * 3
    assert probe_file(path)[:3] == (1, (2, 3), True)


def test_without_a_range_12_bits_in_16_are_refused_for_they_would_be_black(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="values 1030 to 1270, and the data set has 8 bits"):
        decode_image(save(tmp_path, Image.fromarray(DEEP)), channels=1)


def as_pgm(values: np.ndarray, largest: int) -> bytes:
    height, width = values.shape
    return b"P5 %d %d %d\n" % (width, height, largest) + values.astype(">u2").tobytes()


DEEP_FILES = {
    "I;16.png": lambda path: Image.fromarray(DEEP).save(path),
    "I;16.tif": lambda path: Image.fromarray(DEEP).save(path),
    "I;16B.tif": lambda path: Image.frombytes("I;16B", (3, 2), DEEP.astype(">u2").tobytes()).save(path),
    "I.tif": lambda path: Image.fromarray(DEEP.astype(np.int32)).save(path),
    "F.tif": lambda path: Image.fromarray(DEEP.astype(np.float32)).save(path),
    "a.jp2": lambda path: Image.fromarray(DEEP).save(path, irreversible=False),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", DEEP_FILES)
def test_values_of_more_than_8_bits_keep_their_precision(tmp_path: Path, name: str, channels: int) -> None:
    DEEP_FILES[name](tmp_path / name)
    decoded = decode_image(tmp_path / name, channels=channels, rules=RANGE)
    assert decoded.dtype == np.float32
    assert np.allclose(decoded, np.repeat(((DEEP - 1030.0) / 240)[None], channels, axis=0), atol=1e-6)
    assert len(np.unique(decoded)) == DEEP.size


def test_pgm_with_1023_as_its_largest_value(tmp_path: Path) -> None:
    values = np.arange(1024).reshape(32, 32)
    (tmp_path / "a.pgm").write_bytes(as_pgm(values, 1023))
    rules = PixelRules(value_range=(0.0, 65535.0))
    decoded = decode_image(tmp_path / "a.pgm", channels=1, rules=rules)
    assert len(np.unique(decoded)) == 1024
    assert np.abs(decoded[0] - values / 1023).max() < 1e-4


def test_signed_values_and_those_outside_the_range(tmp_path: Path) -> None:
    hounsfield = np.array([[-2000, -1000, 0, 1000, 3000]], dtype=np.int32)
    traits: set[str] = set()
    data = save(tmp_path, Image.fromarray(hounsfield), "a.tif").read_bytes()
    decoded = decode_bytes(data, channels=1, rules=PixelRules(value_range=(-1000.0, 1000.0)), traits=traits)
    assert decoded[0].tolist() == [[0, 0, 0.5, 1, 1]]
    assert traits == {"gray", "outside"}


def test_a_transparent_value_of_16_bits(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(DEEP), transparency=1030)
    assert decode_image(path, channels=1, rules=RANGE)[0, 0, 0] == 1
    assert decode_image(path, channels=1, rules=PixelRules((0, 0, 0), (1030.0, 1270.0)))[0, 0, 0] == 0


def test_8_bits_beside_more_need_to_be_allowed(tmp_path: Path) -> None:
    path = save(tmp_path, GRAY)
    with pytest.raises(BadImageError, match="8 bits, and the images of the training have more, with values 1030 to"):
        decode_image(path, channels=1, rules=RANGE)
    decoded = decode_image(path, channels=1, rules=make_rules("white", [1030, 1270]))
    assert np.array_equal(decoded, RGB[None, ..., 0].astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_an_error(tmp_path: Path, value: float) -> None:
    pixels = np.full((2, 3), 0.5, np.float32)
    pixels[0, 1] = value
    with pytest.raises(BadImageError, match="1 of 6 values are NaN or infinite"):
        decode_image(save(tmp_path, Image.fromarray(pixels), "a.tif"), channels=1)


def test_floats_in_0_to_1_are_read_beside_8_bits_and_others_refused(tmp_path: Path) -> None:
    unit = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert decode_image(save(tmp_path, unit, "a.tif"), channels=1).tolist() == [[[0, 128, 255]]]
    wide = Image.fromarray(np.array([[0, 0.5, 7]], np.float32))
    with pytest.raises(BadImageError, match="32-bit floats from 0 to 7, and the data set has 8 bits"):
        decode_image(save(tmp_path, wide, "b.tif"), channels=1)


def png(pixels: np.ndarray, color_type: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write in color."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("color_type", "bands"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_a_color_are_said(color_type: int, bands: int) -> None:
    pixels = np.full((4, 5, bands), 65535, np.uint16)
    pixels[..., 0] = 10260
    traits: set[str] = set()
    decoded = decode_bytes(png(pixels, color_type), channels=3, traits=traits)
    assert decoded[0].tolist() == [[40] * 5] * 4
    assert "16-bit color" in traits


@pytest.mark.parametrize(("color_type", "bands"), [(2, 3), (4, 2), (6, 4)])
def test_12_bits_a_color_in_16_are_refused_for_they_would_be_black(color_type: int, bands: int) -> None:
    pixels = np.random.default_rng(0).integers(1030, 1271, (4, 5, bands)).astype(np.uint16)
    with pytest.raises(BadImageError, match="16 bits a color with values below 4096"):
        decode_bytes(png(pixels, color_type), channels=3)
    assert decode_bytes(png(0 * pixels, 2 if bands == 3 else color_type), channels=3) is not None


def tiff(values: np.ndarray, *, bits: int, kind: int = 1, photometric: int = 1) -> bytes:
    """A TIFF as Pillow does not write it: (H, W, bands), a kind of 1 unsigned, 2 signed, 3 floats."""
    height, width, bands = values.shape
    data, strip = values.tobytes(), 8
    end = strip + len(data) + len(data) % 2

    def entry(tag: int, value: int, count: int = 1, type_: int = 4) -> bytes:
        return struct.pack("<HHII", tag, type_, count, value)

    tables = b"".join(struct.pack("<H", number) * bands for number in (bits, kind))
    at = [end, end + 2 * bands] if bands > 2 else [bits | bits << 16, kind | kind << 16]
    entries = [
        entry(256, width),
        entry(257, height),
        entry(258, at[0], bands, 3) if bands > 1 else entry(258, bits, 1, 3),
        entry(259, 1),
        entry(262, photometric),
        entry(273, strip),
        entry(277, bands),
        entry(278, height),
        entry(279, len(data)),
        *([entry(338, 0, 1, 3)] if bands in (2, 4) else []),  # the last band is no alpha
        entry(339, at[1], bands, 3) if bands > 1 else entry(339, kind, 1, 3),
    ]
    directory = end + (len(tables) if bands > 2 else 0)
    head = b"II*\0" + struct.pack("<I", directory) + data + bytes(len(data) % 2)
    return head + (tables if bands > 2 else b"") + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.zeros((4, 5, 5), np.uint8), {"bits": 8}, r"a TIFF file that Pillow does not read \(unknown"),
        (np.zeros((4, 5, 3), np.float32), {"bits": 32, "kind": 3, "photometric": 2}, "it reads gray of 8 to 32 bits"),
        (np.zeros((4, 5, 1), np.float64), {"bits": 64, "kind": 3}, "a TIFF file that Pillow does not read"),
        (np.zeros((4, 5, 1), np.float16), {"bits": 16, "kind": 3}, "a TIFF file that Pillow does not read"),
        (np.full((4, 5, 1), -3, np.int8), {"bits": 8, "kind": 2}, "signed values of 8 bits"),
        (np.full((4, 5, 1), 2**32 - 9, np.uint32), {"bits": 32}, "unsigned values of 32 bits above 2147483647"),
    ],
)
def test_tiffs_that_pillow_reads_wrong_or_not_say_why(values: np.ndarray, options: Any, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_bytes(tiff(values, **options), channels=1, rules=PixelRules(value_range=(0.0, 1.0), allow_8_bit=True))


@pytest.mark.parametrize(
    ("bands", "options", "trait"),
    [
        (2, {"bits": 8}, "bands"),
        (4, {"bits": 8, "photometric": 2}, "bands"),
        (1, {"bits": 16, "photometric": 0}, "white is 0"),
    ],
)
def test_what_pillow_leaves_out_of_a_tiff_is_said(bands: int, options: Any, trait: str) -> None:
    values = np.full((4, 5, bands), 9000, np.uint16) if options["bits"] == 16 else np.full((4, 5, bands), 9, np.uint8)
    traits: set[str] = set()
    decode_bytes(tiff(values, **options), channels=3, traits=traits)
    assert trait in traits


def test_signed_16_bits(tmp_path: Path) -> None:
    values = np.array([[[-1000], [0], [1000]]], np.int16)
    data = tiff(values, bits=16, kind=2)
    decoded = decode_bytes(data, channels=1, rules=PixelRules(value_range=(-1000.0, 1000.0)))
    assert decoded[0].tolist() == [[0, 0.5, 1]]


def test_one_line_says_what_was_met() -> None:
    counts = {"transparent": 12, "gray": 3, "CMYK": 2, "palette": 4, "frames": 1}
    assert describe_traits(counts, 100, channels=3, rules=PixelRules()) == (
        "among 100 images: 12 transparent (blended on white), 3 gray (three equal channels), 4 with a palette "
        "(looked up), 2 CMYK (to RGB without a color profile), 1 with several frames or pages (the first is used)"
    )
    assert describe_traits({"gray": 100}, 100, channels=3, rules=PixelRules()) == ""
    assert describe_traits({"gray": 100}, 100, channels=1, rules=PixelRules()) == ""
    assert "blended on (1, 2, 3)" in describe_traits({"transparent": 1}, 1, channels=1, rules=PixelRules((1, 2, 3)))

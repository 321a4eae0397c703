# mypy: ignore-errors
"""The class and the probabilities of images, one line of JSON each: python predict.py IMAGE... [--program model.onnx]

An image that has not the model's size after the stored transforms is an error; --resize brings it there.
Needs numpy, Pillow, and torch or (for .onnx) onnxruntime; not trainkit.
"""

import argparse
import functools
import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

FOLDER = Path(__file__).parent
SIGNATURE = json.loads((FOLDER / "signature.json").read_text(encoding="utf-8"))
LABELS = json.loads((FOLDER / "labels.json").read_text(encoding="utf-8"))
warnings.filterwarnings("ignore", module=r"PIL\.")  # of large images and odd EXIF data
REFUSED = ("EPS", "PDF", "MPEG", "WMF", "BUFR", "GRIB", "HDF5", "FPX", "MIC")
HEIF = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "pillow-heif")
PACKAGES = {**HEIF, **dict.fromkeys((b"avif", b"avis"), "pillow 11.3 or later")}
PROGRAMS = {name: entry for name, entry in SIGNATURE["programs"].items() if entry["format"] != "safetensors"}


def load(name):
    """A function from (N, C, H, W) to probabilities (N, K)."""
    if name.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait leave the cores
        session = onnxruntime.InferenceSession(str(FOLDER / name), options, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, {session.get_inputs()[0].name: inputs})[0]
    import torch

    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.jit.load is deprecated, and works
    path = str(FOLDER / name)
    program = torch.export.load(path).module() if name.endswith(".pt2") else torch.jit.load(path, map_location="cpu")

    def run(inputs):
        with torch.no_grad():
            outputs = program(torch.from_numpy(inputs))
        return (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()

    return run


def read_image(path, entry, resize=False):
    """A file as (1, C, H, W) in the program's dtype."""
    if Path(path).is_dir():
        raise SystemExit(f"{path}: a folder; give the images in it, such as {path}/*")
    try:
        return decode(Path(path).read_bytes(), entry, resize)[None]
    except OSError as error:
        raise SystemExit(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise SystemExit(f"{path}: {error}") from None


def decode(data, entry, resize=False, max_pixels=None):
    """The bytes of a file as (C, H, W) in the program's dtype, upright, gray or RGB; resized and cropped if needed.

    Raises ValueError, which says why it cannot be used; one of more than ``max_pixels`` is not decoded.
    """
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    from front import apply_front, size_after

    preprocessing = SIGNATURE["preprocessing"]
    pixels = decode_pixels(data, preprocessing["channels"], max_pixels)
    found, size = size_after(pixels.shape[:2], preprocessing["front"]), preprocessing["input_shape"][1:]
    if found != size and resize:
        pixels = apply_front(pixels, [{"type": "resize", "size": size}])
        found = size_after(size, preprocessing["front"])
    if found != size:
        after = " after the stored transforms" if preprocessing["front"] else ""
        raise ValueError(
            f"{found[0]} x {found[1]} pixels{after}, and the model takes {size[0]} x {size[1]} "
            "(height x width); resize it, or add --resize"
        )
    pixels = apply_front(pixels, entry["front_outside"])
    image = np.array(pixels.transpose(2, 0, 1), order="C")
    if image.dtype == np.uint8 and "uint8" not in entry["input"]["dtypes"]:
        image = image.astype(np.float32) / np.float32(255)
    return image


def decode_pixels(data, channels, max_pixels):
    """(H, W, C) as ``read_pixels`` gives them."""
    if not data:
        raise ValueError("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=readable())
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large ({error})") from None
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and (package := PACKAGES.get(data[8:12])):
            raise ValueError(f"an image that Pillow does not read by itself: install {package}") from None
        raise ValueError(f"not an image (it begins with {data[:12]!r})") from None
    except Exception as error:  # noqa: BLE001  (see below)
        raise ValueError(f"not an image that can be read ({reason(error)})") from None
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise ValueError(f"too large ({image.width * image.height:,} pixels, and at most {max_pixels:,} are read here)")
    format = image.format
    wide = format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA", "LA") and ";16" in str(image.tile)
    try:
        image.load()
    except Exception as error:  # noqa: BLE001  (Pillow's decoders raise anything)
        raise ValueError(f"damaged {format} ({reason(error)})") from None
    check_values(image, wide)
    return read_pixels(upright(image), channels)


def check_values(image, wide):
    """Raise ValueError where Pillow does not heed what a file says of its values; ``wide``: 16 bits a color."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits, signed = (np.ravel(tags.get(tag, 1))[0] for tag in (258, 339))
    if signed == 2 and bits == 8:
        raise ValueError("signed values of 8 bits, which Pillow takes for unsigned ones; save it with 16 bits")
    if image.mode == "I" and bits == 32 and signed != 2 and np.asarray(image).min() < 0:
        raise ValueError("unsigned values of 32 bits above 2147483647; save it as 32-bit floats")
    if wide and 0 < max(int(np.asarray(image.getchannel(band)).max()) for band in image.getbands() if band != "A") < 16:
        raise ValueError(
            "16 bits a color with values below 4096, of which Pillow reads the high byte: it would be black; "
            "save it with 8 bits, or as gray"
        )


@functools.cache
def readable():
    """Pillow's formats but those that need other programs, such as EPS, which Ghostscript would run."""
    Image.init()
    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 16 << 20)
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    return tuple(name for name in Image.ID if name not in REFUSED)


def reason(error):
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def upright(image):
    """Turned as the EXIF orientation says; a block that cannot be read is as none."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001  (Pillow raises anything)
        orientation = 1
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    if orientation not in turns:
        return image
    turned = image.transpose(turns[orientation])
    turned.info = image.info
    return turned


def read_pixels(image, channels):
    """(H, W, C): uint8, or where the training had gray values of more than 8 bits, float32 in [0, 1]."""
    rules = SIGNATURE["preprocessing"].get("pixels", {"background": None, "value_range": None, "allow_8_bit": False})
    background, value_range = rules["background"], rules["value_range"]
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(deep_pixels(image, background, value_range)[:, :, None], channels, axis=2)
    if value_range and not rules["allow_8_bit"]:
        raise ValueError(
            "8 bits, and the images of the training have more, with values {:.10g} to {:.10g}: "
            "there is no rule between the two; give it in the same form".format(*value_range)
        )
    clear = "transparency" in image.info or (image.mode == "P" and image.palette and image.palette.mode.endswith("A"))
    if background and (clear or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")):
        blended = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha = blended.getchannel("A")
        if alpha.getextrema() != (255, 255):
            image = Image.new("RGB", image.size, tuple(background))
            image.paste(blended.convert("RGB"), mask=alpha)
    if image.mode in ("LA", "La"):
        image = image.getchannel(0)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)
    return pixels.astype(np.float32) / np.float32(255) if value_range else pixels


def deep_pixels(image, background, value_range):
    """(H, W) of gray values of more than 8 bits: from the range to [0, 1], or 8 bits."""
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{bad:,} of {values.size:,} values are NaN or infinite; give them a number")
    if not value_range:
        check_8_bits(values)
    if value_range:
        low, high = value_range
        pixels = ((values.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)
    elif image.mode == "F":
        pixels = np.rint(values * 255).astype(np.uint8)
    else:
        pixels = (values // 256).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int) and background:
        level = Image.new("RGB", (1, 1), tuple(background)).convert("L").getpixel((0, 0))
        pixels[values == key] = np.float32(level / 255) if value_range else level
    return pixels


def check_8_bits(values):
    """Raise ValueError where 8 bits do not hold these values as the training has read others."""
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if low < 0 or high > 1:
            raise ValueError(f"32-bit floats from {low:g} to {high:g}, and the data set has 8 bits; save it so")
    elif low < 0 or high > 65535:
        raise ValueError(f"gray values {low} to {high}, and the data set has 8 bits; save it with 8 bits")
    elif 0 < high < 4096:
        raise ValueError(
            f"16 bits with values {low} to {high}, and the data set has 8 bits: it would be black; save it with 8 bits"
        )


def first_of(names):
    """The first program whose runtime is installed, and a function as of ``load``."""
    for name in names:
        try:
            return name, load(name)
        except ImportError as error:
            missing = error.name
            if name != names[-1]:
                print(f"note: {missing} is not installed, so not {name} is taken", file=sys.stderr)
    sys.exit(f"error: {names[-1]} needs {missing}, which is not installed; pip install {missing}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--program", choices=PROGRAMS, help="the first one whose runtime is installed, if not given")
    parser.add_argument("--resize", action="store_true", help="resize images of another size; they may be stretched")
    options = parser.parse_args()
    name, run = first_of([options.program] if options.program else list(PROGRAMS))
    failed = False
    for path in options.images:
        try:
            inputs = read_image(path, PROGRAMS[name], options.resize)
        except SystemExit as error:
            inputs, failed = None, str(error)
        if inputs is None:
            print(f"error: {failed}", file=sys.stderr)
            continue
        values = run(inputs)[0].tolist()
        best = int(np.argmax(values))
        chances = dict(zip(LABELS, values, strict=True))
        answer = {"label": LABELS[best], "probability": values[best], "probabilities": chances}
        print(json.dumps({"input": path, **answer}))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()

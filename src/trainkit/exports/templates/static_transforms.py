# mypy: ignore-errors
"""Static transforms with numpy alone, by torch's arithmetic: uint8 to the same bytes as in training, floats nearly."""

import functools

import numpy as np


def apply_front(image, transforms):
    """(H, W, C) through the static transforms in signature.json to (H', W', C'): uint8, or float32 in [0, 1]."""
    for transform in transforms:
        if transform["type"] == "resize":
            image = resize(image, transform["size"], transform.get("interpolation", "bilinear"))
        elif transform["type"] == "center_crop":
            image = center_crop(image, *square(transform["size"]))
        elif transform["type"] == "grayscale":
            image = grayscale(image, transform.get("num_output_channels", 1))
        else:
            raise ValueError(
                f"{transform['type']} is not written in numpy here; use a TorchScript program, which does it"
            )
    return image


def size_after(size, transforms):
    """[H, W] of an image of this size after the static transforms."""
    size = list(size)
    for transform in transforms:
        if transform["type"] == "resize":
            size = side_lengths(*size, transform["size"])
        elif transform["type"] == "center_crop":
            size = square(transform["size"])
    return size


def square(size):
    """[H, W] of a crop: itself, or one number for both."""
    return size if isinstance(size, list) else [size, size]


def side_lengths(height, width, size):
    """[H, W] that a transform's size stands for: itself, or a length of the shorter side."""
    shorter = min(height, width)
    return size if isinstance(size, list) else [size * height // shorter, size * width // shorter]


def resize(image, size, interpolation):
    """To (H, W), or to a length of the shorter side."""
    height, width = image.shape[:2]
    size = side_lengths(height, width, size)
    if interpolation == "nearest":
        return image[nearest(height, size[0])][:, nearest(width, size[1])]
    for axis in (1, 0):  # along the rows first
        weights, bits = resize_weights(image.shape[axis], size[axis], interpolation, whole=image.dtype == np.uint8)
        if image.dtype != np.uint8:
            rows = np.tensordot(np.moveaxis(image, axis, -1).astype(np.float64), weights.T, axes=1)
            image = np.moveaxis(rows, -1, axis)
            continue
        sums = weighted_sums(image, weights, axis)
        sums += 1 << (bits - 1)
        sums >>= bits
        image = sums.clip(0, 255, out=sums).astype(np.uint8)
    return image if image.dtype == np.uint8 else image.clip(0, 1).astype(np.float32)


def weighted_sums(image, weights, axis):
    """Sums along an axis of uint8; each row of (after, before) ``weights`` is 0 but for a few neighbors.

    One neighbor of all outputs at a time, which is fast and keeps the memory small. The sums fit 32 bits: the weights
    add up to less than 2 ** 23.
    """
    used, before = weights != 0, weights.shape[1]
    first, last = used.argmax(axis=1), before - 1 - used[:, ::-1].argmax(axis=1)
    lines = np.ascontiguousarray(np.moveaxis(image, axis, 0))
    shape = lines.shape[1:]
    lines = lines.reshape(before, -1)
    sums = np.zeros((len(weights), lines.shape[1]), np.int32)
    product = np.empty_like(sums)
    for step in range(int((last - first).max()) + 1):
        places = np.minimum(first + step, before - 1)
        factors = np.where(first + step < before, weights[np.arange(len(weights)), places], 0)
        sums += np.multiply(lines[places], factors.astype(np.int32)[:, None], out=product)
    return np.moveaxis(sums.reshape(-1, *shape), 0, axis)


def nearest(before, after):
    """The pixel that each of ``after`` pixels is taken from, in 32-bit floats as in torch."""
    positions = np.arange(after, dtype=np.float32) * (np.float32(before) / np.float32(after))
    return positions.astype(int).clip(0, before - 1)


@functools.lru_cache(64)
def resize_weights(before, after, interpolation, whole):
    """With antialiasing: (after, before) that add up to 1; whole ones as in torch, up to about 2 ** bits."""
    scale = before / after
    stretch = max(scale, 1.0)
    x = np.abs((np.arange(before) + 0.5 - (np.arange(after)[:, None] + 0.5) * scale) / stretch)
    if interpolation == "bilinear":
        weights = np.maximum(1 - x, 0)
    else:  # bicubic with a = -0.5
        weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    if not whole:
        return weights, 0
    bits = next((n for n in range(22) if int(0.5 + weights.max() * (1 << (n + 1))) >= 1 << 15), 22)
    return np.trunc(weights * (1 << bits) + np.where(weights < 0, -0.5, 0.5)).astype(np.int64), bits


def center_crop(image, height, width):
    """Cut out of the middle; a smaller image is padded with zeros first."""
    pads = [max(height - image.shape[0], 0), max(width - image.shape[1], 0)]
    image = np.pad(image, [(pads[0] // 2, (pads[0] + 1) // 2), (pads[1] // 2, (pads[1] + 1) // 2), (0, 0)])
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


def grayscale(image, channels):
    """Luma of RGB, cut to a whole number."""
    if image.shape[2] == 3:
        red, green, blue = (image[:, :, k].astype(np.float32) for k in range(3))
        luma = red * np.float32(0.2989) + np.float32(0.587) * green + np.float32(0.114) * blue
        image = luma.astype(image.dtype)[:, :, None]
    return np.repeat(image, channels, axis=2)

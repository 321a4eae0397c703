"""Operations on the 256 levels of uint8 images, each with numbers of its own for every image.

An operation takes uint8 images (n, C, H, W) in any layout, C 1 or 3, and float32 numbers (n, k), and gives images of
the same shape. Each equals the function of that name in ``torchvision.transforms.v2.functional`` on one uint8 image at
a time: to the last level, except ``grayscale`` (3 of 16.7 million colors differ) and ``blur``, by one level. Where
torchvision fuses a product and a sum (``color``, ``contrast``, ``sharpness``), processors that cannot do that, and MPS,
may differ from others by one level too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from trainkit.data.images.layout import is_nhwc, memory_view, view_like
from trainkit.data.transforms.geometry import inside


def to_levels(images: torch.Tensor) -> torch.Tensor:
    """uint8 images as they are; floats in [0, 1] rounded to the nearest of the 256 levels."""
    if images.dtype == torch.uint8:
        return images
    return _bytes((images * 255).round_().clamp_(0, 255))


def brightness(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Multiply by a factor."""
    return _cut(images.to(torch.float32).mul_(_per_image(numbers)))


def color(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """A mean of image and grayscale image, weighted with a factor and 1 - factor: ``adjust_saturation``."""
    return images if images.shape[1] == 1 else _blend(images, _luma(images), numbers)


def contrast(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """A mean of image and mean gray, weighted with a factor and 1 - factor."""
    # The sum of whole numbers is exact however it is split up, and so the same for every number of images.
    mean = _luma(images).sum((1, 2, 3), keepdim=True, dtype=widest_float(images)) / (images.shape[2] * images.shape[3])
    return _blend(images, mean.to(torch.float32), numbers)


def sharpness(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Move away from the blurred image by a factor; the outermost pixels stay. The number is 1 - factor."""
    if min(images.shape[2:]) <= 2:
        return images
    pixels = images.to(torch.float32)
    columns = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    middle = pixels[:, :, 1:-1, 1:-1]
    # Sums of whole numbers, divided once: no sum divided by 13 lies halfway between two levels.
    blurred = (columns[..., :-2] + columns[..., 1:-1]).add_(columns[..., 2:]).add_(middle * 4).div_(13).round_()
    # Rounded once, as a fused sum: a pixel plus a difference (8 bits each) times the first 8 bits of a factor from 2^-8
    # on is exact in float32, and so is the product with the factor's other 16 bits.
    difference, factor = blurred.sub_(middle), _per_image(numbers)
    most = (factor.view(torch.int32) & ~((1 << 16) - 1)).view(torch.float32)
    middle.add_(difference * most).add_(difference.mul_(factor - most))
    return _cut(pixels)


def posterize(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Keep the highest bits, 0 to 8 of them."""
    mask = 256 - (8 - _per_image(numbers)).exp2()
    return images & mask.to(torch.uint8)


def solarize(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Invert the pixels from a level on, a whole number from 0 to 255."""
    # -1 below the level: comparing bytes, and choosing among them, takes several times as long.
    below = (images.to(torch.int16) - _per_image(numbers).to(torch.int16)) >> 15
    return images ^ ~below.to(torch.uint8)


def autocontrast(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Stretch each channel to the whole range of levels."""
    lines = _lines(images)
    if is_nhwc(images):
        ends = [find(find(lines, 1).view(len(images), -1, images.shape[1]), 1) for find in (torch.amin, torch.amax)]
    else:
        ends = [find(lines, 2) for find in (torch.amin, torch.amax)]
    low, high = (end.to(torch.float32) for end in ends)
    flat = low == high
    unit = ((high - low) * (1 / 255)).masked_fill_(flat, 1)
    stretched = (
        lines.to(torch.float32).sub_(_for_lines(low.masked_fill_(flat, 0), images)).div_(_for_lines(unit, images))
    )
    return _like(_cut(stretched), images)


def equalize(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Give each level of a channel about as many pixels, as PIL does."""
    index = torch.int32 if images.device.type == "cpu" else torch.int64
    planes = torch.arange(0, 256 * images[:, :, 0, 0].numel(), 256, dtype=index, device=images.device)
    planes = planes.view(images.shape[:2])
    # The level of each pixel in the histogram of its channel.
    cells = _lines(images).to(index).add_(_for_lines(planes, images)).flatten()
    counts = _count(cells, planes.numel() * 256).view(-1, 256)
    sums = counts.cumsum(1)
    last = counts.gather(1, sums.argmax(1, keepdim=True))  # how many pixels have the highest level that occurs
    step = (images.shape[2] * images.shape[3] - last).div_(255, rounding_mode="floor")
    table = (sums + step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), F.pad(table[:, :-1], (1, 0)))
    return _like(table.to(torch.uint8).flatten().index_select(0, cells), images)


def _count(cells: torch.Tensor, num_cells: int) -> torch.Tensor:
    """How often each number below ``num_cells`` comes."""
    if cells.device.type == "cpu":
        return cells.bincount(minlength=num_cells)
    counts = torch.zeros(num_cells, dtype=torch.int64, device=cells.device)  # bincount would wait for the device
    return counts.scatter_add_(0, cells, counts.new_ones(1).expand(len(cells)))


def invert(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """255 minus each level."""
    return ~images


def grayscale(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The luma in every channel."""
    return images if images.shape[1] == 1 else _bytes(_luma(images)).expand_as(images)


def blur(images: torch.Tensor, numbers: torch.Tensor, *, kernel_size: tuple[int, int]) -> torch.Tensor:
    """Blur with a Gaussian: the number is its standard deviation in pixels.

    Args:
        kernel_size: width and height of the kernel, both odd; half of it is smaller than the image.
    """
    pixels = images.to(torch.float32)
    for axis, size in zip((3, 2), kernel_size, strict=True):
        half = size // 2
        at = torch.linspace(-(size - 1) / 8**0.5, (size - 1) / 8**0.5, size, device=images.device)
        weights = (at / numbers[:, :1]).square_().neg_().softmax(1)[:, :, None, None, None]
        length = images.shape[axis]
        positions = inside(torch.arange(-half, length + half, device=images.device), length, "reflect")
        padded = pixels.index_select(axis, positions)
        pixels = padded.narrow(axis, half, length) * weights[:, half]
        for tap in range(half):  # the kernel is symmetric
            pair = padded.narrow(axis, tap, length) + padded.narrow(axis, size - 1 - tap, length)
            pixels.add_(pair.mul_(weights[:, tap]))
    return _bytes(pixels.round_())


def _lines(images: torch.Tensor) -> torch.Tensor:
    """The images as they lie in memory, in lines as long as possible: (n, H, W * C), or (n, C, H * W)."""
    return memory_view(images).flatten(2)


def _like(lines: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The inverse of ``_lines``."""
    return view_like(lines.view(memory_view(images).shape), images)


def _for_lines(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """A value for each channel, (n, C), as one for each number of ``_lines``: broadcasting three of them is slow."""
    return values.repeat(1, images.shape[3])[:, None] if is_nhwc(images) else values[:, :, None]


def _per_image(numbers: torch.Tensor, column: int = 0) -> torch.Tensor:
    return numbers[:, column, None, None, None]


def _cut(pixels: torch.Tensor) -> torch.Tensor:
    """Floats as levels: what lies outside is clamped, fractions are cut off, as torchvision does."""
    return _bytes(pixels.clamp_(0, 255))


def _bytes(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.to(torch.int16).to(torch.uint8)  # directly takes four times as long


def _blend(images: torch.Tensor, others: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """``images`` times the first number plus ``others`` times the second one."""
    first = images.to(torch.float32).mul_(_per_image(numbers))
    return _cut(_add_product(first, others, _per_image(numbers, 1)))


def _add_product(first: torch.Tensor, second: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """``first + second * factor``, rounded once to float32 wherever a pixel lies: PyTorch's own fused sum has another
    kernel for the pixels at the end of a block."""
    wide = widest_float(first)
    total, product = first.to(wide), second.to(wide) * factor.to(wide)
    if is_nhwc(first) and product.shape[1:] == (1, *first.shape[2:]):
        for channel in total.unbind(1):  # broadcasting over the innermost three takes longer
            channel.add_(product[:, 0])
    else:
        total.add_(product)
    return total.to(torch.float32)


def widest_float(images: torch.Tensor) -> torch.dtype:
    return torch.float32 if images.device.type == "mps" else torch.float64


def _luma(images: torch.Tensor) -> torch.Tensor:
    """Whole numbers, float32 (n, 1, H, W), with torchvision's weights of ITU-R 601-2."""
    if images.shape[1] == 1:
        return images.to(torch.float32)
    # Sums of whole numbers are exact in float32, so no rounding decides whether a level is reached.
    if images.device.type == "cpu" and is_nhwc(images):
        weights = torch.tensor([2989.0, 5870.0, 1140.0])
        count, _, height, width = images.shape
        sums = memory_view(images).reshape(-1, 3).to(torch.float32).mv(weights)  # half the time of single channels
        return sums.view(count, 1, height, width).div_(10000).floor_()
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return (red * 2989.0).add_(green * 5870.0).add_(blue * 1140.0).div_(10000).floor_()

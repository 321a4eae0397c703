"""``transforms:`` applied to a sample before the model sees it. Random ones act on training data only."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from trainkit.config.schema.base import (
    Count,
    NonNegative,
    Positive,
    Probability,
    Range,
    Section,
    ShortForm,
    Size,
    variants_of,
)

Stage = Literal["static", "random", "scaling"]
Kind = Literal["image", "table", "any"]
Interpolation = Literal["nearest", "bilinear"]
Spread = Range | NonNegative
Translate = Annotated[list[Probability], Field(min_length=2, max_length=2)]
KernelSize = Annotated[list[Count], Field(min_length=2, max_length=2)] | Count
Length = int | None
"""A height or width in pixels; None where it is not known before the images are."""


class TransformSection(Section):
    """A transform. The arguments of its class statement hold what rules, builders and findings need to know."""

    stage: ClassVar[Stage]
    """static: deterministic, applied once into the cache, so it stands before the first random transform.
    random: drawn for each sample and epoch, on batches of training data. scaling: ``(x - mean) / std`` of batches."""
    works_on: ClassVar[Kind]
    """The kind of data set that it fits."""
    needs_pixel_values: ClassVar[bool]
    """Whether it needs pixel values in [0, 1], so that it must stand before normalize."""
    costly: ClassVar[bool]
    """Whether training may wait for it: it takes much longer than copying the batch."""

    def __init_subclass__(
        cls, *, stage: Stage, works_on: Kind, needs_pixel_values: bool, costly: bool, **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.stage, cls.works_on, cls.needs_pixel_values, cls.costly = stage, works_on, needs_pixel_values, costly

    def output_size(self, height: Length, width: Length) -> tuple[Length, Length]:
        """Height and width of the result. A transform that changes or fixes the size overrides this."""
        return height, width


def height_and_width(size: list[int] | int) -> tuple[int, int]:
    """``[H, W]``, or one number for a square, as a pair."""
    return (size[0], size[1]) if isinstance(size, list) else (size, size)


class Resize(TransformSection, stage="static", works_on="image", needs_pixel_values=True, costly=False):
    """Resize images; one number is the length of the shorter side, as in torchvision."""

    type: Literal["resize"]
    size: Size = Field(description="[H, W], or the length of the shorter side (the aspect ratio is kept).")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        "bilinear", description="How pixels between pixels are computed; antialiased when shrinking."
    )

    def output_size(self, height: Length, width: Length) -> tuple[Length, Length]:
        if isinstance(self.size, list):
            return self.size[0], self.size[1]
        return (self.size, self.size) if height == width and height is not None else (None, None)


class CenterCrop(TransformSection, stage="static", works_on="image", needs_pixel_values=True, costly=False):
    """Cut out the center; smaller images are padded with zeros."""

    type: Literal["center_crop"]
    size: Size = Field(description="[H, W] of the crop, or one number for a square.")

    def output_size(self, height: Length, width: Length) -> tuple[Length, Length]:
        return height_and_width(self.size)


class Grayscale(TransformSection, stage="static", works_on="image", needs_pixel_values=True, costly=False):
    """Luma of RGB images (ITU-R 601-2, as in torchvision)."""

    type: Literal["grayscale"]
    num_output_channels: Literal[1, 3] = Field(1, description="1, or 3 equal channels.")


class Normalize(TransformSection, stage="scaling", works_on="image", needs_pixel_values=False, costly=False):
    """``(x - mean) / std`` by channel, on pixel values scaled to [0, 1]."""

    type: Literal["normalize"]
    mean: list[float] | Literal["auto"] = Field("auto", description="One value a channel; auto: of the training split.")
    std: list[Positive] | Literal["auto"] = Field(
        "auto", description="One value a channel; auto: of the training split."
    )


class Standardize(TransformSection, stage="scaling", works_on="table", needs_pixel_values=False, costly=False):
    """``(x - mean) / std`` by column of a table, with the training split's statistics; constant columns become 0."""

    type: Literal["standardize"]


class RobustScale(TransformSection, stage="scaling", works_on="table", needs_pixel_values=False, costly=False):
    """Quantities in quartile distances from the median, bent into (-3, 3), so that no outlier rules (Holzmüller et al.,
    2024): ``z = (x - median) / IQR``, then ``z / sqrt(1 + (z / 3)^2)``; constant columns become 0."""

    type: Literal["robust_scale"]


class Quantile(TransformSection, stage="scaling", works_on="table", needs_pixel_values=False, costly=False):
    """The normal score of a value's rank in the training split (``sklearn.preprocessing.QuantileTransformer``, of up to
    1000 quantiles, with ``output_distribution="normal"``); constant columns become 0."""

    type: Literal["quantile"]


class RandomCrop(TransformSection, stage="random", works_on="image", needs_pixel_values=False, costly=False):
    """Pad, then cut out a random window."""

    type: Literal["random_crop"]
    size: Size | None = Field(
        None, description="[H, W] of the crop, or one number; the image's own size when left out."
    )
    padding: int = Field(0, ge=0, description="Pixels added on every side before cropping.")
    padding_mode: Literal["constant", "reflect", "edge"] = Field("constant", description="What the padding holds.")
    fill: Probability = Field(0.0, description="Value of constant padding, on the [0, 1] scale.")

    def output_size(self, height: Length, width: Length) -> tuple[Length, Length]:
        return (height, width) if self.size is None else height_and_width(self.size)


class RandomResizedCrop(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """Cut out a box of random area and aspect ratio, and resize it; evaluation resizes and cuts out the center."""

    type: Literal["random_resized_crop"]
    size: Size = Field(description="[H, W] of the result, or one number for a square.")
    scale: Range = Field([0.08, 1.0], description="[low, high] of the box's share of the area.")
    ratio: Range = Field([3 / 4, 4 / 3], description="[low, high] of the box's width / height, before the resize.")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        "bilinear", description="How pixels between pixels are computed; antialiased when shrinking."
    )
    eval_resize: Count | None = Field(
        None,
        description="Evaluation resizes the shorter side to this length, then cuts size out of the center; when left "
        "out size / 0.875, as in torchvision's presets (256 for 224).",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """The number takes the place of null, so that a run's files say it."""
        sides = given.get("size") if isinstance(given, dict) and given.get("eval_resize") is None else None
        sides = sides if isinstance(sides, list) else [sides]
        if not all(type(side) is int and side > 0 for side in sides):
            return given
        return {**given, "eval_resize": eval_resize_for(max(sides))}

    def output_size(self, height: Length, width: Length) -> tuple[Length, Length]:
        return height_and_width(self.size)


def eval_resize_for(side: int) -> int:
    """The length that images are resized to in evaluation before ``side`` pixels are cut out of their center."""
    return round(side / 0.875)


_ALTERNATE: Any = Field(
    False, description="Flip an image as evenly over the epochs as p allows: for 0.5 in every other one (Jordan, 2024)."
)


class RandomHorizontalFlip(TransformSection, stage="random", works_on="image", needs_pixel_values=False, costly=False):
    """Mirror left and right."""

    type: Literal["random_horizontal_flip"]
    p: Probability = Field(0.5, description="Probability of a flip.")
    alternate: bool = _ALTERNATE


class RandomVerticalFlip(TransformSection, stage="random", works_on="image", needs_pixel_values=False, costly=False):
    """Mirror top and bottom."""

    type: Literal["random_vertical_flip"]
    p: Probability = Field(0.5, description="Probability of a flip.")
    alternate: bool = _ALTERNATE


class RandomRotation(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """Rotate around the center by a uniform angle."""

    type: Literal["random_rotation"]
    degrees: Spread = Field(description="[low, high] in degrees counter-clockwise, or d for [-d, d].")
    interpolation: Interpolation = Field("nearest", description="How pixels between pixels are computed.")
    fill: Probability = Field(0.0, description="Value outside the image, on the [0, 1] scale.")


class RandomAffine(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """Rotate, shift, scale and shear, keeping the center."""

    type: Literal["random_affine"]
    degrees: Spread = Field(description="[low, high] in degrees, or d for [-d, d]; 0 for no rotation.")
    translate: Translate | None = Field(None, description="Largest shift [x, y] as a share of width and height.")
    scale: Range | None = Field(None, description="[low, high] of the scale factor.")
    shear: Spread | None = Field(None, description="[low, high] in degrees along x, or d for [-d, d].")
    interpolation: Interpolation = Field("nearest", description="How pixels between pixels are computed.")
    fill: Probability = Field(0.0, description="Value outside the image, on the [0, 1] scale.")


class ColorJitter(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """Change brightness, contrast, saturation and hue, in this order."""

    type: Literal["color_jitter"]
    brightness: NonNegative = Field(0.0, description="Factor drawn from [max(0, 1 - b), 1 + b].")
    contrast: NonNegative = Field(0.0, description="Factor drawn from [max(0, 1 - c), 1 + c].")
    saturation: NonNegative = Field(0.0, description="Factor drawn from [max(0, 1 - s), 1 + s].")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="Shift drawn from [-h, h]; 0.5 is half a turn.")


class RandomErasing(TransformSection, stage="random", works_on="image", needs_pixel_values=False, costly=True):
    """Set a random rectangle to one value (Zhong et al., 2017)."""

    type: Literal["random_erasing"]
    p: Probability = Field(0.5, description="Probability of erasing.")
    scale: Range = Field([0.02, 0.33], description="[low, high] of the erased share of the area.")
    ratio: Range = Field([0.3, 3.3], description="[low, high] of the rectangle's height / width.")
    value: float = Field(0.0, description="The value that is written.")


class RandomPerspective(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """Move the corners inwards, as if the picture were seen from another place; on 256 levels, as torchvision."""

    type: Literal["random_perspective"]
    distortion_scale: Probability = Field(0.5, description="How far corners move, as a share of half the image.")
    p: Probability = Field(0.5, description="Probability of a change.")
    interpolation: Interpolation = Field("bilinear", description="How pixels between pixels are computed.")
    fill: Probability = Field(0.0, description="Value outside the image, on the [0, 1] scale.")


class GaussianBlur(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """Blur with a Gaussian of a random width."""

    type: Literal["gaussian_blur"]
    kernel_size: KernelSize = Field(5, description="Odd width and height of the kernel in pixels, or [x, y].")
    sigma: Range | Positive = Field([0.1, 2.0], description="[low, high] of the standard deviation in pixels, or one.")
    p: Probability = Field(1.0, description="Probability of blurring.")


class RandomGrayscale(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=False):
    """Take the color away, keeping the number of channels."""

    type: Literal["random_grayscale"]
    p: Probability = Field(0.1, description="Probability of a gray image.")


class RandomInvert(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=False):
    """Turn bright into dark and dark into bright."""

    type: Literal["random_invert"]
    p: Probability = Field(0.5, description="Probability of a change.")


class RandomPosterize(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=False):
    """Keep the highest bits of the 8 of each pixel value."""

    type: Literal["random_posterize"]
    bits: int = Field(ge=0, le=8, description="How many bits are kept.")
    p: Probability = Field(0.5, description="Probability of a change.")


class RandomSolarize(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=False):
    """Invert the pixels that are at least as bright as a threshold."""

    type: Literal["random_solarize"]
    threshold: Probability = Field(description="On the [0, 1] scale; 0.5 is torchvision's 128 for bytes.")
    p: Probability = Field(0.5, description="Probability of a change.")


class RandomAutocontrast(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=False):
    """Stretch each channel from its darkest and brightest pixel to the whole range."""

    type: Literal["random_autocontrast"]
    p: Probability = Field(0.5, description="Probability of a change.")


class RandomEqualize(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """Equalize the histogram of each channel."""

    type: Literal["random_equalize"]
    p: Probability = Field(0.5, description="Probability of a change.")


class RandomAdjustSharpness(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """Sharpen, or soften with a factor below 1."""

    type: Literal["random_adjust_sharpness"]
    sharpness_factor: NonNegative = Field(description="0 softens, 1 changes nothing, 2 sharpens.")
    p: Probability = Field(0.5, description="Probability of a change.")


class TrivialAugment(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """torchvision's TrivialAugmentWide: one of 14 operations for each image, with a magnitude from weak to strong."""

    type: Literal["trivial_augment"]
    num_magnitude_bins: int = Field(31, ge=2, description="How many magnitudes there are.")
    interpolation: Interpolation = Field("nearest", description="How pixels between pixels are computed.")
    fill: Probability = Field(0.0, description="Value outside the image, on the [0, 1] scale.")


class RandAugment(TransformSection, stage="random", works_on="image", needs_pixel_values=True, costly=True):
    """torchvision's RandAugment: some of 14 operations for each image, one after the other, all of one magnitude."""

    type: Literal["rand_augment"]
    num_ops: Count = Field(2, description="How many operations an image gets.")
    magnitude: int = Field(9, ge=0, description="How strong they are, from 0 to num_magnitude_bins - 1.")
    num_magnitude_bins: int = Field(31, ge=2, description="How many magnitudes there are.")
    interpolation: Interpolation = Field("nearest", description="How pixels between pixels are computed.")
    fill: Probability = Field(0.0, description="Value outside the image, on the [0, 1] scale.")


Transform = Annotated[
    Resize
    | CenterCrop
    | Grayscale
    | Normalize
    | Standardize
    | RobustScale
    | Quantile
    | RandomCrop
    | RandomResizedCrop
    | RandomHorizontalFlip
    | RandomVerticalFlip
    | RandomRotation
    | RandomAffine
    | ColorJitter
    | RandomErasing
    | RandomPerspective
    | GaussianBlur
    | RandomGrayscale
    | RandomInvert
    | RandomPosterize
    | RandomSolarize
    | RandomAutocontrast
    | RandomEqualize
    | RandomAdjustSharpness
    | TrivialAugment
    | RandAugment,
    Field(discriminator="type"),
    ShortForm,
]

COSTLY: tuple[str, ...] = tuple(
    name for name, section in variants_of(Transform).items() if issubclass(section, TransformSection) and section.costly
)
"""The names of the transforms that training may wait for."""

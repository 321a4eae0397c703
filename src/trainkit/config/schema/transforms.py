"""``transforms:`` what happens to a sample before the model sees it. Random ones act on training data only."""

from typing import Annotated, Literal

from pydantic import Field

from trainkit.config.schema.base import NonNegative, Positive, Probability, Range, Section, ShortForm, Size

Interpolation = Literal["nearest", "bilinear"]
Spread = Range | NonNegative
Translate = Annotated[list[Probability], Field(min_length=2, max_length=2)]


class Resize(Section):
    """Resize images; one number is the length of the shorter side, as in torchvision."""

    type: Literal["resize"]
    size: Size = Field(description="[H, W], or the length of the shorter side (the aspect ratio is kept).")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        "bilinear", description="How pixels between pixels are computed; antialiased when shrinking."
    )


class CenterCrop(Section):
    """Cut out the centre; smaller images are padded with zeros."""

    type: Literal["center_crop"]
    size: Size = Field(description="[H, W] of the crop, or one number for a square.")


class Grayscale(Section):
    """Luma of RGB images (ITU-R 601-2, as in torchvision)."""

    type: Literal["grayscale"]
    num_output_channels: Literal[1, 3] = Field(1, description="1, or 3 equal channels.")


class Normalize(Section):
    """``(x - mean) / std`` by channel, on pixel values scaled to [0, 1]."""

    type: Literal["normalize"]
    mean: list[float] | Literal["auto"] = Field("auto", description="One value a channel; auto: of the training split.")
    std: list[Positive] | Literal["auto"] = Field(
        "auto", description="One value a channel; auto: of the training split."
    )


class Standardize(Section):
    """``(x - mean) / std`` by column of a table, with the training split's statistics; constant columns become 0."""

    type: Literal["standardize"]


class RandomCrop(Section):
    """Pad, then cut out a random window."""

    type: Literal["random_crop"]
    size: Size | None = Field(
        None, description="[H, W] of the crop, or one number; the image's own size when left out."
    )
    padding: int = Field(0, ge=0, description="Pixels added on every side before cropping.")
    padding_mode: Literal["constant", "reflect", "edge"] = Field("constant", description="What the padding holds.")
    fill: Probability = Field(0.0, description="Value of constant padding, on the [0, 1] scale.")


class RandomHorizontalFlip(Section):
    """Mirror left and right."""

    type: Literal["random_horizontal_flip"]
    p: Probability = Field(0.5, description="Probability of a flip.")


class RandomVerticalFlip(Section):
    """Mirror top and bottom."""

    type: Literal["random_vertical_flip"]
    p: Probability = Field(0.5, description="Probability of a flip.")


class RandomRotation(Section):
    """Rotate around the centre by a uniform angle."""

    type: Literal["random_rotation"]
    degrees: Spread = Field(description="[low, high] in degrees counter-clockwise, or d for [-d, d].")
    interpolation: Interpolation = Field("nearest", description="How pixels between pixels are computed.")
    fill: Probability = Field(0.0, description="Value outside the image, on the [0, 1] scale.")


class RandomAffine(Section):
    """Rotate, shift, scale and shear, keeping the centre."""

    type: Literal["random_affine"]
    degrees: Spread = Field(description="[low, high] in degrees, or d for [-d, d]; 0 for no rotation.")
    translate: Translate | None = Field(None, description="Largest shift [x, y] as a share of width and height.")
    scale: Range | None = Field(None, description="[low, high] of the scale factor.")
    shear: Spread | None = Field(None, description="[low, high] in degrees along x, or d for [-d, d].")
    interpolation: Interpolation = Field("nearest", description="How pixels between pixels are computed.")
    fill: Probability = Field(0.0, description="Value outside the image, on the [0, 1] scale.")


class ColorJitter(Section):
    """Change brightness, contrast, saturation and hue, in this order."""

    type: Literal["color_jitter"]
    brightness: NonNegative = Field(0.0, description="Factor drawn from [max(0, 1 - b), 1 + b].")
    contrast: NonNegative = Field(0.0, description="Factor drawn from [max(0, 1 - c), 1 + c].")
    saturation: NonNegative = Field(0.0, description="Factor drawn from [max(0, 1 - s), 1 + s].")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="Shift drawn from [-h, h]; 0.5 is half a turn.")


class RandomErasing(Section):
    """Set a random rectangle to one value (Zhong et al., 2017)."""

    type: Literal["random_erasing"]
    p: Probability = Field(0.5, description="Probability of erasing.")
    scale: Range = Field([0.02, 0.33], description="[low, high] of the erased share of the area.")
    ratio: Range = Field([0.3, 3.3], description="[low, high] of the rectangle's height / width.")
    value: float = Field(0.0, description="The value that is written.")


Transform = Annotated[
    Resize
    | CenterCrop
    | Grayscale
    | Normalize
    | Standardize
    | RandomCrop
    | RandomHorizontalFlip
    | RandomVerticalFlip
    | RandomRotation
    | RandomAffine
    | ColorJitter
    | RandomErasing,
    Field(discriminator="type"),
    ShortForm,
]

"""The properties of transforms that rules, builders and findings use."""

from typing import Any

import pytest

from trainkit.config.schema.transforms import (
    COSTLY,
    CenterCrop,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    TransformSection,
)


def test_a_transform_that_leaves_one_out_cannot_be_defined() -> None:
    with pytest.raises(TypeError, match="costly"):

        class Blur(TransformSection, stage="random", works_on="image", needs_pixel_values=True):
            pass


def test_costly_ones_are_listed() -> None:
    assert set(COSTLY) == {
        "random_rotation",
        "random_affine",
        "color_jitter",
        "random_erasing",
        "random_resized_crop",
        "random_perspective",
        "gaussian_blur",
        "random_equalize",
        "random_adjust_sharpness",
        "trivial_augment",
        "rand_augment",
    }


@pytest.mark.parametrize(
    ("transform", "before", "after"),
    [
        (Resize(type="resize", size=[4, 6]), (None, None), (4, 6)),
        (Resize(type="resize", size=4), (8, 8), (4, 4)),
        (Resize(type="resize", size=4), (8, 9), (None, None)),
        (Resize(type="resize", size=4), (None, None), (None, None)),
        (CenterCrop(type="center_crop", size=4), (None, None), (4, 4)),
        (RandomCrop(type="random_crop", padding=2), (8, 9), (8, 9)),
        (RandomCrop(type="random_crop", size=[3, 2]), (8, 9), (3, 2)),
        (RandomResizedCrop(type="random_resized_crop", size=[3, 2]), (None, None), (3, 2)),
    ],
)
def test_sizes(transform: Any, before: tuple[int | None, ...], after: tuple[int | None, ...]) -> None:
    assert transform.output_size(*before) == after


@pytest.mark.parametrize(
    ("written", "completed"),
    [
        ({"size": 224}, 256),
        ({"size": 32}, 37),
        ({"size": [96, 224], "eval_resize": None}, 256),
        ({"size": 8, "eval_resize": 8}, 8),
    ],
)
def test_a_resized_crop_says_what_evaluation_does(written: Any, completed: int) -> None:
    assert RandomResizedCrop(type="random_resized_crop", **written).eval_resize == completed

"""Every transform states what rules, builders and findings must know about it."""

from typing import Any

import pytest

from trainkit.config.schema.base import variants_of
from trainkit.config.schema.transforms import COSTLY, CenterCrop, RandomCrop, Resize, Transform

TRANSFORMS = variants_of(Transform)


@pytest.mark.parametrize("section", TRANSFORMS.values(), ids=TRANSFORMS)
def test_all_of_it_is_stated_by_each_class(section: Any) -> None:
    assert section.stage in ("static", "random", "scaling")
    assert section.works_on in ("image", "table", "any")
    assert {type(section.needs_pixel_values), type(section.costly)} == {bool}
    assert {"stage", "works_on", "needs_pixel_values", "costly"} <= vars(section).keys(), "by itself, not inherited"


def test_costly_ones_are_listed() -> None:
    assert set(COSTLY) == {"random_rotation", "random_affine", "color_jitter", "random_erasing"}


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
    ],
)
def test_sizes(transform: Any, before: tuple[int | None, ...], after: tuple[int | None, ...]) -> None:
    assert transform.output_size(*before) == after

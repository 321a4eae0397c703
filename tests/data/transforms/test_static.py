"""The deterministic transforms equal torchvision's bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from trainkit.data.transforms.static import (
    CenterCrop,
    Grayscale,
    Resize,
    StaticTransform,
    apply_static_transforms,
    apply_static_transforms_to_batch,
    fixes_size,
    output_shape,
    same_size_hint,
    static_transforms_from_json,
    static_transforms_to_json,
)
from trainkit.errors import ProblemsError

sides = st.integers(1, 40)


def images(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


@settings(deadline=None, max_examples=80)
@given(
    sides,
    sides,
    st.one_of(sides, st.tuples(sides, sides)),
    st.sampled_from(["nearest", "bilinear", "bicubic"]),
    st.sampled_from([1, 3]),
)
def test_resize(height: int, width: int, size: int | tuple[int, int], interpolation: str, channels: int) -> None:
    batch = images(2, channels, height, width)
    transform = Resize(size, interpolation)
    # Here torch 2.15 fails with an internal assertion on bytes stored by plane, in torchvision too.
    assume(transform.output_shape((channels, height, width))[1:] != (1, 1))
    expected = reference.resize(
        batch, size if isinstance(size, int) else list(size), InterpolationMode(interpolation), antialias=True
    )
    for rows in (batch, batch.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(transform(rows), expected)
        assert torch.equal(transform(rows[1:]), expected[1:])
    assert transform.output_shape((channels, height, width)) == tuple(expected.shape[1:])


@settings(deadline=None, max_examples=60)
@given(sides, sides, sides, sides)
def test_center_crop_pads_and_cuts(height: int, width: int, crop_height: int, crop_width: int) -> None:
    batch = images(2, 3, height, width)
    transform = CenterCrop((crop_height, crop_width))
    assert torch.equal(transform(batch), reference.center_crop(batch, [crop_height, crop_width]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("output_channels", [1, 3])
def test_grayscale(channels: int, output_channels: int) -> None:
    batch = images(3, channels, 17, 13)
    expected = reference.rgb_to_grayscale(batch, num_output_channels=output_channels)
    assert torch.equal(Grayscale(output_channels)(batch), expected)


EXAMPLES: list[tuple[StaticTransform, ...]] = [
    (),
    (Resize((20, 30)),),
    (Resize(24), CenterCrop((20, 20)), Grayscale(1)),
    (Grayscale(3), Resize(9, "bicubic")),
    (Resize(36), CenterCrop((36, 36)), CenterCrop((32, 32))),
    (Resize((77, 50), "nearest"),),
    (CenterCrop((40, 41)), Grayscale(3)),
]


@pytest.mark.parametrize("static_transforms", EXAMPLES, ids=str)
def test_one_image_and_a_batch_agree_and_the_shape_is_known_before(
    static_transforms: tuple[StaticTransform, ...],
) -> None:
    batch = images(3, 3, 37, 52)
    together = apply_static_transforms_to_batch(batch, static_transforms)
    assert together.is_contiguous()
    assert output_shape(static_transforms, (3, 37, 52)) == tuple(together.shape[1:])
    for image, result in zip(batch, together, strict=True):
        assert np.array_equal(apply_static_transforms(image.numpy(), static_transforms), result.numpy())


@pytest.mark.parametrize("static_transforms", EXAMPLES, ids=str)
def test_json_round_trip(static_transforms: tuple[StaticTransform, ...]) -> None:
    described = static_transforms_to_json(static_transforms)
    again = static_transforms_from_json(described)
    assert [type(transform) for transform in again] == [type(transform) for transform in static_transforms]
    assert static_transforms_to_json(again) == described


def test_json_takes_a_square_crop_as_one_number_and_refuses_what_it_does_not_know() -> None:
    [crop] = static_transforms_from_json([{"type": "center_crop", "size": 5}])
    assert static_transforms_to_json([crop]) == [{"type": "center_crop", "size": [5, 5]}]
    with pytest.raises(ValueError, match="unknown image transform"):
        static_transforms_from_json([{"type": "resize", "size": 5, "interpolation": "lanczos"}])


def test_fixes_size() -> None:
    assert not fixes_size([Resize(5), Grayscale()])
    assert fixes_size([Resize((5, 5))])
    assert fixes_size([Resize(5), CenterCrop((5, 5))])


@pytest.mark.parametrize(
    ("done", "sizes", "hint"),
    [
        ([], [(40, 60), (100, 80), (400, 300)], "add {type: resize, size: 80} and {type: center_crop, size: 80} at"),
        ([Grayscale()], [(3000, 4000), (4000, 3000)], "{type: resize, size: 224} and {type: center_crop, size: 224}"),
        ([Resize(50, "bilinear")], [(50, 90), (70, 50)], "add {type: center_crop, size: 50} behind the resize"),
    ],
)
def test_different_sizes_get_numbers_that_make_them_equal(
    done: list[StaticTransform], sizes: list[tuple[int, int]], hint: str
) -> None:
    assert hint in same_size_hint(done, sizes)


def test_a_side_without_pixels_is_refused() -> None:
    with pytest.raises(
        ProblemsError, match=r"Resize\(size=\(0, 3\), interpolation='bilinear'\) would leave images of 0 x 3"
    ):
        output_shape([Resize((0, 3))], (1, 8, 8))


SIZES = [(50, 60), (33, 32), (7, 90), (91, 37), (36, 36)]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("static_transforms", EXAMPLES, ids=str)
def test_a_script_takes_any_size(static_transforms: tuple[StaticTransform, ...]) -> None:
    script = torch.jit.script(nn.Sequential(*static_transforms))
    for size in SIZES:
        batch = images(2, 3, *size)
        assert torch.equal(script(batch), apply_static_transforms_to_batch(batch, static_transforms)), size


@pytest.mark.parametrize("static_transforms", [(Resize((20, 30)), CenterCrop((24, 24)), Grayscale(1))], ids=str)
def test_an_exported_program_takes_any_size(static_transforms: tuple[StaticTransform, ...]) -> None:
    free = {dim: torch.export.Dim.DYNAMIC for dim in (0, 2, 3)}
    program = torch.export.export(nn.Sequential(*static_transforms), (images(2, 3, 40, 50),), dynamic_shapes=[free])
    for size in SIZES:
        batch = images(3, 3, *size)
        assert torch.equal(program.module()(batch), apply_static_transforms_to_batch(batch, static_transforms)), size


def test_floats_are_the_bytes_but_for_rounding() -> None:
    transforms = nn.Sequential(Resize(36), CenterCrop((32, 32)), Grayscale(1))
    batch = images(2, 3, 50, 60)
    floats = transforms(batch.float() / 255)
    assert floats.dtype == torch.float32
    difference = (floats * 255 - transforms(batch).float()).abs()
    assert difference.max() <= 2  # half a gray value for each of the two, and the cut


def test_bicubic_floats_stay_in_range() -> None:
    extremes = torch.zeros(1, 3, 12, 12)
    extremes[:, :, ::3] = 1.0
    resized = Resize((31, 31), "bicubic")(extremes)
    assert resized.min() >= 0.0
    assert resized.max() <= 1.0


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_processor_without_the_uint8_kernel_resizes_floats() -> None:
    batch, native, floats = images(2, 3, 50, 60), Resize((20, 31)), Resize((20, 31))
    floats.through_floats = True
    assert floats(batch).dtype == torch.uint8
    assert (floats(batch).int() - native(batch).int()).abs().max() <= 1
    assert torch.equal(torch.jit.script(floats)(batch), floats(batch))

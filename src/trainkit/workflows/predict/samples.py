"""What is predicted at a time: a few samples of one input, and how inputs become rows of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from trainkit.data.dataset import Kind
from trainkit.data.images import BadImageError
from trainkit.data.pixel_rules import DEFAULT_RULES, PixelRules
from trainkit.data.tables import EncodedRows, Encoding, Filled
from trainkit.data.transforms import Resize, StaticTransform, output_shape


@dataclass(frozen=True)
class Item:
    """One input."""

    name: str
    kind: Literal["image", "table", "npy", "memory", "broken"]
    reason: str = ""
    """Why a broken one cannot be used."""
    jobs: Sequence[Callable[[], Chunk]] = ()
    """Of what is in memory: its samples, each function a few of them."""
    num_samples: int = 1
    """Of what is in memory."""


@dataclass
class Chunk:
    """A few samples, in the order of the inputs."""

    names: list[str]
    """One for each sample: a path, ``file.csv:line``, ``file.npy[index]``; ``[index]`` of what is in memory."""
    rows: NDArray[Any] | list[NDArray[Any]]
    """The samples that can be used: uint8 or float32 (n, C, H, W), or float32 (n, F); a list where sizes may differ."""
    bad: dict[int, str] = field(default_factory=dict)
    """Why a sample cannot be used, by its position in ``names``."""
    traits: list[str] = field(default_factory=list)
    """What is special about its images, a word for each."""
    filled: Filled | None = None
    """The cells of a table that had no value which the model knows."""
    one_thread: bool = False
    """Whether more like these come faster from one thread than from several."""


class Job(NamedTuple):
    """What makes a chunk."""

    names: Sequence[str]
    """Of its samples; () of what is in memory, where nobody asks."""
    run: Callable[[], Chunk]


@dataclass(frozen=True)
class InputSpec:
    """How samples become rows."""

    kind: Kind
    input_shape: tuple[int, ...]
    """The shape of a row: (C, H, W) or (F,)."""
    channels: int = 0
    rules: PixelRules = DEFAULT_RULES
    static_transforms: tuple[StaticTransform, ...] = ()
    any_size: bool = False
    """Leave the images as decoded: the program resizes them."""
    resize: bool = False
    """Resize images that would not have the size of a row after the static transforms."""
    encoding: Encoding | None = None
    """How the columns of a table become inputs."""
    chunk_size: int = 64


def steps_for(shape: tuple[int, ...], spec: InputSpec) -> tuple[StaticTransform, ...]:
    """What makes a row of an image of ``shape`` (C, H, W).

    Raises:
        BadImageError: it has another size in the end.
    """
    own = () if spec.any_size else spec.static_transforms
    channels, height, width = shape
    found = output_shape(spec.static_transforms, (channels, height, width))
    if found == spec.input_shape:
        return own
    resize = Resize((spec.input_shape[1], spec.input_shape[2]))
    if (
        not spec.resize
        or output_shape((resize, *spec.static_transforms), (channels, height, width)) != spec.input_shape
    ):
        raise BadImageError(_other_size(found, spec))
    return (resize, *own)


def _other_size(shape: Sequence[int], spec: InputSpec) -> str:
    found, expected = (f"{size[1]} x {size[2]}" for size in (shape, spec.input_shape))
    after = " after the stored transforms" if spec.static_transforms else ""
    return f"{found} pixels{after}, and the model takes {expected} (height x width); resize it, or add --resize"


def slice_rows(rows: EncodedRows, start: int, size: int) -> Chunk:
    """Some rows of a block of a table. What was filled in is counted with the first of them."""
    places = range(start, min(start + size, len(rows.inputs)))
    bad = {row - start: rows.bad[row] for row in places if row in rows.bad}
    good = [row for row in places if row not in rows.bad]
    filled = rows.filled if start == 0 else None
    return Chunk(rows.names[start : start + size], rows.inputs[good], bad, filled=filled)

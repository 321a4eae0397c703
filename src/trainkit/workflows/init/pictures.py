"""Pictures: the recipe for small ones, for large ones, and for large ones with a pretrained network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.checkpoints import find_weights
from trainkit.config import load_config
from trainkit.data.dataset import Dataset
from trainkit.data.images import probe_sizes, spread
from trainkit.workflows.check import mirrored
from trainkit.workflows.init.draft import Line, quoted

SMALL = 64
"""Up to this median of the shorter side, pictures are taken whole."""
_PROBED = 2000
_NETWORK = "resnet18"


@dataclass(frozen=True)
class Sizes:
    """The sizes of the pictures of the training split, from their headers; of up to 2,000 of them."""

    shorter: int
    """Median of the shorter sides."""
    smallest: int
    largest: int
    are_one: bool
    """Whether all have one size."""
    is_square: bool

    def describe(self) -> str:
        if self.are_one and self.is_square:
            return f"{self.shorter} x {self.shorter} pixels"
        return f"shorter sides of {self.smallest} to {self.largest} pixels, half of them up to {self.shorter}"


def measure(data: Dataset) -> Sizes:
    split = data.splits["train"]
    paths = data.parts[split.part].inputs
    assert isinstance(paths, tuple), "a folder of pictures has files"
    chosen = [paths[index] for index in split.indices[spread(len(split), _PROBED)]]
    sizes = probe_sizes(chosen, lambda index: (), should_stop=None)
    shorter = sizes.min(axis=1)
    return Sizes(
        int(np.median(shorter)),
        int(shorter.min()),
        int(shorter.max()),
        are_one=bool((sizes == sizes[0]).all()),
        is_square=bool((sizes[:, 0] == sizes[:, 1]).all()),
    )


def provisional(root: Path, *, max_bad_files: int) -> dict[str, Any]:
    """A config that only opens the folder."""
    return {
        "dataset": {"type": "image_folder", "root": str(root), "max_bad_files": max_bad_files},
        "transforms": [{"type": "resize", "size": 16}, {"type": "center_crop", "size": 16}],
        "model": {"type": "cnn", "blocks": [{"channels": 4}], "global_pool": "avg"},
        "export": {"torchscript": False},
    }


def recipe(data: Dataset, sizes: Sizes, *, has_gpu: bool, pretrained: bool | None) -> tuple[list[Line], list[Line]]:
    """The lines of ``transforms`` and ``model``, and those of the loss, the optimizer and the schedule.

    Args:
        pretrained: whether to start from published weights; None: where their file is on this machine already.
    """
    if sizes.shorter <= SMALL:
        return _small(data, sizes), _FROM_SCRATCH
    weights = find_weights("torchvision", _NETWORK, "default")
    if pretrained or (pretrained is None and weights.is_here):
        return _fine_tuned(data, weights.describe()), _FINE_TUNING
    why = (
        "published weights are not on this machine; --pretrained fetches them" if pretrained is None else "as asked for"
    )
    return _large(data, sizes, size=128 if has_gpu else 96, why=why), _FROM_SCRATCH


def _flips(data: Dataset) -> list[Line]:
    if why := mirrored(data.class_names):
        return [Line("  # - random_horizontal_flip", f"left out: {why}")]
    return [Line("  - random_horizontal_flip", "a mirror image is as good a sample; take it out where it is not")]


def _small(data: Dataset, sizes: Sizes) -> list[Line]:
    side = sizes.shorter
    lines = [Line("transforms:", "random ones act on training data only")]
    if not (sizes.are_one and sizes.is_square):
        lines += [
            Line(
                f"  - {{type: resize, size: {side}}}", f"the shorter side becomes {side} pixels, as half of them have"
            ),
            Line(f"  - {{type: center_crop, size: {side}}}", "one size for all"),
        ]
    lines += [
        Line(f"  - {{type: random_crop, padding: {max(side // 8, 1)}}}", "shifts by an eighth: more from few pictures"),
        *_flips(data),
        Line("  - normalize", "mean 0 and standard deviation 1 over the training pictures"),
    ]
    return lines + _network(side, 4 if side > 40 else 3, "three blocks, four from 41 pixels on")


def _large(data: Dataset, sizes: Sizes, *, size: int, why: str) -> list[Line]:
    size = min(size, sizes.shorter)
    return [
        Line("transforms:", "random ones act on training data only"),
        Line(
            f"  - {{type: random_resized_crop, size: {size}, scale: [0.35, 1.0]}}",
            f"{sizes.describe()}; parts of them in one size. Evaluation takes the center",
        ),
        *_flips(data),
        Line("  - trivial_augment", "one of 14 operations for each picture"),
        Line("  - normalize", "mean 0 and standard deviation 1 over the training pictures"),
        *_network(size, 4, f"from scratch: {why}"),
    ]


def _network(side: int, blocks: int, why: str) -> list[Line]:
    lines = [
        Line("model:", f"a convolutional network; input and output sizes come from the data. {why}"),
        Line("  type: cnn", "or resnet18 and others: {type: torchvision, name: resnet18}"),
        Line("  blocks:", "each: a 3 x 3 convolution, norm, activation; pool: 2 halves the size"),
    ]
    for block in range(blocks):
        channels, halves = 32 * 2**block, side >= 4
        what = f"{side} to {side // 2} pixels" if halves else f"{side} pixels are few enough"
        lines.append(Line(f"    - {{channels: {channels}{', pool: 2' if halves else ''}}}", what))
        side = side // 2 if halves else side
    return [
        *lines,
        Line("  norm: batch", "trains faster, and with larger learning rates"),
        Line("  global_pool: avg", "the mean of each channel: few weights in the head"),
        Line("  head_dropout: 0.2", "against learning by heart"),
    ]


def _fine_tuned(data: Dataset, file: str) -> list[Line]:
    model = {"type": "torchvision", "name": _NETWORK, "weights": "default", "head": {"dropout": 0.2}}
    lines = [Line("transforms: auto", "size, crop and normalization of the weights; flips in training")]
    if mirrored(data.class_names):
        auto = load_config({"dataset": {"type": "image_folder", "root": "."}, "transforms": "auto", "model": model})
        lines = [Line("transforms:", "size, crop and normalization of the weights")]
        for transform in auto.config.transforms:
            spec = transform.model_dump(mode="json", exclude_unset=True)
            is_flip = transform.type == "random_horizontal_flip"
            lines += _flips(data) if is_flip else [Line(f"  - {quoted(spec)}", "as transforms: auto")]
    return [
        *lines,
        Line(f"model: {quoted(model)}", f"begins with what it learned from ImageNet. {file}"),
        Line("fine_tuning:", "first the new head, whose gradients would spoil the rest; then all of it"),
        Line("  freeze: backbone", "all but the head"),
        Line("  unfreeze: [{at: 2ep, modules: all}]", "from epoch 3 on"),
    ]


_FROM_SCRATCH = [
    Line("loss: {type: cross_entropy, label_smoothing: 0.05}", "0.05: less sure of itself, and better calibrated"),
    Line("optimizer: {type: adamw, lr: 0.003, weight_decay: 0.05}", "the highest rate of the schedule"),
    Line("scheduler: one_cycle", "a short warm-up, then down to nothing: the last epochs are the best"),
]
_FINE_TUNING = [
    Line("loss: {type: cross_entropy, label_smoothing: 0.1}", "0.1: less sure of itself, and better calibrated"),
    Line(
        "optimizer: " + quoted({"type": "adamw", "lr": 0.001, "weight_decay": 0.05, "layer_decay": 0.75}),
        "each layer 0.75 times the rate of the one above it: the first ones know most already",
    ),
    Line("scheduler: {type: cosine, warmup: 1ep}", "up for an epoch, then down to nothing"),
]

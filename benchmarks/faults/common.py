"""What the tries of all tools share: data, a network, damage to files, and how a try says what happened."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

inputs, labels = load_digits(return_X_y=True)
inputs = (inputs / 16).astype("float32")
TRAIN, VAL = (inputs[:1400], labels[:1400]), (inputs[1400:], labels[1400:])
_said: list[str] = []


def first_batch() -> None:
    """Say once that a batch has been computed."""
    if not _said:
        _said.append("first batch")
        print("first batch", flush=True)


def silent(text: str) -> None:
    """Say what came of a fault that nobody spoke of."""
    print(f"silent: {text}", flush=True)


def Net(inputs: int = 64, outputs: int = 10, last: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, outputs)]
    return nn.Sequential(*layers, *([] if last is None else [last]))


def nan_input() -> tuple[Any, Any]:
    changed = TRAIN[0].copy()
    changed[5, 3] = np.nan
    return changed, TRAIN[1]


def nan_target() -> tuple[Any, Any]:
    values = TRAIN[1].astype("float32")[:, None]
    values[30] = np.nan
    return TRAIN[0], values


def label_out_of_range() -> tuple[Any, Any]:
    changed = TRAIN[1].copy()
    changed[7] = 10
    return TRAIN[0], changed


def make_folders() -> None:
    """pictures/train with the classes a, b, c, and pictures/val without a."""
    for split, names in (("train", "abc"), ("val", "bc")):
        for label, name in enumerate("abc"):
            if name in names:
                folder = Path("pictures", split, name)
                folder.mkdir(parents=True)
                for index in range(20):
                    Image.new("L", (8, 8), 40 + 80 * label + index).save(folder / f"{index}.png")


def image_folders() -> dict[str, tuple[Any, Any]]:
    """They as torchvision's ImageFolder reads them."""
    from torchvision.datasets import ImageFolder

    make_folders()
    arrays = {}
    for split in ("train", "val"):
        samples = [(np.asarray(image.convert("L")), label) for image, label in ImageFolder(f"pictures/{split}")]
        pixels = np.stack([image.ravel() / 255 for image, _ in samples]).astype("float32")
        arrays[split] = (pixels, np.array([label for _, label in samples]))
    return arrays


def flip_a_bit(path: str | Path, weights: Any) -> None:
    """Flip one bit of a weight in a file that holds these weights."""
    raw = bytearray(Path(path).read_bytes())
    at = raw.find(np.ascontiguousarray(weights).tobytes()[:64])
    assert at >= 0, "the weights are not in the file as they are"
    raw[at + 3] ^= 0x40
    Path(path).write_bytes(bytes(raw))


class Payload:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch payload-ran",)


def poison(path: str | Path) -> None:
    """Add a payload to a file of torch.save."""
    saved = torch.load(path, weights_only=False)
    saved["note"] = Payload()
    torch.save(saved, path)


def say_whether_it_ran() -> None:
    silent("the payload in the file RAN" if Path("payload-ran").exists() else "loaded; the payload did not run")


def whether_the_same(whole: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    same = all(np.array_equal(np.asarray(whole[name]), np.asarray(again[name])) for name in whole)
    return "the same bits" if same else "other weights"


def say_whether_nan(weights: Any) -> None:
    silent(
        "trained on; the weights are NaN" if np.isnan(np.asarray(weights)).any() else "trained; the weights are finite"
    )


def run(module: dict[str, Any]) -> None:
    """Run the try that the command line names."""
    module[sys.argv[1]]()

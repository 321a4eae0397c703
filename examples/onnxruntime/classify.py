"""Classify images with an ONNX program that trainkit exported, without torch: python classify.py BUNDLE IMAGE...

Needs numpy, Pillow and onnxruntime. The program holds the normalization and gives probabilities; images have to come
at the size that signature.json names (what resizes others as in training is ``front.py`` in such a bundle).
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def main(bundle: Path, paths: list[str]) -> None:
    signature = json.loads((bundle / "signature.json").read_text(encoding="utf-8"))
    labels = json.loads((bundle / "labels.json").read_text(encoding="utf-8"))
    entry = signature["programs"]["model.onnx"]
    channels, height, width = entry["input"]["shape"][1:]
    images = [Image.open(path).convert("L" if channels == 1 else "RGB") for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.size != (width, height):
            raise SystemExit(f"{path} is {image.width} x {image.height}, and the program takes {width} x {height}")
    pixels = [np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1) for image in images]
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {entry["input"]["name"]: np.stack(pixels)})
    for path, row in zip(paths, probabilities, strict=True):
        print(path, labels[row.argmax()], f"{row.max():.6f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])

# mypy: ignore-errors
"""The class and the probabilities of images, one line of JSON each: python predict.py IMAGE... [--program model.onnx]

Needs numpy, Pillow, and torch or (for .onnx) onnxruntime; not trainkit.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent
SIGNATURE = json.loads((FOLDER / "signature.json").read_text(encoding="utf-8"))
LABELS = json.loads((FOLDER / "labels.json").read_text(encoding="utf-8"))
PROGRAMS = {name: entry for name, entry in SIGNATURE["programs"].items() if entry["format"] != "safetensors"}


def load(name):
    """A function from (N, C, H, W) to probabilities (N, K)."""
    if name.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(FOLDER / name), providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, {session.get_inputs()[0].name: inputs})[0]
    import torch

    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.jit.load is deprecated, and works
    path = str(FOLDER / name)
    program = torch.export.load(path).module() if name.endswith(".pt2") else torch.jit.load(path, map_location="cpu")

    def run(inputs):
        with torch.no_grad():
            outputs = program(torch.from_numpy(inputs))
        return (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()

    return run


def read_image(path, entry):
    """A file as (1, C, H, W) in the program's dtype, upright, gray or RGB; resized and cropped if needed."""
    channels = SIGNATURE["preprocessing"]["channels"]
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):  # 16 bits: the high byte
        pixels = np.repeat((np.asarray(image) // 256).astype(np.uint8)[:, :, None], channels, axis=2)
    else:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)
    if entry["front_outside"]:
        sys.path.append(str(FOLDER))
        from front import apply_front

        pixels = apply_front(pixels, entry["front_outside"])
    batch = np.array(pixels.transpose(2, 0, 1)[None], order="C")
    return batch if "uint8" in entry["input"]["dtypes"] else batch.astype(np.float32) / np.float32(255)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--program", choices=PROGRAMS, default=next(iter(PROGRAMS)))
    options = parser.parse_args()
    run = load(options.program)
    for path in options.images:
        values = run(read_image(path, PROGRAMS[options.program]))[0].tolist()
        best = int(np.argmax(values))
        chances = dict(zip(LABELS, values, strict=True))
        answer = {"label": LABELS[best], "probability": values[best], "probabilities": chances}
        print(json.dumps({"input": path, **answer}))


if __name__ == "__main__":
    main()

# mypy: ignore-errors
"""The answers for the rows of a CSV file, one line of JSON each: python predict.py ROWS.csv [--program model.onnx]

Needs numpy, and torch or (for .onnx) onnxruntime; not trainkit.
"""

import argparse
import csv
import json
import warnings
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SIGNATURE = json.loads((FOLDER / "signature.json").read_text(encoding="utf-8"))
LABELS = json.loads((FOLDER / "labels.json").read_text(encoding="utf-8"))
PROGRAMS = {name: entry for name, entry in SIGNATURE["programs"].items() if entry["format"] != "safetensors"}


def load(name):
    """A function from float32 (N, F) to probabilities (N, K) or values (N, T)."""
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


def read_row(cells):
    """The features of a row, by column name; a category becomes a 1 among 0s."""
    features = []
    for column in SIGNATURE["columns"]:
        cell = cells[column["name"]].strip()
        if column["kind"] == "numeric":
            features.append(float(cell))
        else:
            assert cell in column["categories"], f"{column['name']}: {cell!r} is not one of {column['categories']}"
            features += [float(cell == category) for category in column["categories"]]
    return features


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--program", choices=PROGRAMS, default=next(iter(PROGRAMS)))
    parser.add_argument("--delimiter", default=SIGNATURE["delimiter"])
    options = parser.parse_args()
    with open(options.table, encoding="utf-8-sig", newline="") as file:
        rows = [
            {(name or "").strip(): cell for name, cell in row.items()}
            for row in csv.DictReader(file, delimiter=options.delimiter)
        ]
    outputs = load(options.program)(np.array([read_row(row) for row in rows], dtype=np.float32))
    for number, values in enumerate(outputs.tolist(), start=1):
        if LABELS:
            best = int(np.argmax(values))
            chances = dict(zip(LABELS, values, strict=True))
            answer = {"label": LABELS[best], "probability": values[best], "probabilities": chances}
        else:
            answer = {"values": dict(zip(SIGNATURE["target_names"], values, strict=True))}
        print(json.dumps({"row": number, **answer}))


if __name__ == "__main__":
    main()

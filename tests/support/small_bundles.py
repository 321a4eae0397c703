"""Bundles with a small ONNX program, written without torch: one for pictures, one for a table."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import trainkit

TEMPLATES = Path(trainkit.__file__).parent / "exports" / "templates"
CLASSES = ["ant", "bee", "Käfer"]
SIZE = 8
TABLE = {
    "columns": [
        {"name": "weight", "kind": "numeric", "style": None},
        {"name": "shop", "kind": "categorical", "categories": ["north", "south"]},
    ],
    "inputs": [
        {"name": "weight", "column": "weight", "offset": 0.0},
        {"name": "shop", "column": "shop", "categories": 2, "own": False},
    ],
    "missing": "impute",
    "unseen": "refuse",
    "missing_values": ["", "NA"],
}


def image_bundle(folder: Path, *, size: int = SIZE, front: tuple[dict, ...] = ()) -> Path:
    """Softmax of a linear layer on (N, 3, size, size)."""
    features = 3 * size * size
    weights = np.random.default_rng(0).normal(size=(features, 3)).astype(np.float32) / (5 * features)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
    ]
    shape = ["batch", 3, size, size]
    preprocessing = {
        "kind": "image",
        "channels": 3,
        "pixels": {"background": [255, 255, 255], "value_range": None, "allow_8_bit": False},
        "front": list(front),
        "scale": 255,
        "normalize": None,
        "input_shape": [3, size, size],
    }
    program = _write_onnx(folder, nodes, ("images", TensorProto.UINT8, shape), ("probabilities", 3), weights)
    program |= {"input": {"name": "images", "dtypes": ["uint8"], "shape": shape}, "front_outside": list(front)}
    return _finish(folder, "image", program, preprocessing, CLASSES, [])


def table_bundle(folder: Path, table: dict = TABLE) -> Path:
    """Twice the first column and once the second."""
    weights = np.array([[2.0], [1.0]], dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["rows", "weights"], ["values"])]
    program = _write_onnx(folder, nodes, ("rows", TensorProto.FLOAT, ["batch", 2]), ("values", 1), weights)
    program |= {"input": {"name": "rows", "dtypes": ["float32"], "shape": ["batch", 2]}, "front_outside": []}
    preprocessing = {"kind": "table", "input_shape": [2], "table_encoding": table}
    return _finish(folder, "table", program, preprocessing, [], ["price"], table=table)


def _write_onnx(folder, nodes, given, output, weights) -> dict:
    folder.mkdir(parents=True)
    name, dtype, shape = given
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, dtype, shape)],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, ["batch", output[1]])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx"
    )
    return {"format": "onnx", "precision": "float32", "outputs": [{"name": output[0], "dtypes": ["float32"]}]}


def _finish(folder, kind, program, preprocessing, classes, targets, **more) -> Path:
    signature = {
        "kind": kind,
        "format_version": 1,
        "name": "net",
        "task": "classification" if classes else "regression",
        "target_names": targets,
        "preprocessing": preprocessing,
        "programs": {"model.onnx": program},
        "versions": {},
        **more,
    }
    (folder / "signature.json").write_text(json.dumps(signature))
    (folder / "labels.json").write_text(json.dumps(classes))
    for path in TEMPLATES.glob("serve*"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "predict.py").write_bytes((TEMPLATES / f"predict_{kind}.py").read_bytes())
    (folder / "front.py").write_bytes((TEMPLATES / "static_transforms.py").read_bytes())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("\n".join([*sums, ""]))
    return folder

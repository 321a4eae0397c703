"""The files of a bundle, from a model and validation samples."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from torch import nn

from trainkit.data.pixel_rules import rules_of
from trainkit.data.tables import raw_rows, table_encoding
from trainkit.data.transforms import Grayscale, Resize, static_transforms_from_json, static_transforms_to_json
from trainkit.engine import LossName
from trainkit.errors import Interrupted, UserError
from trainkit.exports.bundle import golden_bytes
from trainkit.exports.formats import (
    FILE_NAMES,
    Format,
    Method,
    Quantization,
    onnx_bytes,
    pt2_bytes,
    quantize_onnx,
    safetensors_bytes,
    torchscript_bytes,
)
from trainkit.exports.parity import TOLERANCES
from trainkit.exports.program import (
    InputDtype,
    ProgramSpec,
    build_prepare,
    build_program,
    describe_program,
    has_static_transforms,
)
from trainkit.exports.serving import server_files, triton_files
from trainkit.exports.standalone_runner import load, run_in_batches, run_of_module
from trainkit.wording import listed

TEMPLATES = Path(__file__).with_name("templates")
_PRECISION_SUFFIXES = {"float32": "", "float16": ".fp16", "int8": ".int8"}


@dataclass(frozen=True)
class Source:
    """A trained model and what its checkpoint records about it."""

    name: str
    model: nn.Module
    """With the weights that the checkpoint's score belongs to."""
    preprocessing: Mapping[str, Any]
    loss: LossName
    task: str
    class_names: tuple[str, ...]
    target_names: tuple[str, ...]
    details: Mapping[str, Any]
    """Plain values for signature.json: the checkpoint's name, versions, the split of the samples, ..."""


@dataclass(frozen=True)
class Samples:
    """Validation samples, in the forms that programs take."""

    inputs: NDArray[Any]
    """uint8 (N, C, H, W) after the static transforms, as the model takes them; or float32 (N, F)."""
    targets: NDArray[Any]
    """In their own units."""
    images: NDArray[Any] | None = None
    """uint8 (N, C, H', W') before the static transforms, where there are any."""
    image_targets: NDArray[Any] | None = None
    """Of ``images``, which need not be the same samples as ``inputs``."""


@dataclass(frozen=True)
class ExportRequest:
    """The options of an export."""

    formats: tuple[Format, ...]
    method: Method = "script"
    raw: bool = False
    """The bare network, without preprocessing and activation."""
    logits: bool = False
    input_dtype: InputDtype = "uint8"
    half: bool = False
    quantize: Quantization | None = None
    triton: bool = False
    """A model repository of Triton too, with the ONNX program."""
    max_drop: float = 0.01
    """For ``half`` and ``quantize``: the largest loss of accuracy on the test split, as a fraction; for a regression
    the largest relative growth of the RMSE."""

    @property
    def precision(self) -> str:
        return "int8" if self.quantize else "float16" if self.half else "float32"


def takes_any_size(format: Format, request: ExportRequest, preprocessing: Mapping[str, Any]) -> bool:
    """Whether images are resized and cropped inside the program.

    Scripts hold any static transforms. ``torch.export`` proves the code after them for every size, and can where the
    first one that is not grayscale is a resize to (H, W). Traces and ONNX have the size pinned.
    """
    if request.raw or request.precision != "float32" or not has_static_transforms(preprocessing):
        return False
    if format == "torchscript":
        return request.method == "script"
    static_transforms = static_transforms_from_json(preprocessing["front"])
    first = next((transform for transform in static_transforms if not isinstance(transform, Grayscale)), None)
    return format == "pt2" and isinstance(first, Resize) and isinstance(first.size, tuple)


def make_files(
    source: Source,
    request: ExportRequest,
    samples: Samples,
    *,
    calibration: Callable[[], NDArray[Any]] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, bytes]:
    """Everything that ``write_bundle`` needs.

    Args:
        calibration: gives training samples as ``Samples.inputs``; for a static quantization.
        should_stop: called before each format.

    Raises:
        ExportError: a format cannot hold the model.
        UserError: logits of a model that has none.
        Interrupted: ``should_stop`` returned True.
    """
    outside = [name for name in ("fill", "robust_scale", "quantile") if source.preprocessing.get(name) is not None]
    if request.raw and outside:
        raise UserError(f"a bare network does not hold {listed(outside, quoted=False)}; leave --raw out")
    samples = _raw_samples(samples, source)
    files: dict[str, bytes] = {}
    programs: dict[str, Any] = {}
    golden: dict[str, NDArray[Any]] = {}
    for format in request.formats:
        if should_stop is not None and should_stop():
            raise Interrupted(f"stopped before the model was exported as {format}", 130)
        if format == "safetensors":
            name, data, entry = _weights(source, half=request.half)
        else:
            name, data, entry = _program(source, request, samples, format, golden, calibration)
        files[name], programs[name] = data, entry
    if not golden:
        golden["inputs"] = samples.inputs[:1]
    files["golden.npz"] = golden_bytes(golden)
    files["signature.json"] = _json(_signature(source, programs))
    files["labels.json"] = _json(list(source.class_names))
    if any(program["format"] != "safetensors" for program in programs.values()) and not request.raw:
        kind = source.preprocessing["kind"]
        files["predict.py"] = _template(f"predict_{kind}.py")
        if kind == "image":
            files["front.py"] = _template("static_transforms.py")
        python = ".".join(source.details.get("versions", {}).get("python", platform.python_version()).split(".")[:2])
        files |= server_files(kind, {program["format"] for program in programs.values()}, python)
    if request.triton:
        files |= triton_files(source.name, list(source.class_names), programs, files)
    return files


def _raw_samples(samples: Samples, source: Source) -> Samples:
    """Rows of tables as they are in files, before anything is taken off their columns.

    Where the model fills gaps, the last quarter of the rows gets some: each a missing value or an unknown category.
    """
    if source.preprocessing["kind"] != "table":
        return samples
    encoding = table_encoding(source.preprocessing)
    rows = raw_rows(samples.inputs, encoding)
    if encoding["missing"] == "impute":
        gaps = np.array([-1.0 if "categories" in one else np.nan for one in encoding["inputs"]])
        rows = rows.copy()
        for row in range(len(rows) * 3 // 4, len(rows)):
            rows[row, row % len(gaps)] = gaps[row % len(gaps)]
    return replace(samples, inputs=rows)


def _template(name: str) -> bytes:
    return (TEMPLATES / name).read_bytes().removeprefix(b"# mypy: ignore-errors\n")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _signature(source: Source, programs: Mapping[str, Any]) -> dict[str, Any]:
    signature = {
        "kind": source.preprocessing["kind"],
        "format_version": 1,
        "name": source.name,
        "task": source.task,
        "target_names": list(source.target_names),
        "preprocessing": dict(source.preprocessing),
        "programs": dict(programs),
        **source.details,
    }
    if source.preprocessing["kind"] == "table":
        signature["table"] = table_encoding(source.preprocessing)
    return signature


def _program(
    source: Source,
    request: ExportRequest,
    samples: Samples,
    format: Format,
    golden: dict[str, NDArray[Any]],
    calibration: Callable[[], NDArray[Any]] | None,
) -> tuple[str, bytes, dict[str, Any]]:
    """A program's file name, its bytes, its entry in signature.json; adds inputs and outputs to ``golden``."""
    free = takes_any_size(format, request, source.preprocessing)
    spec = _spec(source, request, format, free=free)
    build = functools.partial(
        build_program,
        source.model,
        source.preprocessing,
        loss=source.loss,
        with_static_transforms=free,
        check_size=format == "torchscript",
    )
    eager: nn.Module = build().model if request.raw else build(logits=request.logits)
    inputs_key = _add_inputs(golden, samples, spec, free=free, raw=request.raw)
    inputs = golden[inputs_key]
    prepared = build_prepare(source.preprocessing)(torch.from_numpy(inputs)).numpy() if request.raw else inputs
    prefix = "images_" if free else ""
    outputs = _add_outputs(golden, spec, prefix, lambda: run_in_batches(run_of_module(eager), prepared))
    example = torch.from_numpy(prepared[:2].copy())
    input_name = "inputs" if request.raw else "rows" if source.preprocessing["kind"] == "table" else "images"

    def write(module: nn.Module) -> bytes:
        match format:
            case "torchscript":
                return torchscript_bytes(module, example, method=request.method)
            case "pt2":
                return pt2_bytes(module, example, free_size=free)
            case _:
                return onnx_bytes(module, example, input_name=input_name, output_names=spec.output_names)

    data = write(eager)
    full_bytes = len(data)
    if request.half:
        data = write(build(logits=request.logits, half=True))
    if request.quantize:
        sample = inputs if calibration is None else calibration()
        if calibration is not None and source.preprocessing["kind"] == "table":
            sample = raw_rows(sample, table_encoding(source.preprocessing))
        sample = to_program_dtype(sample, spec.input_dtypes)
        data = quantize_onnx(data, kind=request.quantize, input_name=input_name, calibration=sample)
        outputs = _add_outputs(golden, spec, "int8_", lambda: run_in_batches(load(data, "onnx"), inputs))
    entry = {
        "format": format,
        "method": request.method if format == "torchscript" else None,
        "precision": request.precision,
        "quantization": request.quantize,
        "float32_bytes": full_bytes,
        "input": _describe_input(input_name, spec, source.preprocessing),
        "outputs": [_describe_output(name, golden[key]) for name, key in zip(spec.output_names, outputs, strict=True)],
        "front_outside": []
        if free
        else static_transforms_to_json(static_transforms_from_json(source.preprocessing.get("front", []))),
        "outside": _outside(source.preprocessing) if request.raw else None,
        "target_scale": source.preprocessing.get("target_scale"),
        "tolerance": TOLERANCES[request.precision],
        "golden": {"inputs": inputs_key, "outputs": outputs, "targets": f"{prefix}targets"},
    }
    return _file_name(format, request.precision), data, entry


def _file_name(format: Format, precision: str) -> str:
    stem, suffix = FILE_NAMES[format].split(".")
    return f"{stem}{_PRECISION_SUFFIXES[precision]}.{suffix}"


def _spec(source: Source, request: ExportRequest, format: Format, *, free: bool) -> ProgramSpec:
    if request.raw:
        return ProgramSpec(tuple(source.preprocessing["input_shape"]), ("float32",), ("outputs",))
    both = format == "torchscript" and request.method == "script"
    dtypes: tuple[InputDtype, ...] = ("uint8", "float32") if both else (request.input_dtype,)
    if source.preprocessing["kind"] == "image" and rules_of(source.preprocessing).value_range is not None:
        dtypes = ("float32",)  # 8 bits do not hold these values
    return describe_program(
        source.preprocessing, loss=source.loss, with_static_transforms=free, logits=request.logits, dtypes=dtypes
    )


def _add_inputs(golden: dict[str, NDArray[Any]], samples: Samples, spec: ProgramSpec, *, free: bool, raw: bool) -> str:
    inputs = samples.images if free and samples.images is not None else samples.inputs
    converted = inputs if raw else to_program_dtype(inputs, spec.input_dtypes)
    key = ("images" if free else "inputs") + ("_float32" if converted is not inputs else "")
    targets = samples.image_targets if free and samples.image_targets is not None else samples.targets
    golden["images_targets" if free else "targets"] = targets
    golden[key] = converted
    return key


def to_program_dtype(inputs: NDArray[Any], dtypes: Sequence[str]) -> NDArray[Any]:
    """The inputs in a dtype that a program takes: bytes as floats in [0, 1] where it takes no bytes."""
    if str(inputs.dtype) in dtypes:
        return inputs
    if "float64" in dtypes:  # rows of a table
        return inputs.astype(np.float64)
    return inputs.astype(np.float32) / np.float32(255)


def _add_outputs(
    golden: dict[str, NDArray[Any]], spec: ProgramSpec, prefix: str, make: Callable[[], list[NDArray[Any]]]
) -> list[str]:
    keys = [prefix + name for name in spec.output_names]
    if not golden.keys() >= set(keys):
        golden.update(zip(keys, make(), strict=True))
    return keys


def _describe_input(name: str, spec: ProgramSpec, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    axes = ("channels", "height", "width")
    shape: list[str | int] = ["batch", *(size or axis for size, axis in zip(spec.input_shape, axes, strict=False))]
    described: dict[str, Any] = {"name": name, "dtypes": list(spec.input_dtypes), "shape": shape}
    if name == "images":
        ranges = {"uint8": [0, 255], "float32": [0.0, 1.0]}
        described |= {
            "range": {dtype: ranges[dtype] for dtype in spec.input_dtypes},
            "layout": "NCHW",
            "colors": "RGB" if spec.input_shape[0] == 3 else "grey",
        }
    elif name == "rows":
        described["columns"] = list(preprocessing["feature_names"])
    described["dynamic_axes"] = {str(i): size for i, size in enumerate(shape) if isinstance(size, str)}
    return described


def _describe_output(name: str, values: NDArray[Any]) -> dict[str, Any]:
    described = {"name": name, "dtypes": [str(values.dtype)], "shape": ["batch", *values.shape[1:]]}
    return {**described, "range": {"float32": [0.0, 1.0]}} if name == "probabilities" else described


def _outside(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """How to scale the inputs of a bare network, which holds no preprocessing, and its outputs, if they are values."""
    if preprocessing["kind"] == "table":
        values = {"target_scale": preprocessing["target_scale"]} if preprocessing.get("target_scale") else {}
        return {"scale": 1, "standardize": preprocessing["standardize"], **values}
    return {"scale": preprocessing["scale"], "normalize": preprocessing["normalize"]}


def _weights(source: Source, *, half: bool) -> tuple[str, bytes, dict[str, Any]]:
    tensors = {
        name: tensor.detach().cpu().half() if half and tensor.is_floating_point() else tensor.detach().cpu()
        for name, tensor in source.model.state_dict().items()
    }
    metadata = {"format": "pt", "trainkit": json.dumps({"name": source.name, **source.details}, ensure_ascii=False)}
    data = safetensors_bytes(tensors, metadata)
    precision = "float16" if half else "float32"
    written = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    hashes = {}
    for name, tensor in tensors.items():
        described = f"{written[name]['dtype']} {written[name]['shape']} ".encode()
        hashes[name] = hashlib.sha256(described + tensor.contiguous().numpy().tobytes()).hexdigest()
    entry = {"format": "safetensors", "precision": precision, "tensors": hashes}
    return _file_name("safetensors", precision), data, entry

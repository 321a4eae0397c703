"""int8 versions of ONNX programs, by ONNX Runtime's own tools.

torchao's ``quantize_`` (0.18) takes linear layers only, and a program exported from it does not load without torchao;
its PT2E flow for convolutions becomes int8 only where torch.compile lowers it. ONNX Runtime does both kinds of layers,
and its files run wherever it does.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.exports.formats import ExportError

Quantization = Literal["dynamic", "static"]
LAYERS = ("Conv", "Gemm", "MatMul")
"""The operators that are quantised: preprocessing and the output's activation stay in float."""


def quantize_onnx(
    program: bytes, *, kind: Quantization, input_name: str, calibration: NDArray[Any], batch_size: int = 64
) -> bytes:
    """The program with int8 weights, one scale an output channel.

    Args:
        program: an ONNX model in float32.
        kind: ``static``: inner values are int8 too, with ranges measured on ``calibration``; ``dynamic``: ranges are
            measured at each call.
        calibration: training samples as the program takes them.

    Raises:
        ExportError: ONNX Runtime cannot quantise it, or there is nothing to quantise.
    """
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(program)
        common = {"op_types_to_quantize": list(LAYERS), "per_channel": True}
        try:
            if kind == "dynamic":
                quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QInt8, **common)
            else:
                batches = (
                    {input_name: np.ascontiguousarray(calibration[i : i + batch_size])}
                    for i in range(0, len(calibration), batch_size)
                )

                class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
                    def get_next(self) -> dict[str, NDArray[Any]] | None:
                        return next(batches, None)

                quantization.quantize_static(
                    source,
                    target,
                    Reader(),
                    quant_format=quantization.QuantFormat.QDQ,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    **common,
                )
        except Exception as error:  # the tools raise whatever they like
            raise ExportError(f"ONNX Runtime cannot quantise this model ({kind}): {error}") from error
        model = onnx.load(target)
    if not any(node.op_type in QUANTIZED_OPERATORS for node in model.graph.node):
        raise ExportError(f"there is nothing to quantise: the model has no {', '.join(LAYERS)}")
    _shorten_names(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _shorten_names(model: Any) -> None:
    """Number the inner values: ``blocks.0.conv.weight_quantized_scale`` weighs as much as a small layer."""
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    short: dict[str, str] = {"": ""}

    def rename(name: str) -> str:
        return name if name in kept else short.setdefault(name, str(len(short)))

    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    del graph.value_info[:]


QUANTIZED_OPERATORS = ("ConvInteger", "MatMulInteger", "QuantizeLinear", "DequantizeLinear", "QLinearConv")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The tools advise on the root logger to run a step that changes nothing here."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

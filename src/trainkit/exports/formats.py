"""A program in the formats that other runtimes load: each function returns the bytes of a file."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit.errors import TrainkitError, UserError
from trainkit.models import config_key

Format = Literal["torchscript", "pt2", "onnx", "safetensors"]
Method = Literal["script", "trace"]
Quantization = Literal["dynamic", "static"]

FILE_NAMES: dict[Format, str] = {
    "torchscript": "model.pt",
    "pt2": "model.pt2",
    "onnx": "model.onnx",
    "safetensors": "model.safetensors",
}
TORCHSCRIPT_NOTE = (
    f"note: PyTorch has deprecated TorchScript (it still loads, here and in libtorch {torch.__version__}); "
    "--pt2 writes its successor, --onnx runs without PyTorch"
)
QUANTIZED_LAYERS = ("Conv", "Gemm", "MatMul")
"""The ONNX operators that become int8: preprocessing and the output's activation stay in float."""
_INT8_OPERATORS = {"ConvInteger", "MatMulInteger", "QuantizeLinear", "DequantizeLinear", "QLinearConv"}
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
Inputs = tuple[Any, ...]
"""The arguments of a module's call."""
OPSET = 18
"""The ONNX operator set: what torch's exporter writes best, and any ONNX Runtime since 1.14 loads."""


class ExportError(TrainkitError):
    """A program cannot be written in a format, or its outputs differ from the model's."""


def check_packages(formats: Sequence[Format]) -> None:
    """Raise UserError where a format needs packages that are not installed."""
    if "onnx" not in formats:
        return
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--onnx needs the packages {', '.join(missing)}; install them: pip install {' '.join(missing)}"
        )


def torchscript_bytes(program: nn.Module, example: Tensor, *, method: Method) -> bytes:
    """A TorchScript file, for ``torch.jit.load`` and libtorch.

    ``script`` compiles the code and takes any dtype and size that the code takes; ``trace`` records one call, with the
    dtype and the size (but for the batch) of ``example``.

    Raises:
        ExportError: a layer cannot be compiled or traced; names it.
    """
    attempt = _trace if method == "trace" else lambda module, inputs: torch.jit.script(module)
    compiled = _attempt(attempt, program, example, what=f"TorchScript ({method})")
    buffer = io.BytesIO()
    with quiet():
        torch.jit.save(compiled, buffer)
    return _without_source(buffer.getvalue())


def _without_source(archive: bytes) -> bytes:
    """A TorchScript file without the debug records, which hold source lines and the paths of this machine.

    Each record still starts at a multiple of 64 bytes, as PyTorch writes it.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(buffer, "w") as after:
        for old in before.infolist():
            if old.filename.endswith(".debug_pkl"):
                continue
            record = zipfile.ZipInfo(old.filename, old.date_time)
            record.compress_type = old.compress_type
            padding = -(buffer.tell() + 30 + len(record.filename.encode()) + 4) % 64  # 30: a header, 4: the field's own
            record.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            after.writestr(record, before.read(old))
    return buffer.getvalue()


def _trace(module: nn.Module, inputs: Inputs) -> Any:
    with quiet() as caught:
        traced = torch.jit.trace(module, inputs, check_trace=False)
    # A trace records the branch that the example took: the program would be silently wrong for other inputs.
    for warning in caught:
        if warning.category.__name__ == "TracerWarning":
            raise RuntimeError(str(warning.message))
    return traced


def pt2_bytes(program: nn.Module, example: Tensor, *, free_size: bool) -> bytes:
    """A ``torch.export`` archive, for ``torch.export.load``. The batch is dynamic.

    Args:
        free_size: height and width are dynamic too.

    Raises:
        ExportError: a layer cannot be exported; names it.
    """
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))

    def attempt(module: nn.Module, inputs: Inputs) -> torch.export.ExportedProgram:
        axes = {0: batch, 2: height, 3: width} if free_size and module is program else {0: batch}
        with torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=tuple(axes for _ in inputs))

    exported = _attempt(attempt, program, example, what="torch.export")
    for part in exported.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # source lines, with the paths of this machine
    buffer = io.BytesIO()
    with quiet(*_LOGGERS):
        torch.export.save(exported, buffer)
    return buffer.getvalue()


def onnx_bytes(program: nn.Module, example: Tensor, *, input_name: str, output_names: Sequence[str]) -> bytes:
    """An ONNX model with a dynamic batch; weights inside.

    Raises:
        ExportError: a layer cannot be exported; names it.
    """

    def attempt(module: nn.Module, inputs: Inputs) -> Any:
        names: dict[str, Any] = (
            {"input_names": [input_name], "output_names": list(output_names)} if module is program else {}
        )
        axes = {0: torch.export.Dim("batch", min=1)}
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            return torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                dynamic_shapes=tuple(axes for _ in inputs),
                opset_version=OPSET,
                verbose=False,
                **names,
            )

    model = _attempt(attempt, program, example, what="ONNX").model_proto
    graph = model.graph
    # Stack traces with the paths of this machine, as large as the weights of a small model.
    for node in graph.node:
        node.ClearField("doc_string")
    inner = [node for function in model.functions for node in function.node]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *inner):
        part.ClearField("metadata_props")
    # Shapes of inner values: runtimes infer them, and those of weights go stale when a tool transposes these.
    del graph.value_info[:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def quantize_onnx(program: bytes, *, kind: Quantization, input_name: str, calibration: NDArray[Any]) -> bytes:
    """An ONNX program with int8 weights, one scale for each output channel, by ONNX Runtime's own tools.

    torchao's ``quantize_`` (0.18) takes linear layers only, and a program exported from it does not load without
    torchao; its PT2E flow for convolutions becomes int8 only where torch.compile lowers it. ONNX Runtime does both
    kinds of layers, and its files run wherever it does.

    Args:
        program: an ONNX model in float32.
        kind: ``static``: inner values are int8 too, with ranges measured on ``calibration``; ``dynamic``: ranges are
            measured at each call.
        calibration: training samples as the program takes them.

    Raises:
        ExportError: ONNX Runtime cannot quantize it, or there is nothing to quantize.
    """
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder, quiet(""):  # the tools use the root logger
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(program)
        stacked = _stacked_products(onnx.load_from_string(program))
        common = {"op_types_to_quantize": list(QUANTIZED_LAYERS), "per_channel": True, "nodes_to_exclude": stacked}
        try:
            if kind == "dynamic":
                quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QInt8, **common)
            else:
                batches = (
                    {input_name: np.ascontiguousarray(calibration[i : i + 64])} for i in range(0, len(calibration), 64)
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
            raise ExportError(f"ONNX Runtime cannot quantize this model ({kind}): {error}") from error
        model = onnx.load(target)
    if not any(node.op_type in _INT8_OPERATORS for node in model.graph.node):
        raise ExportError(f"there is nothing to quantize: the model has no {', '.join(QUANTIZED_LAYERS)}")
    _shorten_names(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _stacked_products(model: Any) -> list[str]:
    """The names of products with several matrices of weights at once, of which the tools make a program that fails."""
    many = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 2}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and many & set(node.input)]


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


def _attempt(attempt: Callable[[nn.Module, Inputs], Any], program: nn.Module, example: Tensor, *, what: str) -> Any:
    with quiet(*_LOGGERS):
        try:
            return attempt(program, (example,))
        except Exception as error:  # the exporters raise whatever they like
            name, reason = _find_culprit(attempt, program, example)
            raise ExportError(f"{what} cannot hold {_layer_name(program, name)}: {reason or _reason(error)}") from error


def _find_culprit(attempt: Callable[[nn.Module, Inputs], Any], program: nn.Module, example: Tensor) -> tuple[str, str]:
    """The name of the innermost module that fails alone, and why; "" where only the whole program fails."""
    calls = _record_inputs(program, example)
    name, reason = "", ""
    module = program
    while True:
        for child_name, child in module.named_children():
            full_name = f"{name}.{child_name}" if name else child_name
            if full_name not in calls:
                continue
            try:
                attempt(child, calls[full_name])
            except Exception as error:  # noqa: BLE001  (the exporters raise whatever they like)
                name, module, reason = full_name, child, _reason(error)
                break
        else:
            return name, reason


def _record_inputs(program: nn.Module, example: Tensor) -> dict[str, Inputs]:
    """The inputs of each module inside, in one run of the example."""
    calls: dict[str, Inputs] = {}

    def record(name: str, _: nn.Module, inputs: Inputs) -> None:
        calls.setdefault(name, inputs)

    with contextlib.ExitStack() as hooks, torch.no_grad(), contextlib.suppress(Exception):
        for name, module in program.named_modules():
            hooks.callback(module.register_forward_pre_hook(functools.partial(record, name)).remove)
        program(example)
    return calls


def _layer_name(program: nn.Module, name: str) -> str:
    if not name:
        return "this model"
    kind = type(program.get_submodule(name)).__name__
    prefix, _, inside = name.partition(".")
    if prefix != "model":
        return f"{name} ({kind})"
    key = config_key(program.get_submodule("model"), inside)
    return f"the layer {inside or prefix} ({kind}, {key})"


def _reason(error: BaseException) -> str:
    """The first line of an exporter's message that holds text."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if len(line) > 3), type(error).__name__)[:300]


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[list[warnings.WarningMessage]]:
    """Keep warnings, and log lines below errors, from the user; those worth knowing become one line of our own."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in loggers}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. The library orders the tensors by dtype and name."""
    # Copies: tied weights stand under each of their names, and the library takes no tensors that share memory.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return safetensors.torch.save(copies, dict(metadata))

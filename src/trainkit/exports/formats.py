"""Write a program in the formats that other runtimes load. Each gives the bytes of a file; nothing is written here."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from trainkit.errors import TrainkitError, UserError
from trainkit.models import config_key

Format = Literal["torchscript", "pt2", "onnx", "safetensors"]
Method = Literal["script", "trace"]

FILE_NAMES: dict[Format, str] = {
    "torchscript": "model.pt",
    "pt2": "model.pt2",
    "onnx": "model.onnx",
    "safetensors": "model.safetensors",
}
TITLES: dict[Format, str] = {
    "torchscript": "TorchScript",
    "pt2": "torch.export",
    "onnx": "ONNX",
    "safetensors": "safetensors",
}
TORCHSCRIPT_NOTE = (
    f"note: PyTorch has deprecated TorchScript (it still loads, here and in libtorch {torch.__version__}); "
    "--pt2 writes its successor, --onnx runs without PyTorch"
)
OPSET = 18
"""The ONNX operator set: what torch's exporter writes best, and any ONNX Runtime since 1.14 loads."""


class ExportError(TrainkitError):
    """A program cannot be written in a format, or does not answer as the model does."""


def check_packages(formats: Sequence[Format]) -> None:
    """Raise UserError where a format needs packages that are not installed."""
    if "onnx" not in formats:
        return
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--onnx needs the packages {', '.join(missing)}; install them: pip install 'trainkit[onnx]'")


def torchscript_bytes(program: nn.Module, example: Tensor, *, method: Method) -> bytes:
    """A TorchScript file, for ``torch.jit.load`` and libtorch.

    ``script`` compiles the code and takes any dtype and size that the code takes; ``trace`` records one call, with the
    dtype and the size (but for the batch) of ``example``.

    Raises:
        ExportError: a layer cannot be compiled or traced; names it.
    """

    def attempt(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        return _script(module) if method == "script" else _trace(module, inputs)

    compiled = _attempt(attempt, program, example, what=f"TorchScript ({method})")
    buffer = io.BytesIO()
    with _quiet():
        torch.jit.save(compiled, buffer)
    return buffer.getvalue()


def _script(module: nn.Module) -> Any:
    with _quiet():
        return torch.jit.script(module)


def _trace(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    with _quiet() as caught:
        traced = torch.jit.trace(module, inputs, check_trace=False)
    # A branch on values is recorded as it went for the example: a program that is silently wrong for others.
    for warning in caught:
        if warning.category.__name__ == "TracerWarning":
            raise RuntimeError(str(warning.message))
    return traced


def pt2_bytes(program: nn.Module, example: Tensor, *, free_size: bool) -> bytes:
    """A ``torch.export`` archive, for ``torch.export.load``. The batch is dynamic; so are height and width if asked.

    Raises:
        ExportError: a layer cannot be exported; names it.
    """
    exported = _attempt(
        lambda module, inputs: _export(module, inputs, free_size=free_size and module is program),
        program,
        example,
        what="torch.export",
    )
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(exported, buffer)
    return buffer.getvalue()


def _export(module: nn.Module, inputs: tuple[Any, ...], *, free_size: bool = False) -> torch.export.ExportedProgram:
    axes = {0: torch.export.Dim("batch", min=1)}
    if free_size:
        axes |= {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}
    with _quiet(), torch.no_grad():
        return torch.export.export(module, inputs, dynamic_shapes=tuple(axes for _ in inputs))


def onnx_bytes(program: nn.Module, example: Tensor, *, input_name: str, output_names: Sequence[str]) -> bytes:
    """An ONNX model with a dynamic batch; weights inside.

    Raises:
        ExportError: a layer cannot be exported; names it.
    """

    def attempt(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        whole = module is program
        with _quiet(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            return torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                dynamic_shapes=tuple({0: torch.export.Dim("batch", min=1)} for _ in inputs),
                input_names=[input_name] if whole else None,
                output_names=list(output_names) if whole else None,
                opset_version=OPSET,
                verbose=False,
            )

    exported = _attempt(attempt, program, example, what="ONNX")
    model = exported.model_proto
    # Stack traces with the paths of this machine, as large as the weights of a small model.
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    # Shapes of inner values: runtimes infer them, and those of weights go stale when a tool transposes these.
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _attempt(
    attempt: Callable[[nn.Module, tuple[Any, ...]], Any], program: nn.Module, example: Tensor, *, what: str
) -> Any:
    try:
        return attempt(program, (example,))
    except Exception as error:  # the exporters raise whatever they like
        name, reason = _find_culprit(attempt, program, example)
        raise ExportError(f"{what} cannot hold {_layer_name(program, name)}: {reason or _reason(error)}") from error


def _find_culprit(
    attempt: Callable[[nn.Module, tuple[Any, ...]], Any], program: nn.Module, example: Tensor
) -> tuple[str, str]:
    """The name of the innermost module that fails alone, and why; "" where only the whole does."""
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
            except Exception as error:  # noqa: BLE001  (a tracker may fail in any way, and training goes on)
                name, module, reason = full_name, child, _reason(error)
                break
        else:
            return name, reason


def _record_inputs(program: nn.Module, example: Tensor) -> dict[str, tuple[Any, ...]]:
    """What each module inside is called with, for one run of the example."""
    calls: dict[str, tuple[Any, ...]] = {}
    handles = []
    for name, module in program.named_modules():
        if name:
            hook = lambda _, inputs, name=name: calls.setdefault(name, inputs)  # noqa: E731
            handles.append(module.register_forward_pre_hook(lambda m, i, hook=hook: hook(m, i) and None))
    try:
        with torch.no_grad(), contextlib.suppress(Exception):
            program(example)
    finally:
        for handle in handles:
            handle.remove()
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
    """The first line of an exporter's message that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if len(line) > 3), type(error).__name__)[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Keep the exporters' warnings and log lines from the user; those worth knowing become one line of our own."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. The library orders the tensors by dtype and name."""
    # Copies: tied weights stand under each of their names, and the library takes no tensors that share memory.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return safetensors.torch.save(copies, dict(metadata))

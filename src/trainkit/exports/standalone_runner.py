"""Runs the programs of a bundle in a process of its own, in which trainkit cannot be imported. It stands alone.

python -P standalone_runner.py answers BUNDLE OUT.npz    the outputs for the golden inputs, by batch size
python -P standalone_runner.py measure BUNDLE PROGRAM SECONDS    load time, latency, throughput and memory, as JSON
"""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.modules["trainkit"] = None  # type: ignore[assignment]  # any import of it fails
    warnings.filterwarnings("ignore", module="torch")

import numpy as np

Run = Callable[[np.ndarray], list[np.ndarray]]
BATCH_SIZES = (1, 2, 7, 64)
WARM_UP = 5


def load(program: Path | bytes, format: str) -> Run:
    """A program (bytes: of ONNX only) as a function from an array to the list of its outputs."""
    if format == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        source = program if isinstance(program, bytes) else str(program)
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda inputs: list(session.run(None, {name: inputs}))
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the export has warned of it
        if format == "torchscript":
            return run_of_module(torch.jit.load(str(program), map_location="cpu"))
        return run_of_module(torch.export.load(str(program)).module())


def run_of_module(program: Callable[..., Any]) -> Run:
    """A function from an array to the list of a PyTorch module's outputs."""
    import torch

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = program(torch.from_numpy(inputs))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def run_in_batches(run: Run, inputs: np.ndarray, *, batch_size: int = 64) -> list[np.ndarray]:
    """The outputs of a program, each joined over batches."""
    starts = range(0, len(inputs), batch_size)
    batches = [run(np.ascontiguousarray(inputs[start : start + batch_size])) for start in starts]
    return [np.concatenate(outputs) for outputs in zip(*batches, strict=True)]


def prepare(inputs: np.ndarray, outside: dict[str, Any] | None) -> np.ndarray:
    """Scale raw samples as a bare network needs it, by the numbers in signature.json; other programs do it inside."""
    if outside is None:
        return inputs
    floats = inputs.astype(np.float32)
    if inputs.dtype == np.uint8:
        floats = floats / np.float32(outside["scale"])
    statistics_ = outside.get("normalize") or outside.get("standardize")
    if statistics_:
        shape = (-1, *(1 for _ in inputs.shape[2:]))
        mean, std = (np.array(statistics_[name], np.float32).reshape(shape) for name in ("mean", "std"))
        std[std == 0] = np.inf  # a constant column becomes 0
        floats = (floats - mean) / std
    return floats


def tensor_hashes(path: Path) -> dict[str, str]:
    """SHA-256 of each tensor in a safetensors file, with its dtype and shape."""
    import safetensors

    hashes = {}
    for name, tensor in safetensors.deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
        described = f"{tensor['dtype']} {tensor['shape']} ".encode()
        hashes[name] = hashlib.sha256(described + tensor["data"]).hexdigest()
    return hashes


def answers(bundle: Path, out: Path) -> None:
    """Each program's outputs: ``{program}/{batch size}/{output}``; sizes below 64 see the first 8 batches only."""
    programs = json.loads((bundle / "signature.json").read_text(encoding="utf-8"))["programs"]
    golden = dict(np.load(bundle / "golden.npz"))
    found: dict[str, np.ndarray] = {}
    for name, program in programs.items():
        if program["format"] == "safetensors":
            found[f"{name}/hashes"] = np.array(json.dumps(tensor_hashes(bundle / name)))
            continue
        run = load(bundle / name, program["format"])
        inputs = golden[program["golden"]["inputs"]]
        for size in BATCH_SIZES:
            rows = inputs if size == max(BATCH_SIZES) else inputs[: 8 * size]
            for k, output in enumerate(run_in_batches(run, prepare(rows, program.get("outside")), batch_size=size)):
                found[f"{name}/{size}/{k}"] = output
    assert "trainkit" not in {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
    with open(out, "wb") as file:
        np.savez(file, **found)  # type: ignore[arg-type]


def measure(bundle: Path, name: str, seconds: float) -> dict[str, float]:
    """Times in milliseconds, memory in MB: above what the runtime alone takes."""
    program = json.loads((bundle / "signature.json").read_text(encoding="utf-8"))["programs"][name]
    inputs = dict(np.load(bundle / "golden.npz"))[program["golden"]["inputs"]]
    __import__("onnxruntime" if program["format"] == "onnx" else "torch")
    before = start_memory()
    start = time.perf_counter()
    run = load(bundle / name, program["format"])
    result = {"load_ms": (time.perf_counter() - start) * 1e3}
    for size in (1, 64):
        batch = np.ascontiguousarray(prepare(inputs[:size], program.get("outside")))
        times = time_calls(functools.partial(run, batch), seconds)
        result |= {f"{key}_{size}": value for key, value in times.items()}
    result["throughput"] = 64e3 / result["p50_ms_64"]
    if before is not None:
        result["memory_mb"] = max(0.0, (memory_kb("VmHWM") - before) / 1e3)
    return result


def start_memory() -> int | None:
    """Forget the peak so far; kB in use now. None where the system cannot (it is Linux's own)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return memory_kb("VmRSS")
    except (OSError, StopIteration):
        return None


def memory_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def time_calls(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Median and 99th percentile of one call in milliseconds, over at least 20 calls and ``seconds``."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 20 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return {"p50_ms": statistics.median(times), "p99_ms": float(np.percentile(times, 99))}


def main(arguments: list[str]) -> None:
    match arguments:
        case ["answers", bundle, out]:
            answers(Path(bundle), Path(out))
        case ["measure", bundle, name, seconds]:
            print(json.dumps(measure(Path(bundle), name, float(seconds))))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

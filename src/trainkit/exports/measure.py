"""The cost of programs: bytes, load time, latency, throughput, memory; and the score that smaller ones lose."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.errors import TrainkitError
from trainkit.exports.assemble import ExportRequest, Samples, Source, make_files, to_program_dtype
from trainkit.exports.formats import ExportError, check_packages
from trainkit.exports.parity import run_apart, score
from trainkit.exports.program import build_program
from trainkit.exports.standalone_runner import load, run_in_batches, run_of_module, time_calls

SECONDS = 0.5
"""How long each batch size is timed for."""
BENCHMARKED = {
    "script": ExportRequest(("torchscript",)),
    "trace": ExportRequest(("torchscript",), "trace"),
    "pt2": ExportRequest(("pt2",)),
    "onnx": ExportRequest(("onnx",)),
    "int8 dynamic": ExportRequest(("onnx",), quantize="dynamic"),
    "int8 static": ExportRequest(("onnx",), quantize="static"),
    "script float16": ExportRequest(("torchscript",), half=True),
}


def measure_shrunk(
    source: Source, request: ExportRequest, scored: Samples, folder: Path, *, split: str
) -> Mapping[str, Any]:
    """Bytes, latency at batch 1 and 64, and the score of int8 and float16 programs, against the model in PyTorch.

    Args:
        scored: all samples of ``split``.
        folder: holds the programs, ``signature.json`` and ``golden.npz``.

    Raises:
        ExportError: a program loses more than ``request.max_drop``.
    """
    eager = run_of_module(build_program(source.model, source.preprocessing, loss=source.loss))
    expected = score(run_in_batches(eager, scored.inputs, batch_size=256)[0], scored.targets)
    rows: dict[str, Any] = {"PyTorch": {**time_eager(source, scored), "score": expected, "drop": 0.0}}
    problems = []
    for name, program in json.loads((folder / "signature.json").read_text(encoding="utf-8"))["programs"].items():
        if program["format"] == "safetensors":
            continue
        run = load(folder / name, program["format"])
        inputs = to_program_dtype(scored.inputs, program["input"]["dtypes"])
        found = score(run_in_batches(run, inputs)[0], scored.targets)
        drop = expected - found if scored.targets.ndim == 1 else (found - expected) / max(expected, 1e-12)
        size, full_size = (folder / name).stat().st_size, program["float32_bytes"]
        sizes = {"bytes": size, "float32_bytes": full_size, "size_ratio": size / full_size}
        rows[name] = {**sizes, **_measure_apart(folder, name), "score": found, "drop": drop}
        if not drop <= request.max_drop:
            what = "accuracy" if scored.targets.ndim == 1 else "RMSE"
            problems.append(
                f"{name} ({program['quantization'] or program['precision']}) takes the {what} on {split} from "
                f"{expected:.4f} to {found:.4f}, more than --max-drop {request.max_drop} allows; nothing was written"
            )
    if problems:
        raise ExportError("\n".join(problems))
    return {"shrunk": rows, "scored_on": split, "max_drop": request.max_drop}


def _measure_apart(folder: Path, program: str) -> dict[str, float]:
    result: dict[str, float] = json.loads(run_apart("measure", folder, program, str(SECONDS)))
    return result


def time_eager(source: Source, samples: Samples) -> dict[str, float]:
    """Latency of preprocessing, model and activation in PyTorch, in this process, in milliseconds."""
    program = build_program(source.model, source.preprocessing, loss=source.loss)
    result: dict[str, float] = {"bytes": sum(t.numel() * t.element_size() for t in program.state_dict().values())}
    for size in (1, 64):
        batch = np.resize(samples.inputs, (size, *samples.inputs.shape[1:]))
        times = time_calls(functools.partial(run_of_module(program), batch), SECONDS)
        result |= {f"{key}_{size}": value for key, value in times.items()}
    result["throughput"] = 64e3 / result["p50_ms_64"]
    return result


def benchmark_formats(
    source: Source,
    samples: Samples,
    *,
    calibration: Callable[[], NDArray[Any]],
    say: Callable[[str], None] = lambda message: None,
) -> list[dict[str, Any]]:
    """A row for the model in PyTorch and for each format, each in its own process; ``skipped`` is why one failed."""
    rows: list[dict[str, Any]] = [{"format": "eager", **time_eager(source, samples)}]
    for title, request in BENCHMARKED.items():
        say(f"measuring {title}")
        try:
            check_packages(request.formats)
            files = make_files(source, request, samples, calibration=calibration)
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                for name, data in files.items():
                    (folder / name).write_bytes(data)
                program = next(iter(json.loads(files["signature.json"])["programs"]))
                times = _measure_apart(folder, program)
        except TrainkitError as error:
            rows.append({"format": title, "skipped": str(error)})
            continue
        rows.append({"format": title, "bytes": len(files[program]), **times})
    return rows

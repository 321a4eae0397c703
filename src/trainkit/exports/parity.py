"""Compare the programs of a bundle with the model: in a fresh process, at several batch sizes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.target_scale import in_own_units, standardized, stored_scale
from trainkit.errors import Interrupted
from trainkit.exports.formats import ExportError
from trainkit.exports.standalone_runner import BATCH_SIZES
from trainkit.system import run_child
from trainkit.wording import counted

RUNNER = Path(__file__).with_name("standalone_runner.py")
TIMEOUT_SECONDS = 600
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2}
"""The largest error of a program, by the precision it computes in: absolute below 1, relative above.

An int8 program is compared with its own outputs from when it was made: how processors round its sums differs.
"""


def run_apart(*arguments: str | Path, should_stop: Callable[[], bool] | None = None) -> str:
    """Run ``standalone_runner.py`` in a fresh interpreter; returns its standard output.

    Raises:
        ExportError: it failed; with the last line of its standard error.
        Interrupted: ``should_stop`` returned True.
    """
    # -P: the folder of the runner, which is inside trainkit, stays off the path.
    command = [sys.executable, "-P", str(RUNNER), *map(str, arguments)]
    try:
        done = run_child(command, timeout_seconds=TIMEOUT_SECONDS, should_stop=should_stop)
    except subprocess.TimeoutExpired:
        raise ExportError(f"the program did not answer within {TIMEOUT_SECONDS} s in a fresh process") from None
    if done is None:
        raise Interrupted("stopped while the exported programs were being checked", 130)
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise ExportError(f"the program fails in a fresh process: {lines[-1] if lines else f'exit {done.returncode}'}")
    return done.stdout


def check_programs(folder: Path, *, should_stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """What ``parity.json`` holds: for each program its errors at each batch size, and whether it passed.

    ``folder`` holds the programs, ``signature.json`` and ``golden.npz``.

    Raises:
        ExportError: a program cannot be run.
        Interrupted: ``should_stop`` returned True.
    """
    programs = json.loads((folder / "signature.json").read_text(encoding="utf-8"))["programs"]
    with np.load(folder / "golden.npz") as file:
        golden = dict(file)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "answers.npz"
        run_apart("answers", folder, out, should_stop=should_stop)
        with np.load(out) as file:
            answers = dict(file)
    reports = {name: _check(name, program, golden, answers) for name, program in programs.items()}
    return {
        "samples": int(next(iter(golden.values())).shape[0]),
        "error": "|program - model| / max(1, |model|), the largest of all outputs; scaled values are standardized",
        "programs": reports,
        "passed": all(report["passed"] for report in reports.values()),
    }


def _check(
    name: str, program: Mapping[str, Any], golden: Mapping[str, NDArray[Any]], answers: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    if program["format"] == "safetensors":
        found = json.loads(str(answers[f"{name}/hashes"]))
        hashes = program["tensors"]
        wrong = sorted(key for key in found.keys() | hashes.keys() if found.get(key) != hashes.get(key))
        return {"passed": not wrong, "tensors": len(found), "differing_tensors": wrong}
    scale = stored_scale(program)
    bare = bool(program.get("outside"))  # it puts out standardized values
    expected = [golden[key] for key in program["golden"]["outputs"]]
    found = {size: [answers[f"{name}/{size}/{k}"] for k in range(len(expected))] for size in BATCH_SIZES}
    in_deviations = partial(standardized, scale=scale) if scale is not None and not bare else np.asarray
    batches = {
        str(size): compare(list(map(in_deviations, found[size])), list(map(in_deviations, expected)))
        for size in BATCH_SIZES
    }
    error = max(batch["error"] for batch in batches.values())
    tolerance = program["tolerance"]
    report: dict[str, Any] = {"passed": error <= tolerance, "tolerance": tolerance, "error": error}
    if expected[0].ndim == 2 and np.isfinite(error):
        targets = golden[program["golden"]["targets"]]
        in_units = partial(in_own_units, scale=scale if bare else None)
        scores = [score(in_units(outputs), targets) for outputs in (found[64][0], expected[0])]
        metric = "accuracy" if targets.ndim == 1 else "rmse"
        report |= {"metric": metric, "program": scores[0], "model": scores[1], "change": scores[0] - scores[1]}
    return {**report, "batch_sizes": batches}


def compare(answers: list[NDArray[Any]], expected: list[NDArray[Any]]) -> dict[str, float]:
    """Largest absolute, relative and combined error over all outputs, and how often the first one's class agrees.

    Fewer answers than expected rows are compared with the first rows. Anything not finite counts as infinitely wrong.
    """
    result = {"max_absolute": 0.0, "max_relative": 0.0, "error": 0.0}
    for found, values in zip(answers, expected, strict=True):
        rows = values[: len(found)].astype(np.float64)
        if found.shape != rows.shape:
            return dict.fromkeys(result, float("inf"))
        with np.errstate(invalid="ignore"):
            absolute = np.abs(found.astype(np.float64) - rows)
        if not np.isfinite(absolute).all():
            return dict.fromkeys(result, float("inf"))
        size = np.abs(rows)
        relative = np.divide(absolute, size, out=np.zeros_like(absolute), where=size > 1e-6)
        for name, errors in zip(result, (absolute, relative, absolute / np.maximum(1, size)), strict=True):
            result[name] = max(result[name], float(errors.max(initial=0)))
    if expected[0].shape[-1] > 1:
        rows = expected[0][: len(answers[0])]
        result["class_agreement"] = float((answers[0].argmax(axis=1) == rows.argmax(axis=1)).mean())
    return result


def score(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """Accuracy for classes (N,), root mean squared error for values (N, T)."""
    if targets.ndim == 1:
        return float((outputs.argmax(axis=1) == targets).mean())
    return float(np.sqrt(np.square(outputs.astype(np.float64) - targets).mean()))


def failures(report: Mapping[str, Any]) -> list[str]:
    """One line for each program that did not pass."""
    lines = []
    for name, program in report["programs"].items():
        if program["passed"]:
            continue
        if "differing_tensors" in program:
            differing = program["differing_tensors"]
            lines.append(f"{name}: {counted(len(differing), 'tensor')} differ: {', '.join(differing[:5])}")
            continue
        worst = max(program["batch_sizes"], key=lambda size: program["batch_sizes"][size]["error"])
        lines.append(
            f"{name} does not answer as the model does: error {program['error']:.3g} at batch size {worst}, "
            f"allowed {program['tolerance']:.3g}"
        )
    return lines

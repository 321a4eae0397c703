"""The folder that an export writes: programs, their inputs and outputs, golden samples, checksums. Whole or absent.

It is filled under a temporary name, checked, flushed to the device and renamed: a kill at any point leaves a folder
whose name starts with a dot and ends in ``.tmp``, which is never taken for a bundle and which the next export removes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.errors import UserError
from trainkit.exports.formats import ExportError
from trainkit.exports.parity import check_programs, failures
from trainkit.system import durable
from trainkit.wording import SPLITS, counted

SUMS = "SHA256SUMS"


def golden_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of ``golden.npz``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def check_target(target: Path) -> None:
    """Raise UserError where a bundle cannot get this name."""
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already; give another --output, or delete it")


def free_name(target: Path) -> Path:
    """``target``, or with _2, _3, ... where the name is taken."""
    names = itertools.chain([target], (target.with_name(f"{target.name}_{number}") for number in itertools.count(2)))
    return next(name for name in names if not name.exists() and not name.is_symlink())


def write_bundle(
    target: Path,
    files: Mapping[str, bytes],
    *,
    measure: Callable[[Path], Mapping[str, Any]] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Publish a bundle at ``target``, after its programs have passed the comparison in a fresh process.

    Args:
        files: contents by name; ``signature.json``, ``golden.npz`` and the programs among them.
        measure: called with the folder before it is published; returns more entries for ``parity.json``.

    Returns:
        What ``parity.json`` holds.

    Raises:
        ExportError: a program fails, or its outputs differ, or ``measure`` raised it; nothing is left behind.
        UserError: the name is taken.
        Interrupted: ``should_stop`` returned True; nothing is left behind.
    """
    check_target(target)
    with durable.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        durable.clear_stale(target.parent)
        folder = durable.temporary(target)
        folder.mkdir()
    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            durable.write_bytes(folder / name, data)
        report = check_programs(folder, should_stop=should_stop)
        if not report["passed"]:
            raise ExportError("\n".join([*failures(report), f"{target} was not written"]))
        if measure is not None:
            report |= measure(folder)
        durable.write_json(folder / "parity.json", report)
        durable.write_text(folder / "README.md", _readme(json.loads(files["signature.json"]), report, files))
        durable.write_text(folder / SUMS, _sums(folder))
        _publish(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _publish(folder: Path, target: Path) -> None:
    check_target(target)  # renaming onto an empty folder would succeed
    with durable.writing(target):
        os.rename(folder, target)
    durable.fsync_folder(target.parent)


def _sums(folder: Path) -> str:
    """As ``sha256sum`` writes them."""
    return "".join(f"{_sha256(folder / name)}  {name}\n" for name in sorted(_files(folder)))


def _files(folder: Path) -> set[str]:
    """The files that have a sum, by their path in the bundle."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {name.as_posix() for name in names if "__pycache__" not in name.parts} - {SUMS}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_bundle(folder: Path) -> dict[str, Any]:
    """Check every file against its sum, then run the programs on the golden inputs in a fresh process.

    Programs are code: verify only what comes from someone you trust, as you would run it.

    Returns:
        As in ``parity.json``, measured now.

    Raises:
        UserError: this is not a bundle.
        ExportError: a file differs, or the outputs of a program do.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a bundle")
    if not (folder / SUMS).is_file() or durable.is_temporary(folder):
        raise UserError(f"{folder}: not a whole bundle (the export was stopped, or {SUMS} is missing); export it again")
    lines = [line.split("  ", 1) for line in (folder / SUMS).read_text(encoding="utf-8").splitlines() if line.strip()]
    if any(len(line) != 2 or line[1].startswith("/") or ".." in Path(line[1]).parts for line in lines):
        raise ExportError(f"{folder / SUMS} is damaged; export the bundle again")
    expected = {name: digest for digest, name in lines}
    present = _files(folder)
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - present)]
    wrong += [f"{name} is not listed in {SUMS}" for name in sorted(present - expected.keys())]
    wrong += [
        f"{name} has changed since the export"
        for name in sorted(expected.keys() & present)
        if not (folder / name).is_file() or _sha256(folder / name) != expected[name]
    ]
    if wrong or not {"signature.json", "golden.npz"} <= expected.keys():
        wrong = wrong or ["signature.json or golden.npz is missing"]
        raise ExportError("\n".join(f"{folder}: {line}" for line in wrong))
    report = check_programs(folder)
    if not report["passed"]:
        raise ExportError("\n".join(f"{folder}: {line}" for line in failures(report)))
    return report


def _readme(signature: Mapping[str, Any], report: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    name = signature["name"]
    sample = "rows.csv" if signature["kind"] == "table" else "image.png"
    lines = [
        f"# {name}",
        "",
        "Made by trainkit; runs without it.",
        "",
        *([f"    python predict.py {sample}"] if "predict.py" in files else []),
        *(["    pip install -r requirements.txt && python serve.py"] if "serve.py" in files else []),
        "",
        "| program | format | precision | largest error | allowed |",
        "|---|---|---|---|---|",
    ]
    for file, program in signature["programs"].items():
        checked = report["programs"][file]
        error, allowed = (f"{checked[key]:.2g}" if key in checked else "bitwise" for key in ("error", "tolerance"))
        how = f"{program['format']} ({program['method']})" if program.get("method") else program["format"]
        lines.append(f"| {file} | {how} | {program['precision']} | {error} | {allowed} |")
    lines += [""]
    for file, program in signature["programs"].items():
        if program["format"] == "safetensors":
            lines.append(f"- {file}: the weights alone, by name; the network itself is described in the header.")
            continue
        for value in (program["input"], *program["outputs"]):
            shape = " x ".join(str(size) for size in value["shape"])
            span = "".join(f", {key} in {bounds}" for key, bounds in value.get("range", {}).items())
            lines.append(f"- {file} {value['name']}: {' or '.join(value['dtypes'])}, {shape}{span}")
        for transform in program["front_outside"]:
            lines.append(f"  - before it: {json.dumps(transform)} (predict.py does it)")
    kind = SPLITS.get(signature.get("samples_from", "val"), "")
    samples = counted(signature.get("num_samples", report["samples"]), f"{kind} sample")
    lines += [
        "",
        "- signature.json: names, shapes, dtypes, ranges, preprocessing. labels.json: the classes, in order.",
        f"- golden.npz: {samples} and the model's answers. parity.json: how the programs",
        "  compared with them, reloaded in a process without trainkit.",
        f"- `sha256sum -c {SUMS}` checks the files, `trainkit export --verify .` runs the comparison again.",
        "",
    ]
    return "\n".join(lines)

"""An exported bundle to predict with; ``signature.json`` describes its programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainkit.data.tables import raw_rows, table_encoding
from trainkit.errors import UserError
from trainkit.exports import Run, load, prepare

SIGNATURE = "signature.json"
PROGRAMS = (".pt", ".pt2", ".onnx")
BATCH_SIZE = 64


@dataclass(frozen=True)
class ExportedModel:
    """A program of a bundle."""

    path: Path
    run: Run
    program: Mapping[str, Any]
    """Its entry in ``signature.json``."""
    class_names: tuple[str, ...]
    target_names: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    any_size: bool
    """Whether the program resizes and crops the images itself."""
    batch_size: int = BATCH_SIZE

    def predict(self, rows: Tensor) -> Tensor:
        """Probabilities (N, K), or values (N, T); ``rows`` are samples before they are scaled."""
        stored = rows.numpy()
        if self.preprocessing["kind"] == "table":
            stored = raw_rows(stored, table_encoding(self.preprocessing))
        inputs = prepare(stored, self.program.get("outside"))
        if "uint8" not in self.program["input"]["dtypes"] and inputs.dtype == np.uint8:
            inputs = inputs.astype(np.float32) / np.float32(255)
        return torch.from_numpy(self.run(np.ascontiguousarray(inputs))[0])


def is_export(path: Path) -> bool:
    """Whether this is a bundle's folder, or a file with the ending of a program."""
    return (path.is_dir() and (path / SIGNATURE).is_file()) or (path.is_file() and path.suffix in PROGRAMS)


def open_export(path: Path) -> ExportedModel:
    """Load a bundle's first program, or the one that is named. Programs are code: open only what you trust.

    Raises:
        UserError: this is not a bundle, or its programs have outputs other than predictions.
    """
    folder = path if path.is_dir() else path.parent
    try:
        signature = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
        programs = {
            name: program for name, program in signature["programs"].items() if program["format"] != "safetensors"
        }
        name = next(iter(programs), "") if path.is_dir() else path.name
        program = programs.get(name)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no {SIGNATURE} beside it, so what it takes is not known; give the folder of a bundle "
            "that trainkit export wrote, or a checkpoint"
        ) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{folder / SIGNATURE} cannot be used ({error}); export the bundle again") from None
    if program is None:
        known = ", ".join(programs) or "no program, only weights"
        raise UserError(f"{path}: {folder / SIGNATURE} does not describe this; it has {known}")
    if program["outputs"][0]["name"] not in ("probabilities", "values"):
        raise UserError(f"{path}: its program puts out the bare network's outputs; give a bundle made without --raw")
    preprocessing = signature["preprocessing"]
    return ExportedModel(
        path=folder / name,
        run=_load(folder / name, program["format"]),
        program=program,
        class_names=tuple(signature["classes"]),
        target_names=tuple(signature["target_names"]),
        preprocessing=preprocessing,
        any_size=bool(preprocessing.get("front")) and not program["front_outside"],
    )


def _load(path: Path, format: str) -> Run:
    try:
        return load(path, format)
    except ImportError as error:
        raise UserError(f"{path}: cannot run it without {error.name}; install it: pip install {error.name}") from None
    except Exception as error:  # noqa: BLE001  (each format raises its own errors)
        raise UserError(f"{path}: cannot be loaded ({str(error).strip().splitlines()[0]})") from None

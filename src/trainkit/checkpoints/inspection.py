"""Checks of a checkpoint file without torch: whether it is whole, harmless and trainkit's; and its values.

Nothing of the file is run, and no tensor is made.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from trainkit.checkpoints.archive import DamagedFile, open_archive, open_regular
from trainkit.checkpoints.safe_pickle import TensorSpec, read_pickle

FORMAT = 1
KIND = "trainkit-checkpoint"
JOURNAL_NAME = "checkpoints.json"
_MAX_DEPTH = 64
_MAX_VALUES = 1_000_000


@dataclass(frozen=True)
class CheckpointSpec:
    """A file that passed every check that needs no torch."""

    path: Path
    value: Any
    """The saved value with a ``TensorSpec`` in place of each tensor."""
    size: int
    sha256: str | None
    """None where the checks ran without hashing."""


def read_archive(
    file: BufferedReader, path: str | Path, *, hashed: bool = False, expected_sha256: str | None = None
) -> CheckpointSpec:
    """Check an open file and read its values; any save of plain values and tensors passes.

    Raises:
        DamagedFile: the file is damaged, or holds code.
    """
    archive = open_archive(file, path)
    with ThreadPoolExecutor(1) as pool:  # both read the whole file, and need the interpreter for a moment only
        digest = pool.submit(_sha256, path) if hashed or expected_sha256 else None
        archive.check()
    sha256 = None if digest is None else digest.result()
    if expected_sha256 and sha256 != expected_sha256:
        raise DamagedFile(path, f"not the file that was saved here: its SHA-256 differs from the one in {JOURNAL_NAME}")
    value = read_pickle(archive)
    check_plain(value, path)
    return CheckpointSpec(Path(path), value, file.seek(0, os.SEEK_END), sha256)


def _sha256(path: str | Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_format(spec: CheckpointSpec) -> None:
    """Refuse a file that is not a checkpoint of this trainkit, with a message on what it is.

    Raises:
        DamagedFile: another program's file, or a newer format.
    """
    path, value = spec.path, spec.value
    hint = f"to start from its weights: trainkit train CONFIG --init-from {path}"
    if isinstance(value, TensorSpec):
        raise DamagedFile(path, "not a trainkit checkpoint: it holds a single tensor")
    if not isinstance(value, dict):
        raise DamagedFile(path, f"not a trainkit checkpoint: it holds a {type(value).__name__}")
    if value.get("kind") != KIND:
        if value and all(isinstance(item, TensorSpec) for item in value.values()):
            raise DamagedFile(path, f"a plain state_dict ({len(value)} tensors), not a trainkit checkpoint; {hint}")
        raise DamagedFile(path, f"a file of PyTorch, but not a trainkit checkpoint; {hint}")
    if type(value.get("format")) is not int or value["format"] < 1:
        raise DamagedFile(path, f"damaged: a checkpoint of format {value.get('format')!r}")
    if value["format"] > FORMAT:
        text = f"format {value['format']}, and this trainkit reads formats up to {FORMAT}; update trainkit"
        raise DamagedFile(path, f"saved by a newer trainkit: {text}")
    model = value.get("model")
    if not isinstance(model, dict) or not all(
        isinstance(name, str) and isinstance(item, TensorSpec) for name, item in model.items()
    ):
        raise DamagedFile(path, "damaged: the checkpoint has no model, or its model holds more than named tensors")


def inspect_checkpoint(path: str | Path, *, expected_sha256: str | None = None) -> CheckpointSpec:
    """Every check that needs no torch, on the whole file.

    Raises:
        DamagedFile: the file is damaged, or no checkpoint of this trainkit.
    """
    with open_regular(path) as file:
        spec = read_archive(file, path, hashed=True, expected_sha256=expected_sha256)
    check_format(spec)
    return spec


def check_plain(value: Any, path: str | Path) -> None:
    """Refuse cycles, deep nesting, values other than plain ones, and few bytes that stand for very many values."""
    count = 0

    def walk(item: Any, depth: int) -> None:
        nonlocal count
        count += 1
        if depth > _MAX_DEPTH or count > _MAX_VALUES:
            raise DamagedFile(path, "refused: its values are nested too deeply, or within themselves, or are too many")
        if isinstance(item, dict):
            for inner in item.values():
                walk(inner, depth + 1)
        elif isinstance(item, list | tuple):
            for inner in item:
                walk(inner, depth + 1)
        elif item is not None and not isinstance(item, bool | int | float | str | TensorSpec):
            raise DamagedFile(path, "refused: it holds a type or a storage where a plain value should be")

    walk(value, 0)

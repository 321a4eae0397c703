"""Fingerprints of data sets: counts and hashes, stored with a checkpoint and compared when it is loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Part, Split


def fingerprint_dataset(
    source: str,
    parts: dict[str, Part],
    splits: dict[str, Split],
    *,
    class_names: Sequence[str] = (),
    roots: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """Counts and hashes by part, sizes by split, class names. ``roots``: the folder that file names are relative to.

    Paths are relative and modification times are left out, so a copy of the data has the same fingerprint.
    """
    return {
        "source": source,
        "parts": {
            name: _fingerprint_part(part, class_names, (roots or {}).get(name, Path())) for name, part in parts.items()
        },
        "splits": {
            name: {"samples": len(split), "indices": hash_array(split.indices)} for name, split in splits.items()
        },
        "class_names": list(class_names),
    }


def _fingerprint_part(part: Part, class_names: Sequence[str], root: Path) -> dict[str, Any]:
    described: dict[str, Any] = {"samples": len(part)}
    if isinstance(part.inputs, tuple):
        described["files"] = hash_files(part.inputs, root)
    else:
        described["shape"] = [int(size) for size in part.inputs.shape[1:]]
        described["inputs"] = hash_array(part.inputs)
    described["targets"] = hash_array(part.targets)
    if class_names:
        counts = np.bincount(part.targets, minlength=len(class_names))
        described["samples_per_class"] = {name: int(n) for name, n in zip(class_names, counts, strict=True)}
    return described


def hash_array(array: NDArray[Any]) -> str:
    """SHA-256 (32 hex digits of it) of the shape, the type and the bytes."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()[:32]


def hash_files(paths: Sequence[Path], root: Path) -> str:
    """Hash of the relative names and sizes of files, in their order. Files that are gone count as size -1."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            size = os.stat(path).st_size
        except OSError:
            size = -1
        digest.update(os.fsencode(os.path.relpath(path, root)) + b"\0%d\0" % size)
    return digest.hexdigest()[:32]


def describe_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The differences between two fingerprints, a sentence each; [] where there are none."""
    changes = []
    if old.get("source") != new.get("source"):
        changes.append(f"the source was {old.get('source')}, now it is {new.get('source')}")
    if old.get("class_names") != new.get("class_names"):
        changes.append(_describe_names(old.get("class_names", []), new.get("class_names", [])))
    old_parts, new_parts = old.get("parts", {}), new.get("parts", {})
    for name in sorted({*old_parts, *new_parts}):
        if name not in new_parts:
            changes.append(f"the part {name!r} is gone ({old_parts[name]['samples']} samples)")
        elif name not in old_parts:
            changes.append(f"the part {name!r} is new ({new_parts[name]['samples']} samples)")
        else:
            changes.extend(_describe_part(name, old_parts[name], new_parts[name]))
    if not changes:
        changes.extend(_describe_splits(old.get("splits", {}), new.get("splits", {})))
    return changes


def _describe_names(old: Sequence[str], new: Sequence[str]) -> str:
    gone = [name for name in old if name not in new]
    added = [name for name in new if name not in old]
    if not gone and not added:
        return "the classes are in another order"
    changes = [f"classes gone: {', '.join(gone[:10])}"] if gone else []
    changes += [f"new classes: {', '.join(added[:10])}"] if added else []
    return "; ".join(changes)


def _describe_part(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    if old["samples"] != new["samples"]:
        per_class = _describe_counts(old.get("samples_per_class", {}), new.get("samples_per_class", {}))
        return [f"part {name!r}: {old['samples']} samples then, {new['samples']} now{per_class}"]
    names = {
        "shape": "the shape of the inputs",
        "files": "names or sizes of files",
        "contents": "contents of files",
        "inputs": "input values",
        "targets": "targets",
    }
    changed = [text for key, text in names.items() if key in old and key in new and old[key] != new[key]]
    return [f"part {name!r}: {' and '.join(changed)} changed"] if changed else []


def _describe_counts(old: dict[str, int], new: dict[str, int]) -> str:
    changed = [f"{name} {old[name]} -> {new[name]}" for name in old if name in new and old[name] != new[name]]
    return f" ({', '.join(changed[:10])})" if changed else ""


def _describe_splits(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    changes = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            changes.append(f"the split {name!r} is {'gone' if after is None else 'new'}")
        elif before["samples"] != after["samples"]:
            changes.append(f"split {name!r}: {before['samples']} samples then, {after['samples']} now")
        elif before["indices"] != after["indices"]:
            changes.append(f"split {name!r} holds other samples of the same data (another seed or fraction)")
    return changes

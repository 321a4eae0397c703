"""Image folders: one folder a class, directly under the root or under train/, val/ and test/."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from trainkit.data.dataset import Dataset, Part, fingerprint_dataset
from trainkit.data.images.decode import EXTENSIONS, BadImageError, printable, probe_bytes, read_image_bytes
from trainkit.data.splits import split_part, whole_part
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import first_lines, listed

SPLIT_FOLDERS = ("train", "val", "test")
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir")


@dataclass
class _Scan:
    """The entries of the folders that are no images of a class."""

    junk: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)


def load_image_folder(
    root: str | Path,
    *,
    color: Literal["auto", "rgb", "gray"] = "auto",
    max_bad_files: int = 0,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Dataset:
    """The image files under ``root``, not decoded yet: a part for each split folder, or one part, ``"all"``.

    Classes are the folders of ``train`` (or of the root) in alphabetical order; other splits are matched by name.
    Where there is no ``test`` or no ``val`` folder, that split is taken from ``train`` by fraction. Folders inside a
    class folder are searched too. System files (hidden ones, ``Thumbs.db``, ...) and files that have no image
    extension are left out and noted.

    Raises:
        ProblemsError: The folder is missing or has no class folders, or a fraction cannot be met.
        DataError: A split or a class is empty, or a split has a class that training does not have.
    """
    root = Path(root).expanduser()
    scan = _Scan()
    folders = _split_folders(root, scan)
    found = {name: _find_classes(folder, scan) for name, folder in folders.items()}
    first = next(iter(found))
    notes = _check_classes(folders, found, first)
    class_names = tuple(found[first])
    parts = {name: _make_part(classes, class_names) for name, classes in found.items()}
    fractions = {"test": test_fraction, "val": val_fraction}
    fractions = {name: fraction for name, fraction in fractions.items() if name not in parts}
    splits = split_part(
        parts[first], first, task="classification", fractions=fractions, seed=seed, class_names=class_names
    )
    splits |= {name: whole_part(part, name) for name, part in parts.items() if name != first}
    splits = {name: splits[name] for name in SPLIT_FOLDERS if name in splits}
    notes += _describe_scan(root, scan)
    return Dataset(
        name=root.resolve().name or "images",
        kind="image",
        task="classification",
        parts=parts,
        splits=splits,
        class_names=class_names,
        fingerprint=fingerprint_dataset("image_folder", parts, splits, class_names=class_names, roots=folders),
        notes=tuple(notes),
        channels={"rgb": 3, "gray": 1}.get(color) or _find_channels(parts),
        max_bad_files=max_bad_files,
    )


def _split_folders(root: Path, scan: _Scan) -> dict[str, Path]:
    """``{"train": root/train, ...}`` where the root is laid out so, else ``{"all": root}``."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        hint = "give a folder with one folder a class, or with train/, val/ and test/"
        raise ProblemsError([Problem(f"{root} {what}; {hint}", key="dataset.root")])
    beside = _Scan()
    names = [entry.name for entry in _list(root, beside) if _is_folder(entry)]
    if not names:
        hint = "it needs one folder a class, or train/, val/ and test/ with one folder a class in each"
        raise ProblemsError([Problem(f"{root} has no folders in it; {hint}", key="dataset.root")])
    named = [name for name in SPLIT_FOLDERS if name in names]
    if not named or ("train" not in named and len(names) > len(named)):
        return {"all": root}  # "test" may be the name of a class
    if "train" not in named:
        raise ProblemsError([Problem(f"{root} has {' and '.join(named)} but no train folder", key="dataset.root")])
    inside = list(_list(root / "train", _Scan()))
    if any(map(_is_image, inside)) and not any(map(_is_folder, inside)):
        return {"all": root}  # "train" is a class: pictures of trains
    scan.junk += beside.junk
    scan.others += [f"{name}/" for name in names if name not in named]
    return {name: root / name for name in named}


def _list(folder: Path, scan: _Scan) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder by name, without junk."""
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror})") from None
    for entry in ordered:
        if entry.name in _JUNK or entry.name.startswith("."):
            scan.junk[entry.name] += 1
        else:
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(EXTENSIONS)


def _find_classes(folder: Path, scan: _Scan) -> dict[str, list[Path]]:
    """Image files by class folder, both in alphabetical order."""
    classes: dict[str, list[Path]] = {}
    resolved = folder.resolve()
    above = {_identity(parent) for parent in (resolved, *resolved.parents)}
    for entry in _list(folder, scan):
        if _is_folder(entry):
            if _identity(entry.path) in above:
                scan.loops.append(entry.path)
            else:
                classes[entry.name] = list(_walk(Path(entry.path), scan, set(above)))
        else:
            scan.others.append(entry.name)
    return classes


def _walk(folder: Path, scan: _Scan, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Image files under a folder; each real folder is searched once, so that links in a circle end."""
    seen.add(_identity(folder))
    for entry in _list(folder, scan):
        if _is_folder(entry):
            if _identity(entry.path) in seen:
                scan.loops.append(entry.path)
            else:
                yield from _walk(Path(entry.path), scan, seen)
        elif _is_image(entry):
            yield Path(entry.path)
        else:
            scan.others.append(entry.name)


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _check_classes(folders: dict[str, Path], found: dict[str, dict[str, list[Path]]], first: str) -> list[str]:
    """Raise every mistake in the classes at once; returns notes."""
    problems, notes = [], []
    training = {name for name, files in found[first].items() if files}
    for name in found[first]:
        if printable(name) != name:
            problems.append(
                f"the class folder {printable(folders[first] / name)} has a name that is not text; rename it"
            )
    for split, classes in found.items():
        empty = [name for name, files in classes.items() if not files]
        if len(empty) == len(classes):
            problems.append(f"{folders[split]} has no images in it: the split is empty")
            continue
        if split == first:
            problems += [f"{folders[split] / name} has no images in it; fill or delete the folder" for name in empty]
            continue
        extra = [name for name in classes if name not in found[first] and classes[name]]
        if extra:
            problems.append(
                f"{folders[split]} has classes that {folders[first]} does not have: {listed(extra)}; "
                "rename or remove them, or add training images"
            )
        missing = [name for name in found[first] if not classes.get(name)]
        if missing:
            notes.append(
                f"{folders[split]} has no images of {len(missing)} of {len(found[first])} classes: {listed(missing)}; "
                "labels go by name, so the others keep theirs"
            )
    if not problems and len(training) < 2:
        problems.append(f"{folders[first]} has one class only, {next(iter(training))!r}; at least 2 are needed")
    if problems:
        raise DataError("\n".join(first_lines(problems)))
    return notes


def _make_part(classes: dict[str, list[Path]], class_names: Sequence[str]) -> Part:
    files = [(path, label) for label, name in enumerate(class_names) for path in classes.get(name, [])]
    return Part(tuple(path for path, _ in files), np.array([label for _, label in files], dtype=np.int64))


def _describe_scan(root: Path, scan: _Scan) -> list[str]:
    notes = []
    if scan.junk:
        names = printable(", ".join(name for name, _ in scan.junk.most_common(5)))
        notes.append(f"{root}: ignored {scan.junk.total()} system files or folders ({names})")
    if scan.others:
        names = printable(", ".join(sorted(set(scan.others))[:5]))
        notes.append(f"{root}: ignored {len(scan.others)} entries that are neither images nor class folders ({names})")
    if scan.loops:
        notes.append(
            f"{root}: ignored {len(scan.loops)} links to folders searched already ({printable(scan.loops[0])})"
        )
    return notes


def _find_channels(parts: dict[str, Part]) -> int:
    """1 where every readable image is gray, else 3: the search ends at the first color image."""
    for part in parts.values():
        assert isinstance(part.inputs, tuple)
        for path in part.inputs:
            try:
                channels, _ = probe_bytes(read_image_bytes(path))
            except BadImageError:
                continue  # counted and named when the images are decoded
            if channels == 3:
                return 3
    return 1

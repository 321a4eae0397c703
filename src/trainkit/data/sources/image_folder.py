"""Image folders: one folder a class, directly under the root or under the folders of splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from trainkit.data.dataset import Dataset, Part, fingerprint_dataset, name_key
from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import printable, probe_file
from trainkit.data.images.formats import missing_plugins
from trainkit.data.pixel_rules import DEFAULT_RULES, PixelRules
from trainkit.data.sources.folder_layout import SPLITS, Layout, find_layout
from trainkit.data.sources.folder_names import is_text, split_names
from trainkit.data.sources.folder_scan import Scan, describe_files, find_images, is_folder, list_entries, parents
from trainkit.data.splits import HeldOut, split_part, whole_part
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import closest, enumerated, first_lines, listed, not_a_folder

Found = dict[str, dict[str, list[Path]]]
"""By split and by class: the image files."""


def load_image_folder(
    root: str | Path,
    *,
    color: Literal["auto", "rgb", "gray"] = "auto",
    rules: PixelRules = DEFAULT_RULES,
    max_bad_files: int = 0,
    held: HeldOut,
) -> Dataset:
    """The image files under ``root``, not decoded yet: a part for each split folder, or one part, ``"all"``.

    ``folder_layout`` finds the splits. Classes are the folders of ``train`` (or of the root) in alphabetical order;
    other splits are matched by name. Where there is no ``test`` or no ``val`` folder, that split is held out of
    ``train``. With a fold, which is the test split, a ``test`` folder is left out. Folders inside a class folder are
    searched too. System files (hidden ones, ``Thumbs.db``, ...) and files that are no images are left out and noted.

    Raises:
        ProblemsError: The folder is missing or has no class folders, or a fraction cannot be met.
        DataError: A split or a class is empty, or a split has a class that training does not have.
    """
    root = Path(root).expanduser()
    layout, found, notes = _read_folders(root, known=(), key="dataset.root")
    first = next(iter(found))
    class_names = tuple(found[first])
    notes = [*layout.notes, *_check_classes(layout.roots, found), *_splits_beside(root), *notes]
    if held.fold is not None and found.pop("test", None) is not None:
        notes.append(f"{printable(layout.roots['test'])} is a test set of its own, which stays out of the folds")
    parts = {split: _make_part(classes, class_names) for split, classes in found.items()}
    _check_plugins(parts, max_bad_files)
    splits = split_part(parts[first], first, task="classification", held=held.beside(parts), class_names=class_names)
    splits |= {name: whole_part(part, name) for name, part in parts.items() if name != first}
    splits = {name: splits[name] for name in SPLITS if name in splits}
    return Dataset(
        name=root.resolve().name or "images",
        kind="image",
        task="classification",
        parts=parts,
        splits=splits,
        class_names=class_names,
        fingerprint=fingerprint_dataset("image_folder", parts, splits, class_names=class_names, roots=layout.roots),
        notes=tuple(notes),
        channels={"rgb": 3, "gray": 1}.get(color) or _find_channels(parts),
        rules=rules,
        max_bad_files=max_bad_files,
    )


def load_images_to_score(
    root: Path, *, class_names: Sequence[str], channels: int, max_bad_files: int, key: str
) -> Dataset:
    """The image files under ``root`` with the labels of a model's ``class_names``; classes may be missing.

    Raises:
        ProblemsError: The folder is missing or has no class folders.
        DataError: There is no image, or there is a class that the model does not have.
    """
    layout, found, notes = _read_folders(root, known=class_names, key=key)
    found = {split: {name: files for name, files in classes.items() if files} for split, classes in found.items()}
    names = sorted({name for classes in found.values() for name in classes})
    problems = _bad_names(names, root)
    problems += [f"{layout.roots[split]} has no images in it" for split, classes in found.items() if not classes]
    if problems:
        raise DataError("\n".join(first_lines([f"{key}: {problem}" for problem in problems])))
    parts = {split: _make_part(classes, names) for split, classes in found.items()}
    _check_plugins(parts, max_bad_files)
    first = next(iter(parts))
    splits = {"train": whole_part(parts[first], first)}
    splits |= {split: whole_part(part, split) for split, part in parts.items() if split != first}
    return Dataset(
        name=root.resolve().name or "images",
        kind="image",
        task="classification",
        parts=parts,
        splits=splits,
        class_names=tuple(names),
        fingerprint=fingerprint_dataset("image_folder", parts, splits, class_names=names, roots=layout.roots),
        notes=(*layout.notes, *notes),
        channels=channels,
        max_bad_files=max_bad_files,
    )


def _read_folders(root: Path, *, known: Sequence[str], key: str) -> tuple[Layout, Found, list[str]]:
    """The layout, the files of each split and class, and notes on what was left out."""
    if not root.is_dir():
        hint = "give a folder with one folder a class, or with train/, val/ and test/"
        raise ProblemsError([Problem(f"{printable(root)} {not_a_folder(root)}; {hint}", key=key)])
    scan = Scan()
    layout = find_layout(root, scan, known=known, key=key)
    found: Found = {}
    training = next(iter(layout.splits.values()))
    spelled = {name_key(name): name for name in known or list(training)}
    for split, folders in layout.splits.items():
        above = parents(layout.roots[split])
        found[split] = {}
        for name, paths in folders.items():
            files = [file for path in paths for file in find_images(path, scan, set(above))]
            # macOS and Linux may write one name in two ways.
            found[split].setdefault(spelled.get(name_key(name), name), []).extend(files)
    return layout, found, scan.notes(root)


def _bad_names(names: Sequence[str], folder: Path) -> list[str]:
    return [
        f"the class folder {printable(folder / name)} has a name that is not text; rename it"
        for name in names
        if not is_text(name)
    ]


def _check_classes(folders: dict[str, Path], found: Found) -> list[str]:
    """Raise every mistake in the classes at once; returns notes. The first split has the training samples."""
    first, training = next(iter(found.items()))
    problems, notes = _bad_names(list(training), folders[first]), []
    for split, classes in found.items():
        empty = [name for name, files in classes.items() if not files]
        if len(empty) == len(classes):
            problems.append(f"{folders[split]} has no images in it: the split is empty")
            continue
        if split == first:
            problems += [
                f"{printable(folders[split] / name)} has no images in it{describe_files(folders[split] / name)}; "
                "fill or delete the folder"
                for name in empty
            ]
            continue
        extra = [name for name in classes if name not in training and classes[name]]
        if extra:
            alike = {name: close for name in extra if (close := closest(name, training))}
            hint = (
                f" ({'; '.join(f'{name!r}: did you mean {close!r}?' for name, close in alike.items())})"
                if alike
                else ""
            )
            problems.append(
                f"{folders[split]} has classes that {folders[first]} does not have: {listed(extra)}{hint}; "
                "rename or remove them, or add training images"
            )
        missing = [name for name in training if not classes.get(name)]
        if missing:
            notes.append(
                f"{folders[split]} has no images of {len(missing)} of {len(training)} classes: {listed(missing)}; "
                "labels go by name, so the others keep theirs"
            )
    filled = [name for name, files in training.items() if files]
    if not problems and len(filled) < 2:
        problems.append(f"{folders[first]} has one class only, {filled[0]!r}; at least 2 are needed")
    if problems:
        raise DataError("\n".join(first_lines(problems)))
    return notes


def _splits_beside(root: Path) -> list[str]:
    """A note where the root is the folder of the training split, and those of other splits lie beside it."""
    root = root.resolve()
    try:
        splits = split_names(entry.name for entry in list_entries(root.parent, Scan()) if is_folder(entry))
    except DataError:
        return []
    beside = [name for name, split in splits.items() if split != "train"]
    if splits.get(root.name) != "train" or not beside:
        return []
    return [
        f"{printable(enumerated(beside))} beside {root}: not read; dataset.root: {root.parent} would read all splits"
    ]


def _make_part(classes: dict[str, list[Path]], class_names: Sequence[str]) -> Part:
    files = [(path, label) for label, name in enumerate(class_names) for path in classes.get(name, [])]
    return Part(tuple(path for path, _ in files), np.array([label for _, label in files], dtype=np.int64))


def _check_plugins(parts: dict[str, Part], max_bad_files: int) -> None:
    """Raise DataError where images need a package that is not installed, unless so many may be skipped."""
    paths = [path for part in parts.values() if isinstance(part.inputs, tuple) for path in part.inputs]
    missing = missing_plugins(paths)
    if missing and sum(int(line.split()[0]) for line in missing) > max_bad_files:
        raise DataError("\n".join(f"{line}, or remove them" for line in missing))


def _find_channels(parts: dict[str, Part]) -> int:
    """1 where every readable image is gray, else 3: the search ends at the first color image."""
    for part in parts.values():
        assert isinstance(part.inputs, tuple)
        for path in part.inputs:
            try:
                header = probe_file(path)
            except BadImageError:
                continue  # counted and named when the images are decoded
            if header.channels == 3:
                return 3
    return 1

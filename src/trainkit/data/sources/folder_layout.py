"""Which folders under a root are splits and which are classes, in the layouts that people have.

- ``cat/ dog/``: one folder a class.
- ``train/cat train/dog test/cat ...``: one folder a split, with one folder a class in it.
- ``cat/ dog/ test/cat test/dog``: a split beside the classes.
- ``cat/train cat/test dog/train ...``: splits inside the classes.

All of it may lie in a folder of its own (``archive/dataset/train``), and so may a split (``train/train/cat``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainkit.data.dataset import name_key
from trainkit.data.images.decode import printable
from trainkit.data.sources.folder_names import are_images_and_annotations, is_holder, says_split, split_names
from trainkit.data.sources.folder_scan import (
    Level,
    Scan,
    folders_without_images,
    identity,
    is_folder,
    is_image,
    list_entries,
    look,
    parents,
)
from trainkit.errors import Problem, ProblemsError
from trainkit.wording import counted, enumerated

SPLITS = ("train", "val", "test")
_LABEL_FILES = (".csv", ".json", ".jsonl", ".txt", ".xml", ".tsv", ".parquet", ".xlsx")
Folders = dict[str, list[Path]]
"""By class: its folders. There is more than one where a name comes in two Unicode forms."""


@dataclass(frozen=True)
class Layout:
    """The class folders of each split, the training samples first; ``"all"`` where there are no splits."""

    splits: dict[str, Folders]
    roots: dict[str, Path]
    """By split: the folder that the names of its files are relative to."""
    notes: list[str] = field(default_factory=list)


def find_layout(root: Path, scan: Scan, *, known: Sequence[str] = (), key: str = "dataset.root") -> Layout:
    """The splits and classes under a folder, by the names of the folders and by where the images lie.

    Args:
        scan: gets what is left out.
        known: the classes of a model that is scored on these images: a folder of such a name is a class.
        key: what named the folder, for messages.

    Raises:
        ProblemsError: There are no class folders, or the folders may be read in more than one way.
    """
    try:
        return _read(root, scan, frozenset(map(name_key, known)))
    except _LayoutError as error:
        hint = "; for images without labels there is trainkit predict" if known else ""
        raise ProblemsError([Problem(f"{error}{hint}", key=key)]) from None


class _LayoutError(Exception):
    """Folders that cannot be read."""


def _read(root: Path, scan: Scan, known: Collection[str]) -> Layout:
    level = _unwrap(look(root), known, below_root=True)
    if any(name_key(name) in known for name in level.folders):
        return _classes(level, root, scan)
    named = split_names(level.folders)
    named |= {name: split for name in level.hollow for split in split_names([name]).values()}
    named = {name: split for of in SPLITS for name, split in named.items() if split == of}
    others = [name for name in level.folders if name not in named]
    inside = _look_into_splits(level, named, known, others)
    labeled = [name for name in named if inside[name].folders]
    training = [name for name, split in named.items() if split == "train"]
    if any(name in labeled for name in training):
        return _splits(level, root, scan, named, inside, others)
    if holders := [name for name in others if _holds_splits(level.at(name))]:
        return _splits_in_classes(level, root, scan, named, holders)
    if not training and labeled and _share_classes(inside, labeled, others):
        return _splits(level, root, scan, named, inside, others, train_is_others=True)
    if known and labeled and not training and not others:
        return _only_split(level, root, scan, labeled, inside)
    like_a_split = [name for name in level.folders if name in named]
    flat = [name for name in like_a_split if name not in labeled]
    if any(name in flat and not says_split(name) for name in training):  # tube beside test_tube
        return _classes(level, root, scan, like_a_split=[name for name in like_a_split if says_split(name)])
    if training and not any(name in flat for name in training):
        raise _LayoutError(_no_class_folders(inside[training[0]]))
    if len({named[name] for name in flat}) > 1 or (training and labeled):
        raise _LayoutError(_flat_splits(level, {name: inside[name] for name in named if name in like_a_split}))
    if others or not named:
        return _classes(level, root, scan, like_a_split=like_a_split)
    if training:
        raise _LayoutError(_no_class_folders(inside[training[0]]))
    raise _LayoutError(f"{_show(level.path)} has {_names(named)} but no train folder; {_how('train')}")


# What there is ------------------------------------------------------------------------------------------------------


def _unwrap(level: Level, classes: Collection[str], *, below_root: bool = False) -> Level:
    """Go down through folders that hold one other folder and nothing else: ``archive/dataset``, ``train/train``.

    Args:
        classes: names of classes, where there are some that are known: these folders are not gone through.
        below_root: whether a single folder ``train`` is a split, not another folder around the images.
    """
    while not level.images and len(level.folders) == 1:
        [name] = level.folders
        if name_key(name) in classes or (below_root and split_names([name])):
            break
        inner = look(level.at(name))
        expected = any(name_key(other) in classes for other in inner.folders) or bool(split_names(inner.folders))
        if not is_holder(name) and (inner.images or (classes and not expected)):
            break  # a class
        level = inner
    return level


def _look_into_splits(
    level: Level, named: dict[str, str], known: Collection[str], others: Sequence[str]
) -> dict[str, Level]:
    """The level of the class folders of each split. Those of the training split tell what is a class in the others."""
    inside, classes = {}, {*known, *map(name_key, others)}
    for name in named:
        inside[name] = _unwrap(look(level.at(name)), known if named[name] == "train" else classes)
        if named[name] == "train":
            classes |= set(map(name_key, inside[name].folders))
    return inside


def _folders_inside(folder: Path) -> list[str]:
    """The folders in a folder that has no images beside them; [] where it has: it is a class."""
    return folders_without_images(folder) or []


def _holds_splits(folder: Path) -> bool:
    """Whether there is a training split and another one in a folder, or a training split with class folders."""
    while len(inner := _folders_inside(folder)) == 1 and not split_names(inner):
        folder = folder / inner[0]
    found = split_names(inner)
    training = [name for name, split in found.items() if split == "train"]
    return bool(training) and (len(set(found.values())) > 1 or any(_folders_inside(folder / name) for name in training))


def _share_classes(inside: dict[str, Level], labeled: Sequence[str], others: Sequence[str]) -> bool:
    found = {name_key(name) for split in labeled for name in inside[split].folders}
    return not found.isdisjoint(map(name_key, others))


# The layouts --------------------------------------------------------------------------------------------------------


def _classes(level: Level, root: Path, scan: Scan, *, like_a_split: Sequence[str] = ()) -> Layout:
    if not level.folders and (level.images or not level.hollow):
        raise _LayoutError(_no_class_folders(level))
    if are_images_and_annotations(level.folders):
        raise _LayoutError(
            f"{_show(level.path)} has {_names(level.folders)}, as data for segmentation or detection have, and no "
            f"class folders; {_how(level.path)}"
        )
    notes = [f"classes: from {_show(level.path.relative_to(root))}"] if level.path != root else []
    inner = [frozenset(_folders_inside(level.at(name))) for name in level.folders]
    if len(level.folders) > 1 and len(inner[0]) > 1 and len(set(inner)) == 1:
        same = f"all of them hold {_names(sorted(inner[0]))}"
        way_out = "name one of the outer folders, or call them train, val and test"
        if all(map(is_holder, level.folders)):  # fold_1, fold_2
            raise _LayoutError(f"{_show(level.path)} has {_names(level.folders)}, and {same}: {way_out}")
        notes.append(
            f"{_names(level.folders)} are taken for the classes, and {same}; if those are the classes, {way_out}"
        )
    notes += [
        f"{_show(name)} is taken for a class, as the folders beside it are; if it is a split, put class folders in it, "
        f"and if its images have no labels, move it out of {_show(level.path)}"
        for name in like_a_split
    ]
    return Layout({"all": class_folders(level.path, scan)}, {"all": level.path}, notes)


def _splits(
    level: Level,
    root: Path,
    scan: Scan,
    named: dict[str, str],
    inside: dict[str, Level],
    others: Sequence[str],
    *,
    train_is_others: bool = False,
) -> Layout:
    """A folder for each split, or the class folders of the training samples with other splits beside them."""
    chosen, notes = _choose_splits(level, named, inside)
    folders = {split: class_folders(inside[name].path, scan) for split, name in chosen.items()}
    roots = {split: inside[name].path for split, name in chosen.items()}
    read = {split: _show(path.relative_to(root)) for split, path in roots.items()}
    if train_is_others:
        folders = {"train": class_folders(level.path, scan, without=named), **folders}
        roots, read = {"train": level.path, **roots}, {"train": "the folders beside", **read}
    else:
        left = Scan()
        scan.others += [entry.name for entry in list_entries(level.path, left) if not is_folder(entry)]
        scan.others += [f"{name}/" for name in level.hollow if name not in named]
        scan.junk += left.junk
        if others:
            which = (
                "is not read: it holds images, but is"
                if len(others) == 1
                else "are not read: they hold images, but are"
            )
            notes.append(f"{_names(others)} in {_show(level.path)} {which} no split")
    if any(read[split] != split for split in read):
        notes.insert(0, _read_from(read))
    return Layout(folders, roots, notes)


def _choose_splits(level: Level, named: dict[str, str], inside: dict[str, Level]) -> tuple[dict[str, str], list[str]]:
    """The folder of each split, and notes on folders without labels."""
    chosen, notes = {}, []
    for split in SPLITS:
        names = [name for name in named if named[name] == split]
        labeled = [name for name in names if inside[name].folders]
        flat = [name for name in names if inside[name].images and name not in labeled]
        if len(labeled) > 1:
            raise _LayoutError(
                f"{_show(level.path)} has {_names(labeled)}, and each may be the {split} split; rename all but one, or "
                "move them out"
            )
        if flat and split == "val" and not labeled:
            raise _LayoutError(
                f"{_no_class_folders(inside[flat[0]])}, or move it out of {_show(level.path)}, and validation is taken "
                "from the training images"
            )
        notes += [
            f"{_show(level.at(name))} has {_count(inside[name].images)} and no class folders: they are unlabeled, and "
            f"no {split} split; trainkit predict CHECKPOINT {_show(level.at(name))} is for them"
            for name in flat
        ]
        if labeled or (names and not flat):
            chosen[split] = (labeled or names)[0]
    return chosen, notes


def _splits_in_classes(level: Level, root: Path, scan: Scan, named: dict[str, str], holders: Sequence[str]) -> Layout:
    inside = {name: look(level.at(name)) for name in holders}
    found = {name: split_names(inside[name].folders) for name in holders}
    clear = [
        not inside[name].images
        and set(found[name]) == set(inside[name].folders)
        and len(set(found[name].values())) == len(found[name])
        and not any(_folders_inside(inside[name].at(part)) for part in found[name])
        for name in holders
    ]
    if named or len(holders) < len(level.folders) or len(holders) < 2 or not all(clear):
        beside = [name for name in level.folders if name != holders[0]] or level.images
        raise _LayoutError(
            f"{_show(level.at(holders[0]))} holds splits, and {_names(beside)} beside it may be classes or further "
            f"data; name one folder: {_show(level.at(holders[0]))}"
        )
    splits: dict[str, Folders] = {}
    read: dict[str, str] = {}
    for split in SPLITS:
        for name in holders:
            for part in (part for part, of in found[name].items() if of == split):
                splits.setdefault(split, {})[name] = [inside[name].at(part)]
                read.setdefault(split, f"*/{_show(part)}")
    return Layout(splits, dict.fromkeys(splits, level.path), [_read_from(read)])


def _only_split(level: Level, root: Path, scan: Scan, labeled: Sequence[str], inside: dict[str, Level]) -> Layout:
    """The one split that there is, to score."""
    if len(labeled) > 1:
        raise _LayoutError(f"{_show(level.path)} has {_names(labeled)} but no train folder; name one of them")
    return _classes(inside[labeled[0]], root, scan)


def class_folders(folder: Path, scan: Scan, *, without: Collection[str] = ()) -> Folders:
    """The class folders in a folder, by name."""
    found: Folders = {}
    spelled: dict[str, str] = {}
    above = parents(folder)
    for entry in list_entries(folder, scan):
        if entry.name in without:
            continue
        if not is_folder(entry):
            (scan.loose if is_image(entry) else scan.others).append(entry.name)
        elif identity(entry.path) in above:
            scan.loops.append(entry.path)
        else:
            name = spelled.setdefault(name_key(entry.name), entry.name)
            found.setdefault(name, []).append(Path(entry.path))
    return found


# Words --------------------------------------------------------------------------------------------------------------


def _show(path: str | Path) -> str:
    return printable(path)


def _names(names: Collection[str]) -> str:
    """``a, b and c``; the first five of many."""
    shown = [_show(name) for name in names]
    return enumerated(shown if len(shown) <= 5 else [*shown[:4], f"{len(shown) - 4} more"])


def _count(images: Sequence[str]) -> str:
    return counted(len(images), "image")


def _how(folder: str | Path) -> str:
    return f"put the images of each class into a folder of its own, such as {_show(folder)}/cat and {_show(folder)}/dog"


def _read_from(read: dict[str, str]) -> str:
    return "splits: " + ", ".join(f"{split} from {where}" for split, where in read.items())


def _no_class_folders(level: Level) -> str:
    if not level.images:
        ignored = Scan()
        any(list_entries(level.path, ignored))
        junk = f" but {_names(ignored.junk)}, which is ignored" if ignored.junk else ""
        what = "folders in it, but no images in them" if level.hollow else f"no folders in it{junk}"
        return f"{_show(level.path)} has {what}; {_how(level.path)}"
    return (
        f"{_show(level.path)} has {_count(level.images)} but no class folders in it{_labels(level)}; {_how(level.path)}"
    )


def _labels(level: Level) -> str:
    files = [name for name in level.files if name.lower().endswith(_LABEL_FILES)]
    return f" (labels in a file, such as {_show(files[0])}, are not read)" if files else ""


def _flat_splits(level: Level, inside: dict[str, Level]) -> str:
    flat = [name for name in inside if not inside[name].folders]
    what = "they have" if len(flat) > 1 else f"{_show(flat[0])} has"
    return (
        f"{_show(level.path)} has {_names(inside)}, which look like splits, but {what} images and no class folders"
        f"{_labels(level) or _labels(inside[flat[0]])}; {_how(level.at(flat[0]))}, or rename them if they are classes"
    )

"""The paths of data and weights, made absolute: each is relative to the file that it was written in."""

from __future__ import annotations

import os
from pathlib import Path

from trainkit.config.help import shipped
from trainkit.config.schema import Config
from trainkit.config.schema.pretrained import weights_file
from trainkit.config.text.nodes import Node
from trainkit.errors import UserError
from trainkit.wording import not_a_folder


def make_absolute(config: Config, tree: Node, file: Path) -> tuple[Config, list[str]]:
    """The config with absolute paths, and a note for each path to data that was meant otherwise, as it seems.

    A path is relative to the folder of the config, or of the file that it ``extends`` where it was written there. On
    the command line it is relative to the current folder. So it is in shipped configs, whose folder is no place for
    data, and in the files of a run folder: earlier versions wrote them so.

    Args:
        tree: what was written.
        file: the config's file.
    """
    changed: dict[str, str | list[str]] = {}
    notes = []
    if (weights := weights_file(config.model)) is not None:
        path = _join(_base_of(tree.find(("model", "weights")), file), weights)
        config = config.model_copy(update={"model": config.model.model_copy(update={"weights": path})})
    for key in config.dataset.location_keys:
        value = getattr(config.dataset, key)
        if not isinstance(value, str | list):  # download: true; or a file that is optional
            continue
        node = tree.find(("dataset", key))
        base = _base_of(node, file)
        paths = [value] if isinstance(value, str) else value
        absolute = [_join(base, path) for path in paths]
        changed[key] = absolute[0] if isinstance(value, str) else absolute
        for path, there in zip(paths, absolute, strict=True):
            here = _join(Path.cwd(), path)
            if here != there and os.path.exists(here) and not os.path.exists(there):
                notes.append(
                    f"dataset.{key}: {path} is relative to the folder of the config, and is not there: {there}; "
                    f"it is in the current folder: for that, write {os.path.relpath(here, base)}"
                )
    return config.model_copy(update={"dataset": config.dataset.model_copy(update=changed)}), notes


def at_data_root(config: Config, folder: str | Path | None) -> Config:
    """The config with its data in another folder: its ``root``, or the one with its tables. None leaves it as it is.

    Raises:
        UserError: there is no such folder, or the data set has no files.
    """
    if folder is None:
        return config
    spec = config.dataset
    paths = {key: value for key in spec.location_keys if isinstance(value := getattr(spec, key), str | list)}
    if not paths:
        raise UserError(f"--data-root {folder}: the data set {spec.type} has no files; leave it out")
    if not Path(folder).is_dir():
        raise UserError(f"--data-root {folder}: {not_a_folder(Path(folder))}")

    def move(path: str) -> str:
        return _join(Path.cwd() / folder, Path(path).name)

    moved = {
        key: _join(Path.cwd(), str(folder))
        if key == "root"
        else move(path)
        if isinstance(path, str)
        else [*map(move, path)]
        for key, path in paths.items()
    }
    return config.model_copy(update={"dataset": spec.model_copy(update=moved)})


def _base_of(node: Node | None, file: Path) -> Path:
    """The folder that a value, or a default, is relative to."""
    if node is not None and node.source.is_override:
        return Path.cwd()
    written_in = file if node is None else Path(node.source.name)
    for path in (written_in, file):
        folder = path.parent.resolve()
        if folder != shipped.folder().resolve():
            return Path.cwd() if (folder / "run.json").is_file() else folder
    return Path.cwd()


def _join(base: Path, value: str) -> str:
    home = value == "~" or value.startswith(("~/", f"~{os.sep}"))
    return os.path.normpath(base / (os.path.expanduser(value) if home else value))

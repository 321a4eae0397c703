"""From a file and overrides to a checked ``Config`` that knows where each value came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from trainkit.config.extends import read_with_bases
from trainkit.config.messages import explain
from trainkit.config.overrides import apply_overrides
from trainkit.config.paths import Path, PathError, format_path, parse_path
from trainkit.config.reader import Node
from trainkit.config.schema import Config
from trainkit.config.schema.base import Section
from trainkit.errors import ConfigError, Place, Problem


@dataclass(frozen=True)
class Origin:
    """Where a value came from: ``default``, a file and line, or an override."""

    kind: str
    """``default``, ``file`` or ``override``."""
    place: Place | None = None

    def __str__(self) -> str:
        if self.place is None:
            return self.kind
        return f"{self.place.file}:{self.place.line}" if self.place.line is not None else self.place.file


@dataclass(frozen=True)
class LoadedConfig:
    """A config that holds, with the text it came from."""

    config: Config
    path: FilePath
    text: str
    """The file as the user wrote it."""
    overrides: tuple[str, ...]
    """What ``--set`` and ``--unset`` changed, as typed: ``--set optimizer.lr=0.1``."""
    origins: Mapping[str, Origin]
    """By key path, one entry for each value of ``resolved()``."""
    files: tuple[str, ...]
    """The file, and the files that it extends."""
    _tree: Node = field(repr=False)

    @property
    def name(self) -> str:
        """The name of runs: the config's, or the file's made safe."""
        if self.config.name is not None:
            return self.config.name
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.path.stem).lstrip(".-_")[:64] or "config"

    def resolved(self) -> dict[str, Any]:
        """Every value as plain data, defaults included; loads again to the same config."""
        plain: dict[str, Any] = to_plain(self.config)
        return plain

    def locate(self, problem: Problem) -> Problem:
        """The problem with the place of its key, or of the nearest key above it that the user wrote."""
        if problem.place is not None or problem.key is None:
            return problem
        try:
            path = parse_path(problem.key)
        except PathError:
            return problem
        return problem.at(place_of(self._tree, path, key=False))


def load_config(path: str | FilePath, *, overrides: Sequence[str] = (), unset: Sequence[str] = ()) -> LoadedConfig:
    """Read, complete and check a config. Raises ConfigError with every mistake that can be found in it."""
    file = FilePath(path)
    tree, text, problems, files = read_with_bases(file)
    tree, more, removed = apply_overrides(tree, overrides, unset)
    problems += more
    config, found = _validate(tree.plain())
    for where, is_key, message in found:
        place = place_of(tree, where, key=is_key)
        if where in removed:
            place = removed[where].place
        problems.append(Problem(message, format_path(where) or None, place or Place(str(file))))
    if problems or config is None:
        raise ConfigError(_in_order(problems, files))
    shown = (*(f"--unset {key}" for key in unset), *(f"--set {item}" for item in overrides))
    return LoadedConfig(config, file, text, shown, _origins(config, tree), files, tree)


def config_from_dict(data: dict[str, Any], *, where: str) -> Config:
    """The config that a checkpoint or a run stores; ``where`` names it in messages. Raises ConfigError."""
    config, found = _validate(data)
    if config is None:
        place = Place(where)
        raise ConfigError([Problem(message, format_path(path) or None, place) for path, _, message in found])
    return config


def _validate(data: Any) -> tuple[Config | None, list[tuple[Path, bool, str]]]:
    try:
        return Config.model_validate(data), []
    except ValidationError as error:
        return None, explain(error.errors(include_url=False, include_input=False), data)


def place_of(tree: Node, path: Path, *, key: bool) -> Place | None:
    """The place of the value at a path (of its key with ``key``), or of the nearest key above that was written."""
    node = tree.find(path)
    if node is not None and path:
        return node.key_place if key else node.place
    for end in range(len(path) - 1, 0, -1):
        node = tree.find(path[:end])
        if node is not None:
            return node.key_place
    return None


def _in_order(problems: list[Problem], files: Sequence[str]) -> list[Problem]:
    """Own file first, then the files that it extends, then the overrides; each from top to bottom."""

    def rank(problem: Problem) -> tuple[int, int, int]:
        place = problem.place
        if place is None:
            return (0, 0, 0)
        source = files.index(place.file) if place.file in files else len(files)
        return (source, place.line or 0, (place.column or 0) if place.line is not None else 0)

    return sorted(problems, key=rank)


def to_plain(value: Any) -> Any:
    """A section as plain dicts and lists; values that are None by default are left out."""
    if isinstance(value, Section):
        fields = type(value).model_fields
        names = sorted(fields, key=lambda name: name != "type")  # stable: `type` first, the rest as in the schema
        plain = {name: to_plain(getattr(value, name)) for name in names}
        return {name: item for name, item in plain.items() if item is not None or fields[name].default is not None}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return value


def _origins(config: Config, tree: Node) -> dict[str, Origin]:
    origins: dict[str, Origin] = {}

    def visit(value: Any, path: Path, node: Node | None) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if node is not None and isinstance(node.value, str) and key == "type":
                    child: Node | None = node
                else:
                    child = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
                visit(item, (*path, key), child)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                items = node.value if node is not None and isinstance(node.value, list) else []
                visit(item, (*path, index), items[index] if index < len(items) else None)
        else:
            if node is None:
                origins[format_path(path)] = Origin("default")
            else:
                origins[format_path(path)] = Origin("override" if node.source.is_override else "file", node.place)

    visit(to_plain(config), (), tree)
    return origins


__all__ = ["LoadedConfig", "Origin", "config_from_dict", "load_config", "place_of", "to_plain"]

"""A config given as plain data: a dict of Python, checked as a file is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainkit.config.text.nodes import KeyPath, Node, Source, format_path
from trainkit.config.text.reader import MAX_DEPTH
from trainkit.config.text.writer import to_yaml
from trainkit.errors import ConfigError, Problem

DICT = "<dict>"
"""Stands for the name of the file in messages."""


def read_data(data: Mapping[Any, Any], file: Path) -> tuple[Node, str, list[Problem]]:
    """The data as ``read_file`` would give it; ``file`` stands for its place.

    Tuples, arrays and paths become lists, numbers and text. Raises ConfigError for values that a file cannot hold.
    """
    problems: list[Problem] = []
    node = _node(data, Source(str(file), ()), (), problems)
    if problems:
        raise ConfigError(problems)
    return node, to_yaml(node.plain()), []


def _node(value: Any, source: Source, path: KeyPath, problems: list[Problem]) -> Node:
    if hasattr(value, "tolist"):  # an array or a number of NumPy or PyTorch
        value = value.tolist()
    if len(path) > MAX_DEPTH:
        problems.append(Problem(f"nested deeper than {MAX_DEPTH} levels", format_path(path[:1]), source.place(0, 0)))
    elif isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                message = f"expected text as a key, got {key!r:.60}"
                problems.append(Problem(message, format_path(path) or None, source.place(0, 0)))
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        return Node({key: _node(item, source, (*path, key), problems) for key, item in named.items()}, source)
    elif isinstance(value, list | tuple | range):
        return Node([_node(item, source, (*path, at), problems) for at, item in enumerate(value)], source)
    elif isinstance(value, os.PathLike):
        return Node(str(value), source)
    elif value is None or isinstance(value, str | bool | int | float):
        return Node(value, source)
    else:
        what = f"expected text, a number, true or false, None, a list or a dict, got {type(value).__name__}"
        problems.append(Problem(f"{what} {str(value)[:60]!r}", format_path(path), source.place(0, 0)))
    return Node(None, source)

"""``extends: base.yaml``: a config that holds only its differences from another one."""

from __future__ import annotations

from pathlib import Path

from trainkit.config.text.nodes import Node
from trainkit.config.text.reader import closest_file, is_missing, read_file
from trainkit.config.text.writer import flow
from trainkit.errors import ConfigError, Problem

MAX_BASES = 16


def with_bases(node: Node, text: str, problems: list[Problem]) -> tuple[Node, str, list[Problem], tuple[str, ...]]:
    """The config with everything that it extends, its own text, the mistakes so far, and the files, own file first.

    Raises ConfigError where one of the files cannot be read or the chain does not end.
    """
    files = [Path(node.source.name)]
    chain = [node]
    while True:
        base = _base_of(chain[-1], files)
        if base is None:
            break
        files.append(base)
        base_node, _, more = read_file(base)
        chain.append(base_node)
        problems += more
    merged = _without_extends(chain[-1])
    for child in reversed(chain[:-1]):
        merged = merge(merged, _without_extends(child))
    return merged, text, problems, tuple(str(file) for file in files)


def merge(base: Node, child: Node) -> Node:
    """Merge mappings key by key; any other value, and a choice of another ``type``, replaces that of the base."""
    if not isinstance(child.value, dict):
        return child
    if isinstance(base.value, str):  # a bare NAME is short for {type: NAME}
        base = Node({"type": base}, base.source, base.line, base.column, base.key_line, base.key_column)
    if not isinstance(base.value, dict):
        return child
    own_type = child.value.get("type")
    base_type = base.value.get("type")
    if own_type is not None and (base_type is None or own_type.value != base_type.value):
        return child
    merged = dict(base.value)
    for key, value in child.value.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return Node(merged, child.source, child.line, child.column, child.key_line, child.key_column)


def _without_extends(node: Node) -> Node:
    assert isinstance(node.value, dict)
    kept = {key: value for key, value in node.value.items() if key != "extends"}
    return Node(kept, node.source, node.line, node.column)


def _base_of(node: Node, files: list[Path]) -> Path | None:
    assert isinstance(node.value, dict)
    entry = node.value.get("extends")
    if entry is None:
        return None
    if not isinstance(entry.value, str) or not entry.value.strip() or "\0" in entry.value:
        got = flow(entry.plain()) if not isinstance(entry.value, str) else repr(entry.value[:60])
        what = f"expected the path of one config file, relative to this one, such as base.yaml, got {got[:60]}"
        raise ConfigError([Problem(what, "extends", entry.place)])
    path = files[-1].parent / entry.value
    if is_missing(path):
        near = closest_file(path)
        hint = f"did you mean {near.name}?" if near else f"it is looked for in {path.parent}"
        raise ConfigError([Problem(f"there is no such file, got {entry.value!r}; {hint}", "extends", entry.place)])
    if any(_same(path, file) for file in files):
        route = " -> ".join(file.name for file in [*files, path])
        message = f"the files extend each other in a circle ({route}); remove one `extends:`"
        raise ConfigError([Problem(message, "extends", entry.place)])
    if len(files) > MAX_BASES:
        raise ConfigError([Problem(f"more than {MAX_BASES} files extend one another", "extends", entry.place)])
    return path


def _same(left: Path, right: Path) -> bool:
    try:
        return left.samefile(right)
    except OSError:
        return False  # reading the file gives the message

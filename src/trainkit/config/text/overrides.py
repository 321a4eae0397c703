"""``--set key.path=value``, ``--set list[0].key=value``, ``--set list+=item`` and ``--unset key``.

A value is read as YAML. A mistake in an override points into the override's own text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from trainkit.config.help.introspect import annotation_at, chosen, default_at, variants
from trainkit.config.schema.model_defaults import model_defaults
from trainkit.config.text.nodes import KeyPath, Node, PathError, Source, format_path, parse_path
from trainkit.config.text.reader import read_text
from trainkit.errors import ConfigError, Problem
from trainkit.wording import closest

Change = Callable[[Node | None], Node | None]
"""Maps the node at a path (None: there is none) to the new one (None removes it)."""


class _RefusedError(Exception):
    """An override that cannot be applied."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def apply_overrides(
    tree: Node, overrides: Sequence[str], unset: Sequence[str]
) -> tuple[Node, list[Problem], dict[KeyPath, Node]]:
    """Apply every ``--unset``, then every ``--set``, each in the given order.

    Returns the new config, the mistakes, and a node for each unset key, for messages about keys that are needed.
    """
    problems: list[Problem] = []
    removed: dict[KeyPath, Node] = {}
    for option, texts in (("--unset", unset), ("--set", overrides)):
        for text in texts:
            edit = _Edit(override_source(option, text), len(option) + 1, tree.plain())
            try:
                if option == "--unset":
                    path = edit.read_path(text)
                    tree = edit.remove(tree, path)
                    removed[path] = edit.node(None)
                else:
                    tree, more = edit.set(tree, text)
                    problems += more
            except _RefusedError as refused:
                problems.append(refused.problem)
            except ConfigError as error:  # the value is not YAML
                problems += error.problems
    return tree, problems, removed


def override_source(option: str, text: str) -> Source:
    """The text of an override as the place of its values."""
    line = f"{option} {text}"
    shown = line if line.isprintable() else line.encode("unicode_escape").decode()
    return Source(shown if len(shown) <= 120 else shown[:117] + "...", (line,), is_override=True)


@dataclass(frozen=True)
class _Edit:
    """One override. ``start`` is the column of its key path, ``data`` the plain config that it changes."""

    source: Source
    start: int
    data: Any

    def refuse(self, message: str, path: KeyPath | None = None, column: int | None = None) -> NoReturn:
        place = self.source.place(0, self.start if column is None else column)
        raise _RefusedError(Problem(message, format_path(path) if path else None, place))

    def node(self, value: Any) -> Node:
        return Node(value, self.source, 0, self.start, 0, self.start)

    def read_path(self, text: str) -> KeyPath:
        try:
            return parse_path(text)
        except PathError as error:
            self.refuse(f"{error}, got {text[:60]!r}", column=self.start + error.column)

    def set(self, tree: Node, text: str) -> tuple[Node, list[Problem]]:
        left, equals, right = text.partition("=")
        if not equals:
            self.refuse("expected key.path=value, such as optimizer.lr=0.01; the `=` is missing")
        path = self.read_path(left.removesuffix("+"))
        shift = self.start + len(left) + 1
        value, problems = read_text(right, replace(self.source, shift=shift), at=path)
        value = value or Node(None, self.source, 0, shift)
        value.key_line, value.key_column = 0, self.start
        if left.endswith("+"):
            return self.changed(tree, path, lambda old: self.appended(old, path, value)), problems
        return self.changed(tree, path, lambda old: value), problems

    def appended(self, old: Node | None, path: KeyPath, item: Node) -> Node:
        """The list with one more item; a list that the config leaves out starts as its default."""
        if old is None:
            default = default_at(path, self.data)
            items = [self.node(value) for value in default] if isinstance(default, list) else []
            return self.node([*items, item])
        if not isinstance(old.value, list):
            self.refuse(f"`+=` adds an item to a list, and this is {old.kind}; set it with `=`", path)
        return replace(old, value=[*old.value, item])

    def remove(self, tree: Node, path: KeyPath) -> Node:
        """The tree without a key. A key that the schema has and the config leaves out is no mistake."""
        if tree.find(path) is not None:
            return self.changed(tree, path, lambda old: None)
        known = annotation_at(path, self.data) is not None
        if known and not any(isinstance(piece, int) for piece in path):
            return tree
        depth = 0
        while annotation_at(path[: depth + 1], self.data) is not None or tree.find(path[: depth + 1]) is not None:
            depth += 1
            if depth == len(path):  # an item of a list that is not there
                self.refuse("the config has no such item; leave the --unset out", path)
        parent = tree.find(path[:depth])
        value = default_at(path[:depth], self.data) if parent is None else parent.plain()
        keys = list(value) if isinstance(value, dict) else []
        section = chosen(annotation_at(path[:depth], self.data), value)
        near = closest(str(path[depth]), dict.fromkeys([*keys, *(section.model_fields if section else ())]))
        hint = f"did you mean {format_path((*path[:depth], near))}?" if near else "leave the --unset out"
        self.refuse(f"the config has no such key; {hint}", path)

    def changed(self, tree: Node, path: KeyPath, new: Change) -> Node:
        result = self.change(tree, path, 0, new)
        assert result is not None, "the root is never removed: a path has at least one key"
        return result

    def change(self, node: Node | None, path: KeyPath, depth: int, new: Change) -> Node | None:
        """The node with the value at ``path`` changed. Nodes are copied: aliases share them."""
        if depth == len(path):
            return new(node)
        piece = path[depth]
        if isinstance(piece, int):
            holder = self.list_at(node, path[:depth], piece)
            items: list[Node] = holder.value  # type: ignore[assignment]
            changed = self.change(items[piece], path, depth + 1, new)
            return replace(holder, value=[*items[:piece], *([changed] if changed else []), *items[piece + 1 :]])
        holder = self.mapping_at(node, path[:depth], piece)
        children: dict[str, Node] = dict(holder.value)  # type: ignore[arg-type]
        changed = self.change(children.get(piece), path, depth + 1, new)
        if changed is None:
            del children[piece]
        else:
            children[piece] = changed
        return replace(holder, value=children)

    def list_at(self, node: Node | None, path: KeyPath, index: int) -> Node:
        here = format_path(path)
        if node is None:
            self.refuse(f"the config writes no list here to take an item of; set all of it: --set {here}=[...]", path)
        if not isinstance(node.value, list):
            self.refuse(f"an index needs a list, and {here} is {node.kind}; leave out the [{index}]", path)
        count = len(node.value)
        if index >= count:
            have = f"the items are [0] to [{count - 1}]" if count else "the list is empty"
            self.refuse(f"there is no item {index}: {have}; {here}+=... adds one", (*path, index))
        return node

    def mapping_at(self, node: Node | None, path: KeyPath, key: str) -> Node:
        """The mapping that holds the key: made where there is none, and from a bare NAME that is short for one."""
        if node is None or node.value is None:
            default = default_at(path, self.data)
            named = isinstance(default, dict) and "type" in default and key != "type"
            named = named and path[0] not in model_defaults(self.data)[1]  # its type comes with the rest of them
            return self.node({"type": self.node(default["type"])} if named else {})
        if isinstance(node.value, str) and variants(annotation_at(path, self.data)):
            return replace(node, value={"type": replace(node, key_line=-1, key_column=-1)})
        if not isinstance(node.value, dict):
            inside = "a list: name an item with an index, such as [0]" if isinstance(node.value, list) else node.kind
            self.refuse(f"there is no key {key!r} here: {format_path(path)} is {inside}", (*path, key))
        return node

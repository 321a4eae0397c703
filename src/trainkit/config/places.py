"""Where the values of a config were written, and which of several places a mistake is shown at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from trainkit.config.text.nodes import KeyPath, Node, PathError, parse_path
from trainkit.errors import Place, Problem


@dataclass(frozen=True)
class Places:
    """The places of a config's values: in its files, or in overrides."""

    tree: Node
    removed: Mapping[KeyPath, Node]
    """By key path, an ``--unset``."""

    def locate(self, problem: Problem) -> Problem:
        """The problem with the place of its key, or of the nearest key above it that was written.

        Where an override spoils what a file says, the override comes first, and the line of the file second; and the
        other way round where the mistake is in an override that does not go with the file.
        """
        if problem.place is not None or problem.key is None:
            return problem
        try:
            path = parse_path(problem.key)
        except PathError:
            return problem
        return self.locate_at(path, problem)

    def locate_at(self, path: KeyPath, problem: Problem, *, is_key: bool = False) -> Problem:
        """As ``locate``, for a path that is known: that of a key with odd characters cannot be read back.

        Args:
            is_key: the key itself is the mistake, as it is unknown or missing.
        """
        own = self.place(path, is_key=is_key)
        others = [node for key in problem.others if (node := self.node(parse_path(key))) is not None]
        if is_key:  # another type of a choice has other keys
            above = (self.tree.find((*path[:end], "type")) for end in range(1, len(path)))
            others += [node for node in above if node is not None]
        holder = self.tree.find(path) if path else None
        inside = [] if holder is None else list(_overridden(holder))
        if holder is not None and inside:
            own = holder.key_place  # the value begins with the old text of what may be overridden
        changed = list(dict.fromkeys(node.place for node in [*inside, *others] if node.source.is_override))
        if changed and (own is None or own.line is not None):
            return replace(problem, place=changed[0], also=(*changed[1:], *([] if own is None else [own])))
        kept = [node.place for node in others if not node.source.is_override] if own and own.line is None else []
        return replace(problem, place=own, also=tuple(dict.fromkeys(kept)))

    def place(self, path: KeyPath, *, is_key: bool = False) -> Place | None:
        """The place of a value (of its key with ``is_key``), or of the nearest key above that was written."""
        node = self.tree.find(path) if path else None
        if node is not None:
            return node.key_place if is_key else node.place
        for end in range(len(path), 0, -1):
            if path[:end] in self.removed:
                return self.removed[path[:end]].place
            node = self.tree.find(path[:end])
            if node is not None:
                # NAME is short for {type: NAME}: a key that is missing there is missing at NAME
                return node.place if isinstance(node.value, str) else node.key_place
        return None

    def node(self, path: KeyPath) -> Node | None:
        """What was written for a value: its own node, a bare NAME for a type, the ``--unset`` that removed it."""
        node = self.tree.find(path)
        if node is None and path[-1] == "type":
            node = self.tree.find(path[:-1])
            node = node if node is not None and isinstance(node.value, str) else None
        if node is None:
            node = next(
                (self.removed[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.removed), None
            )
        return node

    def where(self, path: KeyPath) -> str:
        """Where a value was written, as messages about another key name it: ``line 14``, ``default``."""
        node = self.node(path)
        if node is None:
            return "default"
        place = node.place
        if place.line is None:
            return place.file
        return f"line {place.line}" if place.file == self.tree.source.name else f"{place.file}:{place.line}"


def _overridden(node: Node) -> Iterator[Node]:
    """The values inside a mapping or a list of a file that overrides wrote."""
    if node.source.is_override:
        return
    value = node.value
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for child in children:
        if child.source.is_override:
            yield child
        else:
            yield from _overridden(child)

"""Reads YAML 1.2 with the place of every key and value: no tags, no repeated keys, one document, bounded work.

PyYAML does the scanning and parsing (libyaml where it is there); what the events mean is decided here, because PyYAML's
own loaders follow YAML 1.1 (``no`` is false, ``1e-3`` is text), keep the last of repeated keys and forget positions.
Merge keys (``<<: *anchor``) are supported although YAML 1.2 dropped them: configs in this field use them.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trainkit.config.text.nodes import KeyPath, Node, Source, format_path, read_scalar
from trainkit.errors import ConfigError, Place, Problem
from trainkit.wording import closest

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000
"""Number of values once every alias is expanded."""

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_file(path: Path) -> tuple[Node, str, list[Problem]]:
    """The top-level mapping of a config file, its text, and the mistakes that do not stop the reading.

    Raises ConfigError for what does: a file that cannot be opened, is too large, is not UTF-8 or not YAML.
    """
    name = str(path)
    data = _read_bytes(path, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n"), len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace"))
        byte = f"byte 0x{data[error.start]:02x}"
        _stop(f"not UTF-8 text, got {byte}; save the file as UTF-8", Place(name, line + 1, column + 1))
    source = Source(name, tuple(text.splitlines()))
    node, problems = read_text(text, source)
    if node is None:
        what = "only comments" if text.strip() else "empty"
        _stop(f"the file is {what}; `trainkit init` writes a config to start from", Place(name))
    if not isinstance(node.value, dict):
        _stop(
            f"expected sections such as `model:` and `dataset:` at the top level, got {node.kind}; "
            "`trainkit init` writes a config to start from",
            node.place,
        )
    return node, text, problems


def is_missing(path: Path) -> bool:
    """Whether there is no such file; a file that cannot be looked at for another reason is not missing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        pass
    return False


def closest_file(path: Path) -> Path | None:
    """The YAML file in the folder of ``path`` whose name is closest to its name, if any is close."""
    try:
        near = closest(path.name, [file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml")])
    except OSError:
        return None
    return None if near is None else path.parent / near


def read_text(text: str, source: Source, *, at: KeyPath = ()) -> tuple[Node | None, list[Problem]]:
    """The value of one YAML document (None where there is nothing), and the mistakes that do not stop the reading.

    ``at`` is the key path that the value will stand at, for messages.
    """
    if match := _FORBIDDEN.search(text):
        line = text.count("\n", 0, match.start())
        column = match.start() - (text.rfind("\n", 0, match.start()) + 1)
        message = f"not allowed in YAML, got the control character U+{ord(match[0]):04X}; remove it"
        _stop(message, _Composer(source).place_at(line, column))
    composer = _Composer(source)
    try:
        return composer.document(text, at), composer.problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        with contextlib.suppress(yaml.YAMLError):
            # The scanner runs ahead of the events, and libyaml has a limit on levels of its own: ours comes first.
            deque(_Composer(source).events(text[: mark.index if mark else 0]), maxlen=0)
        why, line, column = _explain(error, text)
        _stop(f"not valid YAML: {why}", composer.place_at(line, column))
    except yaml.YAMLError as error:
        _stop(f"not valid YAML: {error}", Place(source.name))


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        mode = path.stat().st_mode
        if (path / "run.json").is_file():
            message = (
                f"this is a run; its config is {path / 'config.yaml'}, and `trainkit resume {path}` goes on with it"
            )
            _stop(message, Place(name))
        if stat.S_ISDIR(mode):
            _stop("expected a config file, got a folder", Place(name))
        if not stat.S_ISREG(mode):
            _stop("expected a config file, got a device or a pipe", Place(name))
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        _stop(f"cannot be read: {getattr(error, 'strerror', None) or error}", Place(name))
    if data.startswith(b"PK\x03\x04"):
        _stop(
            "a checkpoint or another zip file, not a config; a run's config is config.yaml in its folder", Place(name)
        )
    if len(data) > MAX_BYTES:
        _stop(
            f"larger than {MAX_BYTES // 1024} KiB, got {path.stat().st_size // 1024} KiB; is it a config?", Place(name)
        )
    return data


def _stop(message: str, place: Place | None, path: KeyPath = ()) -> NoReturn:
    raise ConfigError([Problem(message, format_path(path) or None, place)])


class _Composer:
    """Builds nodes from PyYAML's events: its own nodes forget which tags were written and where the aliases stand."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.num_values = 0
        self.depth = 0
        self.anchors: dict[str, Node | None] = {}
        """None while the anchor's own value is read."""

    def place_at(self, line: int, column: int) -> Place:
        return self.source.place(line, column + self.source.shift if line == 0 else column)

    def place(self, event: Any) -> Place:
        return self.place_at(event.start_mark.line, event.start_mark.column)

    def events(self, text: str) -> Iterator[Any]:
        """The C parser is about 30 times as fast as the Python one, which the limits above count on."""
        loader: Any = yaml.CSafeLoader if getattr(yaml, "__with_libyaml__", False) else yaml.SafeLoader
        for event in yaml.parse(text, loader):
            self.depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if self.depth > MAX_DEPTH:
                _stop(f"nested deeper than {MAX_DEPTH} levels", self.place(event))
            yield event

    def document(self, text: str, path: KeyPath) -> Node | None:
        events = self.events(text)
        node: Node | None = None
        seen = False
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    _stop("a second document starts here; a config is one document", self.place(event))
                seen = True
            elif isinstance(event, yaml.NodeEvent):
                is_nothing = isinstance(event, yaml.ScalarEvent) and event.value == "" and event.implicit[0]
                node = self.value(event, events, path)
                if is_nothing and self.source.is_override is False:
                    node = None
        return node

    def value(self, event: Any, events: Iterator[Any], path: KeyPath) -> Node:
        """The node that an event starts."""
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            _stop(f"more than {MAX_VALUES} values", self.place(event))
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:60]
            message = f"tags are not allowed, got {tag}; a config holds plain values only, remove the tag"
            _stop(message, self.place(event), path)
        if event.anchor is not None:
            self.anchors.setdefault(event.anchor, None)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = read_scalar(event.value) if event.implicit[0] else event.value
        elif isinstance(event, yaml.MappingStartEvent):
            value = self.mapping(events, path)
        else:
            value = self.sequence(events, path)
        node = self.node(value, event)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def node(self, value: Any, event: Any) -> Node:
        mark = event.start_mark
        return Node(value, self.source, mark.line, mark.column + (self.source.shift if mark.line == 0 else 0))

    def alias(self, event: Any) -> Node:
        node = self.anchors.get(event.anchor)
        if node is None:
            why = "stands inside its own anchor" if event.anchor in self.anchors else "has no anchor above it"
            _stop(f"the alias *{event.anchor[:40]} {why}", self.place(event))
        size, height = _measure(node)
        self.num_values += size
        if self.num_values > MAX_VALUES:
            _stop(f"aliases expand to more than {MAX_VALUES} values", self.place(event))
        if self.depth + height > MAX_DEPTH:
            _stop(f"aliases nest deeper than {MAX_DEPTH} levels", self.place(event))
        return replace(node, key_line=-1, key_column=-1)

    def sequence(self, events: Iterator[Any], path: KeyPath) -> list[Node]:
        items: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.value(event, events, (*path, len(items))))
        return items

    def mapping(self, events: Iterator[Any], path: KeyPath) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.key(event, path)
            value_event = next(events)
            if key == "<<" and event.implicit[0]:
                for name, child in self.merge(self.value(value_event, events, path), value_event, path).items():
                    merged.setdefault(name, child)
                continue
            node = self.value(value_event, events, (*path, key))
            at = self.node(key, event)
            node.key_line, node.key_column = at.line, at.column
            if key in own:
                first = own[key].key_line
                lines = f"in lines {first + 1} and {at.line + 1}" if first != at.line else "in one line"
                message = f"the key is written twice, {lines}; keep one of them"
                self.problems.append(Problem(message, format_path((*path, key)), at.place))
            else:
                own[key] = node
        return {**merged, **own} if merged else own

    def key(self, event: Any, path: KeyPath) -> str:
        if isinstance(event, yaml.ScalarEvent):
            if event.tag is not None:
                message = "tags are not allowed; a config holds plain values only, remove the tag"
                _stop(message, self.place(event), path)
            if event.anchor is not None:
                self.anchors[event.anchor] = self.node(event.value, event)
            return str(event.value)
        _stop(
            "expected text as a key, got a list, a mapping or an alias; for a value, put the key before it",
            self.place(event),
        )

    def merge(self, node: Node, event: Any, path: KeyPath) -> dict[str, Node]:
        """What ``<<: *anchor`` or ``<<: [*first, *second]`` brings in; earlier ones win, own keys win over all."""
        found: dict[str, Node] = {}
        for part in node.value if isinstance(node.value, list) else [node]:
            if not isinstance(part.value, dict):
                message = "expected a mapping to merge, such as <<: *anchor"
                self.problems.append(Problem(message, format_path((*path, "<<")), self.place(event)))
                continue
            for name, child in part.value.items():
                found.setdefault(name, replace(child))
        return found


def _measure(node: Node) -> tuple[int, int]:
    """The number of values in a node with its aliases expanded, and its number of levels."""
    if not isinstance(node.value, list | dict):
        return 1, 0
    children = node.value if isinstance(node.value, list) else node.value.values()
    sizes, heights = zip(*map(_measure, children), strict=True) if children else ((), ())
    return 1 + sum(sizes), 1 + max(heights, default=0)


def _explain(error: yaml.MarkedYAMLError, text: str) -> tuple[str, int, int]:
    """What a YAML mistake means for who wrote it, and the line and column (from 0) to look at."""
    lines = text.splitlines()
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    problem = str(error.problem or "")
    context = str(error.context or "")
    row = lines[line] if line < len(lines) else ""
    indent = row[: len(row) - len(row.lstrip())]
    if "\t" in indent:
        return "a tab cannot indent a line; use spaces", line, indent.index("\t")
    character = row[column : column + 1]
    why = problem
    if "mapping values are not allowed" in problem:
        why = "`:` cannot stand here; does the line above lack its `:`, or is the indentation off? Quote text with `: `"
    elif "sequence entries are not allowed" in problem:
        why = "a list cannot start here; put each `- item` on a line of its own, or write [item, item]"
    elif "cannot start any token" in problem:
        why = f"text cannot start with {character!r}; put it in quotes"
    elif "unexpected end of stream" in problem and "quoted" in context:
        why = "the quotes that open here are not closed"
        if error.context_mark is not None:
            line, column = error.context_mark.line, error.context_mark.column
    elif "flow sequence" in context or "flow mapping" in context:
        opened, closing = ("[", "]") if "sequence" in context else ("{", "}")
        why = f"the {opened} that opens here is not closed: expected `,` or `{closing}`"
        if error.context_mark is not None and (line != error.context_mark.line or not row[column:].strip()):
            line, column = error.context_mark.line, error.context_mark.column
        else:
            why = f"expected `,` or `{closing}` here"
    elif "expected ':'" in problem or "expected key" in problem or "block end" in problem:
        why = "expected `key: value` at the indentation of the lines above"
    elif "expected '-'" in problem:
        why = "expected `- item` at the indentation of the list above"
    return why, line, column

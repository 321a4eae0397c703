"""Changes one value in the text of a config, and no other byte: comments, order and line ends stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from trainkit.config.text.nodes import Source
from trainkit.config.text.reader import read_text
from trainkit.config.text.writer import flow
from trainkit.errors import ConfigError, UserError


@dataclass(frozen=True)
class _Written:
    """A value by its place in the text, as PyYAML's events tell it; a mapping with its entries."""

    event: Any
    end: Any
    """The last event: that of the value itself, or of the end of a mapping or a list."""
    entries: dict[str, _Entry] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """Where the text of the value ends. A mapping or list in lines of its own ends with its last entry."""
        return int(self.end.end_mark.index)


@dataclass(frozen=True)
class _Entry:
    key: Any
    value: _Written


def set_in_section(
    text: str, section: str, key: str, value: object, *, type: str | None = None
) -> tuple[str, dict[str, Any]]:
    """The text of a config in which ``section.key`` has another value, and what it reads as.

    Args:
        type: the section's, where the text does not have the section; None writes none.

    Raises:
        UserError: it is written in a way that cannot be changed at one place, such as an alias; the message says which.
    """
    top = _read(text)
    shown, inside = flow(value), f"{key}: {flow(value)}"
    named = inside if type is None else f"type: {type}, {inside}"
    entry = top.entries.get(section)
    own = None if entry is None else entry.value.entries.get(key)
    if entry is None:
        changed = _with_entry(text, top, f"{section}: {{{named}}}", at_end=True)
    elif own is not None and isinstance(own.value.event, yaml.ScalarEvent | yaml.AliasEvent):
        changed = _replaced(text, own.value, shown)
    elif own is None and isinstance(entry.value.event, yaml.MappingStartEvent):
        changed = _with_entry(text, entry.value, inside)
    elif isinstance(entry.value.event, yaml.ScalarEvent):
        name = _plain(text)[section]  # a bare NAME is short for {type: NAME}
        changed = _replaced(text, entry.value, f"{{{named}}}" if name is None else f"{{type: {flow(name)}, {inside}}}")
    else:
        _refuse(section, entry.value.event)
    return changed, _checked(text, changed, section, key, value, type)


def _read(text: str) -> _Written:
    """The document of a config that has been read before: it is a mapping."""
    events = (event for event in yaml.parse(text, yaml.SafeLoader) if isinstance(event, yaml.NodeEvent | _END))
    return _value(next(events), events)


_END = yaml.CollectionEndEvent


def _value(event: Any, events: Iterator[Any]) -> _Written:
    if not isinstance(event, yaml.CollectionStartEvent):
        return _Written(event, event)
    entries: dict[str, _Entry] = {}
    for first in events:
        if isinstance(first, yaml.CollectionEndEvent):
            return _Written(event, first, entries)
        if isinstance(event, yaml.SequenceStartEvent):
            _value(first, events)
        else:
            entries[first.value] = _Entry(first, _value(next(events), events))
    raise AssertionError("the end of the text is no end of a mapping")


def _replaced(text: str, written: _Written, new: str) -> str:
    """The text with another value; an anchor in front of it stays."""
    start, stop = written.event.start_mark.index, written.stop
    old = text[start:stop]
    if isinstance(written.event, yaml.ScalarEvent) and written.event.anchor is not None:
        start += len(old) - len(old.removeprefix(f"&{written.event.anchor}").lstrip())
    return text[:start] + ("" if text[start - 1 : start].isspace() else " ") + new + text[stop:]


def _with_entry(text: str, mapping: _Written, entry: str, *, at_end: bool = False) -> str:
    """The text with one more entry in a mapping: behind ``type`` where there is one, or ``at_end`` of the text."""
    after = mapping.entries.get("type")
    if mapping.event.flow_style:
        at = mapping.event.start_mark.index + text[mapping.event.start_mark.index :].index("{") + 1
        if after is None:
            return text[:at] + entry + (", " if mapping.entries else "") + text[at:]
        return text[: after.value.stop] + f", {entry}" + text[after.value.stop :]
    line_end = "\r\n" if "\r\n" in text else "\n"
    if at_end:
        return text + ("" if text.endswith("\n") else line_end) + entry + line_end
    first = min((one.key.start_mark for one in mapping.entries.values()), key=lambda mark: mark.index)
    start, indent = int(first.index), " " * int(first.column)
    if after is None or after.value.event.start_mark.line != after.value.end.end_mark.line:
        return text[:start] + entry + line_end + indent + text[start:]
    line = text.find("\n", after.value.stop)
    if line < 0:
        return text + line_end + indent + entry
    return text[: line + 1] + indent + entry + line_end + text[line + 1 :]


def _checked(text: str, changed: str, section: str, key: str, value: object, type: str | None) -> dict[str, Any]:
    """What the new text reads as: the same as the old one but for this value. An anchor may be used elsewhere too."""
    before, after = _plain(text), None
    with suppress(ConfigError):
        after = _plain(changed)
    old = before.get(section)
    named = {} if type is None else {"type": type}
    rest = old if isinstance(old, dict) else named if old is None else {"type": old}
    if after is None or after != {**before, section: {**rest, key: value}}:
        raise UserError(f"{section}.{key} is used at other places too, or written in a way that is not changed here")
    return after


def _plain(text: str) -> dict[str, Any]:
    node, _ = read_text(text, Source("", tuple(text.splitlines())))
    assert node is not None, "a mapping"
    return dict(node.plain())


def _refuse(section: str, event: Any) -> NoReturn:
    what = "an alias of another mapping" if isinstance(event, yaml.AliasEvent) else "not a name or a mapping"
    raise UserError(f"{section} is {what} (line {event.start_mark.line + 1})")

"""What the schema allows at a key path: keys, variants of a choice, completions, the expected value in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from trainkit.config.schema.base import (
    DATE_PATTERN,
    NAME_PATTERN,
    Section,
    check_duration,
    check_epochs,
    check_interval,
    check_start,
)
from trainkit.config.schema.extended import config_class
from trainkit.config.schema.model_defaults import model_defaults
from trainkit.config.text.nodes import KeyPath
from trainkit.wording import listed

Root = type[Section] | None
"""What a whole file is; None for a config."""


@dataclass(frozen=True)
class Member:
    """One alternative of an annotation, without ``Annotated``."""

    type: Any
    metadata: tuple[Any, ...] = ()


def members(annotation: Any, metadata: tuple[Any, ...] = ()) -> list[Member]:
    """The alternatives that an annotation allows, with the constraints on each."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        flat = [part for item in extra for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
        return members(inner, (*metadata, *flat))
    if origin is Union or origin is UnionType:
        return [member for part in get_args(annotation) for member in members(part, metadata)]
    return [Member(annotation, metadata)]


def annotation_of(field: FieldInfo) -> Any:
    """The whole annotation of a field: pydantic moves the outer constraints into the field."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


@cache
def type_name(section: type[Section]) -> str | None:
    """The ``type`` that names a variant, or None for a section that is no variant of a choice."""
    field = section.model_fields.get("type")
    return str(get_args(field.annotation)[0]) if field is not None else None


def sections(annotation: Any) -> list[type[Section]]:
    """The mappings that an annotation allows."""
    return [m.type for m in members(annotation) if isinstance(m.type, type) and issubclass(m.type, Section)]


def variants(annotation: Any) -> dict[str, type[Section]]:
    """The variants of a closed choice by their ``type``; empty where there is no choice."""
    return {name: section for section in sections(annotation) if (name := type_name(section)) is not None}


def chosen(annotation: Any, value: Any) -> type[Section] | None:
    """The section that a plain value chose, if any."""
    choices = variants(annotation)
    if choices:
        if isinstance(value, dict) and "type" not in value:  # short_by_key
            return next(
                (section for name, section in choices.items() if name in value.keys() & section.model_fields), None
            )
        name = value["type"] if isinstance(value, dict) else value
        return choices.get(name) if isinstance(name, str) else None
    plain = sections(annotation)
    return plain[0] if plain else None


def item_annotation(annotation: Any) -> Any:
    """What the items of a list must be, or None where no list is allowed."""
    for member in members(annotation):
        if get_origin(member.type) is list:
            return get_args(member.type)[0]
    return None


def entry_annotation(annotation: Any) -> Any:
    """What the values of a mapping with free keys must be, or None where no such mapping is allowed."""
    for member in members(annotation):
        if get_origin(member.type) is dict:
            return get_args(member.type)[1]
    return None


def child_annotation(annotation: Any, value: Any, piece: str | int) -> Any:
    """The annotation one step down, or None where the schema has nothing there."""
    if isinstance(piece, int):
        return item_annotation(annotation)
    section = chosen(annotation, value)
    if section is None:
        return entry_annotation(annotation)
    if piece not in section.model_fields:
        return None
    return annotation_of(section.model_fields[piece])


def child_value(value: Any, piece: str | int) -> Any:
    """The plain value one step down, or None."""
    if isinstance(piece, int):
        return value[piece] if isinstance(value, list) and 0 <= piece < len(value) else None
    return value.get(piece) if isinstance(value, dict) else None


def value_at(path: KeyPath, data: Any) -> Any:
    """The plain value at a path of a plain config, or None."""
    for piece in path:
        data = child_value(data, piece)
    return data


def annotation_at(path: KeyPath, data: Any, root: Root = None) -> Any:
    """The annotation at a path of a config, given the plain config (its ``type`` values choose the variants)."""
    annotation: Any = root or config_class()
    for piece in path:
        annotation = child_annotation(annotation, data, piece)
        if annotation is None:
            return None
        data = child_value(data, piece)
    return annotation


def section_at(path: KeyPath, data: Any, root: Root = None) -> type[Section] | None:
    """The section at a path of a config, given the plain config."""
    return chosen(annotation_at(path, data, root), value_at(path, data))


def field_at(path: KeyPath, data: Any, root: Root = None) -> FieldInfo | None:
    """The field that the last key of a path names."""
    if not path or isinstance(path[-1], int):
        return None
    section = section_at(path[:-1], data, root)
    return section.model_fields.get(path[-1]) if section is not None else None


def default_at(path: KeyPath, data: Any, root: Root = None) -> Any:
    """The plain default of the field at a path (None where there is none)."""
    of_model: Any = model_defaults(data)[1]
    for piece in path:
        of_model = of_model.get(piece) if isinstance(of_model, dict) else None
    if of_model is not None and path:
        return of_model
    field = field_at(path, data, root)
    if field is None or field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Section):
        return {"type": name} if (name := type_name(type(default))) is not None else {}
    return default


def homes(root: Root = None) -> dict[str, list[tuple[str, str | None]]]:
    """By key, where it belongs: ``("training", None)``, or ``("optimizer", "sgd")`` for the knob of a variant."""
    return _homes_in(root or config_class())


@cache
def _homes_in(config: type[Section]) -> dict[str, list[tuple[str, str | None]]]:
    found: dict[str, list[tuple[str, str | None]]] = {name: [("", None)] for name in config.model_fields}
    for name, field in config.model_fields.items():
        for key, where, variant in _homes(name, annotation_of(field), depth=0):
            found.setdefault(key, []).append((where, variant))
    return found


def _homes(where: str, annotation: Any, depth: int) -> Iterator[tuple[str, str, str | None]]:
    item = item_annotation(annotation)
    if item is not None and sections(item):
        where, annotation = f"{where}[...]", item
    for section in sections(annotation):
        for name, field in section.model_fields.items():
            if name != "type":
                yield name, where, type_name(section)
            if depth < 2:
                yield from _homes(f"{where}.{name}", annotation_of(field), depth + 1)


def complete_set(incomplete: str) -> list[str]:
    """The continuations of a ``--set`` argument by one more key, or by the names of a choice after ``=``.

    ``optim`` gives ``optimizer.`` and ``optimizer=``; ``optimizer.l`` gives ``optimizer.lr=``; ``optimizer=a`` gives
    ``optimizer=adam`` and others. Where the variant is not known, the keys of all of them are offered.
    """
    left, equals, value = incomplete.partition("=")
    *parents, last = left.split(".")
    annotations: list[Any] = [config_class()]
    for key in parents:
        annotations = [child for annotation in annotations for child in _children(annotation, key.split("[")[0])]
    if equals:
        names = dict.fromkeys(
            name for annotation in annotations for child in _children(annotation, last) for name in variants(child)
        )
        return [f"{left}={name}" for name in names if name.startswith(value)]
    prefix = "".join(f"{key}." for key in parents)
    found: dict[str, None] = {}
    for section in (section for annotation in annotations for section in sections(annotation)):
        for key, field in section.model_fields.items():
            if key.startswith(last):
                child = annotation_of(field)
                if sections(child):
                    found[f"{prefix}{key}."] = None
                if not sections(child) or variants(child):
                    found[f"{prefix}{key}="] = None
    return list(found)


def _children(annotation: Any, key: str) -> list[Any]:
    """The annotations under a key, over all sections that an annotation allows; for a list, those of its items."""
    found = [annotation_of(s.model_fields[key]) for s in sections(annotation) if key in s.model_fields]
    return [child if item_annotation(child) is None else item_annotation(child) for child in found]


# --- the expected value in words ---------------------------------------------------------------------------------

_DURATIONS = {
    check_duration: "a number of epochs or steps (5, 5ep, 500st)",
    check_epochs: "a number of epochs (2, 2ep)",
    check_interval: "a number of epochs, steps or minutes (1, 1ep, 200st, 10min)",
    check_start: "a share of the run, or a number of epochs or steps (75%, 60ep, 500st)",
}
_PATTERNS = {
    NAME_PATTERN: "a name of 1 to 64 letters, digits, `.`, `_`, `-`, not starting with `.` or `-`",
    r"^cuda:\d{1,3}$": "cuda:N",
    DATE_PATTERN: "the format of its dates, such as %d.%m.%Y",
}
_MOST_NAMES = 40
"""Messages show the first ten names of a longer list."""
_WORDS = {2: "two", 3: "three", 4: "four"}
_BOUNDS = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))


def expected(annotation: Any) -> str:
    """``a number above 0``, ``one of min, max``, ``a list of two numbers``: what a value must be."""
    choices = variants(annotation)
    if choices:
        return f"one of {', '.join(choices)}"
    phrases: list[str] = []
    names: list[str] = []
    for member in members(annotation):
        if get_origin(member.type) is Literal:
            names += [str(value).lower() if isinstance(value, bool) else str(value) for value in get_args(member.type)]
        elif (pattern := _pattern(member)) in _PATTERNS and names:
            names.append(_PATTERNS[str(pattern)])
        elif member.type is not NoneType:
            phrase = _phrase(member)
            if phrase not in phrases:
                phrases.append(phrase)
    if len(names) > 1:
        phrases.insert(0, f"one of {', '.join(names) if len(names) <= _MOST_NAMES else listed(names, quoted=False)}")
    elif names:
        phrases.insert(0, names[0])
    return " or ".join(phrases)


def _pattern(member: Member) -> str | None:
    return next((p for item in member.metadata if (p := getattr(item, "pattern", None))), None)


def _phrase(member: Member) -> str:
    for item in member.metadata:
        if isinstance(item, AfterValidator) and item.func in _DURATIONS:
            return _DURATIONS[item.func]
    if get_origin(member.type) is list:
        return _list_phrase(member)
    if get_origin(member.type) is dict:
        return f"a mapping of names to {expected(get_args(member.type)[1])}"
    if member.type is Any:
        return "anything"
    if member.type is bool:
        return "true or false"
    if member.type is int:
        return "a whole number" + _range(member.metadata)
    if member.type is float:
        return "a number" + _range(member.metadata)
    if member.type is str:
        pattern = _pattern(member)
        if pattern is not None:
            return _PATTERNS.get(pattern, f"text like {pattern}")
        if any(isinstance(item, MaxLen) and item.max_length == 1 for item in member.metadata):
            return "one character"
        return "text that is not empty" if any(isinstance(item, MinLen) for item in member.metadata) else "text"
    return "a mapping" if isinstance(member.type, type) and issubclass(member.type, Section) else str(member.type)


def _list_phrase(member: Member) -> str:
    item = get_args(member.type)[0]
    low = next((part.min_length for part in member.metadata if isinstance(part, MinLen)), 0)
    high = next((part.max_length for part in member.metadata if isinstance(part, MaxLen)), None)
    one = "mapping" if sections(item) else expected(item)
    for article in ("a ", "one "):
        one = one.removeprefix(article)
    many, replaced = re.subn(r"^(whole )?number", r"\g<0>s", one)
    many = many if replaced else f"{one}s"
    if low and low == high:
        return f"a list of {_WORDS.get(low, low)} {many}"
    return f"a list of {many}" if not low else f"a list of at least {low} {one}"


def _range(metadata: tuple[Any, ...]) -> str:
    bounds = {
        word: "2^63" if bound == 2**63 else f"{bound:g}"
        for kind, name, word in _BOUNDS
        for item in metadata
        if isinstance(item, kind) and (bound := getattr(item, name)) is not None
    }
    if bounds.keys() == {"at least", "at most"}:
        return f" from {bounds['at least']} to {bounds['at most']}"
    text = " and ".join(f"{word} {bound}" for word, bound in bounds.items())
    return f" of {text}" if text.startswith("at") else f" {text}" if text else ""

"""Messages about mistakes in a config: pydantic's errors as sentences, and the text that a terminal shows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import MinLen

from trainkit.config.help.introspect import (
    Root,
    annotation_at,
    child_annotation,
    child_value,
    chosen,
    default_at,
    expected,
    field_at,
    homes,
    item_annotation,
    members,
    section_at,
    sections,
    type_name,
    value_at,
    variants,
)
from trainkit.config.schema.extended import config_class, grows
from trainkit.config.text.nodes import KeyPath, format_path, read_scalar
from trainkit.config.text.writer import flow, scalar
from trainkit.errors import Place, ProblemsError
from trainkit.plugins import PART, active
from trainkit.wording import closest, enumerated

_IMPORTS = ("_target_", "class_path", "_component_")
_LIBRARIES = ("torch", "nn", "F", "optim", "torchvision", "timm", "keras", "tf")
"""Whose layers are not those of a plug-in, however they are written."""
_NO_IMPORTS = "a config cannot name code to import; choose a `type`; code of your own comes in by --plugin"

_RENAMED = {"csv": ("table", "with path and target as before; columns: {NAME: categorical} is what categorical was")}
"""Types of earlier versions, with the one that takes their place and what else changes."""

MAX_SHOWN = 10
"""Problems printed; a last line counts the rest."""


def explain(errors: Iterable[Mapping[str, Any]], data: Any, root: Root = None) -> list[tuple[KeyPath, bool, str]]:
    """``(path, whether the key is the mistake, message)`` for pydantic's errors on ``data``, one a mistake."""
    groups: dict[KeyPath, list[Mapping[str, Any]]] = {}
    for error in errors:
        path = _path_of(error["loc"], data, root)
        value = value_at(path, data)
        if error["type"].startswith("union_tag") and isinstance(value, dict):
            misspelled = _misspelled_type(annotation_at(path, data, root), value)
            path = (*path, misspelled or "type")
            error = {**error, "type": "misspelled_type"} if misspelled else error
        groups.setdefault(path, []).append(error)
    renamed = {
        (*path[:-1], near)
        for path, group in groups.items()
        if group[0]["type"] == "extra_forbidden" and (near := _near_key(path, data, root)) is not None
    }
    found = []
    for path, group in groups.items():
        if path in renamed and group[0]["type"] == "missing":
            continue  # the message about the misspelled key suggests this one
        inner = any(len(other) > len(path) and other[: len(path)] == path for other in groups)
        if inner and len(members(annotation_at(path, data, root))) > 1:
            continue  # the value chose another alternative of a union, which has a message of its own
        is_key = group[0]["type"] in ("extra_forbidden", "missing", "misspelled_type")
        found.append((path, is_key, _message(path, group, data, root)))
    return found


def _path_of(loc: Sequence[str | int], data: Any, root: Root) -> KeyPath:
    """The key path of pydantic's location, which also names the alternatives of unions that it went through."""
    path: list[str | int] = []
    annotation: Any = root or config_class()
    value = data
    after_choice = False
    for piece in loc:
        if len(variants(annotation)) > 1 and not after_choice:
            after_choice = True  # this piece is the name of the variant, which pydantic leaves out where there is one
            value = {"type": value} if isinstance(value, str) else value
            continue
        after_choice = False
        if isinstance(piece, int):
            known = isinstance(value, list)
        else:
            section = chosen(annotation, value)
            known = isinstance(value, dict) and (
                piece in value or (section is not None and piece in section.model_fields)
            )
        if not known:
            continue
        path.append(piece)
        annotation = child_annotation(annotation, value, piece)
        value = child_value(value, piece)
    return tuple(path)


def _message(path: KeyPath, group: list[Mapping[str, Any]], data: Any, root: Root) -> str:
    kind = group[0]["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, data, root)
    if kind == "misspelled_type":
        return f"unknown key in {format_path(path[:-1])}; did you mean type?"
    if kind == "missing":
        return _missing(path, data, root)
    if kind.startswith("union_tag"):
        if path[-1] == "type" and isinstance(value_at(path[:-1], data), dict):
            path = path[:-1]
        return _bad_choice(annotation_at(path, data, root), value_at(path, data))
    return _bad_value(annotation_at(path, data, root), value_at(path, data), _default_text(path, data, root))


def _default_text(path: KeyPath, data: Any, root: Root) -> str | None:
    """The default of the field at a path as YAML; "" where it may be left out; None where it has none worth naming."""
    field = field_at(path, data, root)
    if field is None or field.is_required():
        return None
    default = default_at(path, data, root)
    if isinstance(default, dict):
        return str(default.get("type", ""))
    return "" if default is None or default == [] else flow(default)


# --- keys --------------------------------------------------------------------------------------------------------


def _unknown_key(path: KeyPath, data: Any, root: Root) -> str:
    key = str(path[-1])
    choices = variants(annotation_at(path[:-1], data, root))
    section = section_at(path[:-1], data, root)
    assert section is not None
    name = type_name(section)
    here = f"{format_path(path[:-1])} of type {name}" if name else format_path(path[:-1])
    owners = [other for other, model in choices.items() if key in model.model_fields]
    if name and owners:
        return f"{name} has no such knob; {enumerated(owners)} {'has' if len(owners) == 1 else 'have'} it"
    if key in _IMPORTS:
        return f"unknown key: {_NO_IMPORTS}"
    near = _near_key(path, data, root)
    exact = _home(key, format_path(path[:-1]), root) if len(key) > 1 else None
    where = f"unknown key in {here}" if here else "unknown section"
    if near:
        return f"{where}; did you mean {near}?" + (f" ({key} itself belongs {exact})" if exact else "")
    if sibling := closest(key, dict.fromkeys(field for model in choices.values() for field in model.model_fields)):
        owners = [other for other, model in choices.items() if sibling in model.model_fields]
        return f"{where}; {sibling} is a knob of {enumerated(owners)}"
    if exact:
        return f"{where}; it belongs {exact}"
    if not path[:-1]:
        return f"{where}; the sections are {', '.join(section.model_fields)}"
    known = [field for field in section.model_fields if field != "type"]
    return f"{where}; it takes {', '.join(known) if known else 'no keys but `type`'}"


def _near_key(path: KeyPath, data: Any, root: Root) -> str | None:
    """The key that an unknown one was probably meant to be. One that is not written yet comes first, unless another is
    the same but for case and `_`.
    """
    parent, section = value_at(path[:-1], data), section_at(path[:-1], data, root)
    if section is None or not isinstance(parent, dict):
        return None
    key = str(path[-1])
    with_it = [name for name in section.model_fields if len(key) >= 4 and key in name.split("_")]
    anywhere = closest(key, section.model_fields)
    if anywhere and anywhere.replace("_", "") == key.replace("_", "").replace("-", "").lower():
        return anywhere
    near = closest(key, [name for name in section.model_fields if name not in parent])
    return near or anywhere or " or ".join(with_it) or None


def _home(key: str, here: str, root: Root) -> str | None:
    """Where a key belongs: the place nearest to the top; a plain section comes before a variant of a choice."""
    places = sorted(
        (home for home in homes(root).get(key, []) if home[0] != here),
        key=lambda home: (home[0].count(".") + home[0].count("["), home[1] is not None),
    )
    if not places:
        return None
    where = places[0][0]
    if not where:
        return "at the top level"
    names = [variant for place, variant in places if place == where and variant is not None]
    return f"in {where}" + (f" (of {enumerated(names)})" if 0 < len(names) < 5 else "")


def _missing(path: KeyPath, data: Any, root: Root) -> str:
    field = field_at(path, data, root)
    annotation = annotation_at(path, data, root)
    what = expected(annotation) if annotation is not None else "a value"
    meaning = re.sub(r" \(.*?\)", "", (field and field.description) or "").rstrip(".")
    return f"missing: expected {what}; write `{path[-1]}: ...`" + (f" ({meaning})" if meaning else "")


# --- values ------------------------------------------------------------------------------------------------------


def _bad_choice(annotation: Any, value: Any) -> str:
    choices, what = variants(annotation), f"expected {expected(annotation)}"
    if isinstance(value, dict) and "type" not in value:
        possible = [name for name, model in choices.items() if value.keys() <= set(model.model_fields)]
        hint = f"; with these keys it could be {' or '.join(possible)}" if value and 0 < len(possible) < 5 else ""
        if foreign := [key for key in value if key in _IMPORTS]:
            hint = f"; {foreign[0]} is not followed: {_NO_IMPORTS}"
        return f"missing: {what}{hint}"
    name = value["type"] if isinstance(value, dict) else value
    if not isinstance(name, str):
        return f"{what}, got {shown(name)}"
    if (part := PART.fullmatch(name)) and grows(choices.values()) and part[1] not in _LIBRARIES:
        if part[1] not in {plugin.name for plugin in active()}:
            return f"{name} comes from a plug-in that is not loaded; add --plugin {part[1]}"
        hint = ""
    else:
        hint = f"; {_NO_IMPORTS}" if re.search(r"\w[.:]\w", name) else ""
    if name in _RENAMED and _RENAMED[name][0] in choices:
        hint = "; {} takes its place: {}".format(*_RENAMED[name])
    elif near := closest(name, choices):
        hint = f"; did you mean {near}?"
    return f"unknown type: {what}, got {shown(name)}{hint}"


def _misspelled_type(annotation: Any, value: dict[str, Any]) -> str | None:
    """The key that was probably meant to be ``type``, where that is missing."""
    if "type" in value:
        return None
    known = {name for model in variants(annotation).values() for name in model.model_fields}
    return next((key for key in value if key not in known and closest(key, ["type"])), None)


def _bad_value(annotation: Any, value: Any, default: str | None) -> str:
    """The expected value, the given one, and what to do."""
    text = f"expected {expected(annotation)}, got {shown(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        text = text.replace("a number", "a finite number", 1)
    hint = _value_hint(annotation, value)
    if hint is None and default is not None:
        hint = f"the default is {default}" if default else "or leave it out"
    return f"{text}; {hint}" if hint else text


def _value_hint(annotation: Any, value: Any) -> str | None:
    """What the author probably meant."""
    parts = members(annotation)
    kinds = {get_origin(part.type) or part.type for part in parts}
    if isinstance(value, str):
        names = [str(name) for part in parts if get_origin(part.type) is Literal for name in get_args(part.type)]
        if near := closest(value, names):
            return f"did you mean {near}?"
        if kinds & {int, float} and (hint := _number_hint(value)):
            return hint
        if bool in kinds and value.lower() in ("yes", "on", "no", "off"):
            return f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds and abs(value) < 2**53:
        return f"write {int(value)}"
    if kinds == {list}:
        item = item_annotation(annotation)
        types = str | dict if sections(item) else (int | float) if expected(item).endswith("number") else str
        fixed = any(isinstance(extra, MinLen) and extra.min_length > 1 for part in parts for extra in part.metadata)
        if isinstance(value, types) and not isinstance(value, bool) and not fixed:
            return f"write [{flow(value)}]"
    if kinds == {str} | (kinds & {NoneType}) and isinstance(value, int | float) and not isinstance(value, bool):
        return f'put it in quotes: "{shown(value)}"'
    if "cuda:N" in expected(annotation) and isinstance(value, int):
        return f"write cuda:{value}"
    return None


def _number_hint(text: str) -> str | None:
    if isinstance(read_scalar(text), int | float):
        return "remove the quotes"
    for fixed in (text.replace("_", ""), text.replace(",", ".")):
        if isinstance(read_scalar(fixed), int | float):
            return f"write {fixed}"
    return None


def shown(value: Any) -> str:
    """A value as YAML would write it, on one line and not too long."""
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, bool | float):
        return scalar(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**40 else f"a number of {len(str(value))} digits"
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:57]!r}... ({len(value)} characters)"
    text = flow(_shortened(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _shortened(value: Any) -> Any:
    """A container cut to what fits a message: the whole of it may be large."""
    if isinstance(value, list):
        return [_shortened(item) for item in value[:6]] + ["..."] * (len(value) > 6)
    if isinstance(value, dict):
        return {key: _shortened(value[key]) for key in list(value)[:6]}
    if isinstance(value, str) and len(value) > 40:
        return value[:37] + "..."
    if isinstance(value, int) and abs(value) >= 10**40:
        return "..."
    return value


# --- the text that is shown --------------------------------------------------------------------------------------


def render(error: ProblemsError, *, color: bool = False) -> str:
    """One ``error:`` line a problem, with the offending line and a caret below; at most ten, then how many more."""
    red, dim, off = ("\x1b[1;31m", "\x1b[2m", "\x1b[0m") if color else ("", "", "")
    parts = []
    for problem in error.problems[:MAX_SHOWN]:
        first, *more = str(problem).split("\n")  # data errors name several files or rows, one a line
        parts.append(f"{red}error:{off} {_one_line(first)}")
        parts += [f"       {_one_line(line)}" for line in more]
        for number, place in enumerate((problem.place, *problem.also)):
            if number:
                parts.append(f"       see {_one_line(str(place))}")
            if place is not None and place.text is not None and place.column is not None:
                line, caret = _excerpt(place)
                parts += [f"{dim}{line}{off}", f"{red}{caret}{off}"]
    if len(error.problems) > MAX_SHOWN:
        parts.append(f"and {len(error.problems) - MAX_SHOWN} more")
    return "\n".join(parts)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _excerpt(place: Place, width: int = 96) -> tuple[str, str]:
    """The line with its number, cut around the column, and a caret below the column."""
    assert place.text is not None
    assert place.column is not None
    column = min(place.column - 1, len(place.text))
    first = max(0, column - width // 2) if len(place.text) > width else 0
    cut = place.text[first : first + width]
    line = "".join(c if c.isprintable() else " " for c in cut)
    gutter = f"{place.line:>5} | " if place.line is not None else "      "
    return gutter + line, " " * (len(gutter) + column - first) + "^"

"""From pydantic's errors to sentences with a place; and the text that a terminal shows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import MinLen

from trainkit.config.help.introspect import (
    annotation_at,
    child_annotation,
    child_value,
    chosen,
    expected,
    field_at,
    homes_of,
    item_annotation,
    members,
    sections,
    type_name,
    variants,
)
from trainkit.config.schema import Config
from trainkit.config.schema.base import Section
from trainkit.config.text.key_paths import KeyPath, format_path
from trainkit.config.text.nodes import read_scalar
from trainkit.config.text.writer import flow
from trainkit.errors import Place, ProblemsError
from trainkit.wording import closest, enumerated

_IMPORTS = ("_target_", "class_path", "_component_")
_NO_IMPORTS = "a config cannot name code to import; choose a `type`; code of your own can call trainkit from Python"

MAX_SHOWN = 10
"""Problems printed; the rest is counted."""


def explain(errors: Iterable[Mapping[str, Any]], data: Any) -> list[tuple[KeyPath, bool, str]]:
    """``(path, whether the key is the mistake, message)`` for pydantic's errors on ``data``, one a mistake."""
    groups: dict[KeyPath, list[Mapping[str, Any]]] = {}
    for error in errors:
        path = _path_of(error["loc"], data)
        value = _value_at(path, data)
        if error["type"].startswith("union_tag") and isinstance(value, dict):
            misspelled = _misspelled_type(annotation_at(path, data), value)
            path = (*path, misspelled or "type")
            error = {**error, "type": "misspelled_type"} if misspelled else error
        groups.setdefault(path, []).append(error)
    renamed = {
        (*path[:-1], near)
        for path, group in groups.items()
        if group[0]["type"] == "extra_forbidden" and (near := _near_key(path, data)) is not None
    }
    found = []
    for path, group in groups.items():
        if path in renamed and group[0]["type"] == "missing":
            continue  # the misspelled key is told, with this one as the suggestion
        if any(len(other) > len(path) and other[: len(path)] == path for other in groups) and _is_union(path, data):
            continue  # the value chose another alternative: that one's mistake is told
        is_key = group[0]["type"] in ("extra_forbidden", "missing", "misspelled_type")
        found.append((path, is_key, _message(path, group, data)))
    return found


def _path_of(loc: Sequence[str | int], data: Any) -> KeyPath:
    """The key path of pydantic's location, which also names the alternatives of unions that it went through."""
    path: list[str | int] = []
    annotation: Any = Config
    value = data
    after_choice = False
    for piece in loc:
        if variants(annotation) and not after_choice:
            after_choice = True  # this piece is the name of the variant
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


def _is_union(path: KeyPath, data: Any) -> bool:
    annotation = annotation_at(path, data)
    return annotation is not None and len(members(annotation)) > 1


def _message(path: KeyPath, group: list[Mapping[str, Any]], data: Any) -> str:
    kind = group[0]["type"]
    parent = _value_at(path[:-1], data)
    if kind == "extra_forbidden":
        return _unknown_key(path, parent, data)
    if kind == "misspelled_type":
        return f"unknown key in {format_path(path[:-1])}; did you mean type?"
    if kind == "missing":
        return _missing(path, data)
    value = _value_at(path, data)
    annotation = annotation_at(path, data)
    if kind.startswith("union_tag"):
        choice = isinstance(parent, dict) and path[-1] == "type"
        return _bad_choice(annotation_at(path[:-1], data) if choice else annotation, parent if choice else value)
    return bad_value(annotation, value, field_default(path, data))


def _value_at(path: KeyPath, data: Any) -> Any:
    for piece in path:
        data = child_value(data, piece)
    return data


def field_default(path: KeyPath, data: Any) -> str | None:
    """The default of the field at a path as YAML; "" where it may be left out; None where it has none worth naming."""
    field = field_at(path, data)
    if field is None or field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Section):
        return type_name(type(default)) or ""
    if default is None or default == []:
        return ""
    return flow(default)


# --- keys --------------------------------------------------------------------------------------------------------


def _unknown_key(path: KeyPath, parent: Any, data: Any) -> str:
    key = str(path[-1])
    annotation = annotation_at(path[:-1], data)
    section = chosen(annotation, parent)
    assert section is not None
    name = type_name(section)
    here = f"{format_path(path[:-1])} of type {name}" if name else format_path(path[:-1])
    owners = [other for other, model in variants(annotation).items() if key in model.model_fields]
    if name and owners:
        return f"{name} has no such knob; {enumerated(owners)} {'has' if len(owners) == 1 else 'have'} it"
    if key in _IMPORTS:
        return f"unknown key: {_NO_IMPORTS}"
    near = _near_key(path, data)
    exact = _home(key, format_path(path[:-1])) if len(key) > 1 else None
    where = f"unknown key in {here}" if here else "unknown section"
    if near:
        return f"{where}; did you mean {near}?" + (f" ({key} itself belongs {exact})" if exact else "")
    knobs = {field: other for other, model in variants(annotation).items() for field in model.model_fields}
    if sibling := closest(key, knobs):
        owners = [other for other, model in variants(annotation).items() if sibling in model.model_fields]
        return f"{where}; {sibling} is a knob of {enumerated(owners)}"
    if exact:
        return f"{where}; it belongs {exact}"
    if not path[:-1]:
        return f"{where}; the sections are {', '.join(section.model_fields)}"
    known = [field for field in section.model_fields if field != "type"]
    return f"{where}; it takes {', '.join(known) if known else 'no keys but `type`'}"


def _near_key(path: KeyPath, data: Any) -> str | None:
    """The key that an unknown one was probably meant to be; better one that is not written yet."""
    parent = _value_at(path[:-1], data)
    section = chosen(annotation_at(path[:-1], data), parent)
    if section is None or not isinstance(parent, dict):
        return None
    key = str(path[-1])
    return closest(key, [name for name in section.model_fields if name not in parent]) or closest(
        key, section.model_fields
    )


def _home(key: str, here: str) -> str | None:
    """Where a key belongs: the nearest to the top, and rather a plain section than a variant of a choice."""
    homes = sorted(
        (home for home in homes_of(key) if home[0] != here),
        key=lambda home: (home[0].count(".") + home[0].count("["), home[1] is not None),
    )
    if not homes:
        return None
    where = homes[0][0]
    if not where:
        return "at the top level"
    names = [variant for place, variant in homes if place == where and variant is not None]
    return f"in {where}" + (f" (of {enumerated(names)})" if 0 < len(names) < 5 else "")


def _missing(path: KeyPath, data: Any) -> str:
    field = field_at(path, data)
    annotation = annotation_at(path, data)
    what = expected(annotation) if annotation is not None else "a value"
    says = re.sub(r" \(.*?\)", "", field.description).rstrip(".") if field is not None and field.description else ""
    return f"missing: expected {what}; write `{path[-1]}: ...`" + (f" ({says})" if says else "")


# --- values ------------------------------------------------------------------------------------------------------


def _bad_choice(annotation: Any, value: Any) -> str:
    choices = list(variants(annotation))
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, dict):
        return f"expected {expected(annotation)}, got {shown(value)}"
    if "type" not in value:
        keys = set(value)
        fitting = [name for name, model in variants(annotation).items() if keys <= set(model.model_fields)]
        hint = f"; with these keys it could be {' or '.join(fitting)}" if keys and 0 < len(fitting) < 5 else ""
        if foreign := [key for key in value if key in _IMPORTS]:
            hint = f"; {foreign[0]} is not followed: {_NO_IMPORTS}"
        return f"missing: expected one of {', '.join(choices)}{hint}"
    name = value["type"]
    if not isinstance(name, str):
        return f"expected one of {', '.join(choices)}, got {shown(name)}"
    near = closest(name, choices)
    return f"unknown type: expected one of {', '.join(choices)}, got {shown(name)}" + _choice_hint(name, near)


def _misspelled_type(annotation: Any, value: dict[str, Any]) -> str | None:
    """The key that was probably meant to be ``type``, where that is missing."""
    if "type" in value:
        return None
    known = {name for model in variants(annotation).values() for name in model.model_fields}
    return next((key for key in value if key not in known and closest(key, ["type"])), None)


def _choice_hint(name: str, near: str | None) -> str:
    if near:
        return f"; did you mean {near}?"
    if re.search(r"\w[.:]\w", name):
        return f"; {_NO_IMPORTS}"
    return ""


def bad_value(annotation: Any, value: Any, default: str | None) -> str:
    """What a value should have been, what it is, and what to do."""
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
        wanted = str | dict if sections(item) else (int | float) if expected(item).endswith("number") else str
        fixed = any(isinstance(extra, MinLen) and extra.min_length > 1 for part in parts for extra in part.metadata)
        if isinstance(value, wanted) and not isinstance(value, bool) and not fixed:
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
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(repr(value), repr(value))
    if isinstance(value, int):
        text = str(value) if abs(value) < 10**40 else f"a number of {len(str(value))} digits"
        return text
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
        if problem.place is not None and problem.place.text is not None and problem.place.column is not None:
            line, caret = _excerpt(problem.place)
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

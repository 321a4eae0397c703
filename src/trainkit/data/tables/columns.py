"""What each column of a table holds: numbers, categories, true and false, dates, or nothing to learn from; and why."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from trainkit.data.tables.evidence import MAX_CATEGORIES, NAME_AS_MISSING, SAMPLE, Evidence
from trainkit.data.tables.labels import is_boolean_text, labels_of
from trainkit.data.tables.numbers import NumberStyle
from trainkit.errors import Problem
from trainkit.wording import counted, listed, percent

ColumnKind = Literal["numeric", "categorical", "boolean", "datetime", "ignore"]

_LARGEST, _SMALLEST = 1e30, 1e-30
"""Within these, differences and products of a few numbers stay far from the ends of float32."""
_STEPS = 1000
"""So many different numbers at least must float64 have between the lowest and the highest."""
_SEVERAL_DATES = 10
"""So many different whole numbers are all days of a calendar by more than chance."""
_SPELLINGS = 3
"""Up to this many different texts among numbers may be names for a missing value."""
_PICTURE = re.compile(r"(?is).+\.(jpe?g|png|gif|bmp|tiff?|webp|avif|heic|dcm)")


@dataclass(frozen=True)
class Column:
    """A column with its kind, the reason for it, and what reading another file in the same way needs."""

    name: str
    kind: ColumnKind
    reason: str
    missing: int
    distinct: int
    """At most ``counted`` + 1."""
    counted: int = MAX_CATEGORIES
    style: NumberStyle | None = None
    date_format: str | None = None
    categories: tuple[str, ...] = ()
    offset: float = 0.0
    parts: tuple[tuple[str, float], ...] = ()
    """The numbers of a date that varied, each with its offset."""
    hint: str = ""
    """What the texts may have been meant as."""


def decide(evidence: Evidence) -> Column | Problem:
    """The kind of a column, or what is wrong with it."""
    found = _wanted(evidence, evidence.wanted) if evidence.wanted else _found(evidence)
    if isinstance(found, Problem):
        return found
    kind, reason, more = found
    column = Column(evidence.name, kind, reason, evidence.missing, evidence.distinct, evidence.limit)
    match kind:
        case "numeric":
            if problem := _no_numbers(evidence):
                return problem
            more = {"style": evidence.style, "offset": find_offset(evidence.low, evidence.high, exact=evidence.exact)}
        case "datetime" if evidence.odd_count:
            return _no_dates(evidence)
        case "datetime":
            varied = {part: ends for part, ends in evidence.parts.items() if ends[0] < ends[1]}
            parts = tuple((part, find_offset(*ends, exact=part != "time")) for part, ends in varied.items())
            more = {"date_format": evidence.date_format or "", "parts": parts}
        case "categorical" | "boolean":
            more |= {"categories": labels_of(map(str, evidence.values))}
    return Column(**{**vars(column), **more})


Found = tuple[ColumnKind, str, dict[str, Any]]


def _found(evidence: Evidence) -> Found | Problem:
    if evidence.other and evidence.present:
        return "ignore", f"cells of type {evidence.other}", {}
    if evidence.present == 0:
        return "ignore", "all cells are missing", {}
    if evidence.distinct == 1 and evidence.missing == 0:
        return "ignore", f"constant: {next(iter(evidence.values))}", {}
    if is_boolean_text(map(str, evidence.values)):
        values = set(map(str, evidence.values))
        return "boolean", "two values: " + " and ".join(labels_of(values)), {}
    if evidence.date_format == "":
        return "datetime", "dates in the file", {"date_format": ""}
    if evidence.ambiguous_dates:
        shown = " or ".join(evidence.ambiguous_dates)
        name, first = evidence.name, evidence.ambiguous_dates[0]
        message = f"the dates of {name!r} can be read as {shown}; say which, as columns: {{{name}: {first!r}}}"
        return Problem(message, key="dataset.columns")
    if evidence.date_format:
        return "datetime", f"dates as {evidence.date_format}", {"date_format": evidence.date_format}
    if evidence.numbers and (mostly := _mostly_numbers(evidence)) is not None:
        return mostly
    return _text(evidence)


def _mostly_numbers(evidence: Evidence) -> Found | Problem | None:
    share = evidence.numbers / evidence.present
    if share < 0.5:
        return None
    if evidence.odd_count:
        few = len(evidence.odd) <= _SPELLINGS and evidence.distinct > 20
        if share < 0.9 and not few:
            return None
        return _no_numbers(evidence)
    counts_rows = evidence.whole and evidence.all_different and evidence.distinct > 2
    if counts_rows and evidence.missing == 0 and evidence.may_count_rows:
        return "ignore", f"id-like: {evidence.present} different whole numbers, named {evidence.name!r}", {}
    if evidence.whole and evidence.is_text and any(re.fullmatch("0[0-9]+", value) for value in evidence.values):
        return "numeric", "whole numbers, some with leading zeros (codes are better categorical)", {}
    if evidence.is_text and evidence.distinct >= _SEVERAL_DATES and all(map(_is_day, evidence.values)):
        return "numeric", f"whole numbers, which seem to be dates: columns: {{{evidence.name}: '%Y%m%d'}}", {}
    return "numeric", "whole numbers" if evidence.whole else "numbers", {}


def _is_day(text: str) -> bool:
    """Whether it is a day written as 20241231."""
    return bool(re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", text))


def _text(evidence: Evidence) -> Found:
    if all(_PICTURE.fullmatch(str(value)) for value in evidence.values):
        return "ignore", "names of pictures; to learn from these, put them into a folder for each class", {}
    present, distinct = evidence.present, evidence.distinct
    kind: ColumnKind = "ignore"
    if (distinct > 20 and distinct == present) or (distinct > 50 and 2 * distinct > present):
        sampled = min(distinct, SAMPLE)
        what = "free text" if evidence.words > 2 * sampled else "id-like"
        reason = f"{what}: {_many(distinct)} different values in {counted(present, 'cell')}"
    elif distinct > MAX_CATEGORIES:
        reason = f"more than {MAX_CATEGORIES} different values"
    else:
        kind, reason = "categorical", "text"
    hint = evidence.looks_like
    if evidence.odd_count and 2 * evidence.numbers >= present:
        share = percent(evidence.numbers / present)
        hint = f"{share} of the cells are numbers, and others are not, such as {next(iter(evidence.odd))!r}"
        if _lacks_percent(evidence):
            hint = (
                f"{share} of the cells have a percent sign, and others have none, such as {next(iter(evidence.odd))!r}"
            )
    return kind, f"{reason}; {hint}" if hint else reason, {"hint": hint}


def _lacks_percent(evidence: Evidence) -> bool:
    """Whether the cells that are no numbers in percent are plain ones."""
    plain = [re.fullmatch(r"[-+]?[0-9]*[.,]?[0-9]+", cell) for cell in evidence.odd]
    return evidence.style is not None and evidence.style.percent and all(plain)


def _many(distinct: int) -> str:
    return f"more than {MAX_CATEGORIES}" if distinct > MAX_CATEGORIES else str(distinct)


def _wanted(evidence: Evidence, wanted: str) -> Found | Problem:
    key, name = f"dataset.columns.{evidence.name}", evidence.name
    match wanted:
        case "ignore":
            return "ignore", "as asked for", {}
        case _ if evidence.other:
            return Problem(f"the cells of {name!r} are of type {evidence.other}; set it to ignore", key=key)
        case "numeric" if evidence.present == 0:
            return Problem(f"all cells of {name!r} are missing; set it to ignore", key=key)
        case "numeric":
            return "numeric", "as asked for", {}
        case "categorical" if evidence.distinct > MAX_CATEGORIES:
            message = (
                f"{name!r} has more than {MAX_CATEGORIES} different values, too many for categories; set it to ignore"
            )
            return Problem(message, key=key)
        case "categorical":
            return "categorical", "as asked for", {}
        case "boolean" if evidence.distinct > 2 and not is_boolean_text(map(str, evidence.values)):
            many = _many(evidence.distinct)
            message = f"{name!r} has {many} different values, and boolean takes two; set it to categorical"
            return Problem(message, key=key)
        case "boolean":
            return "boolean", "as asked for", {}
        case "datetime" if evidence.date_format is None:
            example = next(iter(evidence.values), "")
            message = f"no known form of dates fits {name!r} ({str(example)!r}); give theirs, like '%d.%m.%Y %H:%M'"
            return Problem(message, key=key)
        case "datetime":
            return "datetime", "as asked for", {"date_format": evidence.date_format}
        case _:
            return "datetime", f"dates as {wanted}, as asked for", {"date_format": wanted}


def _no_numbers(evidence: Evidence) -> Problem | None:
    """What is wrong with a column of numbers: its first cells that are none; or a size that float32 does not hold."""
    if not evidence.odd_count:
        message = beyond_float32(evidence)
        hint = f"write them in another unit, or set dataset.columns to {{{evidence.name}: ignore}}"
        return Problem(f"column {evidence.name!r}: {message}; {hint}", key="dataset.path") if message else None
    shown = listed(list(evidence.odd), limit=5)
    name, share = evidence.name, percent(evidence.odd_count / evidence.present)
    infinite = all(cell.lower().strip("+-") in ("inf", "infinity") for cell in evidence.odd)
    hint = f"correct them, or {NAME_AS_MISSING}"
    if not infinite:
        hint += f"; or set dataset.columns to {{{name}: categorical}}, or to ignore"
    what = f"no {'finite ' * infinite}number"
    what += " in percent" * _lacks_percent(evidence)
    what = f"is {what}" if evidence.odd_count == 1 else f"are {what}s"
    cells = counted(evidence.odd_count, "cell")
    message = f"column {name!r}: {cells} of a column of numbers {what} ({share}): {shown}; {hint}"
    return Problem(message, key="dataset.path")


def beyond_float32(evidence: Evidence) -> str:
    """Whether numbers are larger, smaller or closer together than floating point can compute with; "" if not."""
    largest = max(abs(evidence.low), abs(evidence.high)) if evidence.numbers else 0.0
    if evidence.distinct > 1 and largest > 2**53 and evidence.high - evidence.low < _STEPS * math.ulp(largest):
        return f"its numbers, about {largest:.3g}, differ in digits that 64-bit floating point does not hold"
    if largest > _LARGEST:
        return f"its numbers reach {largest:.3g}, too large for 32-bit floating point"
    return (
        f"its numbers are {largest:.3g} or less, too small for 32-bit floating point" if 0 < largest < _SMALLEST else ""
    )


def _no_dates(evidence: Evidence) -> Problem:
    hint = f"correct them, or {NAME_AS_MISSING}; or set dataset.columns to {{{evidence.name}: ignore}}"
    message = (
        f"column {evidence.name!r}: {counted(evidence.odd_count, 'cell')} of a column of dates "
        f"({evidence.date_format}) are none: {listed(list(evidence.odd), limit=5)}; {hint}"
    )
    return Problem(message, key="dataset.path")


def find_offset(low: float, high: float, *, exact: bool) -> float:
    """What is taken off before numbers become float32: 0 where that keeps their digits.

    Unix times and UTM meters vary in digits that float32 does not hold; beside the middle of their range it does.

    Args:
        exact: whether float32 holds all numbers of the column exactly.
    """
    span, largest = high - low, max(abs(low), abs(high))
    if largest <= 4 * span or (exact and largest <= 1024 * span):
        return 0.0
    return low + span / 2

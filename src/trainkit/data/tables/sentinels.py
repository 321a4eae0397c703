"""Numbers that may be no measurements: -999 for a missing temperature, ids that count the rows, weights, days."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.tables.encoding import as_numbers
from trainkit.data.tables.evidence import Evidence
from trainkit.data.tables.reading import Block
from trainkit.wording import counted, listed

_NINES = re.compile(r"-?9{2,}(\.9+)?|-9")
_ROWS = 20
"""So many rows at least are counted by more than chance."""
_WEIGHT = re.compile(r"(?i)((sample|instance|case|row|survey|design)[_ .-]?)?weights?")
_DAY = re.compile(r"(?i)(.*[_ .-])?(date|datum|fecha|datetime|timestamp|time|day|tag)([_ .-].*)?")
_SERIAL = (20_000, 60_000)
"""Days from 1900 on, as spreadsheets count them: 1954 to 2064."""
_POWER = re.compile(r"-?\d(\.\d+)?[Ee]\+\d\d")
_SEVERAL = 10
"""Other values of a column, of which a number that is no row of nines is told apart."""


def describe_counters(evidence: Sequence[Evidence], blocks: Iterable[Block]) -> list[str]:
    """A line for each column that goes up by one from row to row: mostly an id, which says nothing of new rows."""
    counting = {one.name: one for one in evidence if one.whole and one.high - one.low + 1 == one.rows >= _ROWS}
    expected = {name: one.low for name, one in counting.items()}
    for block in blocks if counting else ():
        for name in list(expected):
            numbers = _numbers(block.frame[name], counting[name])
            steps = np.diff(numbers, prepend=expected[name] - 1)
            if len(numbers) < len(block.frame) or (steps != 1).any():
                del expected[name]
            else:
                expected[name] += len(numbers)
    return [
        f"{name} goes up by one from row to row ({counting[name].low:.12g}, {counting[name].low + 1:.12g} ...); "
        f"if it is an id, write columns: {{{name}: ignore}}"
        for name in expected
    ]


def describe_names(evidence: Sequence[Evidence], *, weighted: bool) -> list[str]:
    """A line for each column of numbers whose name and size say that they may mean something else.

    Args:
        weighted: whether the config names a column of weights.
    """
    lines = []
    for one in evidence:
        name = one.name
        # A column of the name weight may hold that of bodies and goods.
        if not weighted and _WEIGHT.fullmatch(name) and one.low >= 0 and (one.high <= 20 or len(name) > len("weights")):
            lines.append(f"{name} is a feature; if it says how much each row counts, write weight: {name!r}")
        if one.distinct > 1 and _DAY.fullmatch(name) and _SERIAL[0] <= one.low <= one.high <= _SERIAL[1]:
            lines.append(
                f"{name} is read as numbers ({one.low:.12g} to {one.high:.12g}), which may be days as spreadsheets "
                "count them; written as 2024-01-31, they give year, month, day and weekday"
            )
        if one.may_count_rows and one.is_text and (short := next(filter(_POWER.fullmatch, map(str, one.values)), None)):
            lines.append(
                f"{name} has cells such as {short}, which spreadsheets make of long numbers and of codes such as 1E5; "
                "their digits may be lost"
            )
    return lines


def describe_sentinels(evidence: Sequence[Evidence], blocks: Iterable[Block]) -> list[str]:
    """A line if the lowest or highest numbers of some columns may stand for missing values; else none.

    That is one that repeats and is farther from the others than these are from each other: rows of nines; or a negative
    number where no other is negative, as far as ten of the others are on average.
    """
    ends = {one.name: found for one in evidence if one.numbers and (found := _ends(one))}
    if not ends:
        return []
    counts = {name: dict.fromkeys(found, 0) for name, found in ends.items()}
    lows, highs = dict.fromkeys(ends, np.inf), dict.fromkeys(ends, -np.inf)
    of_name = {one.name: one for one in evidence}
    for block in blocks:
        for name, found in ends.items():
            numbers = _numbers(block.frame[name], of_name[name])
            for value in found:
                counts[name][value] += int((numbers == value).sum())
            if len(rest := numbers[~np.isin(numbers, list(found))]):
                lows[name], highs[name] = min(lows[name], rest.min()), max(highs[name], rest.max())
    shown, spellings = [], dict.fromkeys(["NA"])
    for name, found in ends.items():
        low, high = lows[name], highs[name]
        for value in sorted(found):
            count = counts[name][value]
            if _stands_apart(value, count, low, high, of_name[name].distinct - len(found)):
                shown.append(f"{value:g} in {name} ({counted(count, 'cell')}; all others from {low:g} to {high:g})")
                spellings |= dict.fromkeys(found[value])
    if not shown:
        return []
    written = f"missing_values: [{listed(list(spellings), limit=30)}], which holds for all columns"
    return [f"{listed(shown, limit=5, quoted=False)} may mean that the value is missing; if so, write {written}"]


def _ends(evidence: Evidence) -> Mapping[float, list[str]]:
    """The lowest and the highest number where they may mean missing, each with its spellings."""
    few = {value for value in (evidence.low, evidence.high) if _NINES.fullmatch(f"{value:.12g}")}
    if evidence.low < 0 and evidence.low.is_integer() and _has_one_negative(evidence.values):
        few.add(evidence.low)
    if not few or evidence.distinct < 3:
        return {}
    import polars as pl

    values = list(evidence.values)
    numbers = as_numbers(pl.Series(values, dtype=pl.String if evidence.is_text else None), _style(evidence)).to_list()
    spelled = {
        value: sorted(text for text, number in zip(values, numbers, strict=True) if number == value)
        for value in few
        if evidence.is_text
    }
    return {value: spelled.get(value) or [f"{value:.12g}"] for value in few}


def _has_one_negative(values: Iterable[Any]) -> bool:
    """Whether one number at most is negative, in two spellings perhaps. Tables may have thousands of columns."""
    negative = (one for one in values if (one.startswith(("-", "(", "\u2212")) if isinstance(one, str) else one < 0))
    return len(list(islice(negative, 3))) < 3


def _style(evidence: Evidence) -> dict[str, Any] | None:
    return None if evidence.style is None else evidence.style.to_json()


def _numbers(cells: Any, evidence: Evidence) -> NDArray[np.float64]:
    return as_numbers(cells, _style(evidence)).drop_nulls().to_numpy()


def _stands_apart(value: float, count: int, low: float, high: float, others: int) -> bool:
    if count < 2 or not low < high:
        return False
    gap, span = (low - value, high - low) if value < low else (value - high, 2 * (high - low))
    only_negative = value < 0 <= low
    if _NINES.fullmatch(f"{value:.12g}"):
        return gap >= span or (only_negative and value <= -99)
    return only_negative and gap * others >= _SEVERAL * span and count > 2 and others >= _SEVERAL

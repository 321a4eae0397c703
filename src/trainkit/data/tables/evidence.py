"""What the blocks of a table show of its columns: numbers, dates, texts, missing cells, different values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trainkit.data.tables.dates import DAY, date_parts, find_date_format
from trainkit.data.tables.numbers import CURRENCY, NumberStyle, find_number_style, parse_numbers

if TYPE_CHECKING:
    import polars as pl

MISSING_VALUES = (
    *("", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "Null", "None", "none", "?"),
    *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "NaT", "#DIV/0!", "#VALUE!", "#REF!"),
)
"""Cells that mean that there is no value: the spellings of pandas, and those of Excel and Weka."""
NAME_AS_MISSING = "name them in dataset.missing_values (with NA and the like, for the list replaces the usual one)"
MAX_CATEGORIES = 10_000
"""A column with more different values than this is not taken for categories."""
SAMPLE = 2_000
"""Different values of a column that its style of numbers or dates is found by."""
_INDEX_NAME = re.compile(
    r"(?i:unnamed: \d+(_level_\d+)?|__index_level_\d+__|index|id|key|uuid|guid|.+[_ .-]id|id[_ .-].+"
    r"|row_?(id|name|names|num|number)?)"
    r"|.*[a-z]I[dD]"
)
"""Names of columns that count rows: ``PassengerId``, ``customer_id``, the index that pandas writes."""
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_YEAR = re.compile(r"(?<!\d)(19|20)\d\d(?!\d)")
_MULTIPLES = ("k", "K", "m", "M", "b", "B", "mn", "bn", "Mio", "Mrd", "Tsd", "Cr", "L", "lakh")
_FEW_VALUES = 1_000
"""So many different values of a column of numbers are counted; a table may have thousands of them."""


@dataclass
class Evidence:
    """What the blocks of a table have shown of one column."""

    name: str
    wanted: str | None = None
    """What ``dataset.columns`` says of it: a kind, or the format of its dates."""
    rows: int = 0
    missing: int = 0
    values: set[Any] = field(default_factory=set)
    """Different values, until there are more than ``limit``."""
    is_text: bool = False
    other: str = ""
    """The type of cells that are no single values: lists, structures, bytes."""
    style: NumberStyle | None = None
    date_format: str | None = None
    """None where they are no dates; "" where the file has them as dates."""
    ambiguous_dates: tuple[str, ...] = ()
    numbers: int = 0
    """Cells that are finite numbers."""
    odd: dict[str, int] = field(default_factory=dict)
    """The first different cells that are neither numbers nor missing, with the row of each."""
    odd_count: int = 0
    low: float = math.inf
    high: float = -math.inf
    whole: bool = True
    """Whether all numbers are whole."""
    exact: bool = True
    """Whether 32-bit floating point holds all numbers exactly."""
    looks_like: str = ""
    """What all texts nearly are: dates in several forms, numbers with a unit."""
    words: int = 0
    """Blanks in the texts that were looked at."""
    all_different: bool = True
    """Whether no value of a block came twice in it; looked at where ``may_count_rows``."""
    limit: int = MAX_CATEGORIES
    """Different values that are counted."""
    decimal: str | None = None
    """The decimal mark of the file, where it is known."""
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)
    """The lowest and the highest of each number of a date."""
    last_time: float | None = None
    """Of the rows so far; NaN where the last one has none."""
    rising: bool = True
    """Whether no time of a row is before that of the row above; ``falling``: after it."""
    falling: bool = True

    @property
    def may_count_rows(self) -> bool:
        """Whether its name is that of an index or an id."""
        return bool(_INDEX_NAME.fullmatch(self.name))

    @property
    def present(self) -> int:
        return self.rows - self.missing

    @property
    def distinct(self) -> int:
        return len(self.values)


def as_cells(frame: pl.DataFrame, missing_values: Sequence[str]) -> pl.DataFrame:
    """The frame with null for every missing cell: those spellings of text, NaN of floats.

    Decimals become float64, durations seconds, categories and enumerations text. A spelling that is a number is missing
    where the file holds numbers, too.
    """
    import polars as pl
    from polars import selectors

    spelled = list(missing_values)
    numbers = [float(text) for text in spelled if _NUMBER.fullmatch(text)]
    if numbers:
        numeric = selectors.numeric()
        frame = frame.with_columns(pl.when(~numeric.cast(pl.Float64).is_in(numbers)).then(numeric).name.keep())
    frame = frame.with_columns(selectors.by_dtype(pl.Categorical, pl.Enum).cast(pl.String))
    return frame.with_columns(
        pl.when(selectors.string().is_in(spelled)).then(None).otherwise(selectors.string()).name.keep(),
        selectors.float().fill_nan(None),
        selectors.decimal().cast(pl.Float64),
        selectors.duration().dt.total_microseconds() / 1e6,
        selectors.date().cast(pl.Datetime("us")),
    )


def add_evidence(evidence: Evidence, cells: pl.Series, first_row: int) -> None:
    """Look at a block of a column, after ``as_cells``."""
    import polars as pl

    evidence.rows += len(cells)
    evidence.missing += cells.null_count()
    present = cells.drop_nulls() if cells.null_count() else cells
    if len(present) == 0:
        return
    if cells.dtype.is_temporal():
        evidence.date_format = ""
        _add_dates(evidence, date_parts(cells, ""))
    elif cells.dtype.is_numeric():
        _add_numbers(evidence, cells, cells.cast(pl.Float64), first_row)
    elif cells.dtype == pl.String:
        _add_text(evidence, cells, present, first_row)
    elif cells.dtype != pl.Boolean:  # lists, structures, bytes
        evidence.other = str(cells.dtype)
        return
    _add_values(evidence, present)


def _add_values(evidence: Evidence, present: pl.Series) -> None:
    """Count different values as far as a decision depends on them: of numbers, not all."""
    if evidence.numbers and evidence.wanted is None:
        evidence.limit = min(evidence.limit, _FEW_VALUES)
    if evidence.all_different and evidence.may_count_rows:
        evidence.all_different = present.n_unique() == len(present)
    for part in (present.head(4 * evidence.limit), present.slice(4 * evidence.limit)):
        if evidence.distinct <= evidence.limit and len(part):
            evidence.values.update(part.unique().head(evidence.limit + 1).to_list())


def _add_text(evidence: Evidence, cells: pl.Series, present: pl.Series, first_row: int) -> None:
    if not evidence.is_text:  # the first block with values
        evidence.is_text = True
        few = present.head(20 * SAMPLE)
        _find_form(evidence, few.unique(maintain_order=True).head(SAMPLE))
    if evidence.style is not None:
        _add_numbers(evidence, cells, parse_numbers(cells, evidence.style)[0], first_row)
    elif evidence.date_format:
        parts = date_parts(cells, evidence.date_format)
        _add_odd(evidence, cells, parts["time"].is_null() & cells.is_not_null(), first_row)
        _add_dates(evidence, parts)


def _add_dates(evidence: Evidence, parts: Mapping[str, pl.Series]) -> None:
    times = parts["time"].to_numpy()
    steps = np.diff(times, prepend=times[0] if evidence.last_time is None else evidence.last_time)
    evidence.rising, evidence.falling = (
        evidence.rising and bool((steps >= 0).all()),
        evidence.falling and bool((steps <= 0).all()),
    )
    evidence.last_time = float(times[-1])
    for name, numbers in parts.items():
        if numbers.null_count() < len(numbers):
            low, high = evidence.parts.get(name, (math.inf, -math.inf))
            evidence.parts[name] = min(low, float(numbers.min())), max(high, float(numbers.max()))  # type: ignore[arg-type]


def _find_form(evidence: Evidence, sample: pl.Series) -> None:
    wanted = evidence.wanted
    if wanted is None or wanted == "numeric":
        evidence.style = find_number_style(sample, decimal=evidence.decimal)  # type: ignore[arg-type]
        if wanted == "numeric":
            evidence.style = evidence.style or NumberStyle()
        elif evidence.style is not None and evidence.style.share < 0.5:
            evidence.style = None
    if evidence.style is None or evidence.style.share < 1:
        evidence.words = int(sample.str.count_matches(r"\s\S").sum())
    if wanted is not None and "%" in wanted:
        evidence.date_format = wanted
    elif wanted == "datetime" or (wanted is None and evidence.style is None):
        evidence.date_format, evidence.ambiguous_dates = find_date_format(sample)
        if wanted is None and evidence.date_format is None and not evidence.ambiguous_dates:
            evidence.looks_like = _look_like(sample)


def _look_like(sample: pl.Series) -> str:
    """Why texts are neither numbers nor dates, where they nearly are."""
    if all(DAY.match(text) and _YEAR.search(text) for text in sample.to_list()):
        return "dates in several forms; write them in one"
    if sample.str.contains(r"^-?[0-9]+:[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)?$").all():
        return "durations; write them as numbers, such as seconds"
    if sample.str.contains(r"^[-+]?[\p{Nd}.,٫．，]+$").all() and sample.str.contains(r"[^\x00-\x7f]").all():
        return "numbers in other digits than 0 to 9; write them in these"
    if sample.str.contains(r"^([0-9]{4}[ -]?Q[1-4]|Q[1-4][ /-]?[0-9]{4})$").all():
        return "quarters; write them as months, such as 2024-04 for 2024Q2"
    units = sample.str.extract(r"^[-+]?[0-9][0-9.,]*\s?([^\W\d_]{1,5}|°[CF]?)$")
    if len(sample) > 1 and not units.null_count() and units.n_unique() == 1:
        return f"numbers with the unit {units[0]}; write them without it"
    if not units.null_count() and units.is_in(_MULTIPLES).all():
        return f"numbers in multiples ({', '.join(sorted(units.unique()))}); write them out"
    signs = sample.str.extract(f"({CURRENCY})")
    if not signs.null_count() and signs.n_unique() > 1 and _all_numbers(sample.str.replace(CURRENCY, "")):
        return f"numbers in several currencies ({', '.join(sorted(signs.unique()))}); write them in one"
    return ""


def _all_numbers(texts: pl.Series) -> bool:
    style = find_number_style(texts.str.strip_chars())
    return style is not None and style.share == 1


def _add_numbers(evidence: Evidence, cells: pl.Series, numbers: pl.Series, first_row: int) -> None:
    import polars as pl

    # In NumPy: of wide tables a call of Polars costs more than the cells.
    values = numbers.to_numpy()  # null becomes NaN
    good = np.isfinite(values)
    finite = values[good]
    if len(finite) < len(cells) - cells.null_count():
        _add_odd(evidence, cells, pl.Series(~good) & cells.is_not_null(), first_row)
    if len(finite) == 0:
        return
    evidence.numbers += len(finite)
    evidence.low = min(evidence.low, float(finite.min()))
    evidence.high = max(evidence.high, float(finite.max()))
    evidence.whole = evidence.whole and bool((finite == np.floor(finite)).all())
    with np.errstate(over="ignore"):
        evidence.exact = evidence.exact and bool((finite.astype(np.float32) == finite).all())


def _add_odd(evidence: Evidence, cells: pl.Series, bad: pl.Series, first_row: int) -> None:
    count = int(bad.sum())
    evidence.odd_count += count
    if count and len(evidence.odd) < 10:
        for row in bad.arg_true().head(1000):
            if len(evidence.odd) >= 10:
                break
            evidence.odd.setdefault(str(cells[row]), first_row + int(row))

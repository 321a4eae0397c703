"""The columns of a table as numbers: how, as plain JSON, and doing it, for training, scoring and predicting alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.tables.columns import Column
from trainkit.data.tables.dates import date_parts
from trainkit.data.tables.evidence import MISSING_VALUES
from trainkit.data.tables.labels import label_key, label_style
from trainkit.data.tables.numbers import NumberStyle, parse_numbers
from trainkit.wording import counted, listed

if TYPE_CHECKING:
    import polars as pl

Encoding = dict[str, Any]
"""``{"columns": [{"name", "kind", ...}], "inputs": [{"name", "column", "offset"} or {..., "categories", "own"}], ...}``

``columns`` says how the cells of a file are read. ``inputs`` are the columns of the stored array (N, C), numeric ones
first: float32(value - offset), NaN for a missing value; then codes of categories, K for a missing or unknown one.
"""


_SEVERAL, _MANY = 10, 1 << 60
"""So many dates are all at midnight by more than chance; more dates than there are in a file."""


@dataclass
class Filled:
    """Cells without a value that the model knows, by column; they are filled in, or refused."""

    missing: Counter[str] = field(default_factory=Counter)
    unseen: dict[str, Counter[str]] = field(default_factory=dict)
    """Values that training did not have, and texts in columns of numbers."""
    days: Counter[str] = field(default_factory=Counter)
    """Dates without a time of day, where those of the training had one; below 0 where others here have one too."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Row and message, where the config refuses such cells."""

    def add(self, other: Filled) -> None:
        """Add what another one has counted."""
        self.missing += other.missing
        for name, counts in other.unseen.items():
            self.unseen.setdefault(name, Counter()).update(counts)
        self.days.update(other.days)
        self.refused += other.refused

    def describe(self) -> list[str]:
        """A line about missing cells, and one for each column with values that the training did not have."""
        lines = []
        if self.missing:
            cells = [f"{name} {count}" for name, count in self.missing.most_common()]
            lines.append("missing cells are filled in: " + listed(cells, quoted=False))
        for name, counts in self.unseen.items():
            number = counted(counts.total(), "cell")
            shown = listed(list(counts), limit=5)
            lines.append(f"column {name!r}: {number} with values that the training did not have: {shown}")
        lines += [
            f"column {name!r}: all dates are without a time of day, and those of the training had one"
            for name, count in self.days.items()
            if count >= _SEVERAL
        ]
        return lines


def make_encoding(columns: Iterable[Column], *, missing: str, unseen: str, missing_values: Sequence[str]) -> Encoding:
    """The encoding of the columns that are not ignored."""
    used = [column for column in columns if column.kind != "ignore"]
    numeric: list[dict[str, Any]] = []
    categorical: list[dict[str, Any]] = []
    for column in used:
        about = {"name": column.name, "column": column.name}
        match column.kind:
            case "numeric" | "boolean":
                numeric.append({**about, "offset": column.offset})
            case "datetime":
                numeric += [
                    {"name": f"{column.name}.{part}", "column": column.name, "part": part, "offset": offset}
                    for part, offset in column.parts
                ]
            case "categorical":
                own = column.missing > 0
                categorical.append({**about, "categories": len(column.categories), "own": own})
    return {
        "columns": [_describe(column) for column in used],
        "inputs": numeric + categorical,
        "missing": missing,
        "unseen": unseen,
        "missing_values": list(missing_values),
    }


def _describe(column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {"name": column.name, "kind": column.kind}
    match column.kind:
        case "numeric":
            described["style"] = None if column.style is None else column.style.to_json()
        case "datetime":
            described["format"] = column.date_format
        case _:
            described["categories"] = list(column.categories)
    return described


def table_encoding(preprocessing: Mapping[str, Any]) -> Encoding:
    """The encoding in the preprocessing of a checkpoint.

    Data sets without files have only names for their inputs: numbers, none of them missing.
    """
    if (encoding := preprocessing["table_encoding"]) is not None:
        return dict(encoding)
    names = preprocessing["feature_names"]
    return {
        "columns": [{"name": name, "kind": "numeric", "style": None} for name in names],
        "inputs": [{"name": name, "column": name, "offset": 0.0} for name in names],
        "missing": "refuse",
        "unseen": "refuse",
        "missing_values": list(MISSING_VALUES),
    }


def input_names(encoding: Encoding) -> tuple[str, ...]:
    """The names of the columns of the stored array."""
    return tuple(one["name"] for one in encoding["inputs"])


def encode_inputs(cells: pl.DataFrame, encoding: Encoding, filled: Filled) -> NDArray[np.float32]:
    """Rows of the stored array, float32 (n, C), from cells as ``as_cells`` gives them.

    Args:
        filled: gets what was filled in, or refused.
    """
    inputs = encoding["inputs"]
    array = np.empty((len(cells), len(inputs)), dtype=np.float32)
    places = {(one["column"], one.get("part")): place for place, one in enumerate(inputs)}
    series_of = {series.name: series for series in cells}
    for column in encoding["columns"]:
        name = column["name"]
        values = _values(series_of[name], column)
        _account(series_of[name], next(iter(values.values())), column, encoding, filled)
        if column["kind"] == "datetime":
            count, timed = values["hour"].count(), int((values["hour"] != 0).sum())
            if (name, "hour") in places:
                filled.days[name] += -_MANY if timed else count
            elif values["hour"].drop_nulls().n_unique() > 1:  # of one hour alone the training may have been, too
                filled.unseen.setdefault(name, Counter())["times of day"] += timed
        for part, series in values.items():
            if (place := places.get((name, part))) is None:
                continue
            if column["kind"] == "categorical":
                array[:, place] = series.fill_null(len(column["categories"])).to_numpy()
            else:
                numbers = series.to_numpy()  # null becomes NaN
                array[:, place] = numbers - inputs[place]["offset"] if inputs[place]["offset"] else numbers
    return array


def _values(cells: pl.Series, column: dict[str, Any]) -> dict[str | None, pl.Series]:
    """The numbers of a column, float64, or its codes; null where there is no value that the model knows."""
    import polars as pl

    match column["kind"]:
        case "numeric":
            numbers = as_numbers(cells, column["style"])
            # What float32 does not hold is missing too, as infinity is.
            low, high = numbers.min(), numbers.max()
            if low is not None and not -3.4e38 < low <= high < 3.4e38:  # type: ignore[operator]
                numbers = pl.select(pl.when(numbers.abs() < 3.4e38).then(numbers)).to_series()
            return {None: numbers}
        case "datetime":
            parts = date_parts(cells, column["format"])
            return {part: parts[part] for part in parts}
        case "boolean":
            return {None: label_codes(cells, column["categories"]).cast(pl.Float64)}
        case _:
            return {None: label_codes(cells, column["categories"])}


def as_numbers(cells: pl.Series, style: dict[str, Any] | None) -> pl.Series:
    """Float64, null where a cell is missing or no number."""
    import polars as pl

    if cells.dtype == pl.String:
        return parse_numbers(cells, NumberStyle() if style is None else NumberStyle.from_json(style))[0]
    return cells.cast(pl.Float64, strict=False)


def label_codes(cells: pl.Series, labels: Sequence[str]) -> pl.Series:
    """The position of each cell's label, in any of its spellings; null where it is missing or none of the labels."""
    import polars as pl

    texts = as_texts(cells)
    codes = texts.cast(pl.Enum(list(labels)), strict=False).to_physical().cast(pl.Int64)
    style = label_style(labels)
    code_of = {label_key(label, style): code for code, label in enumerate(labels)}
    others = texts.filter(codes.is_null() & texts.is_not_null()).unique().to_list()
    known = {text: code for text in others if (code := code_of.get(label_key(text, style))) is not None}
    if not known:
        return codes
    more = texts.replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.Int64)
    return codes.fill_null(more)


def as_texts(cells: pl.Series) -> pl.Series:
    """Cells as Python writes them, which is how the labels were made: ``True``, ``2.0``."""
    import polars as pl

    if cells.dtype == pl.String:
        return cells
    if cells.dtype == pl.Boolean:
        return cells.replace_strict([True, False], ["True", "False"], default=None, return_dtype=pl.String)
    if cells.dtype.is_integer():
        return cells.cast(pl.String)
    texts = {value: str(value) for value in cells.drop_nulls().unique().to_list()}
    return cells.replace_strict(list(texts), list(texts.values()), default=None, return_dtype=pl.String)


def _account(cells: pl.Series, values: pl.Series, column: dict[str, Any], encoding: Encoding, filled: Filled) -> None:
    """Count the cells of a column that the model has no value for, or refuse them."""
    import polars as pl

    if not values.null_count():
        return
    name = column["name"]
    missing, unseen = cells.is_null(), values.is_null() & cells.is_not_null()
    if encoding["missing"] == "refuse":
        message = f"column {name!r}: the cell is missing; fill it in, or set dataset.missing to impute"
        filled.refused += [(int(row), message) for row in missing.arg_true()]
    elif count := int(missing.sum()):
        filled.missing[name] += count
    if not unseen.any():
        return
    known = listed(column["categories"]) if "categories" in column else "numbers"
    if style := column.get("style"):
        known += f" ({NumberStyle.from_json(style).describe() or 'decimal point'})"
    if column["kind"] == "datetime":
        known = f"dates as {column['format'] or '%Y-%m-%d %H:%M:%S'}"
    refused, why = unseen, f"is new; the training had {known}"
    if encoding["unseen"] != "refuse":  # a word may stand for a missing value, a number in another form may not
        written = column["kind"] in ("numeric", "datetime") and cells.dtype == pl.String
        refused = unseen & (cells.str.contains("[0-9]") if written else False)
        why = f"is not written as in the training, which had {known}; write it so"
    filled.refused += [(int(row), f"column {name!r}: {str(cells[row])!r} {why}") for row in refused.arg_true()]
    unseen = unseen & ~refused
    if not unseen.any():
        return
    found = filled.unseen.setdefault(name, Counter())
    for value, count in cells.filter(unseen).value_counts().iter_rows():
        found[str(value)] += count


def encode_rows(rows: NDArray[Any], encoding: Encoding) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Raw numbers (n, C), one column for each input, as exported programs take them: to rows of the stored array.

    NaN is a missing value, and codes stand for categories. Returns the reason by row where one cannot be used.
    """
    inputs = encoding["inputs"]
    values = np.array(rows, dtype=np.float64)
    values -= [one.get("offset", 0.0) for one in inputs]
    for place, one in enumerate(inputs):
        if "categories" in one:
            codes = values[:, place]
            known = (codes >= 0) & (codes < one["categories"]) & (codes == np.floor(codes))
            values[:, place] = np.where(known, codes, one["categories"])
    with np.errstate(over="ignore"):
        stored = values.astype(np.float32)
    wrong = ~np.isfinite(stored) if encoding["missing"] == "refuse" else np.isinf(stored)
    return stored, dict.fromkeys(map(int, np.flatnonzero(wrong.any(axis=1))), "holds NaN or infinity")


def raw_rows(stored: NDArray[np.float32], encoding: Encoding) -> NDArray[Any]:
    """Rows of the stored array as exported programs take them: float64 where an offset was taken off, else as it is."""
    offsets = [one.get("offset", 0.0) for one in encoding["inputs"]]
    return stored + np.array(offsets) if any(offsets) else stored

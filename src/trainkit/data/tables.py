"""CSV files: columns by name, numbers and categories, every bad cell named by file and row."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Dataset, Part, Task
from trainkit.data.fingerprints import fingerprint_dataset
from trainkit.data.splits import split_part, whole_part
from trainkit.errors import DataError, Problem, ProblemsError

MAX_SHOWN = 10
MAX_CATEGORIES = 1000
"""A categorical column with more values than this is taken for a mistake (an id, a date, a free text)."""


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file as text, by column; blanks around a cell are removed."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]
    """The line of the file on which each row ends (1-based): what an editor shows."""

    def __len__(self) -> int:
        return len(self.lines)


def load_csv(
    path: str | Path,
    *,
    target: str,
    test_path: str | Path | None = None,
    features: Sequence[str] | None = None,
    categorical: Sequence[str] = (),
    task: Literal["auto", "classification", "regression"] = "auto",
    delimiter: str = ",",
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Dataset:
    """A table of float32 features: numeric columns as they are, categories one-hot as ``column=value``.

    Classes are the texts of the target column; their order is by number where all are numbers, else alphabetical.
    With ``test_path`` there are two parts, ``"train"`` and ``"test"``, else one, ``"all"``, split by fraction.
    Categories and classes come from ``path`` alone: a value that only the test file has is an error.

    Raises:
        ProblemsError: A column that is not there or is named twice; a file that is missing.
        DataError: Cells that cannot be used, each with its file, row and column.
    """
    table = read_table(Path(path).expanduser(), delimiter=delimiter, key="dataset.path")
    feature_columns = _choose_columns(table, target, features, categorical)
    decided = _decide_task(table, target) if task == "auto" else task
    encoding: dict[str, Any] = {
        "columns": [_describe_column(table, column, column in categorical) for column in feature_columns],
        "target": target,
    }
    classes = _class_names(table, target) if decided == "classification" else ()
    train = _encode_part(table, encoding, classes)
    notes = [f"{target} is taken for {decided}: {_reason(table, target, decided)}"] if task == "auto" else []
    if test_path is None:
        parts = {"all": train}
        fractions = {"test": test_fraction, "val": val_fraction}
        splits = split_part(train, "all", task=decided, fractions=fractions, seed=seed, class_names=classes)
    else:
        test_table = read_table(Path(test_path).expanduser(), delimiter=delimiter, key="dataset.test_path")
        _check_columns(test_table, [*feature_columns, target], "dataset.test_path")
        parts = {"train": train, "test": _encode_part(test_table, encoding, classes)}
        fractions = {"val": val_fraction}
        splits = split_part(train, "train", task=decided, fractions=fractions, seed=seed, class_names=classes)
        splits["test"] = whole_part(parts["test"], "test")
    return Dataset(
        name=Path(path).stem,
        kind="table",
        task=decided,
        parts=parts,
        splits=splits,
        class_names=classes,
        feature_names=tuple(encoded_names(encoding)),
        target_names=(target,) if decided == "regression" else (),
        fingerprint=fingerprint_dataset(f"csv {Path(path).name}", parts, splits, class_names=classes),
        notes=tuple(notes),
        table_encoding=encoding,
    )


def read_table(path: Path, *, delimiter: str, key: str = "dataset.path") -> Table:
    """Read a CSV file (UTF-8, a BOM is fine, RFC 4180 quotes) with a header line; empty lines are skipped.

    Raises:
        ProblemsError: No such file.
        DataError: Not UTF-8, no header or no rows, a column twice, rows with too few or too many cells.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ProblemsError([Problem(f"{path} {what}; give the path of a CSV file with a header line", key=key)])
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not a CSV file ({error})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    _check_header(path, header, delimiter)
    ragged = [i for i, row in enumerate(rows) if len(row) != len(header)]
    if ragged:
        raise _bad_rows([f"{path}:{lines[i]}: {len(rows[i])} cells, but the header has {len(header)}" for i in ragged])
    if not rows:
        raise DataError(f"{path} has a header but no rows")
    cells = [[cell.strip() for cell in column] for column in zip(*rows, strict=True)]
    return Table(path, dict(zip(header, cells, strict=True)), lines)


def _check_header(path: Path, header: list[str], delimiter: str) -> None:
    if not header:
        raise DataError(f"{path} is empty; expected a header line and rows")
    for column, name in enumerate(header):
        if not name:
            raise DataError(f"{path}:1: column {column + 1} has no name")
        if name in header[:column]:
            first = header.index(name) + 1
            raise DataError(f"{path}:1: the column {name!r} is there twice (columns {first} and {column + 1})")
    other = next((sign for sign in (";", "\t", ",", "|") if sign != delimiter and sign in header[0]), None)
    if len(header) == 1 and other:
        raise ProblemsError(
            [Problem(f"{path} has one column, {header[0]!r}; is it separated by {other!r}?", key="dataset.delimiter")]
        )


def _bad_rows(messages: Sequence[str]) -> DataError:
    shown = list(messages[:MAX_SHOWN])
    if len(messages) > MAX_SHOWN:
        shown.append(f"and {len(messages) - MAX_SHOWN} more")
    return DataError("\n".join(shown))


def _choose_columns(table: Table, target: str, features: Sequence[str] | None, categorical: Sequence[str]) -> list[str]:
    _check_columns(table, [target], "dataset.target")
    if features is not None:
        _check_columns(table, features, "dataset.features")
    chosen = list(features) if features is not None else [name for name in table.columns if name != target]
    problems = [
        Problem(f"the column {name!r} is named twice; name it once", key="dataset.features")
        for name in dict.fromkeys(name for name in chosen if chosen.count(name) > 1)
    ]
    if target in chosen:
        problems.append(Problem(f"{target!r} is the target; take it out of the features", key="dataset.features"))
    if not chosen:
        problems.append(Problem(f"{table.path} has no column but the target {target!r}", key="dataset.path"))
    _check_columns(table, categorical, "dataset.categorical")
    problems += [
        Problem(f"{name!r} is not one of the features; add it there or take it out here", key="dataset.categorical")
        for name in categorical
        if name not in chosen
    ]
    if problems:
        raise ProblemsError(problems)
    return chosen


def _check_columns(table: Table, names: Sequence[str], key: str) -> None:
    problems = []
    for name in names:
        if name in table.columns:
            continue
        close = difflib.get_close_matches(name, table.columns, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "the columns are " + _listed(list(table.columns))
        problems.append(Problem(f"{table.path} has no column {name!r}; {hint}", key=key))
    if problems:
        raise ProblemsError(problems)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MAX_SHOWN])
    return shown if len(names) <= MAX_SHOWN else f"{shown} and {len(names) - MAX_SHOWN} more"


def _as_number(cell: str) -> float | None:
    """A finite number, or None. Python's ``1_000`` is not one: no other program writes that."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def _decide_task(table: Table, target: str) -> Task:
    """Regression where every target is a number and some have a fraction; else classification."""
    values = [_as_number(cell) for cell in table.columns[target]]
    fractional = any(value is not None and value != int(value) for value in values)
    # One text among numbers is a bad cell, not a class name, so a mostly fractional column stays regression.
    return (
        "regression" if fractional and sum(value is None for value in values) <= len(values) // 2 else "classification"
    )


def _reason(table: Table, target: str, task: Task) -> str:
    if task == "regression":
        return "it holds numbers with fractions"
    return f"it holds {len(set(table.columns[target]))} different values, and no numbers with fractions"


def _class_names(table: Table, target: str) -> tuple[str, ...]:
    names = {cell for cell in table.columns[target] if cell}
    numbers = {name: _as_number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        ordered = sorted(names, key=lambda name: (numbers[name], name))
        fractional = [name for name in ordered if numbers[name] != int(numbers[name] or 0)]
        if fractional:
            lines = [table.lines[i] for i, cell in enumerate(table.columns[target]) if cell in set(fractional)]
            raise DataError(
                f"{table.path}:{lines[0]}: the label {table.columns[target][table.lines.index(lines[0])]!r} in column "
                f"{target!r} has a fraction ({len(lines)} such rows); labels are names or whole numbers, or the task "
                "is regression"
            )
    else:
        ordered = sorted(names)
    if len(ordered) < 2:
        raise DataError(f"{table.path}: the target {target!r} has {len(ordered)} class; at least 2 are needed")
    if len(ordered) > MAX_CATEGORIES:
        raise DataError(
            f"{table.path}: the target {target!r} has {len(ordered)} different values in {len(table)} rows, too many "
            "for classes; set dataset.task to regression, or choose another target"
        )
    return tuple(ordered)


def _describe_column(table: Table, column: str, is_categorical: bool) -> dict[str, Any]:
    """``{"name", "kind": "numeric"}`` or ``{"name", "kind": "categorical", "categories": [...]}``."""
    if not is_categorical:
        return {"name": column, "kind": "numeric"}
    categories = sorted({cell for cell in table.columns[column] if cell})
    if len(categories) > MAX_CATEGORIES:
        raise DataError(
            f"{table.path}: the categorical column {column!r} has {len(categories)} different values, more than "
            f"{MAX_CATEGORIES}; leave it out of the features"
        )
    return {"name": column, "kind": "categorical", "categories": categories}


def encoded_names(encoding: dict[str, Any]) -> list[str]:
    """The names of the features that ``encode_features`` makes, in order."""
    names = []
    for column in encoding["columns"]:
        if column["kind"] == "numeric":
            names.append(column["name"])
        else:
            names.extend(f"{column['name']}={category}" for category in column["categories"])
    return names


def encode_features(table: Table, encoding: dict[str, Any]) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    """Features float32 (N, F), and what is wrong with them: (row index, message) for each bad cell."""
    inputs = np.zeros((len(table), len(encoded_names(encoding))), dtype=np.float32)
    problems: list[tuple[int, str]] = []
    start = 0
    for column in encoding["columns"]:
        cells = table.columns[column["name"]]
        if column["kind"] == "numeric":
            inputs[:, start], bad = _parse_numbers(cells)
            problems += [(row, f"column {column['name']!r}: {_bad_number(cells[row])}") for row in bad]
            start += 1
            continue
        positions = {category: position for position, category in enumerate(column["categories"])}
        for row, cell in enumerate(cells):
            position = positions.get(cell)
            if position is None:
                problems.append((row, f"column {column['name']!r}: {_bad_category(cell, column['categories'])}"))
            else:
                inputs[row, start + position] = 1.0
        start += len(positions)
    return inputs, problems


def _parse_numbers(cells: Sequence[str]) -> tuple[NDArray[np.float32], list[int]]:
    try:
        values = np.array(list(map(float, cells)), dtype=np.float64)
    except ValueError:
        values = np.array([math.nan if (v := _as_number(cell)) is None else v for cell in cells], dtype=np.float64)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(narrow))
    return narrow, [int(row) for row in bad]


def _bad_number(cell: str) -> str:
    if not cell:
        return "the cell is empty; fill it in or drop the row"
    if _as_number(cell) is not None:
        return f"{cell} does not fit into 32-bit floating point"
    if cell.lower().strip("+-") in ("nan", "inf", "infinity"):
        return f"{cell} is not a finite number; fill it in or drop the row"
    return f"{cell!r} is not a number; if the column holds categories, name it in dataset.categorical"


def _bad_category(cell: str, categories: Sequence[str]) -> str:
    if not cell:
        return "the cell is empty; fill it in or drop the row"
    return f"{cell!r} is not one of the training table's values ({_listed(categories)})"


def _encode_part(table: Table, encoding: dict[str, Any], classes: Sequence[str]) -> Part:
    """Raises DataError naming every bad cell (the first ten and the count), in the order of the file."""
    inputs, problems = encode_features(table, encoding)
    cells = table.columns[encoding["target"]]
    if classes:
        labels = {name: label for label, name in enumerate(classes)}
        targets: NDArray[Any] = np.array([labels.get(cell, -1) for cell in cells], dtype=np.int64)
        bad = [(int(row), _bad_label(cells[row], classes)) for row in np.flatnonzero(targets < 0)]
    else:
        values, rows = _parse_numbers(cells)
        targets = values[:, None]
        bad = [(row, _bad_number(cells[row]).partition("; if the column")[0]) for row in rows]
    problems += [(row, f"column {encoding['target']!r}: {message}") for row, message in bad]
    if problems:
        problems.sort(key=lambda problem: problem[0])
        raise _bad_rows([f"{table.path}:{table.lines[row]}: {message}" for row, message in problems])
    return Part(inputs, targets)


def _bad_label(cell: str, classes: Sequence[str]) -> str:
    if not cell:
        return "the label is blank; fill it in or drop the row"
    return f"the label {cell!r} is not one of the training table's ({_listed(classes)})"

"""CSV tables as data sets: columns by name, numbers and categories, every bad cell named by file and row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Dataset, Part, Task, fingerprint_dataset
from trainkit.data.sources.csv_reader import Table, as_number, bad_rows, parse_numbers, read_table
from trainkit.data.splits import split_part, whole_part
from trainkit.errors import DataError, Problem, ProblemsError
from trainkit.wording import closest, listed

MAX_CATEGORIES = 1000
"""A column with more different values than this is no category and no class: an id, a date, a free text."""
_MANY_NUMBERS = 50
Encoding = dict[str, Any]
"""``{"columns": [{"name", "kind": "numeric"} | {"name", "kind": "categorical", "categories": [...]}], "target"}``"""
BadCell = tuple[int, str]
"""Row index and message."""


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
        ProblemsError: A column that is not there; a file that is missing; an ambiguous task.
        ValueError: A feature is the target or named twice, or a category is no feature.
        DataError: Cells that cannot be used, each with its file, row and column.
    """
    path = Path(path).expanduser()
    columns: list[str] = []

    def choose(path: Path, header: Sequence[str]) -> tuple[list[str], list[str]]:
        columns[:] = _choose_columns(path, header, target, features, categorical)
        return [name for name in columns if name not in categorical], [*categorical, target]

    table = read_table(path, choose, delimiter=delimiter)
    decided = _decide_task(table, target) if task == "auto" else task
    encoding: Encoding = {
        "columns": [_describe_column(table, name, name in categorical) for name in columns],
        "target": target,
    }
    classes = _class_names(table, target) if decided == "classification" else ()
    parts = {"train" if test_path else "all": encode_labeled(table, encoding, classes)}
    fractions = {"val": val_fraction} if test_path else {"test": test_fraction, "val": val_fraction}
    [(name, train)] = parts.items()
    splits = split_part(train, name, task=decided, fractions=fractions, seed=seed, class_names=classes)
    if test_path:
        table = read_labeled(Path(test_path).expanduser(), encoding, delimiter=delimiter)
        parts["test"] = encode_labeled(table, encoding, classes)
        splits["test"] = whole_part(parts["test"], "test")
    return Dataset(
        name=path.stem,
        kind="table",
        task=decided,
        parts=parts,
        splits=splits,
        class_names=classes,
        feature_names=tuple(encoded_names(encoding)),
        target_names=(target,) if decided == "regression" else (),
        fingerprint=fingerprint_dataset(f"csv {path.name}", parts, splits, class_names=classes),
        notes=(f"{target} is taken for {decided}: {_reason(table, target, decided)}",) if task == "auto" else (),
        table_encoding=encoding,
    )


def encoded_names(encoding: Encoding) -> list[str]:
    """The names of the encoded features, in order."""
    names = []
    for column in encoding["columns"]:
        if column["kind"] == "numeric":
            names.append(column["name"])
        else:
            names.extend(f"{column['name']}={category}" for category in column["categories"])
    return names


def columns_to_read(encoding: Encoding) -> tuple[list[str], list[str]]:
    """The names of the feature columns that hold numbers, and of those that hold categories."""
    columns = encoding["columns"]
    numeric, categorical = ([c["name"] for c in columns if c["kind"] == kind] for kind in ("numeric", "categorical"))
    return numeric, categorical


def read_labeled(path: Path, encoding: Encoding, *, delimiter: str, key: str = "dataset.test_path") -> Table:
    """Another file with the columns of ``encoding``, the target too.

    Raises:
        ProblemsError: The file or a column is missing.
        DataError: The file cannot be read as a table.
    """

    def choose(path: Path, header: Sequence[str]) -> tuple[list[str], list[str]]:
        numeric, categorical = columns_to_read(encoding)
        names = [*(column["name"] for column in encoding["columns"]), encoding["target"]]
        if problems := _missing_columns(path, header, names, key):
            raise ProblemsError(problems)
        return numeric, [*categorical, encoding["target"]]

    return read_table(path, choose, delimiter=delimiter, key=key)


def _choose_columns(
    path: Path, header: Sequence[str], target: str, features: Sequence[str] | None, categorical: Sequence[str]
) -> list[str]:
    """The feature columns, in the order in which the model sees them; every mistake in the names at once."""
    problems = [
        *_missing_columns(path, header, [target], "dataset.target"),
        *_missing_columns(path, header, features or (), "dataset.features"),
        *_missing_columns(path, header, categorical, "dataset.categorical"),
    ]
    chosen = list(features) if features is not None else [name for name in header if name != target]
    if not chosen:
        problems.append(Problem(f"{path} has no column but the target {target!r}", key="dataset.path"))
    if problems:
        raise ProblemsError(problems)
    # The rules have checked a config for these before the file was opened.
    if target in chosen or len(set(chosen)) < len(chosen) or not set(categorical) <= set(chosen):
        raise ValueError(f"columns that are the target, named twice or no features: {chosen}, {list(categorical)}")
    return chosen


def _missing_columns(path: Path, header: Sequence[str], names: Sequence[str], key: str) -> list[Problem]:
    problems = []
    for name in names:
        if name in header:
            continue
        close = closest(name, header)
        hint = f"did you mean {close!r}?" if close else "the columns are " + listed(header)
        problems.append(Problem(f"{path} has no column {name!r}; {hint}", key=key))
    return problems


def _decide_task(table: Table, target: str) -> Task:
    """Regression where the targets are numbers and some have a fraction; else classification.

    Raises:
        ProblemsError: Many different whole numbers: a count to predict, or class numbers? Only the user knows.
    """
    values = [as_number(cell) for cell in table.texts[target]]
    numbers = [value for value in values if value is not None]
    # One text among numbers is a bad cell, not a class name, so a mostly numeric column stays one of numbers.
    if len(numbers) <= len(values) // 2:
        return "classification"
    if any(value != int(value) for value in numbers):
        return "regression"
    distinct = len(set(numbers))
    if distinct > _MANY_NUMBERS and distinct > len(values) // 10:
        message = (
            f"the target {target!r} holds {distinct} different whole numbers in {len(values)} rows; "
            "say whether they are values (regression) or classes (classification)"
        )
        raise ProblemsError([Problem(message, key="dataset.task")])
    return "classification"


def _reason(table: Table, target: str, task: Task) -> str:
    if task == "regression":
        return "it holds numbers with fractions"
    return f"it holds {len(set(table.texts[target]))} different values, and no numbers with fractions"


def _class_names(table: Table, target: str) -> tuple[str, ...]:
    """Raises DataError for labels with a fraction, and where there are too few or too many classes."""
    cells = table.texts[target]
    names = {cell for cell in cells if cell}
    numbers = {name: number for name in names if (number := as_number(name)) is not None}
    ordered = sorted(names, key=lambda name: (numbers[name], name)) if len(numbers) == len(names) else sorted(names)
    fractional = {name for name, number in numbers.items() if number != int(number)}
    if fractional and len(numbers) == len(names):
        rows = [row for row, cell in enumerate(cells) if cell in fractional]
        hint = "labels are names or whole numbers, or dataset.task is regression"
        message = f"column {target!r}: the label {{}} has a fraction; {hint}"
        raise bad_rows([f"{table.path}:{table.lines[row]}: {message.format(cells[row])}" for row in rows])
    if len(ordered) < 2:
        found = f"one class, {ordered[0]!r}" if ordered else "no labels"
        raise DataError(f"{table.path}: the target {target!r} has {found}; at least 2 classes are needed")
    if len(ordered) > MAX_CATEGORIES:
        raise DataError(
            f"{table.path}: the target {target!r} has {len(ordered)} different values in {len(table)} rows, too many "
            "for classes; set dataset.task to regression, or choose another target"
        )
    return tuple(ordered)


def _describe_column(table: Table, column: str, is_categorical: bool) -> dict[str, Any]:
    if not is_categorical:
        return {"name": column, "kind": "numeric"}
    categories = sorted({cell for cell in table.texts[column] if cell})
    if len(categories) > MAX_CATEGORIES:
        raise DataError(
            f"{table.path}: the categorical column {column!r} has {len(categories)} different values, more than "
            f"{MAX_CATEGORIES}; leave it out of the features"
        )
    return {"name": column, "kind": "categorical", "categories": categories}


def encode_features(table: Table, encoding: Encoding) -> tuple[NDArray[np.float32], list[BadCell]]:
    """Features float32 (N, F), and every cell that cannot be used."""
    inputs = np.zeros((len(table), len(encoded_names(encoding))), dtype=np.float32)
    bad: list[BadCell] = []
    start = 0
    for column in encoding["columns"]:
        name = column["name"]
        if column["kind"] == "numeric":
            inputs[:, start], odd = _narrow(table.numbers[name], table.odd_cells[name])
            bad += [(row, f"column {name!r}: {message}") for row, message in odd]
            start += 1
            continue
        positions = {category: position for position, category in enumerate(column["categories"])}
        codes = np.array([positions.get(cell, -1) for cell in table.texts[name]], dtype=np.int64)
        known = np.flatnonzero(codes >= 0)
        inputs[known, start + codes[known]] = 1.0
        for row in np.flatnonzero(codes < 0):
            bad.append((int(row), f"column {name!r}: {_bad_category(table.texts[name][row], column['categories'])}"))
        start += len(positions)
    return inputs, bad


def _narrow(values: NDArray[np.float64], odd: dict[int, str]) -> tuple[NDArray[np.float32], list[BadCell]]:
    """float32, and what is no number or does not fit."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    bad = [(row, _bad_number(cell)) for row, cell in odd.items()]
    large = np.flatnonzero(np.isinf(narrow))
    return narrow, bad + [(int(row), f"{values[row]:g} does not fit into 32-bit floating point") for row in large]


def _bad_number(cell: str) -> str:
    if not cell:
        return "the cell is empty; fill it in or drop the row"
    if cell.lower().strip("+-") in ("nan", "inf", "infinity"):
        return f"{cell} is not a finite number; fill it in or drop the row"
    return f"{cell!r} is not a number; if the column holds categories, name it in dataset.categorical"


def _bad_category(cell: str, categories: Sequence[str]) -> str:
    if not cell:
        return "the cell is empty; fill it in or drop the row"
    return f"{cell!r} is not one of the training table's values ({listed(categories)})"


def encode_labeled(table: Table, encoding: Encoding, classes: Sequence[str]) -> Part:
    """Features and targets; ``classes`` is () for regression.

    Raises:
        DataError: Cells that cannot be used, each with its file, row and column (the first ten and the count), in the
            order of the file.
    """
    inputs, bad = encode_features(table, encoding)
    target = encoding["target"]
    cells = table.texts[target]
    if classes:
        labels = {name: label for label, name in enumerate(classes)}
        targets: NDArray[Any] = np.array([labels.get(cell, -1) for cell in cells], dtype=np.int64)
        wrong = [(int(row), _bad_label(cells[row], classes)) for row in np.flatnonzero(targets < 0)]
    else:
        values, odd = parse_numbers(cells)  # they stay in float64: the model sees them centered
        _, wrong = _narrow(values, odd)
        wrong = [(row, message.partition("; if the column")[0]) for row, message in wrong]
        targets = values[:, None]
    bad += [(row, f"column {target!r}: {message}") for row, message in wrong]
    if bad:
        bad.sort(key=lambda cell: cell[0])
        raise bad_rows([f"{table.path}:{table.lines[row]}: {message}" for row, message in bad])
    return Part(inputs, targets)


def _bad_label(cell: str, classes: Sequence[str]) -> str:
    if not cell:
        return "the label is blank; fill it in or drop the row"
    return f"the label {cell!r} is not one of the training table's ({listed(classes)})"

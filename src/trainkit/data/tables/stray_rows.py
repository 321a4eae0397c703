"""Rows of a table that spoil it: the header once more, totals, rows of the training in another split, far targets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Part, Split
from trainkit.data.tables.evidence import Evidence
from trainkit.data.tables.reading import Block, Table
from trainkit.errors import DataError
from trainkit.wording import counted, listed

if TYPE_CHECKING:
    import polars as pl

_TOTAL = re.compile(
    r"((grand|sub)[ -]?)?totals?|sums?|average|mean|(gesamt)?summe|(ins)?gesamt|somme|suma|totale|итого|всего"
    r"|合计|总计|合計|総計|합계",
    re.IGNORECASE,
)
_SUBTOTAL = re.compile(r"(?i)(.+ )?((grand|sub)[ -]?)?total|((zwischen|gesamt)?summe|insgesamt|.+ ergebnis)")
"""Also ``North Total``, as spreadsheets write below each group."""
_SAMPLED = 20_000
"""Rows of the training split of which is found whether a column tells them apart."""
_CELLS = 1 << 22
"""So many cells are hashed at a time."""
_FAR = 100
"""Times the range of the middle half: a target that is so far from the median decides the squared error."""


def look_for_stray_rows(blocks: Iterable[Block], table: Table, notes: list[str]) -> Iterator[Block]:
    """The same blocks. A last row that may be a total gets a line in ``notes``.

    Raises:
        DataError: Rows that repeat the header.
    """
    repeated: list[str] = []
    last = None
    for block in blocks:
        if table.format.kind == "text" and table.format.header:
            repeated += [block.places()[row] for row in _repeated_headers(block.frame)]
        yield block
        last = block
    if repeated:
        lines = "this line repeats the header; delete it"
        if len(repeated) > 1:
            lines = f"these {len(repeated)} lines repeat the header; delete them"
        raise DataError(f"{listed(repeated, limit=5, quoted=False)}: {lines}")
    if last is not None:
        notes += _total(last)


def _repeated_headers(frame: pl.DataFrame) -> list[int]:
    """The rows all of whose cells are the names of their columns."""
    if frame.width < 2:
        return []
    rows = (frame.to_series(0) == frame.columns[0]).fill_null(False).arg_true()
    return [row for row in rows.to_list() if frame.row(row) == tuple(frame.columns)]


def _total(block: Block) -> Iterator[str]:
    """A line where the last row has a word for a total that no other row near it has."""
    import polars as pl

    for cells in block.frame:
        if cells.dtype != pl.String or len(cells) < 2 or not (word := cells[-1]):
            continue
        if _TOTAL.fullmatch(word.strip(" :")) and (cells == word).sum() == 1:
            where = block.places()[-1]
            yield f"the last row ({where}) has {word!r} in {cells.name!r}: if it holds totals, delete it"
            return


_LABEL = 20
"""Characters that the label of a group has at most; remarks, which few rows have either, are longer."""


def describe_text_of_sheets(columns: Iterable[Evidence]) -> Iterator[str]:
    """A line for each column of text with rows of totals among others, or whose gaps may have been merged cells."""
    for one in columns:
        totals = [text for text in map(str, one.values) if _SUBTOTAL.fullmatch(text.strip(" :"))]
        if 0 < 2 * len(totals) <= one.distinct:
            yield f"{one.name!r} has {listed(sorted(totals), limit=3)}: if such rows hold totals of others, delete them"
        are_short = all(len(str(text)) <= _LABEL for text in one.values)
        if are_short and 2 <= one.distinct == one.present and one.missing >= 2 * one.present:
            yield (
                f"{one.name!r} has a value in {one.present} of {one.rows:,} rows, each another one: if these were "
                "merged cells, write the value into each of their rows"
            )


def describe_repeated(parts: Mapping[str, Part], splits: Mapping[str, Split]) -> Iterator[str]:
    """A line for each other split of which 10 % or more are rows of the training split, in all cells.

    Where no column tells at least half of the different rows apart, rows are alike by chance, and nothing is said.
    """
    keys = {name: _row_hashes(part) for name, part in parts.items()}
    train = splits["train"]
    known = keys[train.part][train.indices]
    sampled = train.indices[:_SAMPLED]
    different = len(np.unique(keys[train.part][sampled]))
    for name, split in splits.items():
        count = 0 if name == "train" else int(np.isin(keys[split.part][split.indices], known).sum())
        if count <= 1 or count < 0.1 * len(split):
            continue
        columns = _array(parts[train.part])[sampled].T
        if different < 20 or not any(2 * len(np.unique(column)) >= different for column in columns):
            return
        yield (
            f"{count} of {counted(len(split), 'row')} of the {name} split are in the training split too, in all cells: "
            "its scores are better than those of new rows; delete the repetitions"
        )


def _row_hashes(part: Part) -> NDArray[np.uint64]:
    """The same number for rows whose inputs and targets are the same in float32, uint64 (n,).

    By blocks of rows, since inputs that are larger than the memory are read from their file.
    """
    inputs, targets = _array(part), part.targets.reshape(len(part), -1)
    factors = (
        np.random.default_rng(0).integers(1 << 62, size=inputs.shape[1] + targets.shape[1], dtype=np.uint64) * 2 + 1
    )
    keys = np.empty(len(part), np.uint64)
    step = max(1, _CELLS // len(factors))
    for start in range(0, len(part), step):
        rows = slice(start, start + step)
        cells = np.concatenate([inputs[rows], targets[rows]], axis=1, dtype=np.float32, casting="unsafe")
        keys[rows] = (cells + np.float32(0)).view(np.uint32).astype(np.uint64) @ factors  # -0.0 becomes 0.0
    return keys


def _array(part: Part) -> NDArray[Any]:
    assert isinstance(part.inputs, np.ndarray), "a table's are an array"
    return part.inputs


def describe_far_targets(targets: NDArray[Any], names: Sequence[str]) -> Iterator[str]:
    """A line for each target with values so far from all others that the squared error is about them alone.

    Args:
        targets: of the training split, (n, T).
    """
    for values, name in zip(targets.T, names, strict=True):
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        far = values[np.abs(values - middle) > _FAR * (high - low)]
        if high > low and len(far):
            where = f"half of the others are from {low:.4g} to {high:.4g}"
            yield (
                f"{name}: {counted(len(far), 'value')} far from the others, such as {far[0]:.4g} ({where}): the "
                "squared error is about such values alone; correct or delete mistakes, else predict the logarithm"
            )

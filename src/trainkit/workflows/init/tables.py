"""Tables: which column is predicted, which one tells it all, and the recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.config import load_config
from trainkit.config.schema.base import Section
from trainkit.config.schema.tables import Table
from trainkit.data.dataset import Dataset
from trainkit.data.images import spread
from trainkit.data.tables import open_table
from trainkit.errors import UserError
from trainkit.wording import counted, listed
from trainkit.workflows.init.draft import Line, quoted

_USUAL = ("target", "label", "class", "y", "outcome", "species")
"""Names that columns to predict have."""
_ROWS, _COLUMNS = 4000, 500
"""As much is looked at in search of columns that tell the target."""
_TELLS = 0.9995
"""A column alone predicts so well that it is the target in other words."""


_BY_ARGUMENTS = {"type": "DATA", "path": "DATA", "target": "--target", "task": "--task"}
"""Keys of ``dataset`` that are given in another way."""


def find_target(
    path: str, given: str | Sequence[str] | None, overrides: Sequence[str]
) -> tuple[str | Sequence[str], str]:
    """The column to predict, or several, and why it is taken.

    Raises:
        UserError: none is given, and none has a usual name; an override of another thing than the table.
        DataError: the file is no table.
    """
    for key in map(_key_of, overrides):
        if key in _BY_ARGUMENTS:
            raise UserError(f"--set dataset.{key}: {_BY_ARGUMENTS[key]} says that here")
    table = load_config(provisional(path, given or "-", task=None), overrides=overrides).config.dataset
    assert isinstance(table, Table)
    names = open_table(
        path, header=table.header, delimiter=table.delimiter, encoding=table.encoding, decimal=table.decimal
    ).names
    if given is not None:
        return given if isinstance(given, str) else list(given), "as asked for"
    found = [name for name in names if name.lower() in _USUAL]
    if len(found) == 1:
        return found[0], f"a usual name; --target names another of {counted(len(names), 'column')}"
    what = f"more than one of them may be it: {listed(found)}" if found else f"its columns are {listed(names)}"
    raise UserError(f"{path}: which column is to be predicted? Name it with --target; {what}")


def provisional(path: str, target: str | Sequence[str], *, task: str | None) -> dict[str, Any]:
    """A config that only opens the table."""
    return {
        "dataset": {"type": "table", "path": path, "target": target, "task": task or "auto"},
        "model": "tabular_mlp",
        "export": {"torchscript": False},
    }


def with_given(lines: Sequence[Line], dataset: Section, overrides: Sequence[str]) -> list[Line]:
    """The lines of ``dataset:`` with the keys that were given in the place of those that were found."""
    values = dataset.model_dump(mode="json", exclude_unset=True)
    given = dict.fromkeys(map(_key_of, overrides))
    split = values.get("split")
    by_column = isinstance(split, dict) and split["type"] == "column"  # it says itself what is held out
    left_out = {*given, *(("val_fraction", "test_fraction") if by_column else ())}
    kept = [line for line in lines if line.text.strip(" #").partition(":")[0] not in left_out]
    return [*kept, *(Line(f"  {key}: {quoted(values[key])}", "as asked for") for key in given)]


def _key_of(override: str) -> str:
    """``columns`` of ``dataset.columns.zip=categorical``. Raises UserError: it is of another section."""
    section, _, key = re.split("[=+]", override, maxsplit=1)[0].partition(".")
    if section != "dataset" or not key:
        raise UserError(
            f"--set takes keys of dataset here, got {override}; change the others in the file that is written"
        )
    return re.split(r"[.\[]", key)[0]


def telling_columns(data: Dataset) -> list[str]:
    """Columns each of which predicts the target alone, all but without a mistake, in rows that it has not seen.

    Such a column is mostly another spelling of the target, or is known only after it.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    split = data.splits["train"]
    part = data.parts[split.part]
    rows = split.indices[spread(len(split), _ROWS)]
    targets = np.asarray(part.targets[rows])
    odd = np.arange(len(rows)) % 2 == 1
    if len(rows) < 40 or data.num_targets > 1 or len(data.feature_names) < 2 or 4 * data.num_classes > len(rows):
        return []
    kind = DecisionTreeClassifier if data.task == "classification" else DecisionTreeRegressor
    found = []
    for place, name in enumerate(data.feature_names[:_COLUMNS]):
        column = np.nan_to_num(np.asarray(part.inputs[rows, place]), nan=-1e30)[:, None]  # type: ignore[call-overload,index]
        tree = kind(random_state=0).fit(column[~odd], targets[~odd])
        if _score(targets[odd], tree.predict(column[odd])) > _TELLS:
            found.append(name)
    return found


def _score(targets: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Of classes: the share above that of the largest class that is right. Of values: R2."""
    if targets.ndim == 1:
        _, counts = np.unique(targets, return_counts=True)
        wrong, base = np.mean(targets != predicted), 1 - counts.max() / len(targets)
    else:
        wrong, base = np.mean((targets[:, 0] - predicted) ** 2), targets.var()
    return 1.0 - float(wrong / base) if base > 0 else 0.0


def dataset_lines(data: Dataset, *, path: str, target: str, why: str, telling: Sequence[str]) -> list[Line]:
    """The lines of the table's own keys, below ``dataset:``."""
    lines = [
        Line("  type: table", "CSV, Parquet, Arrow; how it is written was found"),
        Line(f"  path: {path}", "relative to this file"),
        Line(f"  target: {target}", f"the column to predict: {why}"),
        Line(f"  task: {data.task}", _why_task(data)),
    ]
    ignored = [column["name"] for column in data.columns if column["kind"] == "ignore"]
    if telling:
        columns = quoted(dict.fromkeys(telling, "ignore"))
        lines.append(Line(f"  # columns: {columns}", "each of these alone tells the target: known only afterwards?"))
    elif ignored:
        lines.append(Line("  # columns: {NAME: numeric}", f"overrules what was found; not used: {listed(ignored)}"))
    return lines


def _why_task(data: Dataset) -> str:
    if data.task == "classification":
        return f"{counted(data.num_classes, 'class')}: {listed(data.class_names[:5], quoted=False)}" + (
            " and more" if data.num_classes > 5 else ""
        )
    return "values, scored by their distance"


def recipe() -> list[Line]:
    return [
        Line(
            "model: tabular_mlp",
            "RealMLP: embeddings of numbers and categories; transforms, loss, optimizer and schedule of its paper",
        )
    ]

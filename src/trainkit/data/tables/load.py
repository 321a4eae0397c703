"""``type: table``: files to a data set. Two passes: what the columns hold, then the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import EntryDraft, cached_arrays, stamp_files, streamed_arrays
from trainkit.data.dataset import Dataset, Part, Split, fingerprint_dataset
from trainkit.data.kept_results import LARGE_BYTES, KeptResults, Results
from trainkit.data.splits import HeldOut, whole_part
from trainkit.data.tables.encoded import (
    Count,
    Paths,
    concatenated,
    encode_labeled,
    encode_other,
    missing_columns,
)
from trainkit.data.tables.encoding import Encoding, input_names
from trainkit.data.tables.first_pass import Found, TableOptions, describe_column, describe_found, is_large, look_through
from trainkit.data.tables.formats import TableFormat
from trainkit.data.tables.layout import with_gaps
from trainkit.data.tables.reading import Table, open_table
from trainkit.data.tables.split_column import (
    compare_tests,
    split_extra,
    split_table,
)
from trainkit.data.tables.stray_rows import describe_far_targets, describe_repeated
from trainkit.data.tables.target import Target, target_from
from trainkit.data.tables.weights import check_weights, weight_extra
from trainkit.errors import Problem, ProblemsError
from trainkit.wording import listed

_LAYOUT = 9
"""Raise it when the same files become other arrays, names or notes, so that old cache entries are not used."""
_MOST_BLOCKS = 8
"""What ``check``, which writes nothing, reads of larger ones."""


def load_table(
    path: Paths,
    *,
    test_path: Paths | None = None,
    options: TableOptions,
    held: HeldOut,
    cache_dir: Path | None = None,
    save: bool = True,
) -> Dataset:
    """A table as float32 inputs (N, C), see ``encoding``, with the kinds of its columns found or as they are asked for.

    With ``test_path`` there are two parts, ``"train"`` and ``"test"``, else one, ``"all"``, split by fraction. With a
    fold, which is the test split, ``test_path`` is left out. Kinds, categories and classes come from ``path``
    alone. With ``cache_dir`` the arrays are kept there (not with ``save=False``), and later calls read no file.

    Raises:
        ProblemsError: A column that is not there, is not what the config says, or cannot be understood.
        DataError: Files that are missing or no tables; cells that cannot be used, each with its file and row.
    """
    own_tests = () if held.fold is None or test_path is None else ("test_path stays out of the folds",)
    test_path = None if held.fold is not None else test_path
    table = _open(path, options)
    tests = None if test_path is None else _open(test_path, options, base=table.format, key="dataset.test_path")
    chosen = _choose_columns(table, options)
    description = {
        "kind": "table",
        "layout": _LAYOUT,
        "files": stamp_files(table.paths),
        "tests": None if tests is None else stamp_files(tests.paths),
        "options": {
            **vars(options),
            "target": list(options.target),
            "split": options.split and options.split.to_json(),
        },
    }
    name = table.paths[0].name.partition(".")[0]
    large = is_large(table)
    if large and save and cache_dir is not None:
        write = partial(_write, table=table, tests=tests, chosen=chosen, options=options)
        arrays, info = streamed_arrays(cache_dir, name, description, write)
    else:
        read = partial(_read, table, tests, chosen, options, _MOST_BLOCKS if large else None)
        arrays, info = cached_arrays(cache_dir, name, description, read, save=save)
    target = target_from(info["target"], info["class_names"])
    main = "all" if tests is None else "train"
    parts = {
        part: Part(arrays[f"{part}_inputs"], arrays[f"{part}_targets"], arrays.get(f"{part}_weights"))
        for part in (main, "test")[: 1 + (tests is not None)]
    }
    divided = partial(
        _divide,
        parts,
        target,
        options,
        source=f"table {table.paths[0].name}",
        info=info,
        keys=arrays.get(f"{main}_split"),
        held=held.beside(parts),
    )
    kept = None
    if cache_dir is not None and info["whole"] and arrays[f"{main}_inputs"].nbytes >= LARGE_BYTES:
        fractions = [held.fractions[name] for name in ("val", "test")]
        rows = {"table": description, "fractions": fractions, "seed": held.seed}
        rows |= {} if held.fold is None else {"fold": [held.fold.count, held.fold.index]}
        kept = KeptResults(cache_dir, name, rows, save)
    membership, about = divided() if kept is None else kept.get("splits", divided)
    splits = {
        split: Split(main, np.flatnonzero(membership["split_of"] == place), kept and kept.of_split(split))
        for place, split in enumerate(about["splits"])
    }
    if tests is not None:
        splits["test"] = replace(whole_part(parts["test"], "test"), kept=kept and kept.of_split("test"))
    return Dataset(
        name=name,
        kind="table",
        task=target.task,
        parts=parts,
        splits=splits,
        class_names=target.class_names,
        feature_names=input_names(info["encoding"]),
        target_names=target.names if target.task == "regression" else (),
        fingerprint=about["fingerprint"],
        notes=(*info["notes"], *about["notes"], *own_tests),
        table_encoding=about["encoding"],
        columns=tuple(info["columns"]),
    )


def _divide(
    parts: Mapping[str, Part],
    target: Target,
    options: TableOptions,
    *,
    source: str,
    info: Info,
    keys: NDArray[Any] | None,
    held: HeldOut,
) -> Results:
    """The split of each row of the first part, uint8 (N,), and as plain JSON what follows from it."""
    main = next(iter(parts))
    splits, notes = split_table(
        parts[main],
        main,
        options.split,
        keys=keys,
        form=info["split_form"],
        whole=info["whole"],
        task=target.task,
        held=held if info["whole"] else replace(held, fold=None),
        class_names=target.class_names,
    )
    split_of = np.empty(len(parts[main]), dtype=np.uint8)
    for place, split in enumerate(splits.values()):
        split_of[split.indices] = place
    own = list(splits)
    if "test" in parts:
        splits["test"] = whole_part(parts["test"], "test")
    check_weights(parts, splits, options.weight)
    notes += describe_repeated(parts, splits)
    if target.task == "regression":
        notes += describe_far_targets(np.asarray(parts[main].targets[splits["train"].indices]), target.names)
    inputs = parts[main].inputs
    assert isinstance(inputs, np.ndarray), "a table's are an array"
    return {"split_of": split_of}, {
        "splits": own,
        "notes": notes,
        "fingerprint": fingerprint_dataset(source, dict(parts), splits, class_names=target.class_names),
        "encoding": with_gaps(info["encoding"], inputs, splits["train"].indices),
    }


def _open(path: Paths, options: TableOptions, *, base: TableFormat | None = None, key: str = "dataset.path") -> Table:
    chosen = {"delimiter": options.delimiter, "decimal": options.decimal, "encoding": options.encoding}
    return open_table(path, base=base, header=options.header, key=key, **chosen)


def _choose_columns(table: Table, options: TableOptions) -> list[str]:
    """The columns to learn from, in the order of the file or of ``features``; every mistake in the names at once."""
    where = str(table.paths[0])
    wanted = options.columns or {}
    problems = [
        *missing_columns(where, table.names, options.target, "dataset.target"),
        *missing_columns(where, table.names, options.features or (), "dataset.features"),
        *missing_columns(where, table.names, wanted, "dataset.columns"),
    ]
    no_features = [*options.target, *([options.weight] if options.weight else [])]
    problems += missing_columns(where, table.names, no_features[len(options.target) :], "dataset.weight")
    if options.split is not None:
        problems += missing_columns(where, table.names, [options.split.column], "dataset.split.column")
        no_features += [options.split.column] if options.features is None else []
    chosen = [name for name in options.features or table.names if name not in no_features]
    if not chosen and not problems:
        but = f"the target {listed(options.target)}"
        but += " and those of split and weight" if len(no_features) > len(options.target) else ""
        problems.append(Problem(f"{where} has no column but {but}", key="dataset.path"))
    if problems:
        raise ProblemsError(problems)
    return chosen


Arrays = dict[str, NDArray[Any]]
Info = dict[str, Any]


def _read(
    table: Table, tests: Table | None, chosen: Sequence[str], options: TableOptions, most: int | None
) -> tuple[Arrays, Info]:
    """The arrays of the parts in memory, and what was found, as plain JSON.

    Args:
        most: how many blocks to read; None for all.
    """
    found = look_through(table, chosen, options, most)
    count = Count()
    part = concatenated(encode_labeled(found.blocks, table, found.encoding, found.target, count, found.extras))
    main = "all" if tests is None else "train"
    test_arrays, test_notes = _read_tests(tests, found, options, [part["split"]] if "split" in part else [])
    arrays = {**{f"{main}_{name}": array for name, array in part.items()}, **test_arrays}
    notes = [*describe_found(table, found, options), *count.notes(), *test_notes]
    if most is not None:
        notes.append(f"looked at the first {found.rows:,} rows only; training reads all")
    return arrays, _info(found, notes, whole=most is None)


def _write(draft: EntryDraft, table: Table, tests: Table | None, chosen: Sequence[str], options: TableOptions) -> Info:
    """The same, block by block into the cache."""
    found = look_through(table, chosen, options, None)
    main = "all" if tests is None else "train"
    count = Count()
    values = found.target.task == "regression"
    kinds: dict[str, tuple[tuple[int, ...], Any]] = {
        "inputs": ((len(found.encoding["inputs"]),), np.float32),
        "targets": ((len(found.target.names),) if values else (), np.float64 if values else np.int64),
        **{name: ((), extra.dtype) for name, extra in found.extras.items()},
    }
    writers = {
        name: draft.add_array(f"{main}_{name}", (found.rows, *shape), dtype) for name, (shape, dtype) in kinds.items()
    }
    keys = []
    for block in encode_labeled(found.blocks, table, found.encoding, found.target, count, found.extras):
        for name, array in block.items():
            writers[name].append(array)
        if tests is not None and "split" in block:
            keys.append(np.unique(block["split"]))
    arrays, test_notes = _read_tests(tests, found, options, keys)
    for name, array in arrays.items():
        draft.add_array(name, array.shape, array.dtype).write_all(array)
    return _info(found, [*describe_found(table, found, options), *count.notes(), *test_notes], whole=True)


def _read_tests(
    tests: Table | None, found: Found, options: TableOptions, keys: Sequence[NDArray[Any]]
) -> tuple[Arrays, list[str]]:
    """The test file, compared with the ``keys`` of the training file: no group may be in both, times are said."""
    if tests is None:
        return {}, []
    count, by = Count(), options.split
    compared = by is not None and by.type != "column" and by.column in tests.names
    extras = {name: extra for name, extra in found.extras.items() if name != "split" or compared}
    if by is not None and compared and by.type == "time":
        extras["split"] = split_extra(by, found.form, refuse=False)
    part = concatenated(encode_other(tests, found.encoding, found.target, count, extras=extras))
    notes = count.notes()
    if by is not None and (own := part.pop("split", None)) is not None:
        notes += compare_tests(by, np.concatenate(keys), own, found.form, str(tests.paths[0]))
    elif by is not None and by.type != "column":
        notes.append(f"it has no column {by.column!r}, so that nothing says whether it is apart from the training file")
    return {f"test_{name}": array for name, array in part.items()}, [f"test file: {note}" for note in notes]


def _info(found: Found, notes: list[str], *, whole: bool) -> Info:
    return {
        "encoding": found.encoding,
        "target": found.target.to_json(),
        "class_names": list(found.target.class_names),
        "columns": [describe_column(column) for column in found.columns],
        "notes": notes,
        "split_form": found.form,
        "whole": whole,
    }


def load_table_to_score(path: Paths, encoding: Encoding, *, class_names: Sequence[str], key: str = "--data") -> Dataset:
    """Another table, read as the one of the training was; ``train`` is the whole of it.

    Raises:
        ProblemsError: A column is missing.
        DataError: It is no table, has classes that the training did not have, or cells that cannot be used.
    """
    base = TableFormat.from_json(encoding["format"])
    table = open_table(path, base=base, key=key)
    target = target_from(encoding["target"], class_names)
    count = Count()
    weight = encoding.get("weight")
    extras = {"weights": weight_extra(weight)} if weight and weight["name"] in table.names else {}
    parts = {"all": Part(**concatenated(encode_other(table, encoding, target, count, extras=extras, key=key)))}
    splits = {"train": whole_part(parts["all"], "all")}
    notes = count.notes()
    if weight and not extras:
        notes.append(f"no column {weight['name']!r}: the loss is not weighted, as that of the training was")
    check_weights(parts, splits, weight and weight["name"])
    name = table.paths[0].name
    return Dataset(
        name=name.partition(".")[0],
        kind="table",
        task=target.task,
        parts=parts,
        splits=splits,
        class_names=target.class_names,
        feature_names=input_names(encoding),
        target_names=target.names if target.task == "regression" else (),
        fingerprint=fingerprint_dataset(f"table {name}", parts, splits, class_names=target.class_names),
        table_encoding=encoding,
        notes=tuple(notes),
    )

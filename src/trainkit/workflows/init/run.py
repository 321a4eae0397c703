"""``trainkit init``: look at the data, choose a recipe, and write a config that passes ``trainkit check``."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import yaml

from trainkit.config import load_config
from trainkit.config.help import schema_line
from trainkit.config.schema.base import safe_name
from trainkit.data.dataset import Dataset
from trainkit.data.images import is_image_file
from trainkit.data.sources import identity
from trainkit.errors import ConfigError, Place, Problem, ProblemsError, UserError
from trainkit.system import Frontend, durable
from trainkit.wording import counted
from trainkit.workflows.check import CheckReport, check
from trainkit.workflows.init import pictures, tables
from trainkit.workflows.init.draft import CPU, GPU, Line, choose_epochs, quoted, render

_SKEW = 5
"""The largest class has so many times the samples of the smallest one: rare classes need help."""
_ANSWERED = tuple(
    f"dataset.{key}" for key in ("header", "columns", "encoding", "delimiter", "val_fraction", "test_fraction")
)
"""Keys that answer what a table leaves open."""
_BAD_FILES = 1_000_000
"""While looking, any number of unreadable pictures is left out and counted."""


@dataclass(frozen=True)
class InitResult:
    """What was written, and seen."""

    path: Path
    text: str
    seen: CheckReport | None = None
    """Of the config that was written; None where no data were looked at."""
    warnings: tuple[str, ...] = ()


def init(
    data: str | Path,
    *,
    target: str | Sequence[str] | None = None,
    task: Literal["classification", "regression"] | None = None,
    overrides: Sequence[str] = (),
    minutes: float = 10.0,
    output: str | Path | None = None,
    pretrained: bool | None = None,
    frontend: Frontend | None = None,
) -> InitResult:
    """Look at a folder of pictures or a table, and write a config whose every line has its reason.

    The arguments are those of ``trainkit.init``.

    Raises:
        UserError: the data are neither; no target; the file is there already.
        ConfigError: the data cannot be used, with all reasons.
    """
    frontend = frontend or Frontend()
    name = safe_name(Path(data).resolve().stem)
    path = Path(output) if output is not None else Path(f"{name}.yaml")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: there is a file of this name, which is left as it is; give another with -o")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.path.lexists(data) and not set("*?[") & set(str(data)):  # a pattern of tables
        raise UserError(f"{data}: there is no such file or folder; give a folder of pictures, or a table")
    wanted = _Wanted(path, target, task, tuple(overrides), minutes, pretrained, frontend)
    return _for_pictures(data, wanted) if _has_pictures(data) else _for_table(data, wanted)


@dataclass(frozen=True)
class _Wanted:
    """The arguments of ``init``."""

    path: Path
    target: str | Sequence[str] | None
    task: str | None
    overrides: tuple[str, ...]
    """Of the table's own keys: ``dataset.header=false``."""
    minutes: float
    pretrained: bool | None
    frontend: Frontend


def _has_pictures(data: str | Path) -> bool:
    """Whether it is a folder with pictures; what is neither is an error of tables, which says what can be read."""
    root = Path(data)
    if not root.is_dir():
        return False
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True):
        if identity(folder) in seen:  # a link leads back to it
            below.clear()
            continue
        seen.add(identity(folder))
        if any(is_image_file(os.path.join(folder, file)) for file in files):
            return True
    return False


@contextmanager
def _told_of(data: str | Path) -> Iterator[None]:
    """Mistakes in the data are told of the data: there is no config yet."""
    try:
        yield
    except ProblemsError as error:
        raise ConfigError([_without_config(one, data) for one in error.problems]) from None


def _without_config(problem: Problem, data: str | Path) -> Problem:
    if problem.place is not None and problem.place.file.startswith("--set "):
        return problem
    hint = ""
    if problem.key == "dataset.task":
        hint = "; here by --task"
    elif problem.key in _ANSWERED:
        hint = f"; here by --set {problem.key}=..."
    elif "set dataset." in problem.message or "in dataset." in problem.message:
        hint = "; here by --set dataset.KEY=VALUE"
    where = str(Path(data).resolve())
    if problem.message.startswith((f"{where}:", f"{where} ")):  # with the row
        return Problem(f"{data}{problem.message.removeprefix(where)}{hint}")
    return Problem(f"{problem.message}{hint}", place=Place(str(data)))


def _for_pictures(data: str | Path, wanted: _Wanted) -> InitResult:
    if wanted.target is not None or wanted.task is not None or wanted.overrides:
        raise UserError(
            f"--target, --task and --set are for tables; {data} is a folder of pictures, whose classes are its folders"
        )
    root = Path(data).resolve()
    with _told_of(data):
        seen = check(load_config(pictures.provisional(root, max_bad_files=_BAD_FILES)), frontend=wanted.frontend)
    sizes, bad = pictures.measure(seen.source), _num_bad(seen.source)
    lines = [
        Line("  type: image_folder", "one folder a class"),
        Line(f"  root: {quoted(_relative(root, wanted.path))}", "relative to this file"),
        *_splits(seen.source),
        *([Line(f"  max_bad_files: {bad}", "so many files cannot be read; more are an error")] if bad else []),
    ]
    has_gpu = torch.cuda.is_available()
    recipe, training = pictures.recipe(seen.source, sizes, has_gpu=has_gpu, pretrained=wanted.pretrained)
    header = [f"Pictures of {counted(seen.source.num_classes, 'class')}: {sizes.describe()}."]
    rest = [*_batch(seen.source, most=32 if "fine_tuning:" in [line.text for line in recipe] else 256)]
    draft = _Draft(wanted.path, header, lines, recipe, training, rest, minutes=wanted.minutes, steps=3000, most=100)
    return _write(draft, seen, has_gpu=has_gpu, warnings=(), frontend=wanted.frontend)


def _for_table(data: str | Path, wanted: _Wanted) -> InitResult:
    if wanted.pretrained is not None:
        raise UserError(f"--pretrained is for pictures; {data} is no folder with any")
    given = str(Path(data).resolve())
    with _told_of(data):
        chosen, why = tables.find_target(given, wanted.target, wanted.overrides)
        provisional = load_config(tables.provisional(given, chosen, task=wanted.task), overrides=wanted.overrides)
        seen = check(provisional, frontend=wanted.frontend)
    telling = tables.telling_columns(seen.source)
    lines = tables.dataset_lines(
        seen.source, path=quoted(_relative(Path(given), wanted.path)), target=quoted(chosen), why=why, telling=telling
    )
    num_rows = len(seen.source.parts[seen.source.splits["train"].part])
    what = f"{counted(len(seen.source.columns), 'column')}, {counted(num_rows, 'row')}"
    warnings = tuple(
        f"{name} alone tells {chosen} all but without a mistake: is it known when you predict? If not: "
        f"columns: {quoted({name: 'ignore'})}"
        for name in telling
    )
    draft = _Draft(
        wanted.path,
        [f"A table: {what}."],
        tables.with_given([*lines, *_splits(seen.source)], provisional.config.dataset, wanted.overrides),
        tables.recipe(),
        [],
        [Line("  batch_size: 256", "as in its paper")],
        minutes=wanted.minutes,
        steps=10**9,
        most=256,
    )
    return _write(draft, seen, has_gpu=torch.cuda.is_available(), warnings=warnings, frontend=wanted.frontend)


@dataclass(frozen=True)
class _Draft:
    """What a config says, before it is known how long it trains."""

    path: Path
    header: list[str]
    dataset: list[Line]
    recipe: list[Line]
    training: list[Line]
    loop: list[Line]
    """Keys of ``training:`` but the epochs."""
    minutes: float
    steps: int
    most: int

    def text(self, data: Dataset, epochs: tuple[int, str]) -> str:
        skewed = _skew(data)
        loop = [Line("training:", "the loop"), Line(f"  epochs: {epochs[0]}", epochs[1]), *self.loop]
        ends = []
        if skewed:
            loop.append(Line("  sampler: balanced", f"{skewed}: each class is drawn equally often"))
            ends += [
                Line("logging: {metrics: [val_balanced_accuracy]}", "the mean over classes of the share that is right"),
                Line(
                    "checkpoint: {monitor: val_balanced_accuracy}",
                    "accuracy alone would be high without the rare classes",
                ),
            ]
        lines = [
            Line("seed: 0", "weights, order, augmentation, dropout and splits follow from it"),
            Line("device: auto", "a GPU where there is one"),
            Line("dataset:", "where the samples come from"),
            *self.dataset,
            *self.recipe,
            *self.training,
            *loop,
            *ends,
            Line("export: {torchscript: true}", "a program with its preprocessing, beside the best checkpoint"),
        ]
        header = [
            *self.header,
            "",
            f"  trainkit check {self.path}     everything that can be known before training",
            f"  trainkit train {self.path}",
        ]
        return f"{schema_line(self.path)}\n{render(header, lines)}"


def _write(
    draft: _Draft, seen: CheckReport, *, has_gpu: bool, warnings: Sequence[str], frontend: Frontend
) -> InitResult:
    """Choose the epochs by the cost of the network, check the config as it will be, and write it."""
    text = draft.text(seen.source, (1, ""))
    tried = check(load_config(yaml.safe_load(text), config_dir=draft.path.parent), frontend=frontend)
    epochs = choose_epochs(
        len(tried.source.splits["train"]),
        batch_size=tried.sizes.batch_size,
        multiply_adds=sum(row.multiply_adds for row in tried.rows),
        minutes=draft.minutes,
        speed=GPU if has_gpu else CPU,
        steps=draft.steps,
        most=draft.most,
    )
    text = draft.text(tried.source, epochs)
    durable.write_text(draft.path, text, overwrite=False)
    return InitResult(draft.path, text, replace(tried, loaded=load_config(draft.path)), tuple(warnings))


def _relative(data: Path, config: Path) -> str:
    """The data's path from the folder of the config, or the whole one where that would lead far up."""
    relative = Path(os.path.relpath(data, config.parent.resolve())).as_posix()
    return relative if relative.count("../") <= 2 else data.as_posix()


def _splits(data: Dataset) -> list[Line]:
    """Shares that are held out, where the data have no such splits of their own."""
    train = data.splits["train"]
    total = len(data.parts[train.part])
    share = 0.2 if total < 500 else 0.15 if total < 5000 else 0.1
    lines = []
    for split, key, what in (
        ("val", "val_fraction", "chooses the best checkpoint"),
        ("test", "test_fraction", "scores it"),
    ):
        own = split in data.splits and data.splits[split].part != train.part
        if own:
            lines.append(
                Line(f"  # {key}:", f"{split} is a split of the data: {counted(len(data.splits[split]), 'sample')}")
            )
        else:
            left = key == "val_fraction" and "test" in data.splits and data.splits["test"].part == train.part
            whole = "what the test split leaves" if left else counted(total, "sample")
            lines.append(Line(f"  {key}: {share}", f"held out of {whole}: {what}"))
    return lines


def _batch(data: Dataset, *, most: int) -> list[Line]:
    num_train = len(data.splits["train"])
    size = min(64 if num_train < 5000 else 128 if num_train < 50_000 else 256, most)
    return [Line(f"  batch_size: {size}", f"{counted(math.ceil(num_train / size), 'step')} an epoch")]


def _skew(data: Dataset) -> str | None:
    if data.task != "classification":
        return None
    counts = data.class_counts("train")
    least, largest = min(counts), max(counts)
    if least == 0 or largest <= _SKEW * least:
        return None
    names = (data.class_names[counts.index(count)] for count in (largest, least))
    return f"{next(names)} has {largest:,} samples, {next(names)} {least:,}"


def _num_bad(data: Dataset) -> int:
    split_sizes = sum(len(split) for split in data.splits.values())
    return sum(len(part) for part in data.parts.values()) - split_sizes

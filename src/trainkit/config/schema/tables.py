"""``dataset: {type: table}``: the files, the columns, and which rows are held out."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainkit.config.schema.base import DATE_PATTERN, Section, ShortForm
from trainkit.config.schema.splits import DatasetInfo, ScaledTarget, ValTestSplit

ColumnKind = Literal["numeric", "categorical", "boolean", "datetime", "ignore"]
Paths = Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
"""A file, a pattern of files (``part-*.csv``), a folder of Parquet files, or a list of files."""


Name = Annotated[str, Field(min_length=1)]
Values = list[bool | int | float | str]


class RandomSplit(Section):
    """Samples at random, stratified by class."""

    type: Literal["random"]


class GroupSplit(Section):
    """Whole groups, such as the rows of one patient: none is in two splits. Fractions count rows."""

    type: Literal["group"]
    column: Name = Field(description="The column that says which group a row belongs to.")


class TimeSplit(Section):
    """The latest rows are the test split, those before them the validation split. Fractions count rows."""

    type: Literal["time"]
    column: Name = Field(description="The column with the time of a row: dates, or numbers that grow with time.")


class ColumnSplit(Section):
    """A column says in which split a row is."""

    type: Literal["column"]
    column: Name = Field(description="The column with the split or the fold of a row.")
    val: Values | None = Field(
        None, description="Values of the validation split; null for both lists: the cells are train, val and test."
    )
    test: Values | None = Field(None, description="Values of the test split; rows with other values are for training.")


Split = Annotated[RandomSplit | GroupSplit | TimeSplit | ColumnSplit, Field(discriminator="type"), ShortForm]


class Table(ValTestSplit, ScaledTarget):
    """A table: CSV, TSV and other text (also .gz, .zst), Parquet, Arrow; the kinds of its columns are found."""

    location_keys: ClassVar[tuple[str, ...]] = ("path", "test_path")

    type: Literal["table"]
    path: Paths = Field(
        description="The file with the training samples, a pattern (part-*.csv), a folder of Parquet files, or a list; "
        "relative to the config's folder."
    )
    test_path: Paths | None = Field(None, description="A table with the same columns, used as the test split.")
    target: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="The column to predict; several for regression of several values."
    )
    features: list[str] | None = Field(
        None, min_length=1, description="The columns to predict from; all columns but the target when left out."
    )
    columns: dict[str, ColumnKind | Annotated[str, Field(pattern=DATE_PATTERN)]] = Field(
        default_factory=dict,
        description="Kinds of columns, where the ones that are found are wrong: {zip: categorical, note: ignore}.",
    )
    split: Split = Field(
        default_factory=lambda: RandomSplit.model_construct(type="random"),
        description="How rows are held out: at random, by group, by time, or as a column says.",
    )
    weight: Name | None = Field(
        None, description="A column of numbers from 0 on: how much a row counts in the loss. It is no feature."
    )
    task: Literal["auto", "classification", "regression"] = Field(
        "auto",
        description="What the target is; auto is classification for text, true and false, and at most 20 different "
        "whole numbers, else regression.",
    )
    missing: Literal["impute", "refuse"] = Field(
        "impute",
        description="Missing cells: the median of the column and a flag (categories: a value of their own), or an "
        "error. Rows without a target are left out.",
    )
    missing_values: list[str] | None = Field(
        None, description="What a missing cell is written as, beside nothing; null for the spellings of pandas and ?."
    )
    unseen: Literal["own", "refuse"] = Field(
        "own", description="Values that the training did not have: treated as missing, or an error."
    )
    header: bool | None = Field(None, description="Whether the first line names the columns; null to find out.")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="The character between two cells; null to find it."
    )
    decimal: Literal[".", ","] | None = Field(None, description="The decimal mark; null to find it.")
    encoding: str | None = Field(
        None, min_length=1, description="The encoding of the text, such as utf-8 or cp1252; null to find it."
    )

    @property
    def targets(self) -> list[str]:
        """The columns to predict."""
        return [self.target] if isinstance(self.target, str) else self.target

    @property
    def split_type(self) -> str:
        """As for ``ValSplit``."""
        return self.split.type

    def known_info(self) -> DatasetInfo:
        """The properties that the config alone implies."""
        task = "regression" if self.task == "auto" and len(self.targets) > 1 else self.task
        known = None if task == "auto" else task
        key_of = {
            "task": "task" if self.task != "auto" else "target",
            "num_classes": "target",
            "num_targets": "target",
            "num_features": "path",
        }
        num_targets = None if task == "classification" else len(self.targets)
        info = DatasetInfo("table", known, num_targets=num_targets, key_of=key_of)
        if not isinstance(self.split, ColumnSplit):
            return self.after_split(info)
        return replace(info, num_val=0) if self.split.test is not None and not self.split.val else info

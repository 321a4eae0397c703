"""``dataset:`` where the samples come from, and how they are split."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainkit.config.schema.base import DATE_PATTERN, Count, Fraction, NonNegative, Section, ShortForm

Byte = Annotated[int, Field(ge=0, le=255)]


@dataclass(frozen=True)
class DatasetInfo:
    """Properties of a data set, from its config alone or from the opened data; None: unknown."""

    kind: Literal["image", "table"]
    task: Literal["classification", "regression"] | None = None
    num_classes: int | None = None
    """None for regression too."""
    num_targets: int | None = None
    """Values to predict for each sample; None for classification too."""
    num_features: int | None = None
    """Columns of a table, after one-hot encoding."""
    num_categorical: int | None = None
    """Columns of a table that hold categories."""
    image_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    """(C, H, W) as stored, before any transform."""
    static_shape: tuple[int, int, int] | None = None
    """(C, H, W) after the static transforms."""
    num_train: int | None = None
    num_val: int | None = None
    """0: there is no validation split."""
    num_test: int | None = None
    val_classes: int | None = None
    """Classes with samples in the validation split; None where there are none to predict."""
    key_of: Mapping[str, str] = field(default_factory=dict)
    """``{"task": "target"}``: the key of ``dataset:`` that a property comes from, where that is not its ``type``."""

    def key(self, name: str) -> str:
        """The key path of the config that a property comes from, for messages about it."""
        return f"dataset.{self.key_of.get(name, 'type')}"


class ValSplit(Section):
    """Sources with an official test set: validation samples are taken from the training set."""

    unsplit: ClassVar[DatasetInfo]
    """The properties before samples are held out; ``num_train`` counts all samples but an official test set."""
    location_keys: ClassVar[tuple[str, ...]] = ()
    """Keys with the location of the files, which do not change the data: they may differ when a run is resumed."""

    val_fraction: Fraction = Field(
        0.1,
        description="Share of the training set held out for validation, seeded and stratified by class; 0 for none.",
    )

    @property
    def split_type(self) -> str:
        """How samples are held out: ``random`` and ``group`` by the seed, ``time``; ``column`` without fractions."""
        return "random"

    def known_info(self) -> DatasetInfo:
        """The properties that the config alone implies."""
        return self.after_split(self.unsplit)

    def after_split(self, info: DatasetInfo) -> DatasetInfo:
        """``info`` with the sizes of the splits that the fractions make."""
        if info.num_train is None:
            return info if self.val_fraction else replace(info, num_val=0)
        num_val = _share(self.val_fraction, info.num_train)
        return replace(info, num_train=info.num_train - num_val, num_val=num_val)


class Folds(Section):
    """One fold of a cross-validation as the test split; `trainkit cv` trains on each of them in turn."""

    count: int = Field(ge=2, description="How many folds the samples are in: seeded, stratified by class.")
    fold: int = Field(ge=0, description="The fold that is the test split, from 0.")


class ValTestSplit(ValSplit):
    """Sources without an official test set: both splits are taken from the samples."""

    test_fraction: Fraction = Field(
        0.2, description="Share of all samples held out for testing, seeded and stratified by class; 0 for none."
    )
    folds: Folds | None = Field(
        None,
        description="One fold of a cross-validation takes the place of test_fraction; the validation split comes out "
        "of the other folds, and a test set of the data's own is left out.",
    )

    def after_split(self, info: DatasetInfo) -> DatasetInfo:
        """As for ``ValSplit``; the test split is taken first."""
        if info.num_train is not None:
            num_test = _share(self.test_fraction, info.num_train)
            if self.folds is not None:
                num_test = (info.num_train - 1 - self.folds.fold) // self.folds.count + 1
            info = replace(info, num_train=info.num_train - num_test, num_test=num_test)
        return super().after_split(info)


class ScaledTarget(Section):
    """Sources whose targets may be values."""

    scale_target: Literal["auto"] | bool = Field(
        "auto",
        description="Let the model see the values to predict with mean 0 and standard deviation 1 over the training "
        "split; losses, scores and predictions are in their own units. auto: unless they are about so already.",
    )


def _share(fraction: float, count: int) -> int:
    """Rounded as the splitting does."""
    return math.floor(fraction * count + 0.5)


class Digits(ValTestSplit):
    """1797 handwritten digits, 8 x 8 gray, 10 classes; bundled with scikit-learn (UCI Optical Recognition)."""

    unsplit: ClassVar[DatasetInfo] = DatasetInfo(
        "image", "classification", num_classes=10, image_shape=(1, 8, 8), num_train=1797
    )

    type: Literal["digits"]


class Iris(ValTestSplit):
    """150 flowers, 4 features, 3 classes; bundled with scikit-learn (Fisher, 1936)."""

    unsplit: ClassVar[DatasetInfo] = DatasetInfo(
        "table", "classification", num_classes=3, num_features=4, num_train=150
    )

    type: Literal["iris"]


class Wine(ValTestSplit):
    """178 wines, 13 features, 3 classes; bundled with scikit-learn (UCI)."""

    unsplit: ClassVar[DatasetInfo] = DatasetInfo(
        "table", "classification", num_classes=3, num_features=13, num_train=178
    )

    type: Literal["wine"]


class BreastCancer(ValTestSplit):
    """569 tumors, 30 features, 2 classes; bundled with scikit-learn (UCI Wisconsin Diagnostic)."""

    unsplit: ClassVar[DatasetInfo] = DatasetInfo(
        "table", "classification", num_classes=2, num_features=30, num_train=569
    )

    type: Literal["breast_cancer"]


class Diabetes(ValTestSplit, ScaledTarget):
    """442 patients, 10 features, one value to predict; bundled with scikit-learn (Efron et al., 2004)."""

    unsplit: ClassVar[DatasetInfo] = DatasetInfo("table", "regression", num_targets=1, num_features=10, num_train=442)

    type: Literal["diabetes"]


class Downloaded(ValSplit):
    """A public set that torchvision can download."""

    location_keys: ClassVar[tuple[str, ...]] = ("root", "download")

    root: str = Field(
        "data",
        min_length=1,
        description="Folder that holds, or will hold, the downloaded files; relative to the config's folder.",
    )
    download: bool = Field(True, description="Whether files that are not there may be downloaded.")


_MNIST = DatasetInfo(
    "image", "classification", num_classes=10, image_shape=(1, 28, 28), num_train=60_000, num_test=10_000
)
_CIFAR = DatasetInfo(
    "image", "classification", num_classes=10, image_shape=(3, 32, 32), num_train=50_000, num_test=10_000
)


class Mnist(Downloaded):
    """70,000 handwritten digits, 28 x 28 gray, 10 classes."""

    unsplit: ClassVar[DatasetInfo] = _MNIST

    type: Literal["mnist"]


class FashionMnist(Downloaded):
    """70,000 pictures of clothing, 28 x 28 gray, 10 classes."""

    unsplit: ClassVar[DatasetInfo] = _MNIST

    type: Literal["fashion_mnist"]


class Kmnist(Downloaded):
    """70,000 cursive Japanese characters, 28 x 28 gray, 10 classes."""

    unsplit: ClassVar[DatasetInfo] = _MNIST

    type: Literal["kmnist"]


class Cifar10(Downloaded):
    """60,000 photographs, 32 x 32 RGB, 10 classes."""

    unsplit: ClassVar[DatasetInfo] = _CIFAR

    type: Literal["cifar10"]


class Cifar100(Downloaded):
    """60,000 photographs, 32 x 32 RGB, 100 classes."""

    unsplit: ClassVar[DatasetInfo] = replace(_CIFAR, num_classes=100)

    type: Literal["cifar100"]


class ImageFolder(ValTestSplit):
    """One folder a class, either directly under ``root`` or under the folders of splits, by their usual names."""

    location_keys: ClassVar[tuple[str, ...]] = ("root",)

    type: Literal["image_folder"]
    root: str = Field(
        min_length=1,
        description="Folder with one folder a class, or with folders for the splits (train, Training, valid, ...); "
        "relative to the config's folder.",
    )
    color: Literal["auto", "rgb", "gray"] = Field(
        "auto", description="Channels of the decoded images; auto is gray where every image is, else rgb."
    )
    background: Literal["white", "black"] | Annotated[list[Byte], Field(min_length=3, max_length=3)] = Field(
        "white", description="What transparent images are blended on: white, black, or [red, green, blue], 0 to 255."
    )
    value_range: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="[low, high] of gray values of more than 8 bits, which become 0 and 1; null for those in use.",
    )
    cache_size: Literal["auto", "none"] | Count = Field(
        "auto",
        description="Images that random_resized_crop takes in their own sizes are kept with as many pixels as N x N at "
        "most; auto: as many as the smallest crop can use; none: all.",
    )
    max_bad_files: int = Field(
        0, ge=0, description="How many unreadable images may be skipped (they are counted in run.json); 0 refuses them."
    )

    def known_info(self) -> DatasetInfo:
        """The properties that the config alone implies; the folder may have a validation split of its own."""
        channels = {"rgb": 3, "gray": 1}.get(self.color)
        key_of = {"channels": "root" if channels is None else "color", "num_classes": "root"}
        return DatasetInfo("image", "classification", image_shape=(channels, None, None), key_of=key_of)


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


class Blobs(Section):
    """Gaussian clusters, one a class."""

    type: Literal["blobs"]
    num_features: Count = Field(2, description="Number of input features.")
    num_classes: int = Field(3, ge=2, description="Number of clusters.")
    spread: NonNegative = Field(1.0, description="Standard deviation of each cluster; the centers lie in [-5, 5].")


class Moons(Section):
    """Two interleaved half circles."""

    type: Literal["moons"]
    noise: NonNegative = Field(0.1, description="Standard deviation of the noise on both coordinates.")


class Spirals(Section):
    """Intertwined spiral arms, one a class."""

    type: Literal["spirals"]
    num_classes: int = Field(2, ge=2, le=20, description="Number of arms.")
    noise: NonNegative = Field(0.1, description="Standard deviation of the noise on both coordinates.")


class LinearRegression(Section):
    """``y = x W + b + noise`` with standard normal x, W and b."""

    type: Literal["linear_regression"]
    num_features: Count = Field(10, description="Number of input features.")
    num_targets: Count = Field(1, description="Number of values to predict.")
    noise: NonNegative = Field(0.1, description="Standard deviation of the noise on the targets.")


class RandomBinary(Section):
    """Standard normal features with random 0/1 labels: nothing to learn, good to see overfitting."""

    type: Literal["random_binary"]
    num_features: Count = Field(5, description="Number of input features.")


Problem = Annotated[Blobs | Moons | Spirals | LinearRegression | RandomBinary, Field(discriminator="type"), ShortForm]


class Synthetic(ValTestSplit, ScaledTarget):
    """Samples drawn from a formula, the same for the same seed."""

    type: Literal["synthetic"]
    problem: Problem = Field(description="The formula that the samples are drawn from.")
    num_samples: int = Field(1000, ge=2, le=100_000_000, description="Number of samples over all splits.")
    data_seed: int = Field(0, ge=0, description="Seed of the samples, apart from the seed of the run.")

    def known_info(self) -> DatasetInfo:
        """The properties that the config alone implies."""
        chosen = self.problem.model_dump(include={"num_features", "num_classes", "num_targets"})
        regression = "num_targets" in chosen
        sizes = {"num_features": 2} | ({} if regression else {"num_classes": 2}) | chosen
        key_of = {name: f"problem.{name if name in chosen else 'type'}" for name in (*sizes, "task")}
        task: Literal["classification", "regression"] = "regression" if regression else "classification"
        return self.after_split(DatasetInfo("table", task, num_train=self.num_samples, **sizes, key_of=key_of))


class OwnData(ValTestSplit):
    """What every data set of a plug-in is, beside its own knobs."""

    kind: ClassVar[Literal["image", "table"]]
    task: ClassVar[Literal["classification", "regression"]]

    def known_info(self) -> DatasetInfo:
        """The properties that the class says; the splits may be its own."""
        return DatasetInfo(self.kind, self.task)


class OwnValues(OwnData, ScaledTarget):
    """The same for values to predict."""


Dataset = Annotated[
    Digits
    | Iris
    | Wine
    | BreastCancer
    | Diabetes
    | Mnist
    | FashionMnist
    | Kmnist
    | Cifar10
    | Cifar100
    | ImageFolder
    | Table
    | Synthetic,
    Field(discriminator="type"),
    ShortForm,
]

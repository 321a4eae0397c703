"""What is known of a data set, and how its samples are split."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from pydantic import Field

from trainkit.config.schema.base import Fraction, Section


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

"""``dataset:`` where the samples come from."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainkit.config.schema.base import Count, NonNegative, Section, ShortForm
from trainkit.config.schema.splits import DatasetInfo, ScaledTarget, ValSplit, ValTestSplit
from trainkit.config.schema.tables import Table

Byte = Annotated[int, Field(ge=0, le=255)]


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

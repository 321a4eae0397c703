"""``dataset:`` where the samples come from, and how they are split."""

from typing import Annotated, Literal

from pydantic import Field

from trainkit.config.schema.base import Count, Fraction, NonNegative, Section, ShortForm


class ValSplit(Section):
    """Sources with an official test set: validation samples are taken from the training set."""

    val_fraction: Fraction = Field(
        0.1,
        description="Share of the training set held out for validation, seeded and stratified by class; 0 for none.",
    )


class ValTestSplit(ValSplit):
    """Sources without an official test set: both splits are taken from the samples."""

    test_fraction: Fraction = Field(
        0.2, description="Share of all samples held out for testing, seeded and stratified by class; 0 for none."
    )


class Digits(ValTestSplit):
    """1797 handwritten digits, 8 x 8 grey, 10 classes; bundled with scikit-learn (UCI Optical Recognition)."""

    type: Literal["digits"]


class Iris(ValTestSplit):
    """150 flowers, 4 features, 3 classes; bundled with scikit-learn (Fisher, 1936)."""

    type: Literal["iris"]


class Wine(ValTestSplit):
    """178 wines, 13 features, 3 classes; bundled with scikit-learn (UCI)."""

    type: Literal["wine"]


class BreastCancer(ValTestSplit):
    """569 tumours, 30 features, 2 classes; bundled with scikit-learn (UCI Wisconsin Diagnostic)."""

    type: Literal["breast_cancer"]


class Diabetes(ValTestSplit):
    """442 patients, 10 features, one value to predict; bundled with scikit-learn (Efron et al., 2004)."""

    type: Literal["diabetes"]


class Downloaded(ValSplit):
    """A public set that torchvision can download."""

    root: str = Field("data", min_length=1, description="Folder that holds, or will hold, the downloaded files.")
    download: bool = Field(True, description="Whether files that are not there may be downloaded.")


class Mnist(Downloaded):
    """70,000 handwritten digits, 28 x 28 grey, 10 classes."""

    type: Literal["mnist"]


class FashionMnist(Downloaded):
    """70,000 pictures of clothing, 28 x 28 grey, 10 classes."""

    type: Literal["fashion_mnist"]


class Kmnist(Downloaded):
    """70,000 cursive Japanese characters, 28 x 28 grey, 10 classes."""

    type: Literal["kmnist"]


class Cifar10(Downloaded):
    """60,000 photographs, 32 x 32 RGB, 10 classes."""

    type: Literal["cifar10"]


class Cifar100(Downloaded):
    """60,000 photographs, 32 x 32 RGB, 100 classes."""

    type: Literal["cifar100"]


class ImageFolder(ValTestSplit):
    """One folder a class, either directly under ``root`` or under ``root/train``, ``root/val`` and ``root/test``."""

    type: Literal["image_folder"]
    root: str = Field(min_length=1, description="Folder with one folder a class, or with train/, val/ and test/.")
    color: Literal["auto", "rgb", "gray"] = Field(
        "auto", description="Channels of the decoded images; auto is gray where every image is, else rgb."
    )
    max_bad_files: int = Field(
        0, ge=0, description="How many unreadable images may be skipped (they are counted in run.json); 0 refuses them."
    )


class Csv(ValTestSplit):
    """A table with a header line; columns are named, never numbered."""

    type: Literal["csv"]
    path: str = Field(min_length=1, description="The CSV file with the training samples.")
    test_path: str | None = Field(None, description="A CSV file with the same columns, used as the test split.")
    target: str = Field(min_length=1, description="The column to predict.")
    features: list[str] | None = Field(
        None, min_length=1, description="The columns to predict from; all columns but the target when left out."
    )
    categorical: list[str] = Field(
        default_factory=list, description="Feature columns that hold categories: they are one-hot encoded."
    )
    task: Literal["auto", "classification", "regression"] = Field(
        "auto", description="What the target is; auto is regression where every target is a number with a fraction."
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="The character between two cells.")


class Blobs(Section):
    """Gaussian clusters, one a class."""

    type: Literal["blobs"]
    num_features: Count = Field(2, description="Number of input features.")
    num_classes: int = Field(3, ge=2, description="Number of clusters.")
    spread: NonNegative = Field(1.0, description="Standard deviation of each cluster; the centres lie in [-5, 5].")


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


class Synthetic(ValTestSplit):
    """Samples drawn from a formula, the same for the same seed."""

    type: Literal["synthetic"]
    problem: Problem = Field(description="The formula that the samples are drawn from.")
    num_samples: int = Field(1000, ge=2, le=100_000_000, description="Number of samples over all splits.")
    data_seed: int = Field(0, ge=0, description="Seed of the samples, apart from the seed of the run.")


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
    | Csv
    | Synthetic,
    Field(discriminator="type"),
    ShortForm,
]

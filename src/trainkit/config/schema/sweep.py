"""The schema of a sweep's file: what is searched, how, for how long."""

from typing import Annotated, Any, Literal

from pydantic import Field

from trainkit.config.schema import Device
from trainkit.config.schema.base import NAME_PATTERN, Count, Epochs, Positive, Range, Section, ShortForm, short_by_key

_IntRange = Annotated[list[int], Field(min_length=2, max_length=2)]
_Text = Annotated[str, Field(min_length=1)]


class LogUniform(Section):
    """Numbers whose logarithm is uniform: each factor of ten is as likely as the next."""

    type: Literal["log_uniform"]
    log_uniform: Range = Field(description="The lowest and the highest number, both above 0.")


class Uniform(Section):
    """Numbers, each as likely as the next."""

    type: Literal["uniform"]
    uniform: Range = Field(description="The lowest and the highest number.")
    step: Positive | None = Field(None, description="Distance of the numbers; any number when left out.")


class Int(Section):
    """Whole numbers."""

    type: Literal["int"]
    int: _IntRange = Field(description="The lowest and the highest whole number.")
    step: Count = Field(1, description="Distance of the numbers.")
    log: bool = Field(False, description="Draw them as log_uniform does.")


class OneOf(Section):
    """One of the values of a list, whole sections included."""

    type: Literal["choice"]
    choice: list[Any] = Field(min_length=2, description="The values to choose from.")


Space = Annotated[
    LogUniform | Uniform | Int | OneOf,
    Field(discriminator="type"),
    *(short_by_key(name) for name in ("log_uniform", "uniform", "int", "choice")),
]


class Grid(Section):
    """Every combination of the values once."""

    type: Literal["grid"]


class Random(Section):
    """Values that do not depend on those before."""

    type: Literal["random"]


class Tpe(Section):
    """Tree-structured Parzen estimators: values near those that were good (Bergstra et al., 2011)."""

    type: Literal["tpe"]
    startup: Count = Field(10, description="Trials with random values at the beginning.")


class Gp(Section):
    """A Gaussian process: most for its trials where there are few numbers and few trials."""

    type: Literal["gp"]
    startup: Count = Field(10, description="Trials with random values at the beginning.")


class CmaEs(Section):
    """CMA-ES: an evolution strategy for several numbers and many trials (Hansen, 2016)."""

    type: Literal["cmaes"]


Sampler = Annotated[Grid | Random | Tpe | Gp | CmaEs, Field(discriminator="type"), ShortForm]


class NoPruner(Section):
    """Every trial is trained to its end."""

    type: Literal["none"]


class Median(Section):
    """A trial stops where its best value so far is worse than the median of the others at that epoch."""

    type: Literal["median"]
    min: Epochs = Field(1, description="Epochs that every trial gets (2, 2ep).")
    startup: Count = Field(5, description="Trials that are trained to their end first.")


class Asha(Section):
    """Successive halving: at each rung the best go on, and each rung is longer than the last (Li et al., 2020)."""

    type: Literal["asha"]
    min: Epochs = Field(1, description="Epochs that every trial gets, the first rung (2, 2ep).")
    reduction: Annotated[int, Field(ge=2)] = Field(
        3, description="One in so many goes on at a rung, and the next rung is so many times as long."
    )


class Hyperband(Section):
    """Successive halving several times, each with another first rung (Li et al., 2018)."""

    type: Literal["hyperband"]
    min: Epochs = Field(1, description="Epochs that every trial gets, the shortest first rung (2, 2ep).")
    reduction: Annotated[int, Field(ge=2)] = Field(
        3, description="One in so many goes on at a rung, and the next rung is so many times as long."
    )


Pruner = Annotated[NoPruner | Median | Asha | Hyperband, Field(discriminator="type"), ShortForm]


class Budget(Section):
    """When the sweep ends; at the first of both."""

    trials: Count | None = Field(None, description="Number of trials.")
    minutes: Positive | None = Field(None, description="Time after which no trial starts.")


class Parallel(Section):
    """Trials at the same time; the CPU's threads are shared out among them."""

    trials: Count = Field(1, description="How many trials run at the same time.")
    devices: Annotated[list[Device], Field(min_length=1)] | None = Field(
        None, description="Devices that the trials take in turn; the config's device when left out."
    )


class Confirm(Section):
    """Train the best trials again with fresh seeds, which tells what is better from what is noise."""

    top: Count = Field(3, description="How many of the best trials.")
    seeds: Annotated[int, Field(ge=2)] = Field(3, description="Runs of each, with seeds that the search did not see.")


class Sweep(Section):
    """A search for good settings of a config."""

    config: _Text = Field(description="The config to improve: a file, relative to this one, or a shipped config.")
    set: dict[str, Any] = Field(
        default_factory=dict, description="Values that every trial has in place of the config's: {training.epochs: 20}."
    )
    objective: _Text = Field(
        description="The metric of the validation that trials are compared by, such as val_accuracy."
    )
    search: dict[str, Space] = Field(
        description="By config path, what is tried: {log_uniform: [low, high]}, {uniform: ...}, {int: ...} or "
        "{choice: [...]}."
    )
    sampler: Sampler = Field(
        default_factory=lambda: Tpe.model_construct(type="tpe"), description="How the next values are chosen."
    )
    pruner: Pruner = Field(
        default_factory=lambda: NoPruner.model_construct(type="none"), description="Which trials stop early."
    )
    budget: Budget = Field(default_factory=Budget.model_construct, description="When the sweep ends.")
    parallel: Parallel = Field(default_factory=Parallel.model_construct, description="Trials at the same time.")
    confirm: Confirm | None = Field(None, description="Train the best again; not done when left out.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the sampler.")
    name: str | None = Field(
        None, pattern=NAME_PATTERN, description="Name of the folder in sweeps/; the file's name when left out."
    )

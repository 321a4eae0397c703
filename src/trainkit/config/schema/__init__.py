"""The schema of a config file: closed choices, every field with a sentence, unknown keys refused. Knows no torch."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainkit.config.schema.base import NAME_PATTERN, Section
from trainkit.config.schema.data import Dataset
from trainkit.config.schema.fine_tuning import FineTuning
from trainkit.config.schema.losses import AutoLoss, Loss
from trainkit.config.schema.model import Model
from trainkit.config.schema.optimization import Adam, Constant, Optimizer, Scheduler
from trainkit.config.schema.run import Checkpoint, Distributed, Export, Logging, Training
from trainkit.config.schema.transforms import Transform
from trainkit.plugins import Plugin

Device = Literal["auto", "cpu", "cuda", "mps"] | Annotated[str, Field(pattern=r"^cuda:\d{1,3}$")]


class Config(Section):
    """A training run."""

    plugins: ClassVar[tuple[Plugin, ...]] = ()
    """Those whose parts it may name."""
    own_parts: ClassVar[Mapping[str, tuple[type[Section], ...]]] = {}
    """Their parts by kind, with their types."""
    own_metrics: ClassVar[Mapping[str, type[Section]]] = {}
    """Theirs, by the names that they are watched by: ``val_acme.TopTwo``."""

    name: str | None = Field(
        None, pattern=NAME_PATTERN, description="Name of run folders and checkpoints; the file's name when left out."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of weights, data order, augmentation, dropout and splits.")
    device: Device = Field("auto", description="auto (cuda, then mps, then cpu), cpu, cuda, cuda:N or mps.")
    dataset: Dataset = Field(description="Where the samples come from.")
    transforms: list[Transform] = Field(
        default_factory=list,
        description="What happens to a sample, in order; random ones act on training data only. auto: what the weights "
        "of a pretrained network want.",
    )
    model: Model = Field(description="The network.")
    loss: Loss = Field(
        default_factory=lambda: AutoLoss.model_construct(type="auto"), description="What training minimizes."
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Adam.model_construct(type="adam"), description="How the weights move."
    )
    scheduler: Scheduler = Field(
        default_factory=lambda: Constant.model_construct(type="constant"), description="How the learning rate moves."
    )
    fine_tuning: FineTuning = Field(
        default_factory=FineTuning.model_construct, description="What is frozen, and until when."
    )
    training: Training = Field(default_factory=Training.model_construct, description="The loop.")
    distributed: Distributed = Field(
        default_factory=Distributed.model_construct, description="Several processes for one run."
    )
    checkpoint: Checkpoint = Field(default_factory=Checkpoint.model_construct, description="What is saved.")
    logging: Logging = Field(default_factory=Logging.model_construct, description="What is written down.")
    export: Export = Field(default_factory=Export.model_construct, description="What is exported at the end.")

"""``fine_tuning:``: what is frozen, and until when."""

from typing import Annotated, Literal

from pydantic import Field

from trainkit.config.schema.base import Section, Steps

Names = Annotated[list[str], Field(min_length=1)]


class Unfreezing(Section):
    """From a position of the run on, frozen modules train."""

    at: Steps = Field(description="Position (3ep: after three epochs; 500st: after 500 optimizer steps).")
    modules: Names | Literal["all"] = Field(
        description="Names of frozen modules, with all that is in them, or of parameters; all: all that are left."
    )


class FineTuning(Section):
    """What is frozen: its weights do not move, and its layers compute as in evaluation."""

    freeze: Literal["none", "backbone"] | Names = Field(
        "none",
        description="none, backbone (all but the head), or names of modules, with all that is in them, or of "
        "parameters; trainkit inspect lists them.",
    )
    unfreeze: list[Unfreezing] = Field(
        default_factory=list, description="Where frozen modules begin to train, in rising order."
    )
    batch_norm: Literal["auto", "train", "frozen"] = Field(
        "auto",
        description="Statistics of batch norm: auto keeps those of frozen layers, train moves them all, frozen keeps "
        "them all over the whole run.",
    )
    cache_features: bool | Literal["auto"] = Field(
        "auto",
        description="Compute the output of the backbone once, while all of it is frozen and nothing random stands "
        "before the head; auto does so where it can, and prints why it does not.",
    )

"""``model:`` of torchvision or timm: a network by name, its weights, and the head that replaces its last layer."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trainkit.config.schema.base import Count, Probability, Section
from trainkit.config.schema.presets import TORCHVISION

if TYPE_CHECKING:
    TorchvisionName = str
else:
    TorchvisionName = Literal[tuple(TORCHVISION)]

WEIGHT_FILES = (".pth", ".pt", ".safetensors")
"""How the names of weights files end."""


class Head(Section):
    """What replaces the network's last layer: linear -> relu for each hidden size, then a linear output."""

    dropout: Probability | None = Field(
        None, description="Share of activations dropped before each layer of the head; the network's own when left out."
    )
    hidden_sizes: list[Count] = Field(
        default_factory=list, description="Widths of hidden layers between the network and the output."
    )


_WEIGHTS: Any = Field(
    "default",
    min_length=1,
    description="default (the best published ones), none (start from scratch), the name of published ones "
    "(IMAGENET1K_V2), or the path of a .pth, .pt or .safetensors file.",
)
_SHA256: Any = Field(
    None,
    pattern="^[0-9a-f]{64}$",
    description="SHA-256 that the file of the weights must have; a run writes it into its config.resolved.yaml.",
)
_HEAD: Any = Field(
    default_factory=Head.model_construct,
    description="What replaces the last layer, for the classes or values of the data; keep leaves it as it is.",
)
_DROPOUT_SCHEDULE: Any = Field(
    None, description="constant, or flat_cos: flat for the first half of the run, then half a cosine wave to 0."
)


class Torchvision(Section):
    """A classifier of torchvision, with published weights or from scratch."""

    type: Literal["torchvision"]
    name: TorchvisionName = Field(description="Its name in torchvision.models.")
    weights: str = _WEIGHTS
    sha256: str | None = _SHA256
    head: Head | Literal["keep"] = _HEAD
    dropout_schedule: Literal["constant", "flat_cos"] | None = _DROPOUT_SCHEDULE


class Timm(Section):
    """A network of timm (extra: timm), with published weights or from scratch."""

    type: Literal["timm"]
    name: str = Field(min_length=1, description="Its name in timm.list_models().")
    weights: str = _WEIGHTS
    sha256: str | None = _SHA256
    revision: str | None = Field(
        None,
        min_length=1,
        description="Commit of the weights' repository; a run writes it into its config.resolved.yaml.",
    )
    head: Head | Literal["keep"] = _HEAD
    dropout_schedule: Literal["constant", "flat_cos"] | None = _DROPOUT_SCHEDULE


Pretrained = Torchvision | Timm


def weights_file(model: Any) -> str | None:
    """The path of the weights of a model, where they are a file; any section will do."""
    if not isinstance(model, Pretrained):
        return None
    is_path = model.weights.endswith(WEIGHT_FILES) or "/" in model.weights or "\\" in model.weights
    return model.weights if is_path else None


def published_weights(model: Torchvision | Timm) -> str | None:
    """The name of the weights; None where the network starts from scratch or from a file."""
    if model.weights == "none" or weights_file(model) is not None:
        return None
    first = next(iter(TORCHVISION[model.name])) if isinstance(model, Torchvision) else "default"
    return first if model.weights == "default" else model.weights

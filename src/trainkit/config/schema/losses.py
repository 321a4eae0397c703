"""``loss:``, with PyTorch's own argument names and defaults."""

from typing import Annotated, Any, Literal

from pydantic import Field

from trainkit.config.schema.base import Fraction, NonNegative, Positive, Section, ShortForm

ClassWeights = list[NonNegative] | Literal["balanced"] | None
_CLASS_WEIGHTS: Any = Field(
    None, description="One weight a class, in the order of the class names; balanced: n / (classes x count)."
)


class AutoLoss(Section):
    """cross_entropy for classes, mse for values."""

    type: Literal["auto"]
    label_smoothing: Fraction = Field(0.0, description="Of classes: share of the target spread evenly over all.")


class CrossEntropy(Section):
    """``torch.nn.CrossEntropyLoss``: takes raw scores (logits), one a class."""

    type: Literal["cross_entropy"]
    label_smoothing: Fraction = Field(0.0, description="Share of the target spread evenly over all classes.")
    weight: ClassWeights = _CLASS_WEIGHTS


class Focal(Section):
    """The focal loss (Lin et al., 2017): cross-entropy that counts less for samples that the model knows well."""

    type: Literal["focal"]
    gamma: NonNegative = Field(2.0, description="Power of 1 - p that the loss is multiplied by; 0: cross-entropy.")
    label_smoothing: Fraction = Field(0.0, description="Share of the target spread evenly over all classes.")
    weight: ClassWeights = _CLASS_WEIGHTS


class Nll(Section):
    """``torch.nn.NLLLoss``: takes log-probabilities (log_softmax), one a class."""

    type: Literal["nll"]
    weight: ClassWeights = _CLASS_WEIGHTS


class Bce(Section):
    """``torch.nn.BCELoss``: takes one probability (sigmoid) for two classes."""

    type: Literal["bce"]


class BceWithLogits(Section):
    """``torch.nn.BCEWithLogitsLoss``: takes one raw score (logit) for two classes."""

    type: Literal["bce_with_logits"]
    pos_weight: float | Literal["balanced"] | None = Field(
        None, description="Weight of the second class; balanced: count of the first / count of the second."
    )


class Mse(Section):
    """``torch.nn.MSELoss``."""

    type: Literal["mse"]


class L1(Section):
    """``torch.nn.L1Loss``."""

    type: Literal["l1"]


class SmoothL1(Section):
    """``torch.nn.SmoothL1Loss``."""

    type: Literal["smooth_l1"]
    beta: Positive = Field(
        1.0, description="Error at which the loss turns from squared to absolute, in the target's units."
    )


class Huber(Section):
    """``torch.nn.HuberLoss``."""

    type: Literal["huber"]
    delta: Positive = Field(
        1.0, description="Error at which the loss turns from squared to absolute, in the target's units."
    )


class QuantileLoss(Section):
    """The pinball loss (Koenker and Bassett, 1978): the model predicts a quantile in place of the mean."""

    type: Literal["quantile"]
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Share of the targets that lie below the value to predict."
    )


OUTPUTS_AS = {"logits": "cross_entropy", "logit": "bce_with_logits", "log_probabilities": "nll", "values": "mse"}
"""What the loss of a plug-in says of the outputs that it takes, and the loss of trainkit's that takes the same."""

Loss = Annotated[
    AutoLoss | CrossEntropy | Focal | Nll | Bce | BceWithLogits | Mse | L1 | SmoothL1 | Huber | QuantileLoss,
    Field(discriminator="type"),
    ShortForm,
]

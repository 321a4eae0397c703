"""The names of the metrics that a run has, for ``monitor``: the one place that lists them."""

from __future__ import annotations

from typing import Literal

TRAIN_CLASSIFICATION = ("train_loss", "train_accuracy")
TRAIN_REGRESSION = ("train_loss",)
VAL_CLASSIFICATION = (
    "val_loss",
    "val_accuracy",
    "val_top5_accuracy",
    "val_precision_macro",
    "val_recall_macro",
    "val_f1_macro",
)
VAL_REGRESSION = ("val_loss", "val_mae", "val_rmse", "val_r2")


def names(
    task: Literal["classification", "regression"] | None, *, num_classes: int | None, validation: bool
) -> tuple[str, ...]:
    """The metrics of a run; everything that is possible where task or number of classes are not known."""
    found: list[str] = []
    if task != "regression":
        found += (VAL_CLASSIFICATION if validation else ()) + TRAIN_CLASSIFICATION
    if task != "classification":
        found += (VAL_REGRESSION if validation else ()) + TRAIN_REGRESSION
    if num_classes is not None and num_classes <= 5:
        found = [name for name in found if name != "val_top5_accuracy"]
    return tuple(dict.fromkeys(found))

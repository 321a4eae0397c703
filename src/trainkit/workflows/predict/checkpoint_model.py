"""A trained model from its checkpoint alone: no config, no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from trainkit.builders.model import build_model, is_channels_last
from trainkit.builders.setup import eval_batch_size
from trainkit.checkpoints.serialization import load_checkpoint
from trainkit.checkpoints.state_dicts import check_fits
from trainkit.config import config_from_dict
from trainkit.config.schema import Config
from trainkit.config.schema.data import Csv
from trainkit.data.transforms.normalize import Normalize, Standardize
from trainkit.data.transforms.pipeline import BatchTransform, Pipeline, build_pipeline
from trainkit.engine.losses import Loss, LossName, build_loss, output_size
from trainkit.errors import CheckpointError
from trainkit.models.network import Network
from trainkit.runtime.device import autocast, resolve_device
from trainkit.workflows.scoring import scored_weights

_no_indices = np.zeros(0, dtype=np.int64)
"""Only random steps ask for them."""


@dataclass(frozen=True)
class TrainedModel:
    """A model that answers as it did when it was scored."""

    path: Path
    config: Config
    model: Network
    """In eval mode, on the device."""
    loss: Loss
    """Without the class weights: it says what the outputs mean."""
    class_names: tuple[str, ...]
    """() for regression."""
    target_names: tuple[str, ...]
    """() for classification."""
    preprocessing: Mapping[str, Any]
    device: torch.device
    precision: str
    pipeline: Pipeline
    batch_size: int
    """That of evaluation."""
    delimiter: str = ","
    """Of CSV files."""
    any_size: bool = False
    """Images have to come through the front of the transforms first."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.preprocessing["input_shape"])

    @torch.inference_mode()
    def answer(self, rows: Tensor) -> Tensor:
        """Probabilities (N, K), or values (N, T), float32 on the CPU.

        ``rows`` are samples after the front of the transforms: uint8 (N, C, H, W), or table features float32 (N, F).
        """
        inputs = self.pipeline(rows.to(self.device), _no_indices, epoch=0)
        with autocast(self.device, self.precision):
            outputs = self.model(inputs)
        outputs = outputs.float()
        return (self.loss.probabilities(outputs) if self.loss.is_classification else outputs).cpu()


def restore_model(path: Path, *, device: str = "auto") -> TrainedModel:
    """Load a checkpoint to answer with.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        ProblemsError: there is no such device.
    """
    saved = load_checkpoint(path)
    config = config_from_dict(saved["config"], where=str(path))
    preprocessing = saved["preprocessing"]
    input_shape = tuple(preprocessing["input_shape"])
    name = cast(LossName, saved["choices"]["loss"]["value"])
    classes, targets = tuple(saved["class_names"]), tuple(saved["target_names"])
    size = output_size(
        name,
        task="classification" if classes else "regression",
        num_classes=len(classes),
        num_targets=len(targets),
    )
    model = build_model(config, input_shape=input_shape, output_size=size)
    weights = scored_weights(saved)
    check_fits(weights, model)
    model.load_state_dict(weights)
    if is_channels_last(config):
        model = model.to(memory_format=torch.channels_last)
    where = torch.device(resolve_device(device).value)
    return TrainedModel(
        path=path,
        config=config,
        model=model.to(where).eval(),
        loss=build_loss(name),
        class_names=classes,
        target_names=targets,
        preprocessing=preprocessing,
        device=where,
        precision=_precision(saved, where),
        pipeline=build_pipeline(
            _scaling(preprocessing, path),
            input_shape=input_shape,
            seed=0,
            random=False,
            device=where,
            channels_last=is_channels_last(config),
        ),
        batch_size=eval_batch_size(config, input_shape, where),
        delimiter=config.dataset.delimiter if isinstance(config.dataset, Csv) else ",",
    )


def _precision(saved: Mapping[str, Any], device: torch.device) -> str:
    """As in training; fp16 is for GPUs."""
    stored = str(saved["choices"]["precision"]["value"])
    return "fp32" if stored == "fp16" and device.type != "cuda" else stored


def _scaling(preprocessing: Mapping[str, Any], path: Path) -> list[BatchTransform]:
    match preprocessing:
        case {"kind": "table", "standardize": None} | {"kind": "image", "normalize": None}:
            return []
        case {"kind": "table", "standardize": {"mean": mean, "std": std}}:
            return [Standardize(tuple(mean), tuple(std))]
        case {"kind": "image", "normalize": {"mean": mean, "std": std}}:
            return [Normalize(tuple(mean), tuple(std))]
        case _:
            raise CheckpointError(f"{path}: its preprocessing is not one that this trainkit knows; update trainkit")

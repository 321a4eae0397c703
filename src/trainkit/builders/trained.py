"""A trained model from its checkpoint: the one way in for eval, predict, export, report and inspect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.builders.data import ImageFiles, build_batch_transforms, check_rules, model_input_shape
from trainkit.builders.ensembles import build_ensemble, mean_kind, networks_of
from trainkit.builders.model import build_loss_for, build_model, eval_batch_size, is_channels_last, outputs_as, place
from trainkit.builders.precision import choose_scoring_precision
from trainkit.builders.setup import Setup
from trainkit.builders.threads import choose_threads
from trainkit.checkpoints import check_fits, follow_pointer, load_checkpoint
from trainkit.config import at_data_root, config_from_dict
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.tables import model_layout, stored_layout
from trainkit.data.target_scale import in_own_units, stored_scale
from trainkit.data.transforms import BatchTransform, Normalize, Pipeline, build_pipeline, columns
from trainkit.engine import Loss, balanced_pos_weight, balanced_weight, build_loss, output_size
from trainkit.errors import CheckpointError, UserError
from trainkit.models import MeanOfViews, layer_table
from trainkit.runtime import Choice, claim, forward, resolve_device, use_tf32

_TENSORS = ("model", "ema", "swa", "optimizer", "scaler")
"""The parts of a checkpoint that are tensors. They take twice the memory of the model and more, and are not kept."""


@dataclass(frozen=True)
class TrainedModel:
    """A model with its scored weights, ready to predict. It needs no data."""

    path: Path
    saved: Mapping[str, Any]
    """The checkpoint without its tensors."""
    config: Config
    model: nn.Module
    """In eval mode, on the device."""
    loss: Loss
    """Without class weights: it turns outputs into probabilities."""
    device: torch.device
    precision: Choice
    pipeline: Pipeline
    """From rows with the static transforms applied to model inputs."""
    averaged: bool
    """Whether the weights are an average over the training (EMA)."""
    any_size: bool = False
    """Always False: images need the static transforms first."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """() for regression."""
        return tuple(self.saved["class_names"])

    @property
    def target_names(self) -> tuple[str, ...]:
        """() for classification."""
        return tuple(self.saved["target_names"])

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.saved["preprocessing"]
        return found

    @property
    def num_members(self) -> int:
        """How many networks an ensemble has; 0 for a single network."""
        return len(self.saved.get("members", ()))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.preprocessing["input_shape"])

    @property
    def batch_size(self) -> int:
        """That of evaluation."""
        return eval_batch_size(self.config, self.input_shape, self.device)

    @torch.inference_mode()
    def predict(self, rows: Tensor) -> Tensor:
        """Probabilities (N, K), or values (N, T) in their own units, on the CPU: float32, or float64 if scaled.

        ``rows`` are samples with the static transforms applied: uint8 (N, C, H, W), or table features float32 (N, F).
        """
        inputs = self.pipeline(rows.to(self.device))
        outputs = forward(self.model, inputs, precision=self.precision.value)
        if self.loss.is_classification:
            return self.loss.probabilities(outputs).cpu()
        return torch.from_numpy(in_own_units(outputs.cpu().numpy(), stored_scale(self.preprocessing)))

    def setup(self, data: Dataset, files: ImageFiles | None = None) -> Setup:
        """This model on data with the static transforms applied: scores equal those at the end of training.

        Raises:
            CheckpointError: the class weights of the training are not known.
            ProblemsError: a transform or the loss does not fit the data.
        """
        config = _with_class_weights_of_training(self.config, self.saved, where=self.path)
        claim(self.device, deterministic=config.training.deterministic)
        rows = layer_table(self.model, self.input_shape)
        threads = choose_threads(config, rows, device=self.device, stored=self.saved)
        check_rules(config, data, materialized=True, sections=("transforms",))
        transforms = build_batch_transforms(config, data, stored=self.preprocessing)
        chosen = {name: Choice(**choice) for name, choice in self.saved["choices"].items()}
        return Setup(
            config=config,
            data=data,
            device=self.device,
            choices={
                "device": Choice(str(self.device), "as asked for"),
                "threads": threads,
                "precision": self.precision,
                "loss": chosen["loss"],
            },
            transforms=transforms,
            input_shape=model_input_shape(config, data, transforms),
            loss=build_loss_for(config, data, device=self.device),
            model=self.model,
            files=files or {},
            stored=self.saved,
        )


def open_trained(
    path: Path, *, device: str | None = None, precision: str | None = None, data_root: str | Path | None = None
) -> TrainedModel:
    """Load a checkpoint to predict with, or to score.

    Args:
        device: where to compute; None for the config's.
        precision: what to compute in; None for fp32, as exported programs do, whatever the training computed in.
        data_root: where its data are now, as in ``at_data_root``.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        ProblemsError: there is no such device.
        UserError: the device cannot compute in this precision.
    """
    path = follow_pointer(path)
    saved = load_checkpoint(path)
    config = at_data_root(config_from_dict(saved["config"], where=str(path)), data_root)
    if device is not None:
        config = config.model_copy(update={"device": device})
    preprocessing = saved["preprocessing"]
    input_shape = tuple(preprocessing["input_shape"])
    name = outputs_as(config, saved["choices"]["loss"]["value"])
    classes, targets = saved["class_names"], saved["target_names"]
    size = output_size(
        name,
        task="classification" if classes else "regression",
        num_classes=len(classes),
        num_targets=len(targets),
    )
    encoding = preprocessing.get("table_encoding")
    stored = stored_layout(encoding)
    where = torch.device(resolve_device(config.device).value)
    claim(where, deterministic=config.training.deterministic)
    model: nn.Module
    if members := saved.get("members"):
        own = [one["preprocessing"] for one in members]
        model = build_ensemble(config, preprocessing, own, output_size=size, loss=name, device=where)
        load_scored_weights(networks_of(model), saved)
    else:
        model = build_model(config, input_shape=input_shape, output_size=size, layout=model_layout(encoding), loss=name)
        load_scored_weights(model, saved)
    chosen = choose_scoring_precision(where, precision)
    use_tf32(chosen.value)
    return TrainedModel(
        path=path,
        saved={name: value for name, value in saved.items() if name not in _TENSORS},
        averaged=saved["ema"] is not None,
        config=config,
        model=place(model, config, where).eval(),
        loss=build_loss(name),
        device=where,
        precision=chosen,
        pipeline=build_pipeline(
            _scaling(preprocessing, path),
            input_shape=input_shape if stored is None else (stored.width,),
            seed=0,
            random=False,
            device=where,
            channels_last=is_channels_last(config),
        ),
    )


def with_tta(model: nn.Module, loss: Loss, *, tta: str, is_image: bool) -> nn.Module:
    """The model as ``--tta`` asks for it: ``none``, or ``flip`` for the mean over an image and its mirror image.

    ``flip_shift`` takes both also moved by a pixel, to two sides. The mean is of probabilities, or of the values of a
    regression.

    Raises:
        UserError: the model is for tables, or the word is not known.
    """
    if tta == "none":
        return model
    if tta not in ("flip", "flip_shift"):
        raise UserError(f"tta: expected none, flip or flip_shift, got {tta!r}")
    if not is_image:
        raise UserError(f"tta {tta}: rows of a table have no mirror image; leave it out")
    return MeanOfViews(model, kind=mean_kind(loss.name), shifted=tta == "flip_shift").eval()


def scored_weights(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that gave the checkpoint's score: the average where the run kept one."""
    weights: dict[str, Tensor] = saved["model"] if saved["ema"] is None else saved["ema"]["model"]
    return weights


def load_scored_weights(model: nn.Module, saved: Mapping[str, Any]) -> None:
    """Load ``scored_weights``. Raises CheckpointError where they do not fit the model by name and shape."""
    weights = scored_weights(saved)
    check_fits(weights, model)
    model.load_state_dict(weights)


def _scaling(preprocessing: Mapping[str, Any], path: Path) -> list[BatchTransform]:
    match preprocessing:
        case {"kind": "table"}:
            return [*columns.from_json(preprocessing)]
        case {"kind": "image", "normalize": None}:
            return []
        case {"kind": "image", "normalize": {"mean": mean, "std": std}}:
            return [Normalize(tuple(mean), tuple(std))]
        case _:
            raise CheckpointError(f"{path}: its preprocessing is not one that this trainkit knows; update trainkit")


def _with_class_weights_of_training(config: Config, saved: Mapping[str, Any], *, where: Path) -> Config:
    """Balanced weights count the samples that the checkpoint was trained on, not those that are scored."""
    balanced = {"weight": balanced_weight, "pos_weight": balanced_pos_weight}
    knobs = [name for name in balanced if getattr(config.loss, name, None) == "balanced"]
    counts = saved.get("class_counts", [])
    if knobs and not counts:
        raise CheckpointError(
            f"{where}: does not say how many training samples each class had, which loss.{knobs[0]}: balanced is made "
            "of; it was written by an earlier version: train again"
        )
    weights = {name: balanced[name](counts) for name in knobs}
    return config.model_copy(update={"loss": config.loss.model_copy(update=weights)})

"""``trainkit inspect``: what a model consists of, from a config or a checkpoint, and what one batch does in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from trainkit.builders.data import build_batch_transforms, build_static_transforms
from trainkit.builders.model import build_loss_for, build_model, is_convolutional, output_size_for
from trainkit.config import LoadedConfig
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.transforms.pipeline import build_pipeline
from trainkit.errors import DataError
from trainkit.findings.layer_stats import Diagnosis, diagnose
from trainkit.models.network import Network
from trainkit.models.summary import LayerRow, layer_table
from trainkit.runtime.device import resolve_device, set_num_threads
from trainkit.runtime.seeding import seed_default_generators
from trainkit.workflows.check.dry_run import first_batch
from trainkit.workflows.check.probe_data import load_read_only, take_sample
from trainkit.workflows.check.run import ProblemCollector
from trainkit.workflows.find import find_checkpoint
from trainkit.workflows.predict.checkpoint_model import restore_model

MOST_SAMPLES = 256
"""Of a batch that is looked into; image files among them are decoded one after the other."""


@dataclass(frozen=True)
class Inspection:
    """A model by its layers."""

    name: str
    """The config or the checkpoint."""
    input_shape: tuple[int, ...]
    rows: list[LayerRow]
    """The layers; shapes, multiply-adds and bytes are for one sample."""
    batch_size: int
    """Of training."""
    diagnosis: Diagnosis | None = None

    @property
    def num_parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def num_trainable(self) -> int:
        return sum(row.trainable for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        return sum(row.activation_bytes for row in self.rows)


def inspect_config(loaded: LoadedConfig, *, source: bool = False, batch: bool = False) -> Inspection:
    """The model that a config describes, with its first weights; nothing is written.

    Args:
        source: say where each layer's code lives.
        batch: run a training batch through the model.

    Raises:
        ConfigError: the data are missing, or the model does not fit them.
    """
    config, mistakes = loaded.config, ProblemCollector()
    data = mistakes.catch("dataset", lambda: load_read_only(config))
    size = None if data is None else mistakes.catch("loss", lambda: output_size_for(config, data))
    sample = (
        None if data is None else mistakes.catch("dataset", lambda: take_sample(data, build_static_transforms(config)))
    )
    shape = None if sample is None else mistakes.catch("transforms", lambda: shape_of(config, sample))
    if data is None or size is None or shape is None:
        raise mistakes.error(loaded)

    def table() -> list[LayerRow]:
        with torch.device("meta"):
            return layer_table(build_model(config, input_shape=shape, output_size=size), shape, source=source)

    rows = mistakes.catch("model", table)
    if rows is None:
        raise mistakes.error(loaded)
    diagnosis = None
    if batch:
        diagnosis = mistakes.catch("dataset", lambda: _look_inside(config, data, rows, shape, size))
        if diagnosis is None:
            raise mistakes.error(loaded)
    return Inspection(str(loaded.path), shape, rows, config.training.batch_size, diagnosis)


def shape_of(config: Config, sample: Dataset) -> tuple[int, ...]:
    """The shape of a model input: that of the samples after the transforms."""
    steps = build_batch_transforms(config, sample)
    return build_pipeline(steps, input_shape=sample.input_shape, seed=config.seed, random=True).output_shape


def _look_inside(
    config: Config, data: Dataset, rows: list[LayerRow], input_shape: tuple[int, ...], output_size: int
) -> Diagnosis:
    device = torch.device(resolve_device(config.device).value)
    set_num_threads(config.training.num_threads)
    model = _placed(build_model(config, input_shape=input_shape, output_size=output_size), config, device)
    sample = _batch_sample(config, data)
    batch = first_batch(config, sample, size=len(sample.splits["train"]), device=device, random=True)
    seed_default_generators(config.seed, "dropout", 0)
    return diagnose(
        model,
        batch.inputs,
        batch.targets,
        loss=build_loss_for(config, data, device=device),
        rows=rows,
        kind=data.kind,
        column_names=data.feature_names,
    )


def _batch_sample(config: Config, data: Dataset) -> Dataset:
    if not data.fingerprint:  # a stand-in for what is not downloaded
        raise DataError(f"{'; '.join(data.notes)}: a batch needs them")
    size = min(MOST_SAMPLES, config.training.batch_size)
    return take_sample(data, build_static_transforms(config), size=size, decoded=size)


def _placed(model: Network, config: Config, device: torch.device) -> Network:
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if is_convolutional(config) else model


def inspect_checkpoint(
    given: Path | None,
    *,
    runs_dir: Path = Path("runs"),
    source: bool = False,
    batch: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> Inspection:
    """The model of a checkpoint, with the weights that it was scored with; the data are needed for a batch only.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        UserError: the data for a batch are missing.
    """
    path = find_checkpoint(given, runs_dir=runs_dir, say=say)
    trained = restore_model(path)
    config = trained.config
    shape = tuple(trained.preprocessing["input_shape"])
    rows = layer_table(trained.model, shape, source=source)
    diagnosis = None
    if batch:
        data = load_read_only(config)
        sample = _batch_sample(config, data)
        part = sample.parts[sample.splits["train"].part]
        inputs = torch.from_numpy(part.inputs).to(trained.device)
        seed_default_generators(config.seed, "dropout", 0)
        diagnosis = diagnose(
            trained.model,
            trained.pipeline(inputs, sample.splits["train"].indices, epoch=0),
            torch.from_numpy(part.targets).to(trained.device),
            loss=trained.loss,
            rows=rows,
            kind=data.kind,
            column_names=data.feature_names,
        )
    return Inspection(str(path), shape, rows, config.training.batch_size, diagnosis)

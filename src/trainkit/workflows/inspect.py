"""``trainkit inspect``: the layers of a model, from a config or a checkpoint, and a batch that runs through it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from trainkit.builders import (
    Memory,
    Setup,
    build_loss_for,
    build_setup,
    check_rules,
    choose_precision,
    estimate_memory,
    frozen_parameters,
    output_size_for,
    parameter_groups,
)
from trainkit.config import LoadedConfig
from trainkit.config.rules import epoch_sizes
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.engine import ParameterGroup
from trainkit.errors import DataError
from trainkit.findings.layer_stats import Diagnosis, diagnose
from trainkit.models import LayerRow, block_table, layer_table
from trainkit.runtime import resolve_device, seed_default_generators
from trainkit.system import Frontend
from trainkit.workflows.check.dry_run import first_batch
from trainkit.workflows.check.probe_data import load_read_only, take_sample
from trainkit.workflows.check.problems import located, problems_of
from trainkit.workflows.check.shapes import model_shapes
from trainkit.workflows.find import open_checkpoint

MOST_SAMPLES = 256
"""Of the batch; image files are decoded one after the other."""


@dataclass(frozen=True)
class Inspection:
    """A model by its layers."""

    name: str
    """The config or the checkpoint."""
    input_shape: tuple[int, ...]
    rows: list[LayerRow]
    """The layers; shapes, multiply-adds and bytes are for one sample."""
    blocks: list[LayerRow]
    """The same with one row for each block of layers."""
    batch_size: int
    """Of training."""
    memory: Memory
    """Of training; for a checkpoint, as if the training split filled a batch."""
    groups: list[ParameterGroup]
    """Those of the optimizer."""
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
        source: also name the place of each layer's code.
        batch: run a training batch through the model.

    Raises:
        ConfigError: the data are missing, or the model does not fit them.
    """
    config, diagnosis = loaded.config, None
    with located(loaded), problems_of("dataset"):
        data = load_read_only(config)
        check_rules(config, data, where=loaded.where)
        found = model_shapes(config, data, output_size=output_size_for(config, data), source=source)
        device = torch.device(resolve_device(config.device).value)
        precision = choose_precision(config, device, loss=build_loss_for(config, data, device=device))
        frozen = frozen_parameters(config, found.model)
        memory = estimate_memory(
            config,
            found.model,
            found.rows,
            input_shape=found.input_shape,
            piece=epoch_sizes(config, len(data.splits["train"])).piece,
            device=device,
            precision=precision.value,
            frozen=frozen,
        )
        groups = parameter_groups(config, found.model, frozen=frozen)
        if batch:
            setup = build_setup(config, data=_batch_sample(config, data))
            diagnosis = _diagnose(setup, found.rows, random=True)
    return Inspection(
        name=str(loaded.path),
        input_shape=found.input_shape,
        rows=found.rows,
        blocks=block_table(found.model, found.rows),
        batch_size=config.training.batch_size,
        memory=memory,
        groups=groups,
        diagnosis=diagnosis,
    )


def inspect_checkpoint(
    given: Path | None,
    *,
    runs_dir: Path = Path("runs"),
    source: bool = False,
    batch: bool = False,
    frontend: Frontend | None = None,
) -> Inspection:
    """The model of a checkpoint, with its scored weights; the data are needed for a batch only.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        UserError: the data for a batch are missing.
    """
    trained = open_checkpoint(given, runs_dir=runs_dir, frontend=frontend or Frontend())
    rows = layer_table(trained.model, trained.input_shape, source=source)
    batch_size = trained.config.training.batch_size
    frozen = frozen_parameters(trained.config, trained.model)
    memory = estimate_memory(
        trained.config,
        trained.model,
        rows,
        input_shape=trained.input_shape,
        piece=epoch_sizes(trained.config, batch_size).piece,
        device=trained.device,
        precision=trained.saved["choices"]["precision"]["value"],
        frozen=frozen,
    )
    diagnosis = None
    if batch:
        sample = _batch_sample(trained.config, load_read_only(trained.config))
        diagnosis = _diagnose(trained.setup(sample), rows, random=False)
    return Inspection(
        name=str(trained.path),
        input_shape=trained.input_shape,
        rows=rows,
        blocks=block_table(trained.model, rows),
        batch_size=batch_size,
        memory=memory,
        groups=parameter_groups(trained.config, trained.model, frozen=frozen),
        diagnosis=diagnosis,
    )


def _batch_sample(config: Config, data: Dataset) -> Dataset:
    if not data.fingerprint:  # a placeholder for data that are not downloaded
        raise DataError(f"{'; '.join(data.notes)}: a batch needs them")
    size = min(MOST_SAMPLES, config.training.batch_size)
    return take_sample(data, config, size=size, decoded=size)


def _diagnose(setup: Setup, rows: list[LayerRow], *, random: bool) -> Diagnosis:
    """A batch of training samples, forward and backward; with the random transforms if ``random``."""
    batch = first_batch(setup, size=len(setup.data.splits["train"]), random=random)
    seed_default_generators(setup.config.seed, "dropout", 0, device=setup.device)
    return diagnose(
        setup.model,
        batch.inputs,
        batch.targets,
        loss=setup.loss,
        rows=rows,
        kind=setup.data.kind,
        quantities=setup.quantities,
        scaled=any(item.stage == "scaling" for item in setup.config.transforms),
    )

"""``trainkit check``: everything that can be known before training. ``trainkit train`` begins with the same checks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit.builders import (
    Setup,
    build_batch_transforms,
    build_loss_for,
    build_model,
    build_static_transforms,
    check_rules,
    choose_precision,
    eval_batch_size,
    loss_name,
    model_input_shape,
    monitor_of,
    output_size_for,
    place,
)
from trainkit.config import LoadedConfig
from trainkit.config.rules import EpochSizes, epoch_sizes
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.images import quick_look
from trainkit.data.transforms import BatchTransform
from trainkit.errors import Problem, ProblemsError
from trainkit.models import LayerRow, check_output, check_shapes, layer_table
from trainkit.runtime import Choice, claim, resolve_device, set_num_threads
from trainkit.workflows.check.dry_run import check_export, dry_run
from trainkit.workflows.check.memory import Memory, check_disk, check_memory, checkpoint_bytes, estimate_memory
from trainkit.workflows.check.probe_data import check_sizes, load_read_only, placeholder_dataset, take_sample
from trainkit.workflows.check.problems import ProblemCollector


@dataclass(frozen=True)
class ModelShapes:
    """A model without memory, and a sample of the data that it was made for."""

    sample: Dataset
    transforms: list[BatchTransform]
    input_shape: tuple[int, ...]
    output_size: int
    model: nn.Module
    """On the meta device."""
    rows: list[LayerRow]
    """The layers, for one sample."""


@dataclass(frozen=True)
class CheckReport:
    """A config that can be trained, and what it amounts to."""

    loaded: LoadedConfig
    source: Dataset
    """As the source has it; images in files are not decoded."""
    setup: Setup
    """On a sample of the data."""
    choices: dict[str, Choice]
    """What ``auto`` chose, and why."""
    notes: tuple[str, ...]
    """Worth knowing, but no mistake."""
    output_size: int
    rows: list[LayerRow]
    """The layers, for one sample."""
    pieces: EpochSizes
    memory: Memory
    checkpoint_bytes: int
    free_disk: int | None

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.setup.input_shape

    @property
    def num_parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def total_steps(self) -> int:
        return self.pieces.steps_per_epoch * self.loaded.config.training.epochs


def check(loaded: LoadedConfig, *, runs_dir: Path = Path("runs")) -> CheckReport:
    """Check a config without writing anything: no cache entry, no download, no run folder.

    Raises:
        ConfigError: every mistake that was found, each with its place.
    """
    return run_checks(loaded, load=partial(load_read_only, loaded.config), runs_dir=runs_dir)


def run_checks(
    loaded: LoadedConfig,
    *,
    load: Callable[[], Dataset],
    runs_dir: Path,
    stored: Mapping[str, Any] | None = None,
) -> CheckReport:
    """Check everything that can be known before the first step, and put the run together on a sample of its data.

    Args:
        load: gives the data set; images in files are not decoded yet.
        runs_dir: where checkpoints will be written.
        stored: the checkpoint to go on from: its preprocessing and precision are taken over.

    Raises:
        ConfigError: every mistake that was found, each with its place.
    """
    config, problems = loaded.config, ProblemCollector()
    threads = set_num_threads(config.training.num_threads)
    device_choice = problems.catch("device", lambda: resolve_device(config.device))
    device = torch.device("cpu" if device_choice is None else device_choice.value)
    claim(device)
    precision = problems.catch("training.precision", lambda: choose_precision(config, device, stored=stored))
    _check_extras(config, problems)
    source = problems.catch("dataset", load)
    known = source or placeholder_dataset(config)
    if known is None:
        raise problems.error(loaded)
    notes = list(known.notes) + _missing_classes(known)
    if source is not None:
        problems.catch("dataset", lambda: _look_at_files(known, notes))
        problems.catch("transforms", lambda: check_sizes(known, build_static_transforms(config)))
    broken = problems.sections("dataset", lambda: check_rules(config, known, where=loaded.where))
    pieces = epoch_sizes(config, len(known.splits["train"]))
    loss = size = shapes = None
    if "loss" not in broken:
        loss = problems.catch("loss", lambda: build_loss_for(config, known, device=device))
        size = output_size_for(config, known)
    # Where the loss is not for these data, the model is still checked, with the outputs that the data need.
    outputs = known.num_classes or known.num_targets if size is None else size
    if broken.isdisjoint({"model", "transforms"}):
        shapes = model_shapes(config, known, problems, output_size=outputs, pieces=pieces, stored=stored)
    if shapes is None:
        raise problems.error(loaded)
    if loss is not None and size is not None:
        problems.catch("model", lambda: check_output(shapes.model, shapes.input_shape, output_size=size))
    memory = estimate_memory(
        config,
        shapes.model,
        shapes.rows,
        input_shape=shapes.input_shape,
        micro_batch=pieces.micro_batch,
        device=device,
        precision="fp32" if precision is None else precision.value,
    )
    fits = problems.passes(
        "training.batch_size", lambda: check_memory(memory, config, micro_batch=pieces.micro_batch, device=device)
    )
    free_disk = None
    if fits:
        saved = checkpoint_bytes(config, memory)
        free_disk = problems.catch("checkpoint", lambda: check_disk(saved, config, runs_dir=runs_dir))
    if not fits or loss is None or size is None or precision is None or device_choice is None:
        raise problems.error(loaded)
    setup = Setup(
        config=config,
        data=shapes.sample,
        device=device,
        choices={
            "device": device_choice,
            "threads": threads,
            "precision": precision,
            "loss": loss_name(config, known),
        },
        transforms=shapes.transforms,
        input_shape=shapes.input_shape,
        loss=loss,
        model=place(build_model(config, input_shape=shapes.input_shape, output_size=size), config, device),
        stored=stored,
    )
    problems.catch("model", lambda: dry_run(setup))
    if config.export.torchscript:
        problems.catch("model", lambda: check_export(setup.model, setup.input_shape, method=config.export.method))
    if problems:
        raise problems.error(loaded)
    assert source is not None, "or there is a problem"
    if pieces.num_samples < pieces.batch_size:
        notes.append(f"an epoch is one batch: the training split has {pieces.num_samples} samples")
    return CheckReport(
        loaded=loaded,
        source=source,
        setup=setup,
        choices={
            **setup.choices,
            "monitor": _monitor_choice(config, source),
            "eval_batch_size": _eval_batch_choice(config, setup.input_shape, device),
        },
        notes=tuple(notes),
        output_size=size,
        rows=shapes.rows,
        pieces=pieces,
        memory=memory,
        checkpoint_bytes=saved,
        free_disk=free_disk,
    )


def model_shapes(
    config: Config,
    data: Dataset,
    problems: ProblemCollector,
    *,
    output_size: int,
    pieces: EpochSizes | None = None,
    stored: Mapping[str, Any] | None = None,
    source: bool = False,
) -> ModelShapes | None:
    """The layers of the model with their shapes, for a sample of the data; None where there is a problem.

    Args:
        pieces: also check that the layers take batches of these sizes.
        source: say in the rows where each layer's code lives.
    """
    sample = problems.catch("dataset", lambda: take_sample(data, build_static_transforms(config)))
    if sample is None:
        return None
    known = None if stored is None else stored["preprocessing"]
    transforms = problems.catch("transforms", lambda: build_batch_transforms(config, sample, stored=known))
    if transforms is None:
        return None
    input_shape = problems.catch("transforms", lambda: model_input_shape(config, sample, transforms))
    if input_shape is None:
        return None

    def build() -> nn.Module:
        with torch.device("meta"):  # shapes without memory
            return build_model(config, input_shape=input_shape, output_size=output_size)

    model = problems.catch("model", build)
    if model is None:
        return None
    if pieces is not None and not problems.passes("model", lambda: _check_batch_sizes(model, input_shape, pieces)):
        return None
    rows = layer_table(model, input_shape, source=source)
    return ModelShapes(sample, transforms, input_shape, output_size, model, rows)


def _check_batch_sizes(model: nn.Module, input_shape: tuple[int, ...], pieces: EpochSizes) -> None:
    """Raises ProblemsError where a layer does not take a size of micro-batch that an epoch has, such as the last."""
    sizes: Sequence[tuple[int, str]] = [(pieces.smallest(min(pieces.batch_size, pieces.num_samples)), "")]
    if not pieces.drop_last and pieces.last_batch != pieces.batch_size:
        why = (
            f"this happens in the last batch of an epoch: {pieces.num_samples} training samples in batches of "
            f"{pieces.batch_size} leave {pieces.last_batch}"
        )
        if pieces.accumulation_steps > 1:
            why += f", cut into micro-batches of {pieces.smallest(pieces.last_batch)} at the least"
        sizes = [*sizes, (pieces.smallest(pieces.last_batch), why)]
    for size, why in sizes:
        try:
            check_shapes(model, input_shape, batch_size=size)
        except ProblemsError as error:
            if not why:
                raise
            raise ProblemsError([replace(p, message=f"{p.message} ({why})") for p in error.problems]) from None


def _monitor_choice(config: Config, data: Dataset) -> Choice:
    monitor = monitor_of(config, task=data.task, has_val="val" in data.splits)
    how = "auto: " + ("the score" if monitor.endswith("accuracy") else "the loss")
    return Choice(monitor, "as asked for" if config.checkpoint.monitor != "auto" else how)


def _eval_batch_choice(config: Config, input_shape: tuple[int, ...], device: torch.device) -> Choice:
    asked = config.training.eval_batch_size != "auto"
    reason = "as asked for" if asked else f"auto: for inputs of {'x'.join(map(str, input_shape))}"
    return Choice(str(eval_batch_size(config, input_shape, device)), reason)


def _check_extras(config: Config, problems: ProblemCollector) -> None:
    if config.logging.tensorboard and importlib.util.find_spec("tensorboard") is None:
        message = "TensorBoard files need the tensorboard package, which is not installed; pip install tensorboard"
        problems.problems.append(Problem(message, key="logging.tensorboard"))


def _missing_classes(data: Dataset) -> list[str]:
    """Classes that training has and another split has not: its scores say nothing about them."""
    notes = []
    for name in data.splits:
        if data.task != "classification" or name == "train":
            continue
        counts = np.bincount(data.split_targets(name), minlength=data.num_classes)
        empty = [data.class_names[label] for label in np.flatnonzero(counts == 0)]
        if empty:
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            notes.append(f"the {name} split has no sample of {', '.join(empty[:5])}{more}")
    return notes


def _look_at_files(data: Dataset, notes: list[str]) -> None:
    """Raises ProblemsError where more of the files that were tried are unreadable than may be."""
    found = quick_look(data)
    if len(found) > data.max_bad_files:
        shown = "; ".join(found[:10]) + (f"; and {len(found) - 10} more" if len(found) > 10 else "")
        message = f"{len(found)} of the images that were tried cannot be read: {shown}; repair or remove them"
        raise ProblemsError([Problem(message, key="dataset")])
    notes += [f"will be skipped: {line}" for line in found]

"""``trainkit check``: everything that can be known before training. ``trainkit train`` begins with the same checks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from trainkit.builders.data import batch_transform_keys, build_batch_transforms, build_static_transforms
from trainkit.builders.model import build_loss_for, build_model, is_convolutional, loss_name, output_size_for
from trainkit.builders.setup import eval_batch_size
from trainkit.builders.training import build_schedule_for, monitor_of
from trainkit.config import LoadedConfig
from trainkit.config.rules import metric_names
from trainkit.config.schema import Config
from trainkit.config.schema.optimization import ReduceOnPlateau
from trainkit.data.dataset import Dataset
from trainkit.data.images.materialize import quick_look
from trainkit.data.loading.resident import count_batches
from trainkit.data.transforms.pipeline import build_pipeline
from trainkit.engine.losses import Loss
from trainkit.errors import ConfigError, Interrupted, Place, Problem, ProblemsError, UserError
from trainkit.models.network import Network
from trainkit.models.summary import LayerRow, check_output, check_shapes, layer_table
from trainkit.runtime.device import Choice, resolve_device, resolve_precision, set_num_threads
from trainkit.wording import closest
from trainkit.workflows.check.dry_run import check_export, dry_run
from trainkit.workflows.check.memory import Memory, check_disk, check_memory, checkpoint_bytes, estimate_memory
from trainkit.workflows.check.probe_data import check_sizes, load_read_only, placeholder_dataset, take_sample

Result = TypeVar("Result")


@dataclass(frozen=True)
class EpochSizes:
    """How the training split is cut: optimizer steps see batches, the model sees micro-batches."""

    num_samples: int
    batch_size: int
    accumulation_steps: int
    drop_last: bool

    @property
    def steps_per_epoch(self) -> int:
        return count_batches(self.num_samples, self.batch_size, drop_last=self.drop_last)

    @property
    def last_batch(self) -> int:
        """Samples of the last batch of an epoch."""
        rest = self.num_samples % self.batch_size
        return self.batch_size if rest == 0 or self.drop_last else rest

    @property
    def micro_batch(self) -> int:
        """Samples that the model sees at once, at most."""
        return -(-min(self.batch_size, self.num_samples) // self.accumulation_steps)

    def smallest(self, batch: int) -> int:
        """Samples of the smallest micro-batch that a batch of this size is cut into."""
        size = -(-batch // self.accumulation_steps)
        return batch % size or size


@dataclass(frozen=True)
class CheckReport:
    """A config that can be trained, and what it amounts to."""

    loaded: LoadedConfig
    source: Dataset
    """As the source has it; images in files are not decoded."""
    choices: dict[str, Choice]
    """What ``auto`` chose, and why."""
    notes: tuple[str, ...]
    """Worth knowing, but no mistake."""
    input_shape: tuple[int, ...]
    output_size: int
    rows: list[LayerRow]
    """The layers, for one sample."""
    pieces: EpochSizes
    memory: Memory
    checkpoint_bytes: int
    free_disk: int | None

    @property
    def num_parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def total_steps(self) -> int:
        return self.pieces.steps_per_epoch * self.loaded.config.training.epochs


@dataclass
class ProblemCollector:
    """Collects the mistakes of checks that do not depend on each other."""

    problems: list[Problem] = field(default_factory=list)

    def catch(self, key: str, check: Callable[[], Result]) -> Result | None:
        """What ``check`` returns; None where it raised. Mistakes without a place of their own stand at ``key``."""
        try:
            return check()
        except Interrupted:
            raise
        except ProblemsError as error:
            self.problems += [replace(problem, key=problem.key or key) for problem in error.problems]
        except UserError as error:
            self.problems.append(Problem(str(error), key))
        return None

    def error(self, loaded: LoadedConfig) -> ConfigError:
        """All of them with their places, in the order of the file."""
        located = [loaded.locate(problem) for problem in dict.fromkeys(self.problems)]
        placed = [(problem.place or Place(str(loaded.path)), problem) for problem in located]
        return ConfigError([problem.at(place) for place, problem in sorted(placed, key=lambda pair: pair[0].line or 0)])


def check(loaded: LoadedConfig, *, runs_dir: Path = Path("runs")) -> CheckReport:
    """Examine a config without writing anything: no cache entry, no download, no run folder.

    Raises:
        ConfigError: every mistake that was found, each with its place.
    """
    return run_checks(loaded, load=partial(load_read_only, loaded.config), runs_dir=runs_dir)


def run_checks(loaded: LoadedConfig, *, load: Callable[[], Dataset], runs_dir: Path) -> CheckReport:
    """Check everything that can be known before the first step.

    Args:
        load: gives the data set; images in files are not decoded yet.
        runs_dir: where checkpoints will be written.

    Raises:
        ConfigError: every mistake that was found, each with its place.
    """
    config, mistakes = loaded.config, ProblemCollector()
    threads = set_num_threads(config.training.num_threads)
    device_choice = mistakes.catch("device", lambda: resolve_device(config.device))
    device = torch.device("cpu" if device_choice is None else device_choice.value)
    precision = mistakes.catch(
        "training.precision",
        lambda: resolve_precision(config.training.precision, device, convolutional=is_convolutional(config)),
    )
    _check_extras(config, mistakes)
    source = mistakes.catch("dataset", load)
    known = source or placeholder_dataset(config)
    if known is None:
        raise mistakes.error(loaded)
    notes = list(known.notes) + _missing_classes(known)
    if source is not None:
        mistakes.catch("dataset", lambda: _look_at_files(known, notes))
        mistakes.catch("transforms", lambda: check_sizes(known, build_static_transforms(config)))
    _check_monitors(config, known, mistakes)
    pieces = _pieces(config, known)
    steps_per_epoch = mistakes.catch("training.drop_last", lambda: pieces.steps_per_epoch)
    if steps_per_epoch is not None:
        mistakes.catch("scheduler", lambda: build_schedule_for(config, steps_per_epoch=steps_per_epoch))
    loss = mistakes.catch("loss", lambda: build_loss_for(config, known, device=device))
    size = mistakes.catch("loss", lambda: output_size_for(config, known))
    model = _Model(config, known, pieces, size, loss, device, mistakes)
    model.examine(runs_dir, precision, try_it=device_choice is not None)
    if mistakes.problems:
        raise mistakes.error(loaded)
    assert source is not None
    assert device_choice is not None
    assert precision is not None
    assert model.memory is not None
    if pieces.num_samples < pieces.batch_size:
        notes.append(f"an epoch is one batch: the training split has {pieces.num_samples} samples")
    monitor = monitor_of(config, task=source.task, has_val="val" in source.splits)
    how = "auto: " + ("the score" if monitor.endswith("accuracy") else "the loss")
    return CheckReport(
        loaded=loaded,
        source=source,
        choices={
            "device": device_choice,
            "threads": threads,
            "precision": precision,
            "loss": loss_name(config, source),
            "monitor": Choice(monitor, "as asked for" if config.checkpoint.monitor != "auto" else how),
            "eval_batch_size": _eval_batch_choice(config, model.input_shape, device),
        },
        notes=tuple(notes),
        input_shape=model.input_shape,
        output_size=model.output_size,
        rows=model.rows,
        pieces=pieces,
        memory=model.memory,
        checkpoint_bytes=checkpoint_bytes(config, model.memory),
        free_disk=model.free_disk,
    )


def _eval_batch_choice(config: Config, input_shape: tuple[int, ...], device: torch.device) -> Choice:
    asked = config.training.eval_batch_size != "auto"
    reason = "as asked for" if asked else f"auto: for inputs of {'x'.join(map(str, input_shape))}"
    return Choice(str(eval_batch_size(config, input_shape, device)), reason)


def _pieces(config: Config, data: Dataset) -> EpochSizes:
    spec = config.training
    return EpochSizes(len(data.splits["train"]), spec.batch_size, spec.accumulation_steps, spec.drop_last)


def _check_extras(config: Config, mistakes: ProblemCollector) -> None:
    if config.logging.tensorboard and importlib.util.find_spec("tensorboard") is None:
        message = "TensorBoard files need the tensorboard package, which is not installed; pip install tensorboard"
        mistakes.problems.append(Problem(message, key="logging.tensorboard"))


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


def _check_monitors(config: Config, data: Dataset, mistakes: ProblemCollector) -> None:
    """The metrics that the config names exist for these data."""
    known = metric_names.names(data.task, num_classes=data.num_classes or None, validation="val" in data.splits)
    asked = {"checkpoint.monitor": config.checkpoint.monitor}
    if config.training.early_stopping is not None:
        asked["training.early_stopping.monitor"] = config.training.early_stopping.monitor or "auto"
    if isinstance(config.scheduler, ReduceOnPlateau):
        asked["scheduler.monitor"] = config.scheduler.monitor or "auto"
    for key, name in asked.items():
        if name == "auto" or name in known:
            continue
        near = closest(name, known)
        without = "" if "val" in data.splits or not name.startswith("val_") else "there is no validation split: "
        message = f"{without}this run has no metric {name}, it has {', '.join(known)}"
        mistakes.problems.append(Problem(message + (f"; did you mean {near}?" if near else "; take one of these"), key))


@dataclass
class _Model:
    """The checks of the network; each needs the one before it."""

    config: Config
    data: Dataset
    pieces: EpochSizes
    size: int | None
    loss: Loss | None
    device: torch.device
    mistakes: ProblemCollector
    input_shape: tuple[int, ...] = ()
    rows: list[LayerRow] = field(default_factory=list)
    memory: Memory | None = None
    free_disk: int | None = None

    @property
    def output_size(self) -> int:
        """What data and loss need; what the data alone need where the loss is not for them."""
        return self.data.num_classes or self.data.num_targets if self.size is None else self.size

    def examine(self, runs_dir: Path, precision: Choice | None, *, try_it: bool) -> None:
        catch, config = self.mistakes.catch, self.config
        sample = catch("dataset", lambda: take_sample(self.data, build_static_transforms(config)))
        if sample is None:
            return
        shape = catch("transforms", lambda: self._input_shape(sample))
        if shape is None:
            return
        self.input_shape = shape
        model = catch("model", self._build)
        if model is None or catch("model", lambda: self._check_sizes(model)) is None:
            return
        loss = self.loss
        if loss is not None and self.size is not None:
            expects, name = loss.expects, loss.name
            catch("model", lambda: check_output(model, shape, output_size=self.output_size, expects=expects, loss=name))
        self.rows = layer_table(model, shape)
        batch = self.pieces.micro_batch
        memory = estimate_memory(
            config,
            model,
            self.rows,
            input_shape=shape,
            micro_batch=batch,
            device=self.device,
            precision="fp32" if precision is None else precision.value,
        )
        self.memory, before = memory, len(self.mistakes.problems)
        catch("training.batch_size", lambda: check_memory(memory, config, micro_batch=batch, device=self.device))
        fits = len(self.mistakes.problems) == before
        if not fits:  # what cannot be trained need not be saved
            return
        saved = checkpoint_bytes(config, memory)
        self.free_disk = catch("checkpoint", lambda: check_disk(saved, config, runs_dir=runs_dir))
        if loss is not None and self.size is not None and precision is not None and try_it:
            catch("model", lambda: self._try_out(sample, loss, precision.value))

    def _input_shape(self, sample: Dataset) -> tuple[int, ...]:
        steps = build_batch_transforms(self.config, sample)
        pipeline = build_pipeline(
            steps,
            input_shape=sample.input_shape,
            seed=self.config.seed,
            random=True,
            keys=batch_transform_keys(self.config),
        )
        return pipeline.output_shape

    def _build(self) -> Network:
        with torch.device("meta"):  # shapes without memory
            return build_model(self.config, input_shape=self.input_shape, output_size=self.output_size)

    def _check_sizes(self, model: Network) -> bool:
        """Whether the layers take every size of micro-batch that an epoch has, such as the last one's."""
        pieces = self.pieces
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
                check_shapes(model, self.input_shape, batch_size=size)
            except ProblemsError as error:
                if not why:
                    raise
                raise ProblemsError([replace(p, message=f"{p.message} ({why})") for p in error.problems]) from None
        return True

    def _try_out(self, sample: Dataset, loss: Loss, precision: str) -> None:
        model = build_model(self.config, input_shape=self.input_shape, output_size=self.output_size)
        dry_run(self.config, model, sample, loss=loss, device=self.device, precision=precision)
        if self.config.export.torchscript:
            check_export(model, self.input_shape, method=self.config.export.method)

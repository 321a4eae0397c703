"""A config brought to life: data, model and everything that follows from both. Train, eval and check start here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainkit.builders.data import (
    batch_transform_keys,
    build_batch_transforms,
    build_static_transforms,
    load_source,
    preprocessing,
)
from trainkit.builders.model import (
    build_loss_for,
    build_model,
    is_channels_last,
    is_convolutional,
    loss_name,
    output_size_for,
)
from trainkit.builders.training import monitor_of
from trainkit.config import LoadedConfig
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.images.cache import cache_root
from trainkit.data.images.materialize import image_shape, materialize
from trainkit.data.loading.resident import Batches, evaluation_batch_size
from trainkit.data.loading.workers import WorkerBatches
from trainkit.data.transforms.pipeline import BatchTransform, build_pipeline
from trainkit.engine.losses import Loss
from trainkit.errors import ConfigError, ProblemsError
from trainkit.models.network import Network
from trainkit.models.summary import check_output, check_shapes
from trainkit.runtime.device import Choice, claim, resolve_device, resolve_precision, set_num_threads

ImageFiles = Mapping[str, tuple[Path, ...]]
"""By part: the files that the samples were decoded from, where they were."""


@dataclass(frozen=True)
class Setup:
    """What a config and its data amount to, before the first step."""

    config: Config
    data: Dataset
    device: torch.device
    loss: Loss
    model: Network
    """On the device, with its first weights."""
    steps: list[BatchTransform]
    input_shape: tuple[int, ...]
    preprocessing: dict[str, Any]
    monitor: str
    choices: dict[str, Choice]
    """What ``auto`` chose, and why: device, precision, loss, monitor."""
    files: ImageFiles = field(default_factory=dict)

    @property
    def precision(self) -> str:
        return self.choices["precision"].value

    def batches(self, split: str, *, training: bool = False, augmented: bool = True) -> Batches | WorkerBatches:
        """The batches of a split, on the device: shuffled and augmented for training, in order for evaluation.

        Args:
            augmented: False leaves the random transforms out of training, to see what they cost.
        """
        chosen = self.data.splits[split]
        part = self.data.parts[chosen.part]
        spec = self.config.training
        size = spec.batch_size if training else eval_batch_size(self.config, self.input_shape, self.device)
        common: dict[str, Any] = {
            "steps": self.steps,
            "batch_size": size,
            "shuffle": training and spec.shuffle,
            "seed": self.config.seed,
            "random": training and augmented,
            "drop_last": training and spec.drop_last,
            "device": self.device,
            "channels_last": is_channels_last(self.config),
            "batch_transform_keys": batch_transform_keys(self.config),
        }
        if not part.is_files:
            return Batches(part, chosen.indices, **common)
        assert self.data.channels is not None, "images have channels"
        return WorkerBatches(
            part,
            chosen.indices,
            channels=self.data.channels,
            front=build_static_transforms(self.config),
            num_workers=spec.num_workers,
            **common,
        )


def eval_batch_size(config: Config, input_shape: tuple[int, ...], device: torch.device) -> int:
    """Samples of a forward pass without gradients."""
    if config.training.eval_batch_size != "auto":
        return config.training.eval_batch_size
    return evaluation_batch_size(input_shape, device=device, convolutional=is_convolutional(config))


def build_setup(
    config: Config,
    *,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    stored: Mapping[str, Any] | None = None,
    source: Dataset | None = None,
    data: Dataset | None = None,
) -> Setup:
    """Load the data, apply the front of the transforms, build loss and model.

    Args:
        progress: told (done, total) while images are decoded into the cache.
        should_stop: asked while data are downloaded and decoded.
        stored: a checkpoint, whose preprocessing and choices are taken over.
        source: the config's data set, where it is loaded already.
        data: samples in place of the config's, with the front applied.

    Raises:
        DataError: the data are missing or broken.
        ProblemsError: the model does not fit the data or the loss; the keys say where.
        Interrupted: ``should_stop`` said so.
    """
    device_choice = resolve_device(config.device)
    device = claim(device_choice)
    if stored is None or config.training.precision != "auto":
        precision = resolve_precision(config.training.precision, device, convolutional=is_convolutional(config))
    else:
        precision = Choice(**stored["choices"]["precision"])
    threads = set_num_threads(config.training.num_threads)
    files: ImageFiles = {}
    if data is None:
        data, files = load_data(config, source=source, progress=progress, should_stop=should_stop)
    steps = build_batch_transforms(config, data, stored=None if stored is None else stored["preprocessing"])
    on_disk = data.parts[data.splits["train"].part].is_files
    stored_shape = image_shape(data, build_static_transforms(config)) if on_disk else data.input_shape
    input_shape = build_pipeline(
        steps, input_shape=stored_shape, seed=config.seed, random=True, keys=batch_transform_keys(config)
    ).output_shape
    name = loss_name(config, data)
    size = output_size_for(config, data)
    model = build_model(config, input_shape=input_shape, output_size=size)
    check_shapes(model, input_shape, batch_size=config.training.batch_size)
    loss = build_loss_for(config, data, device=device)
    check_output(model, input_shape, output_size=size, expects=loss.expects, loss=loss.name)
    if is_channels_last(config):
        model = model.to(memory_format=torch.channels_last)
    monitor = monitor_of(config, task=data.task, has_val="val" in data.splits)
    return Setup(
        config=config,
        data=data,
        device=device,
        loss=loss,
        model=model.to(device),
        steps=steps,
        input_shape=input_shape,
        preprocessing=preprocessing(config, data, steps, input_shape=input_shape),
        monitor=monitor,
        choices={"device": device_choice, "threads": threads, "precision": precision, "loss": name},
        files=files,
    )


def load_data(
    config: Config,
    *,
    source: Dataset | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[Dataset, ImageFiles]:
    """The config's data set with the front of the transforms applied.

    Raises:
        DataError: the data are missing or broken.
    """
    if source is None:
        source = load_source(config, cache_dir=cache_root(), should_stop=should_stop)
    files = {name: part.inputs for name, part in source.parts.items() if isinstance(part.inputs, tuple)}
    front = build_static_transforms(config)
    return materialize(source, front, cache_dir=cache_root(), progress=progress, should_stop=should_stop), files


@contextmanager
def located(loaded: LoadedConfig) -> Iterator[None]:
    """Give the mistakes that deeper code finds their places in the config."""
    try:
        yield
    except ConfigError:
        raise
    except ProblemsError as error:
        raise ConfigError([loaded.locate(problem) for problem in error.problems]) from error

"""A run, put together once: config, data, device, loss and model. Every command that trains or scores starts here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.builders.data import (
    build_batch_transforms,
    build_static_transforms,
    load_source,
    preprocessing,
)
from trainkit.builders.dataset_info import check_rules
from trainkit.builders.model import (
    build_loss_for,
    build_model,
    is_channels_last,
    is_convolutional,
    loss_name,
    output_size_for,
)
from trainkit.builders.training import build_plan, build_state, monitor_of
from trainkit.config import LoadedConfig
from trainkit.config.schema import Config
from trainkit.data.cache import cache_root
from trainkit.data.dataset import Dataset
from trainkit.data.images import image_shape, materialize_images
from trainkit.data.loading import ResidentBatches, WorkerBatches, evaluation_batch_size, make_batches
from trainkit.data.transforms import BatchTransform, build_pipeline
from trainkit.engine import Loss, Plan, TrainState
from trainkit.errors import ConfigError, ProblemsError
from trainkit.models import check_output, check_shapes
from trainkit.runtime import Choice, claim, resolve_device, resolve_precision, set_num_threads
from trainkit.system import Frontend

ImageFiles = Mapping[str, tuple[Path, ...]]
"""By part: the files that the samples were decoded from, where they were."""


@dataclass(frozen=True)
class Setup:
    """Everything that a run consists of, before its first step."""

    config: Config
    data: Dataset
    """With the static transforms applied."""
    device: torch.device
    choices: dict[str, Choice]
    """What ``auto`` chose, and why: device, threads, precision, loss."""
    transforms: list[BatchTransform]
    """What is done to each batch, behind the static transforms."""
    input_shape: tuple[int, ...]
    """Of one sample as the model takes it: (C, H, W) or (F,)."""
    loss: Loss
    model: nn.Module
    """On the device, with its first weights or those of a checkpoint."""
    files: ImageFiles = field(default_factory=dict)
    stored: Mapping[str, Any] | None = None
    """The checkpoint whose preprocessing and choices were taken over."""

    @property
    def precision(self) -> str:
        return self.choices["precision"].value

    @property
    def channels_last(self) -> bool:
        return is_channels_last(self.config)

    @property
    def monitor(self) -> str:
        """The metric that says which checkpoint is best."""
        return monitor_of(self.config, task=self.data.task, has_val="val" in self.data.splits)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to a raw sample before the model sees it, as plain data: a part of every checkpoint."""
        return preprocessing(self.config, self.data, self.transforms, input_shape=self.input_shape)

    def on(self, data: Dataset, files: ImageFiles | None = None) -> Setup:
        """The same run on other samples: statistics and class weights are taken from them, the model stays."""
        stored = None if self.stored is None else self.stored["preprocessing"]
        transforms = build_batch_transforms(self.config, data, stored=stored)
        assert model_input_shape(self.config, data, transforms) == self.input_shape, "samples of another shape"
        loss = build_loss_for(self.config, data, device=self.device)
        return replace(self, data=data, files=files or {}, transforms=transforms, loss=loss)

    def batches(self, split: str, *, training: bool = False, augmented: bool = True) -> ResidentBatches | WorkerBatches:
        """The batches of a split, on the device: shuffled and augmented for training, in order for evaluation.

        Args:
            augmented: False leaves the random transforms out of training, to see what they cost.
        """
        spec = self.config.training
        return self.batches_of_size(
            split,
            spec.batch_size if training else eval_batch_size(self.config, self.input_shape, self.device),
            shuffle=training and spec.shuffle,
            random=training and augmented,
            drop_last=training and spec.drop_last,
            num_workers=spec.num_workers,
        )

    def batches_of_size(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle: bool = False,
        random: bool = False,
        drop_last: bool = False,
        device: torch.device | None = None,
        residency: str = "auto",
        num_workers: int = 0,
    ) -> ResidentBatches | WorkerBatches:
        """The batches of a split, from arrays or from image files; on the device of the run when none is given."""
        chosen = self.data.splits[split]
        return make_batches(
            self.data.parts[chosen.part],
            chosen.indices,
            batch_transforms=self.transforms,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self.config.seed,
            random=random,
            drop_last=drop_last,
            device=device or self.device,
            channels_last=self.channels_last,
            residency=residency,
            static_transforms=build_static_transforms(self.config),
            channels=self.data.channels,
            num_workers=num_workers,
        )

    def state(self, *, steps_per_epoch: int) -> TrainState:
        """The run at its start."""
        return build_state(
            self.config,
            self.model,
            monitor=self.monitor,
            steps_per_epoch=steps_per_epoch,
            device=self.device,
            precision=self.precision,
        )

    def plan(self, forward: Callable[[Tensor], Tensor] | None = None) -> Plan:
        """How the loop goes; ``forward`` is the compiled model where there is one."""
        return build_plan(
            self.config,
            loss=self.loss,
            num_classes=self.data.num_classes,
            num_targets=self.data.num_targets,
            device=self.device,
            precision=self.precision,
            forward=self.model if forward is None else forward,
        )


def build_setup(
    config: Config,
    *,
    source: Dataset | None = None,
    data: Dataset | None = None,
    frontend: Frontend | None = None,
) -> Setup:
    """All steps at once, without the checks that ``check`` makes on the way.

    Args:
        source: the config's data set, where it is loaded already.
        data: samples in place of the config's, with the static transforms applied.

    Raises:
        DataError: the data are missing or broken.
        ProblemsError: the model does not fit the data or the loss; the keys say where.
        Interrupted: the frontend asked for a stop.
    """
    device, choices = choose_hardware(config)
    files: ImageFiles = {}
    if data is None:
        data, files = load_data(config, source=source, frontend=frontend)
        check_rules(config, data, materialized=True)
    transforms = build_batch_transforms(config, data)
    input_shape = model_input_shape(config, data, transforms)
    size = output_size_for(config, data)
    loss = build_loss_for(config, data, device=device)
    model = build_model(config, input_shape=input_shape, output_size=size)
    check_shapes(model, input_shape, batch_size=config.training.batch_size)
    check_output(model, input_shape, output_size=size)
    return Setup(
        config=config,
        data=data,
        device=device,
        choices={**choices, "loss": loss_name(config, data)},
        transforms=transforms,
        input_shape=input_shape,
        loss=loss,
        model=place(model, config, device),
        files=files,
    )


def choose_hardware(config: Config) -> tuple[torch.device, dict[str, Choice]]:
    """The device, made current, and the choice of device, threads and precision.

    Raises:
        ProblemsError: there is no such device, or it cannot compute in the precision.
    """
    choice = resolve_device(config.device)
    device = torch.device(choice.value)
    claim(device)
    precision = choose_precision(config, device)
    threads = set_num_threads(config.training.num_threads)
    return device, {"device": choice, "threads": threads, "precision": precision}


def choose_precision(config: Config, device: torch.device, *, stored: Mapping[str, Any] | None = None) -> Choice:
    """The precision of training; ``auto`` stays what it was in the checkpoint ``stored``.

    Raises:
        ProblemsError: the device cannot compute in it.
    """
    if stored is None or config.training.precision != "auto":
        return resolve_precision(config.training.precision, device, convolutional=is_convolutional(config))
    return Choice(**stored["choices"]["precision"])


def load_data(
    config: Config, *, source: Dataset | None = None, frontend: Frontend | None = None
) -> tuple[Dataset, ImageFiles]:
    """The config's data set with the static transforms applied.

    Raises:
        DataError: the data are missing or broken.
    """
    frontend = frontend or Frontend()
    if source is None:
        source = load_source(config, cache_dir=cache_root(), should_stop=frontend.stop)
    data = materialize_images(
        source,
        build_static_transforms(config),
        cache_dir=cache_root(),
        progress=frontend.progress,
        should_stop=frontend.stop,
    )
    return data, files_of(source)


def files_of(source: Dataset) -> ImageFiles:
    """The image files of a data set that is not decoded yet."""
    return {name: part.inputs for name, part in source.parts.items() if isinstance(part.inputs, tuple)}


def model_input_shape(config: Config, data: Dataset, transforms: list[BatchTransform]) -> tuple[int, ...]:
    """The shape of a sample behind all transforms.

    Raises:
        ValueError: a transform does not fit the samples.
    """
    on_disk = data.parts[data.splits["train"].part].is_files
    shape = image_shape(data, build_static_transforms(config)) if on_disk else data.input_shape
    return build_pipeline(transforms, input_shape=shape, seed=config.seed, random=True).output_shape


def place(model: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """The model on the device, in the memory layout of the config."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if is_channels_last(config) else model


def eval_batch_size(config: Config, input_shape: tuple[int, ...], device: torch.device) -> int:
    """Samples of a forward pass without gradients."""
    if config.training.eval_batch_size != "auto":
        return config.training.eval_batch_size
    return evaluation_batch_size(input_shape, device=device, convolutional=is_convolutional(config))


@contextmanager
def located(loaded: LoadedConfig) -> Iterator[None]:
    """Give the mistakes that deeper code finds their places in the config."""
    try:
        yield
    except ConfigError:
        raise
    except ProblemsError as error:
        raise ConfigError([loaded.locate(problem) for problem in error.problems]) from error

"""A run, put together once: config, data, device, loss and model. Every command that trains or scores starts here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.builders.compiling import choose_compile, compiled_plan
from trainkit.builders.data import (
    ImageFiles,
    build_batch_transforms,
    check_rules,
    layout_of,
    load_data,
    model_input_shape,
    preprocessing,
)
from trainkit.builders.fine_tuning import build_freezing, frozen_parameters
from trainkit.builders.memory import residency_of
from trainkit.builders.metrics import build_metrics, monitor_of, monitored
from trainkit.builders.model import (
    build_loss_for,
    build_model,
    eval_batch_size,
    is_channels_last,
    loss_name,
    output_size_for,
    place,
)
from trainkit.builders.precision import choose_precision
from trainkit.builders.pretrained import load_pretrained
from trainkit.builders.static_transforms import crop_choices, decoding_of
from trainkit.builders.targets import scale_choice
from trainkit.builders.threads import choose_threads, use_most_threads
from trainkit.builders.training import (
    build_early_stopping,
    build_ema,
    build_optimizer_for,
    build_plateau,
    build_schedule_for,
    build_swa,
    mix_batches,
)
from trainkit.config.rules import epoch_sizes
from trainkit.config.schema import Config
from trainkit.config.schema.base import parse_duration
from trainkit.config.schema.model import Whiten
from trainkit.config.schema.run import SkipNonFinite
from trainkit.data.dataset import Dataset
from trainkit.data.loading import ResidentBatches, Sampler, WorkerBatches, make_batches
from trainkit.data.tables import numeric_names
from trainkit.data.transforms import BatchTransform
from trainkit.engine import (
    Batches,
    Best,
    Loss,
    Plan,
    TrainState,
)
from trainkit.models import check_output, check_shapes, is_tabular, layer_table, suit_to_data, whiten
from trainkit.runtime import (
    Choice,
    Ranks,
    claim,
    forward,
    resolve_device,
    seed_default_generators,
    use_tf32,
)
from trainkit.system import Frontend

_ROWS_TO_SUIT = 1024
"""Training samples that first weights are suited to."""


@dataclass(frozen=True)
class Setup:
    """Everything that a run consists of, before its first step."""

    config: Config
    data: Dataset
    """With the static transforms applied."""
    device: torch.device
    choices: dict[str, Choice]
    """The values that ``auto`` stands for, with the reasons: device, threads, precision, loss, compile."""
    transforms: list[BatchTransform]
    """The transforms of each batch, after the static ones."""
    input_shape: tuple[int, ...]
    """Of one sample as the model takes it: (C, H, W) or (F,)."""
    loss: Loss
    model: nn.Module
    """On the device, with its first weights or those of a checkpoint."""
    files: ImageFiles = field(default_factory=dict)
    stored: Mapping[str, Any] | None = None
    """The checkpoint that gave the preprocessing and the choices, where there is one."""
    part_of: Callable[[nn.Module], nn.Module] | None = None
    """What the samples go through: the head, where they are the features of a frozen backbone; None: the model."""
    pin: Mapping[str, Any] | None = None
    """Which file of weights the run began with, where there is one."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share the run."""
    reserved: int = 0
    """Bytes of the device that the model takes while training, an estimate; 0 where nobody asked."""

    @property
    def precision(self) -> str:
        return self.choices["precision"].value

    @property
    def channels_last(self) -> bool:
        return is_channels_last(self.config)

    @cached_property
    def residency(self) -> Choice:
        """Where the samples are kept: chosen once for all splits, before the first of them is loaded."""
        return residency_of(self.config, self.data, device=self.device, reserved=self.reserved)

    @cached_property
    def frozen(self) -> dict[str, int | None]:
        """See ``frozen_parameters``: found once, while the model still trains all that it wants to."""
        return frozen_parameters(self.config, self.model)

    @property
    def monitor(self) -> str:
        """The metric that says which checkpoint is best."""
        return monitor_of(self.config, task=self.data.task, has_val="val" in self.data.splits)

    @property
    def quantities(self) -> list[str] | None:
        """The names of a table's numeric columns, the first of the model's inputs; None for images."""
        if self.data.kind == "image":
            return None
        encoding = self.data.table_encoding
        return list(self.data.feature_names) if layout_of(self.data) is None else numeric_names(encoding or {})

    @property
    def preprocessing(self) -> dict[str, Any]:
        """All that turns a raw sample into an input of the model, as plain data: a part of every checkpoint."""
        return preprocessing(self.config, self.data, self.transforms, input_shape=self.input_shape)

    def on(self, data: Dataset, files: ImageFiles | None = None) -> Setup:
        """The same run on other samples: statistics and class weights are taken from them, the model stays."""
        stored = None if self.stored is None else self.stored["preprocessing"]
        transforms = build_batch_transforms(self.config, data, stored=stored)
        assert model_input_shape(self.config, data, transforms) == self.input_shape, "samples of another shape"
        loss = build_loss_for(self.config, data, device=self.device)
        return replace(self, data=data, files=files or {}, transforms=transforms, loss=loss)

    def suit_weights(self) -> None:
        """Let the first weights suit the training samples, where the model wants that."""
        init = getattr(self.config.model, "init", None)
        if not is_tabular(self.model) and not isinstance(init, Whiten):
            return
        size = min(_ROWS_TO_SUIT, len(self.data.splits["train"]))
        batches = self.sample_batches(batch_size=size, device=torch.device("cpu"), shuffle=True)
        seed_default_generators(self.config.seed, "init on data", device=torch.device("cpu"))
        inputs = next(iter(batches.epoch(0))).inputs
        if isinstance(init, Whiten):
            whiten(self.model, inputs, eps=init.eps)
        else:
            suit_to_data(self.model, inputs)

    def computing_in(self, precision: Choice) -> Setup:
        """The same run in another precision, which is set for the matrix products of CUDA too."""
        use_tf32(precision.value)
        changed = replace(self, choices={**self.choices, "precision": precision})
        vars(changed)["residency"] = self.residency  # the data stay where they are
        return changed

    def batches(self, split: str, *, training: bool = False, augmented: bool = True) -> Batches:
        """The batches of a split, on the device: shuffled, augmented and mixed for training, in order for evaluation.

        Args:
            augmented: False leaves random transforms and mixing out of training, to measure their cost.
        """
        spec = self.config.training
        batches = self._make_batches(
            split,
            batch_size=spec.batch_size if training else eval_batch_size(self.config, self.input_shape, self.device),
            device=self.device,
            shuffle=training and spec.shuffle,
            random=training and augmented,
            balance=spec.sampler.power if training and spec.sampler is not None else None,
            drop_last=training and epoch_sizes(self.config, len(self.data.splits[split])).drop_last,
            num_workers=spec.num_workers,
            # A sample may be mixed with one of another piece, so each rank then needs the whole batch.
            ranks=Ranks() if training and spec.mix is not None else self.ranks,
            pieces=spec.accumulation_steps if training else None,
        )
        return mix_batches(self.config, batches) if training and augmented else batches

    def sample_batches(
        self, *, batch_size: int, device: torch.device, shuffle: bool = False, random: bool = False
    ) -> ResidentBatches | WorkerBatches:
        """Batches of training samples to look at; image files are decoded in this process."""
        return self._make_batches(
            "train", batch_size=batch_size, device=device, shuffle=shuffle, random=random, residency="host"
        )

    def _make_batches(
        self,
        split: str,
        *,
        random: bool,
        device: torch.device,
        residency: str | None = None,
        num_workers: int = 0,
        **order: Any,
    ) -> ResidentBatches | WorkerBatches:
        chosen = self.data.splits[split]
        part, kept = self.data.model_parts[chosen.part], self.residency.value
        return make_batches(
            part,
            Sampler(part, chosen.indices, seed=self.config.seed, **order),
            self.transforms,
            random=random,
            device=device,
            channels_last=self.channels_last,
            residency=residency or ("host" if kept == "workers" else kept),
            decoding=decoding_of(self.config, self.data, num_workers=num_workers),
        )

    def state(self, *, steps_per_epoch: int) -> TrainState:
        """The state of the run before its first step."""
        return TrainState(
            model=self.model,
            optimizer=build_optimizer_for(self.config, self.model, device=self.device, frozen=self.frozen),
            schedule=build_schedule_for(self.config, steps_per_epoch=steps_per_epoch),
            best=Best(*monitored(self.config, self.monitor)),
            plateau=build_plateau(self.config, self.monitor),
            scaler=torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None,
            ema=build_ema(self.config, self.model, steps_per_epoch=steps_per_epoch),
            swa=build_swa(self.config, self.model, steps_per_epoch=steps_per_epoch),
            early_stopping=build_early_stopping(self.config, self.monitor),
            freezing=build_freezing(self.config, self.frozen, steps_per_epoch=steps_per_epoch),
        )

    @property
    def forward(self) -> Callable[[Tensor], Tensor]:
        """The model, or its part, in the precision of the run: inputs to outputs in float32."""
        part = self.model if self.part_of is None else self.part_of(self.model)
        return partial(forward, part, precision=self.precision)

    def plan(self, *, say: Callable[[str], None] | None = None) -> Plan:
        """The settings of the loop: compiled as was chosen, for training, if ``say`` is given, which gets warnings."""
        spec = self.config.training
        every = parse_duration(self.config.checkpoint.every)
        plan = Plan(
            seed=self.config.seed,
            epochs=spec.epochs,
            loss=self.loss,
            new_metrics=partial(build_metrics, self.config, self.data, self.loss, device=self.device),
            forward=self.forward,
            precision=self.precision,
            accumulation_steps=spec.accumulation_steps,
            ranks=self.ranks,
            clip_grad_norm=spec.clip_grad_norm,
            clip_grad_value=spec.clip_grad_value,
            skip_limit=spec.on_non_finite.limit if isinstance(spec.on_non_finite, SkipNonFinite) else 0,
            log_every=self.config.logging.every,
            save_every=(every.value, every.unit),
            mixed=spec.mix is not None,
        )
        if self.part_of is not None:
            plan = replace(plan, part_of=self.part_of)
        if say is None:
            return plan
        return compiled_plan(plan, self.choices["compile"], config=self.config, model=self.model, say=say)


def build_setup(
    config: Config,
    *,
    source: Dataset | None = None,
    data: Dataset | None = None,
    frontend: Frontend | None = None,
) -> Setup:
    """Put a run together without the checks of ``trainkit check``.

    Args:
        source: the config's data set, where it is loaded already.
        data: samples in place of the config's, with the static transforms applied.

    Raises:
        DataError: the data are missing or broken.
        ProblemsError: the device, the model or the loss does not fit the config or the data; the keys say where.
        Interrupted: the frontend asked for a stop.
    """
    device_choice = resolve_device(config.device)
    device = torch.device(device_choice.value)
    claim(device, deterministic=config.training.deterministic)
    use_most_threads(config)
    files: ImageFiles = {}
    if data is None:
        data, files = load_data(config, source=source, frontend=frontend)
        check_rules(config, data, materialized=True)
    transforms = build_batch_transforms(config, data)
    input_shape = model_input_shape(config, data, transforms)
    size = output_size_for(config, data)
    loss = build_loss_for(config, data, device=device)
    model = build_model(config, input_shape=input_shape, output_size=size, layout=layout_of(data), loss=loss.name)
    weights = load_pretrained(config, model, frontend=frontend)
    check_shapes(model, input_shape, batch_size=config.training.batch_size)
    check_output(model, input_shape, output_size=size)
    precision = choose_precision(config, device, loss=loss)
    return Setup(
        config=config,
        data=data,
        device=device,
        choices={
            "device": device_choice,
            "threads": choose_threads(config, layer_table(model, input_shape), device=device),
            "precision": precision,
            **scale_choice(config, data),
            **weights.choices,
            **crop_choices(config, data),
            "loss": loss_name(config, data),
            "compile": choose_compile(config, model, device=device, precision=precision.value, input_shape=input_shape),
        },
        transforms=transforms,
        input_shape=input_shape,
        loss=loss,
        model=place(model, config, device),
        files=files,
        pin=weights.pin,
    )

"""``trainkit check``: all checks that are possible before training. ``trainkit train`` begins with them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainkit.builders import (
    Loaded,
    Setup,
    build_loss_for,
    build_model,
    check_kept_classes,
    check_rules,
    choose_compile,
    choose_features,
    choose_precision,
    choose_threads,
    crop_choices,
    eval_batch_size,
    frozen_parameters,
    layout_of,
    load_pretrained,
    loss_name,
    monitor_of,
    output_size_for,
    parameter_groups,
    place,
    residency_of,
    scale_choice,
    use_most_threads,
)
from trainkit.config import LoadedConfig
from trainkit.config.rules import EpochSizes, epoch_sizes
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.pixel_rules import range_text
from trainkit.engine import Loss
from trainkit.errors import Problem, ProblemsError
from trainkit.models import LayerRow, check_output
from trainkit.runtime import Choice, claim, resolve_device
from trainkit.system import Frontend
from trainkit.wording import counted
from trainkit.workflows.check.dry_run import check_export, dry_run
from trainkit.workflows.check.memory import Costs, check_costs
from trainkit.workflows.check.probe_data import (
    class_notes,
    load_read_only,
    placeholder_dataset,
    without_unreadable,
)
from trainkit.workflows.check.problems import ProblemCollector
from trainkit.workflows.check.shapes import ModelShapes, model_shapes


@dataclass(frozen=True)
class CheckReport:
    """A config that can be trained, with its layers, choices and costs."""

    loaded: LoadedConfig
    source: Dataset
    """The data set; images in files are not decoded."""
    setup: Setup
    """On a sample of the data."""
    notes: tuple[str, ...]
    """Remarks that are no mistakes."""
    output_size: int
    rows: list[LayerRow]
    """The layers, for one sample."""
    sizes: EpochSizes
    costs: Costs

    @property
    def choices(self) -> dict[str, Choice]:
        """The values that ``auto`` stands for, with the reasons. Where image files will lie, decoding them shows."""
        config, source, setup = self.loaded.config, self.source, self.setup
        choices = dict(setup.choices)
        if not any(part.is_files for part in source.parts.values()):
            choices["residency"] = residency_of(config, source, device=setup.device, reserved=setup.reserved)
        return {
            **choices,
            "monitor": _monitor_choice(config, source),
            "eval_batch_size": _eval_batch_choice(setup),
        }

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.setup.input_shape

    @property
    def num_parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def total_steps(self) -> int:
        return self.sizes.steps_per_epoch * self.loaded.config.training.epochs


def check(
    loaded: LoadedConfig,
    *,
    runs_dir: Path = Path("runs"),
    stored: Mapping[str, Any] | None = None,
    frontend: Frontend | None = None,
) -> CheckReport:
    """Check a config without writing anything: no cache entry, no download, no run folder.

    The header of every image file is read. The notes of the report say what was not looked at.

    Args:
        stored: the checkpoint to resume from.

    Raises:
        ConfigError: every mistake that was found, each with its place.
    """
    load = partial(load_read_only, loaded.config, stored=None if stored is None else stored["preprocessing"])
    frontend = frontend or Frontend()
    return run_checks(loaded, load=load, runs_dir=runs_dir, stored=stored, everything=True, frontend=frontend)


def run_checks(
    loaded: LoadedConfig,
    *,
    load: Callable[[], Dataset],
    runs_dir: Path,
    stored: Mapping[str, Any] | None = None,
    everything: bool = False,
    frontend: Frontend,
) -> CheckReport:
    """Run all checks, and put the run together on a sample of its data.

    Args:
        load: gives the data set; images in files are not decoded yet.
        runs_dir: where checkpoints will be written.
        stored: the checkpoint to resume from: its preprocessing and precision are used.
        everything: also look at what training finds only later, when it decodes all images, and download nothing.

    Raises:
        ConfigError: every mistake that was found, each with its place.
    """
    checks = _Checks(loaded, stored, everything, frontend)
    config, problems, notes = loaded.config, checks.problems, checks.notes
    device = _choose_hardware(checks)
    problems.catch("logging", lambda: check_installed(config))
    source, data = _look_at_data(checks, load)
    sizes = epoch_sizes(config, len(data.splits["train"]))
    shapes, loss, size = _fit_model(checks, data, sizes, device=device)
    problems.catch("optimizer", lambda: parameter_groups(config, shapes.model))
    frozen = problems.catch("fine_tuning", lambda: frozen_parameters(config, shapes.model)) or {}
    costs = check_costs(
        config,
        shapes,
        problems,
        sizes=sizes,
        data=data,
        device=device,
        choices=checks.choices,
        frozen=frozen,
        runs_dir=runs_dir,
    )
    if costs is None or loss is None or size is None or not {"device", "precision"} <= checks.choices.keys():
        raise problems.error(loaded)
    setup = _put_together(checks, data, shapes, loss=loss, size=size, device=device, reserved=costs.memory.total)
    products = sum(row.multiply_adds for row in shapes.rows)
    not_tried = problems.catch("model", lambda: dry_run(setup, multiply_adds=products))
    notes += [] if not_tried is None else [not_tried]
    if not problems.problems:
        steps = sizes.steps_per_epoch
        features = problems.catch("fine_tuning", lambda: choose_features(setup, steps_per_epoch=steps))
        setup = replace(setup, choices=setup.choices | ({} if features is None else {"cache_features": features}))
    if config.export.torchscript:
        problems.catch("model", lambda: check_export(setup.model, setup.input_shape, method=config.export.method))
    if problems.problems:
        raise problems.error(loaded)
    assert source is not None, "or there is a problem"
    notes += training_notes(config, setup.model, sizes)
    if sizes.num_samples < sizes.batch_size:
        notes.append(f"an epoch is one batch: the training split has {counted(sizes.num_samples, 'sample')}")
    return CheckReport(loaded, source, setup, tuple(notes), size, shapes.rows, sizes, costs)


@dataclass(frozen=True)
class _Checks:
    """What the parts of ``run_checks`` share, and what they have found so far."""

    loaded: LoadedConfig
    stored: Mapping[str, Any] | None
    everything: bool
    frontend: Frontend
    problems: ProblemCollector = field(default_factory=ProblemCollector)
    notes: list[str] = field(default_factory=list)
    choices: dict[str, Choice] = field(default_factory=dict)


def _choose_hardware(checks: _Checks) -> torch.device:
    """The device, made current."""
    config = checks.loaded.config
    use_most_threads(config)
    chosen = checks.problems.catch("device", lambda: resolve_device(config.device))
    if chosen is not None:
        checks.choices["device"] = chosen
    device = torch.device("cpu" if chosen is None else chosen.value)
    claim(device, deterministic=config.training.deterministic)
    return device


def _look_at_data(checks: _Checks, load: Callable[[], Dataset]) -> tuple[Dataset | None, Dataset]:
    """The data set, and what stands for it in the other checks where it is a mistake.

    Raises:
        ConfigError: nothing can.
    """
    config, problems = checks.loaded.config, checks.problems
    source = problems.catch("dataset", load)
    if source is not None:
        look = partial(without_unreadable, source, config, everything=checks.everything, frontend=checks.frontend)
        source = problems.catch("dataset", look) or source
    data = source or placeholder_dataset(config)
    if data is None:
        raise problems.error(checks.loaded)
    checks.notes.extend([*data.notes, *class_notes(config, data)])
    return source, data


def _fit_model(
    checks: _Checks, data: Dataset, sizes: EpochSizes, *, device: torch.device
) -> tuple[ModelShapes, Loss | None, int | None]:
    """The model's shapes, the loss and the number of outputs, each checked against the data and the others.

    Raises:
        ConfigError: the shapes cannot be found.
    """
    config, problems, stored = checks.loaded.config, checks.problems, checks.stored
    broken = problems.sections("dataset", lambda: check_rules(config, data, where=checks.loaded.where))
    loss = size = shapes = None
    if "loss" not in broken:
        loss = problems.catch("loss", lambda: build_loss_for(config, data, device=device))
        size = output_size_for(config, data)
    # Where the loss does not fit the data, the model is still checked, with as many outputs as the data need.
    outputs = data.num_classes or data.num_targets if size is None else size
    if broken.isdisjoint({"model", "transforms"}):
        shapes = problems.catch(
            "model", lambda: model_shapes(config, data, output_size=outputs, sizes=sizes, stored=stored)
        )
    if shapes is None:
        raise problems.error(checks.loaded)
    checks.choices["threads"] = choose_threads(config, shapes.rows, device=device, stored=stored)
    if data.rules.value_range is None and (tried := shapes.sample.rules.value_range) is not None:
        checks.notes.append(
            f"gray values {range_text(tried)} in the images that were tried, of more than 8 bits; training takes the "
            "range of all training images, and it becomes 0 to 1"
        )
    if loss is not None:
        if size is not None:
            problems.catch("model", lambda: check_output(shapes.model, shapes.input_shape, output_size=size))
        choose = partial(choose_precision, config, device, loss=loss, stored=stored)
        if (precision := problems.catch("training.precision", choose)) is not None:
            checks.choices["precision"] = precision
    return shapes, loss, size


def _put_together(
    checks: _Checks, data: Dataset, shapes: ModelShapes, *, loss: Loss, size: int, device: torch.device, reserved: int
) -> Setup:
    """The run on a sample of its data, with the first weights of its model."""
    config, problems, stored = checks.loaded.config, checks.problems, checks.stored
    model = build_model(
        config, input_shape=shapes.input_shape, output_size=size, layout=layout_of(data), loss=loss.name
    )
    problems.catch("model.head", lambda: check_kept_classes(config, data.class_names))
    load = partial(load_pretrained, config, model, stored=stored, fetch=not checks.everything, frontend=checks.frontend)
    weights = problems.catch("model.weights", load) or Loaded()
    precision = checks.choices["precision"].value
    return Setup(
        config=config,
        data=shapes.sample,
        device=device,
        choices={
            **checks.choices,
            **weights.choices,
            **scale_choice(config, data, stored=stored),
            **crop_choices(config, data),
            "loss": loss_name(config, data),
            "compile": choose_compile(
                config, shapes.model, device=device, precision=precision, input_shape=shapes.input_shape
            ),
        },
        transforms=shapes.transforms,
        input_shape=shapes.input_shape,
        loss=loss,
        model=place(model, config, device),
        stored=stored,
        pin=weights.pin,
        reserved=reserved,
    )


def training_notes(config: Config, model: nn.Module, sizes: EpochSizes) -> list[str]:
    """Remarks on the training that are no mistakes: what has no effect, and what pieces of batches change."""
    off = {f"transforms[{index}]": spec for index, spec in enumerate(config.transforms) if getattr(spec, "p", 1) == 0}
    notes = [f"{key}.p is 0: {spec.type} changes nothing" for key, spec in off.items()]
    if config.training.mix is not None and config.training.mix.p == 0:
        notes.append("training.mix.p is 0: no batch is mixed")
    return notes + _piece_notes(model, sizes)


def _piece_notes(model: nn.Module, sizes: EpochSizes) -> list[str]:
    """What is not the same as with whole batches, where ``accumulation_steps`` cuts them into pieces."""
    batch_norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    dropout = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    layers = list(model.modules())
    effects = []
    if any(isinstance(layer, batch_norm) for layer in layers):
        effects.append(f"batch norm takes its statistics over pieces of {counted(sizes.piece, 'sample')}")
    if any(isinstance(layer, dropout) and layer.p > 0 for layer in layers):
        effects.append("dropout draws anew for each piece")
    if sizes.accumulation_steps == 1 or not effects:
        return []
    return [
        f"accumulation_steps {sizes.accumulation_steps} adds up the gradient of the whole batch, but "
        f"{' and '.join(effects)}: not the same training as with accumulation_steps 1"
    ]


def check_installed(config: Config) -> None:
    """Raises ProblemsError where a package that the config needs is missing."""
    for key in config.logging.trackers:
        package = config.logging.tracker_packages[key]
        if importlib.util.find_spec(package) is None:
            message = f"it needs the {package} package, which is not installed; pip install {package}"
            raise ProblemsError([Problem(message, f"logging.{key}")])


def _monitor_choice(config: Config, data: Dataset) -> Choice:
    monitor = monitor_of(config, task=data.task, has_val="val" in data.splits)
    how = "auto: " + ("the score" if monitor.endswith("accuracy") else "the loss")
    return Choice(monitor, "as asked for" if config.checkpoint.monitor != "auto" else how)


def _eval_batch_choice(setup: Setup) -> Choice:
    automatic = setup.config.training.eval_batch_size == "auto"
    reason = f"auto: for inputs of {'x'.join(map(str, setup.input_shape))}" if automatic else "as asked for"
    return Choice(str(eval_batch_size(setup.config, setup.input_shape, setup.device)), reason)

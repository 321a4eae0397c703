"""The model on a few samples, forward and backward: what shapes alone do not show."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NoReturn

import torch
from torch import Tensor

from trainkit.builders.data import batch_transform_keys, build_batch_transforms
from trainkit.builders.model import is_convolutional
from trainkit.builders.training import build_plan
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.loading.resident import Batch, Batches
from trainkit.engine.losses import Loss
from trainkit.errors import Problem, ProblemsError
from trainkit.models.network import Network
from trainkit.runtime.seeding import seed_default_generators

TRIED = 8
"""Samples: enough for a batch norm, few enough to take no time."""


def first_batch(config: Config, sample: Dataset, *, size: int, device: torch.device, random: bool) -> Batch:
    """A batch of up to ``size`` of the sample's training samples as the model gets them, on the device."""
    split = sample.splits["train"]
    batches = Batches(
        sample.parts[split.part],
        split.indices,
        steps=build_batch_transforms(config, sample),
        batch_size=min(size, len(split)),
        shuffle=False,
        seed=config.seed,
        random=random,
        device=device,
        channels_last=is_convolutional(config),
        batch_transform_keys=batch_transform_keys(config),
        residency="host",
    )
    return next(iter(batches.epoch(0)))


def dry_run(
    config: Config, model: Network, sample: Dataset, *, loss: Loss, device: torch.device, precision: str
) -> None:
    """Run the model, the loss, the backward pass and the metrics on a few samples; no weight is changed.

    Raises:
        ProblemsError: it cannot be run, or something is not finite.
    """
    batch = first_batch(config, sample, size=TRIED, device=device, random=True)
    if not torch.isfinite(batch.inputs).all():
        _fail("the samples hold NaN or Inf after the transforms", "transforms" if config.transforms else "dataset")
    model.to(device)
    if is_convolutional(config):
        model.to(memory_format=torch.channels_last)
    seed_default_generators(config.seed, "dropout", 0)
    try:
        outputs, value = _forward_and_backward(config, model, batch, loss, sample, precision)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        _fail(f"the model fails on a batch of {len(batch.targets)} samples: {reason}", "model")
    if not torch.isfinite(outputs).all():
        _fail("the first outputs of the model are not finite; choose another init, or normalise the inputs", "model")
    if float(loss.normalizer(batch.targets)) == 0:
        model.zero_grad(set_to_none=True)
        return  # the classes of these few samples all have the weight 0, and no mean can be taken over them
    if not torch.isfinite(value):
        _fail(f"the loss of the first batch is {value.item()}, although the outputs of the model are finite", "loss")
    grads = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    bad = next((name for name, grad in grads if not torch.isfinite(grad).all()), None)
    if bad is not None:
        _fail(f"the gradient of {bad} is not finite in the first batch", "model")
    model.zero_grad(set_to_none=True)


def _forward_and_backward(
    config: Config, model: Network, batch: Batch, loss: Loss, sample: Dataset, precision: str
) -> tuple[Tensor, Tensor]:
    """Outputs and the mean loss, with gradients left in the model."""
    plan = build_plan(
        config,
        loss=loss,
        num_classes=sample.num_classes,
        num_targets=sample.num_targets,
        device=batch.inputs.device,
        precision=precision,
        forward=model,
    )
    model.train()
    with plan.autocast():
        outputs = model(batch.inputs).float()
    value = loss.mean(outputs, batch.targets)
    value.backward()
    metrics = plan.new_metrics()
    metrics.update(loss.predictions(outputs.detach()), batch.targets)
    metrics.compute()
    return outputs.detach(), value.detach()


def check_export(model: Network, input_shape: Sequence[int], *, method: Literal["script", "trace"]) -> None:
    """Raises ProblemsError where the model cannot become a TorchScript program."""
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is no longer developed
        try:
            if method == "script":
                torch.jit.script(model)
            else:
                torch.jit.trace(model, torch.zeros(1, *input_shape, device=device))
        except (RuntimeError, TypeError, ValueError, AttributeError, OSError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            _fail(f"the model cannot become a TorchScript program ({method}): {reason}", "export.torchscript")


def _fail(message: str, key: str) -> NoReturn:
    raise ProblemsError([Problem(message, key)])

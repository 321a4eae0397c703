"""A dry run: the model on a few samples, forward and backward. It finds what shapes alone do not show."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from trainkit.builders import Setup
from trainkit.data.loading import Batch
from trainkit.engine import Loss
from trainkit.errors import ProblemsError, TrainkitError
from trainkit.plugins import explain
from trainkit.runtime import seed_default_generators
from trainkit.wording import counted
from trainkit.workflows.check.problems import fail

DRY_RUN_SAMPLES = 8
"""Enough for a batch norm, few enough to take no time."""
FEWEST_SAMPLES = 2
"""Fewer are no batch for a batch norm."""
ON_THE_CPU = 20_000_000_000
"""Multiply-adds of a forward pass that take the CPU some seconds, with the backward pass. A network of which one sample
takes more is not tried there."""


def first_batch(setup: Setup, *, size: int, random: bool = True) -> Batch:
    """A batch of up to ``size`` training samples as the model gets them, with the random transforms if ``random``."""
    size = min(size, len(setup.data.splits["train"]))
    batches = setup.sample_batches(batch_size=size, device=setup.device, random=random)
    return next(iter(batches.epoch(0)))


def dry_run(setup: Setup, *, multiply_adds: int) -> str | None:
    """Run the model, the loss, the backward pass and the metrics on a few samples; the model does not change.

    Args:
        multiply_adds: of a sample's forward pass.

    Returns:
        Why that would take too long; None where it was done.

    Raises:
        ProblemsError: it cannot be run, or something is not finite.
    """
    size, loss = DRY_RUN_SAMPLES, setup.loss
    if setup.device.type == "cpu":
        if multiply_adds > ON_THE_CPU:
            work = f"{multiply_adds / 1e9:.3g} billion multiply-adds a sample"
            return f"the network was not tried on samples: {work} would take the CPU too long"
        size = max(FEWEST_SAMPLES, min(size, ON_THE_CPU // max(1, multiply_adds)))
    _try_samples(setup, first_batch(setup, size=size), loss)
    return None


def _try_samples(setup: Setup, batch: Batch, loss: Loss) -> None:
    if not torch.isfinite(batch.inputs).all():
        fail("the samples hold NaN or Inf after the transforms", "transforms" if setup.config.transforms else "dataset")
    seed_default_generators(setup.config.seed, "dropout", 0, device=setup.device)
    with unchanged(setup.model):
        outputs, value = _forward_and_backward(setup, batch)
        if not torch.isfinite(outputs).all():
            fail("the first outputs of the model are not finite; choose another init, or normalize the inputs", "model")
        if float(loss.normalizer(batch.targets)) == 0:
            return  # the classes of all these samples have weight 0: there is no mean loss
        if not torch.isfinite(value):
            fail(f"the loss of the first batch is {value.item()}, although the outputs of the model are finite", "loss")
        grads = [(name, p.grad) for name, p in setup.model.named_parameters() if p.grad is not None]
        bad = next((name for name, grad in grads if not torch.isfinite(grad).all()), None)
        if bad is not None:
            fail(f"the gradient of {bad} is not finite in the first batch", "model")


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore buffers, gradients and mode afterwards: the same model is trained later."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training = model.training
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


@contextmanager
def _failing(section: Literal["model", "loss"], batch: Batch) -> Iterator[None]:
    """Errors of what computes there are those of this section."""
    samples = counted(len(batch.targets), "sample")
    try:
        yield
    except ProblemsError:
        raise
    except TrainkitError as error:
        fail(str(error), section)
    except Exception as error:
        if (own := explain(error)) is not None:
            fail(f"{own} (on a batch of {samples})", section)
        if not isinstance(error, RuntimeError):
            raise
        fail(f"the {section} fails on a batch of {samples}: {str(error).strip().splitlines()[0]}", section)


def _forward_and_backward(setup: Setup, batch: Batch) -> tuple[Tensor, Tensor]:
    """Outputs and the mean loss, with gradients left in the model."""
    plan, loss = setup.plan(), setup.loss
    setup.model.train()
    with _failing("model", batch):
        outputs = plan.forward(batch.inputs)
    with _failing("loss", batch):
        value = loss.mean(outputs, batch.targets)
    if outputs.requires_grad and not value.requires_grad:
        fail("the loss has no gradient: it was computed outside PyTorch, or from detached outputs", "loss")
    with _failing("model", batch):
        value.backward()
        metrics = plan.new_metrics()
        metrics.update(loss.predictions(outputs.detach()), batch.targets)
        metrics.compute()
    return outputs.detach(), value.detach()


def check_export(model: nn.Module, input_shape: Sequence[int], *, method: Literal["script", "trace"]) -> None:
    """Raises ProblemsError where the model cannot become a TorchScript program."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with unchanged(model), warnings.catch_warnings():
        model.eval()
        warnings.simplefilter("ignore")  # that TorchScript is no longer developed
        try:
            if method == "script":
                torch.jit.script(model)
            else:
                torch.jit.trace(model, torch.zeros(1, *input_shape, device=device))
        except (RuntimeError, TypeError, ValueError, AttributeError, OSError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            fail(f"the model cannot become a TorchScript program ({method}): {reason}", "export.torchscript")

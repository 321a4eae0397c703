"""The guard between backward pass and optimizer step: no NaN or Inf reaches the weights."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainkit.data.loading import Batch
from trainkit.engine.state import Progress
from trainkit.errors import SharedError
from trainkit.runtime import any_non_finite, halt_updates, leaves_out_updates
from trainkit.wording import counted

# How many steps the host may run ahead of the device before it looks at a verdict: no sync in the hot loop.
LOOK_BEHIND = 8


class NonFiniteError(SharedError):
    """A loss, a gradient or a buffer was NaN or Inf; the weights are those of the step before."""


@dataclass(frozen=True)
class Verdict:
    """The check of one step; on CUDA the host reads it some steps later."""

    step: int
    lr: float
    indices: Tensor
    loss: Tensor
    """Summed over the batch: ()."""
    weight: Tensor | float
    bad: Tensor
    ready: torch.cuda.Event | None


class Guard:
    """Stops the run at the first bad step, or skips up to ``skip_limit`` of them.

    On the CPU the verdict is read at once. On CUDA with a fused optimizer the device itself leaves out the update
    (the ``found_inf`` of PyTorch's GradScaler; the flag stays set until the host has read it), so the weights are
    safe without a synchronization, and the host reads the verdict ``LOOK_BEHIND`` steps later.

    Buffers are checked too: activations that overflow make batch-norm statistics infinite while the loss stays finite,
    which would show in the validation only.

    Args:
        scaled: the loss is scaled for fp16, whose overflows the host judges at each step.
        loss_unit: that of the loss, for messages.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        skip_limit: int,
        scaled: bool = False,
        loss_unit: float = 1.0,
    ) -> None:
        device = next(model.parameters()).device
        waits = skip_limit > 0 or scaled
        self.on_device = device.type == "cuda" and not waits and leaves_out_updates(optimizer)
        self.model = model
        self.buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point() and buffer.numel()]
        self.skip_limit = skip_limit
        self.loss_unit = loss_unit
        self.optimizer = optimizer
        self.halted = torch.zeros((), device=device)
        self.verdicts: deque[Verdict] = deque()

    def allows(
        self,
        loss: Tensor,
        weight: Tensor | float,
        tensors: list[Tensor],
        *,
        batch: Batch,
        progress: Progress,
        lr: float,
    ) -> bool:
        """Whether the optimizer may step; a skipped step is counted in ``progress``.

        Args:
            loss: summed over the batch, ().
            weight: what makes the sum a mean.
            tensors: the gradients.

        Raises:
            NonFiniteError: at a bad step, unless it may be skipped.
        """
        if self.on_device:
            self.halt_if_bad(loss, tensors)
            self.read_later(loss, weight, batch=batch, progress=progress, lr=lr)
            return True
        bad = any_non_finite([*tensors, *self.buffers])
        skip = not math.isfinite(loss.item()) or bad.item() != 0
        if skip and progress.steps_skipped >= self.skip_limit:
            verdict = Verdict(progress.steps_completed, lr, batch.indices, loss, weight, bad, None)
            raise self._error(verdict, progress.steps_skipped)
        progress.steps_skipped += skip
        return not skip

    def halt_if_bad(self, loss: Tensor, tensors: list[Tensor]) -> None:
        """Have the device leave out the update of this step and of all that follow, where something is not finite.

        All in place and without the host, so that a CUDA graph can hold it.
        """
        bad = any_non_finite([*tensors, *self.buffers]).squeeze()
        torch.maximum(bad, (~torch.isfinite(loss)).float(), out=bad)
        torch.maximum(self.halted, bad, out=self.halted)
        halt_updates(self.optimizer, self.halted)

    def read_later(self, loss: Tensor, weight: Tensor | float, *, batch: Batch, progress: Progress, lr: float) -> None:
        """Copy what the device found at this step, and read what it found ``LOOK_BEHIND`` steps before."""
        if self.halted.is_cuda:
            flag = torch.empty((), pin_memory=True).copy_(self.halted, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        else:
            flag, ready = self.halted.clone(), None
        self.verdicts.append(Verdict(progress.steps_completed, lr, batch.indices, loss, weight, flag, ready))
        if len(self.verdicts) > LOOK_BEHIND:
            self._read(self.verdicts.popleft())

    def flush(self) -> None:
        """Read all pending verdicts: before a checkpoint, and at the end of an epoch."""
        while self.verdicts:
            self._read(self.verdicts.popleft())

    def _read(self, verdict: Verdict) -> None:
        if verdict.ready is not None:
            verdict.ready.synchronize()
        if verdict.bad.item() != 0:
            raise self._error(verdict, 0)

    def _culprit(self) -> str:
        for name, buffer in self.model.named_buffers():
            if not torch.isfinite(buffer).all():
                return f"the buffer {name}"
        return "a gradient"

    def _error(self, verdict: Verdict, skipped: int) -> NonFiniteError:
        loss = (verdict.loss / verdict.weight).item() * self.loss_unit
        what = f"the loss is {loss}"
        if math.isfinite(loss):
            what = f"the loss is {loss:.6g} but {self._culprit()} is not finite"
        first = ", ".join(map(str, verdict.indices[:8].tolist()))
        more = f" and {len(verdict.indices) - 8} more" if len(verdict.indices) > 8 else ""
        limit = f" ({counted(skipped, 'step')} skipped before: training.on_non_finite.limit)" if self.skip_limit else ""
        return NonFiniteError(
            f"step {verdict.step + 1}: {what}; learning rate {verdict.lr:.6g}, training samples {first}{more}{limit}. "
            "The weights are those of the step before. A lower optimizer.lr, training.clip_grad_norm or a warm-up "
            "(scheduler.warmup) often helps; training.on_non_finite: skip leaves out single bad batches"
        )

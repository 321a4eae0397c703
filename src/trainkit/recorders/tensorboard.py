"""TensorBoard event files: scalars, a grid of training images, the graph, and the hyperparameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

_MAX_IMAGES = 32


class TensorBoardRecorder:
    """Writes every record as scalars, at its step.

    Args:
        folder: gets the event files.
        step: of the checkpoint that the run goes on from, 0 for a new run: later points of an earlier part of the run
            are hidden, so that each step stands once.
        hparams: by key path; shown beside the best values of the metrics.
    """

    def __init__(self, folder: Path, *, step: int = 0, hparams: Mapping[str, Any] | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self.hparams = dict(hparams or {})
        self.best: dict[str, float] = {}
        self.last_step = step

    def log(self, record: Mapping[str, Any]) -> None:
        self.last_step = record["step"]
        prefix = "batch/" if record.get("type") == "step" else ""
        skipped = ("type", "step", "epoch", "batch", "best")
        for name, value in record.items():
            if name not in skipped and isinstance(value, int | float) and math.isfinite(value):
                self.writer.add_scalar(prefix + _tag(name), value, record["step"])
        if record.get("type") == "epoch" and record.get("best"):
            measured = {name: value for name, value in record.items() if name.startswith(("train_", "val_"))}
            self.best = {name: value for name, value in measured.items() if isinstance(value, float)}

    def sync(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        if self.hparams and self.best:
            self._add_hparams()
        self.writer.close()

    def _add_hparams(self) -> None:
        """Into this folder: SummaryWriter.add_hparams would make another one, which looks like another run."""
        from torch.utils.tensorboard.summary import hparams

        values = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self.hparams.items()
        }
        metrics = {f"best/{name}": value for name, value in self.best.items() if not name.endswith("_seconds")}
        for summary in hparams(values, metrics):
            self.writer.file_writer.add_summary(summary)
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, self.last_step)


def add_samples(recorder: TensorBoardRecorder, images: Tensor) -> None:
    """A grid of training images as the model sees them, (N, 1 or 3, H, W), each stretched to the full range."""
    shown = images[:_MAX_IMAGES].float().cpu()
    if shown.dim() != 4 or shown.shape[1] not in (1, 3):
        return
    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    recorder.writer.add_images("training images", (shown - low) / (high - low).clamp(min=1e-6), 0)


def add_graph(recorder: TensorBoardRecorder, model: nn.Module, inputs: Tensor) -> None:
    """The network's graph; ``inputs`` is a batch, on the model's device. The model is left as it was."""
    import torch

    training = model.training
    model.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing warns of things that a drawing may take
            recorder.writer.add_graph(model, inputs[:2])
    finally:
        model.train(training)


def _tag(name: str) -> str:
    """``val_loss`` is ``loss/val``, so that training and validation share a chart group."""
    for split in ("train", "val"):
        if name.startswith(f"{split}_") and not name.endswith("_seconds"):
            return f"{name.removeprefix(f'{split}_')}/{split}"
    return f"seconds/{name.removesuffix('_seconds')}" if name.endswith("_seconds") else name

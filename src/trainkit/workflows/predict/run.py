"""``trainkit predict``: what a model says about images, table rows and arrays. Nothing but the checkpoint is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from trainkit.builders import open_trained
from trainkit.data.images import count_cores
from trainkit.data.transforms import static_transforms_from_json
from trainkit.errors import UserError
from trainkit.system import Frontend, StopRequest
from trainkit.workflows.find import find_checkpoint
from trainkit.workflows.predict.exported_model import is_export, open_export
from trainkit.workflows.predict.inputs import Chunk, InputSpec, Item, count_samples, find_inputs, read_chunks

MAX_PIECE = 64
"""Samples that a thread decodes in one go: small sets are shared by all threads."""


class Prediction(NamedTuple):
    """What the model says about one sample, or why it could say nothing."""

    source: str
    """A path, ``file.csv:line`` or ``file.npy[index]``."""
    label: str | None = None
    """The most probable class; None for regression and for broken samples."""
    probability: float | None = None
    """Of the label."""
    top: tuple[tuple[str, float], ...] = ()
    """The most probable classes and their probabilities, the label first."""
    values: Mapping[str, float] = MappingProxyType({})
    """Regression: by target."""
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Without what does not apply."""
        if self.error is not None:
            return {"source": self.source, "error": self.error}
        if self.label is None:
            return {"source": self.source, "values": dict(self.values)}
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        return {"source": self.source, "label": self.label, "probability": self.probability, "top": top}


class Predictor(Protocol):
    """A model that predicts: a checkpoint's, or an exported one."""

    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def target_names(self) -> tuple[str, ...]: ...
    @property
    def preprocessing(self) -> Mapping[str, Any]: ...
    @property
    def delimiter(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def any_size(self) -> bool: ...
    def answer(self, rows: Tensor) -> Tensor: ...


def predict(
    model: str | Path | Predictor,
    inputs: Sequence[str | Path],
    *,
    top_k: int = 3,
    device: str = "auto",
    frontend: Frontend | None = None,
) -> Iterator[Prediction]:
    """A prediction for every sample, in the order of the inputs; memory does not grow with their number.

    Args:
        model: a checkpoint, a run folder (its best checkpoint), an exported bundle, or what ``open_model`` gave.
        inputs: image files, folders, globs, CSV files (one prediction a row) and .npy arrays.
        top_k: how many classes to name.
        frontend: its ``progress`` gets (done, total); the inputs are counted first where there is one.

    Raises:
        UserError: the model cannot be used, or none of the inputs is there. What is broken among them is a
            ``Prediction`` with an error.
    """
    frontend = frontend or Frontend()
    answerer = open_model(Path(model), device=device) if isinstance(model, str | Path) else model
    kind = answerer.preprocessing["kind"]
    first = [item for given in inputs for item in [next(iter(find_inputs([given], kind=kind)))]]
    if all(item.kind == "broken" for item in first):
        reasons = "\n".join(f"{item.name}: {item.reason}" for item in first)
        raise UserError(reasons or "no inputs; give images, folders, CSV files or .npy arrays")
    progress = frontend.progress
    total = 0 if progress is None else count_samples(find_inputs(inputs, kind=kind))
    return _predict_all(
        answerer,
        find_inputs(inputs, kind=kind),
        top_k=top_k,
        progress=None if progress is None else lambda done: progress(min(done, total), total),
        stop=frontend.stop,
    )


def open_model(
    model: Path,
    *,
    device: str = "auto",
    runs_dir: Path = Path("runs"),
    frontend: Frontend | None = None,
) -> Predictor:
    """A checkpoint, a run folder, an exported bundle, or a program in one.

    Raises:
        UserError: it is no model, or a damaged one.
    """
    if is_export(model):
        return open_export(model)
    checkpoint = find_checkpoint(model, runs_dir=runs_dir, frontend=frontend or Frontend())
    return open_trained(checkpoint, device=device)


def make_input_spec(answerer: Predictor) -> InputSpec:
    """How inputs become what ``answerer`` takes."""
    preprocessing = answerer.preprocessing
    batch = answerer.batch_size
    piece = math.ceil(batch / math.ceil(batch / MAX_PIECE))
    shape = tuple(preprocessing["input_shape"])
    if preprocessing["kind"] == "image":
        return InputSpec(
            "image",
            shape,
            channels=preprocessing["channels"],
            static_transforms=static_transforms_from_json(preprocessing["front"]),
            any_size=answerer.any_size,
            piece_size=piece,
        )
    encoding = preprocessing["table_encoding"]
    if encoding is None:
        encoding = {"columns": [{"name": name, "kind": "numeric"} for name in preprocessing["feature_names"]]}
    return InputSpec("table", shape, encoding=encoding, delimiter=answerer.delimiter, piece_size=batch)


def _predict_all(
    answerer: Predictor,
    items: Iterator[Item],
    *,
    top_k: int,
    progress: Callable[[int], None] | None,
    stop: StopRequest,
) -> Iterator[Prediction]:
    """The forward pass of a batch goes on in a thread of its own while the next one is decoded."""
    done = 0
    running: tuple[list[Chunk], Future[Tensor]] | None = None
    pieces = read_chunks(items, make_input_spec(answerer))
    with closing(pieces), _forward_thread() as forward:
        for batch in chain(_batches(pieces, answerer.batch_size), [None]):
            if stop():
                raise stop.error(f"{done:,} samples were done")
            before = running
            running = None if batch is None else (batch, forward.submit(_answers, answerer, batch))
            if before is None:
                continue
            finished, answers = before
            yield from _name_answers(answerer, finished, answers.result(), top_k=top_k)
            done += sum(len(piece.names) for piece in finished)
            if progress is not None:
                progress(done)


@contextmanager
def _forward_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread whose PyTorch leaves one core to the decoding: threads that share it would wait for each other."""
    before = torch.get_num_threads()
    forward = ThreadPoolExecutor(1, "forward", torch.set_num_threads, (max(1, min(before, count_cores() - 1)),))
    try:
        yield forward
    finally:
        forward.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)  # what was set last is what new threads begin with


def _batches(pieces: Iterable[Chunk], batch_size: int) -> Iterator[list[Chunk]]:
    """As many pieces at a time as make a batch of usable samples."""
    batch: list[Chunk] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.rows)
        if size >= batch_size or len(batch) >= batch_size:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _answers(answerer: Predictor, pieces: Sequence[Chunk]) -> Tensor:
    rows = [piece.rows for piece in pieces if len(piece.rows)]
    if not rows:
        return torch.zeros(0, len(answerer.class_names or answerer.target_names))
    if answerer.any_size:  # images of different sizes: one at a time
        return torch.cat([answerer.answer(torch.from_numpy(image)[None]) for images in rows for image in images])
    return answerer.answer(torch.from_numpy(rows[0] if len(rows) == 1 else np.concatenate(rows)))


def _name_answers(answerer: Predictor, pieces: Sequence[Chunk], answers: Tensor, *, top_k: int) -> Iterator[Prediction]:
    found: Iterator[tuple[Any, ...]]
    if answerer.class_names:
        found = _top_classes(answers, answerer.class_names, top_k)
    else:
        names = answerer.target_names
        found = ((None, None, (), dict(zip(names, row, strict=True))) for row in answers.tolist())
    for piece in pieces:
        for position, name in enumerate(piece.names):
            reason = piece.bad.get(position) if piece.bad else None
            yield Prediction(name, *next(found)) if reason is None else Prediction(name, error=reason)


def _top_classes(
    probabilities: Tensor, class_names: Sequence[str], top_k: int
) -> Iterator[tuple[str, float, tuple[tuple[str, float], ...]]]:
    """(label, probability, top) of each row. Of equal probabilities the first class comes first, as in evaluation."""
    best, order = probabilities.sort(dim=1, descending=True, stable=True)
    k = max(1, min(top_k, len(class_names)))
    names = np.array(class_names, dtype=object)[order[:, :k].numpy()].tolist()
    for labels, values in zip(names, best[:, :k].tolist(), strict=True):
        yield labels[0], values[0], tuple(zip(labels, values, strict=True))

"""``trainkit predict``: predictions for images, table rows and arrays. It needs the checkpoint only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from trainkit.builders import TrainedModel, open_trained, with_tta
from trainkit.checkpoints import follow_pointer
from trainkit.data.images import describe_traits
from trainkit.data.pixel_rules import rules_of
from trainkit.data.tables import Filled, table_encoding
from trainkit.data.transforms import static_transforms_from_json
from trainkit.errors import UserError
from trainkit.runtime import Ranks, resolve_device
from trainkit.system import Frontend, count_cores, launched
from trainkit.wording import counted, listed
from trainkit.workflows.find import find_checkpoint
from trainkit.workflows.predict.exported_model import is_export, open_export
from trainkit.workflows.predict.inputs import count_samples, find_inputs, read_chunks
from trainkit.workflows.predict.memory import find_in_memory
from trainkit.workflows.predict.samples import Chunk, InputSpec, Item
from trainkit.workflows.predict.shared import Computed, Shared, check_shareable, in_batches
from trainkit.workflows.ranks import check_devices, stop_together

MAX_CHUNK = 64
"""Samples that a thread decodes at once; few, so that all threads share a small input."""


class Prediction(NamedTuple):
    """The prediction for one sample, or the reason why there is none."""

    source: str
    """A path, ``file.csv:line`` or ``file.npy[index]``; ``[index]`` of what is in memory."""
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
        """Without the fields that do not apply."""
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
    def batch_size(self) -> int: ...
    @property
    def any_size(self) -> bool: ...
    def predict(self, rows: Tensor) -> Tensor: ...


def predict(
    model: str | Path | Predictor,
    inputs: Any,
    *,
    top_k: int = 3,
    device: str = "auto",
    precision: str | None = None,
    tta: str = "none",
    resize: bool = False,
    ranks: Ranks | None = None,
    frontend: Frontend | None = None,
) -> Iterator[Prediction]:
    """A prediction for every sample, in the order of the inputs; memory does not grow with their number.

    Processes that share the work get none but for the first, and go through them all the same.

    The other arguments are those of ``trainkit.predict``.

    Args:
        model: a checkpoint, a run folder (its best checkpoint), an exported bundle, or what ``open_model`` gave.
        inputs: paths, or samples in memory, as ``find_in_memory`` takes them.
        ranks: the processes that share the work, of inputs that are files.
        frontend: its ``progress`` gets (done, total); the inputs are counted first where there is one.

    Raises:
        UserError: the model cannot be used, or no input exists. A broken input gives a ``Prediction`` with an error.
    """
    frontend = frontend or Frontend()
    predictor = open_model(Path(model), device=device, precision=precision) if isinstance(model, str | Path) else model
    predictor = mirrored(predictor, tta)
    spec = make_input_spec(predictor, resize=resize)
    kind = spec.kind
    if isinstance(inputs, str | PathLike):
        inputs = [inputs]
    elif isinstance(inputs, Iterator):
        inputs = list(inputs)
    found = find_in_memory(inputs, spec)
    first = found if found is not None else [next(find_inputs([given], kind=kind)) for given in inputs]
    if all(item.kind == "broken" for item in first):
        reasons = "\n".join(f"{item.name}: {item.reason}" for item in first)
        raise UserError(reasons or "no inputs; give images, folders, tables or .npy arrays")
    progress = frontend.progress
    total = 0 if progress is None else count_samples(found or find_inputs(inputs, kind=kind))
    others: list[str] = []
    predictions = _predict_all(
        predictor,
        iter(found) if found is not None else find_inputs(inputs, kind=kind, others=others),
        spec,
        top_k=top_k,
        progress=None if progress is None else lambda done: progress(min(done, total), total),
        ranks=ranks or Ranks(),
        frontend=frontend,
    )
    return _and_then(predictions, lambda: _name_others(others, kind, frontend))


def _and_then(predictions: Iterator[Prediction], end: Callable[[], None]) -> Iterator[Prediction]:
    yield from predictions
    end()


def _name_others(others: Sequence[str], kind: str, frontend: Frontend) -> None:
    if others:
        what = "images" if kind == "image" else "tables or .npy files"
        names = listed(others, quoted=False)
        frontend.say(f"note: left out {counted(len(others), 'file')} in folders that are no {what}: {names}")


def open_model(
    model: Path | None,
    *,
    device: str = "auto",
    precision: str | None = None,
    runs_dir: Path = Path("runs"),
    ranks: Ranks | None = None,
    frontend: Frontend | None = None,
) -> Predictor:
    """A checkpoint, a run, an exported bundle, or a program in one; None for the newest run.

    Args:
        precision: what a checkpoint's model computes in; None for fp32. An exported program has its own.
        ranks: the processes that open it: all take the checkpoint that the first one finds.

    Raises:
        UserError: it is no model, or a damaged one.
    """
    if model is not None and is_export(model):
        if precision is not None:
            raise UserError(f"--precision {precision}: {model} is an exported program and computes as it was exported")
        return open_export(model)
    ranks, found = ranks or Ranks(), None
    if ranks.is_first:
        path = follow_pointer(find_checkpoint(model, runs_dir=runs_dir, frontend=frontend or Frontend()))
        found = {"checkpoint": str(path)}
    return open_trained(Path(ranks.tell(found)["checkpoint"]), device=device, precision=precision)


def check_prediction(
    model: Path | None,
    inputs: Sequence[str],
    *,
    device: str,
    precision: str | None,
    tta: str,
    resize: bool,
    runs_dir: Path,
    size: int,
) -> None:
    """See that ``size`` processes can predict, with the arguments of ``open_model`` and ``predict``.

    So what is wrong is said once, before any process is started. The model stays on the CPU: a GPU is for these.

    Raises:
        as ``predict``.
    """
    where = resolve_device(device).value
    check_devices(where, size=size)
    on_cpu = precision if where == "cpu" or (model is not None and is_export(model)) else None
    opened = open_model(model, device="cpu", precision=on_cpu, runs_dir=runs_dir)
    check_shareable(inputs)
    predict(opened, inputs, tta=tta, resize=resize)  # what it gives begins to work when it is asked


def mirrored(predictor: Predictor, tta: str) -> Predictor:
    """The model as ``tta`` asks for it.

    Raises:
        UserError: it is an exported program, or for tables.
    """
    if tta == "none":
        return predictor
    if not isinstance(predictor, TrainedModel):
        raise UserError(f"tta {tta}: an exported program takes an image as it is; predict with the checkpoint")
    is_image = predictor.preprocessing["kind"] == "image"
    return replace(predictor, model=with_tta(predictor.model, predictor.loss, tta=tta, is_image=is_image))


def make_input_spec(predictor: Predictor, *, resize: bool = False) -> InputSpec:
    """How inputs become rows for ``predictor``."""
    preprocessing = predictor.preprocessing
    batch = predictor.batch_size
    chunk = math.ceil(batch / math.ceil(batch / MAX_CHUNK))
    shape = tuple(preprocessing["input_shape"])
    if preprocessing["kind"] == "image":
        return InputSpec(
            "image",
            shape,
            channels=preprocessing["channels"],
            rules=rules_of(preprocessing),
            static_transforms=static_transforms_from_json(preprocessing["front"]),
            any_size=predictor.any_size,
            resize=resize,
            chunk_size=chunk,
        )
    encoding = table_encoding(preprocessing)
    return InputSpec("table", (len(encoding["inputs"]),), encoding=encoding, chunk_size=batch)


def _predict_all(
    predictor: Predictor,
    items: Iterator[Item],
    spec: InputSpec,
    *,
    top_k: int,
    progress: Callable[[int], None] | None,
    ranks: Ranks,
    frontend: Frontend,
) -> Iterator[Prediction]:
    shared, should_stop = Shared(ranks, predictor.batch_size), stop_together(ranks, frontend)
    done = 0
    traits, num_images, filled = Counter[str](), 0, Filled()
    chunks = read_chunks(items, spec, pick=shared.pick)
    with closing(_compute(predictor, chunks)) as own:
        for batches in shared.rounds(own):
            if should_stop():
                raise frontend.stop.error(f"{counted(done, 'sample')} were done")
            for finished, outputs in batches:
                yield from _named(predictor, finished, outputs, top_k=top_k)
                done += sum(len(chunk.names) for chunk in finished)
                for chunk in finished:
                    traits.update(chunk.traits)
                    num_images += len(chunk.names) - len(chunk.bad)
                    if chunk.filled is not None:
                        filled.add(chunk.filled)
            if progress is not None and batches:
                progress(done)
    if text := describe_traits(traits, num_images, channels=spec.channels, rules=spec.rules):
        frontend.say(f"note: {text}")
    for text in filled.describe():
        frontend.say(f"note: {text}")


def _compute(predictor: Predictor, chunks: Generator[Chunk, None, None]) -> Generator[Computed, None, None]:
    """The forward pass of a batch runs in a thread of its own while the next batch is decoded."""
    running: tuple[list[Chunk], Future[Tensor]] | None = None
    with closing(chunks), _forward_thread() as forward:
        for batch in chain(in_batches(chunks, predictor.batch_size), [None]):
            before = running
            running = None if batch is None else (batch, forward.submit(_predict_batch, predictor, batch))
            if before is not None:
                finished, outputs = before
                yield Computed(finished, outputs.result())


@contextmanager
def _forward_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread whose PyTorch leaves one core to the decoding threads, so that they do not wait for each other."""
    before, cores = torch.get_num_threads(), count_cores() // launched.ranks_here()
    forward = ThreadPoolExecutor(1, "forward", torch.set_num_threads, (max(1, min(before, cores - 1)),))
    try:
        yield forward
    finally:
        forward.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)  # new threads begin with the last value


def _predict_batch(predictor: Predictor, chunks: Sequence[Chunk]) -> Tensor:
    rows = [chunk.rows for chunk in chunks if len(chunk.rows)]
    if not rows:
        return torch.zeros(0, len(predictor.class_names or predictor.target_names))
    if predictor.any_size:  # images of different sizes: one at a time
        return torch.cat([predictor.predict(torch.from_numpy(image)[None]) for images in rows for image in images])
    return predictor.predict(torch.from_numpy(rows[0] if len(rows) == 1 else np.concatenate(rows)))


def _named(predictor: Predictor, chunks: Sequence[Chunk], outputs: Tensor, *, top_k: int) -> Iterator[Prediction]:
    found: Iterator[tuple[Any, ...]]
    if predictor.class_names:
        found = _top_classes(outputs, predictor.class_names, top_k)
    else:
        names = predictor.target_names
        found = ((None, None, (), dict(zip(names, row, strict=True))) for row in outputs.tolist())
    for chunk in chunks:
        for position, name in enumerate(chunk.names):
            reason = chunk.bad.get(position) if chunk.bad else None
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

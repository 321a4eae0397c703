"""Predictions that processes share: batch j of the inputs belongs to rank ``j % N``, and rank 0 gets all in order.

Each rank goes through the list of inputs by itself, and decodes and computes its own batches only.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainkit.data.tables import Filled
from trainkit.errors import TrainkitError, UserError
from trainkit.runtime import Ranks
from trainkit.workflows.predict.samples import Chunk, Job

PATIENCE = 24 * 3600
"""Seconds that one process waits for another: rank 0 prints, and whoever reads its output may take his time."""


class Computed(NamedTuple):
    """A batch with the outputs of the model."""

    chunks: list[Chunk]
    outputs: Tensor
    """(n, K), on the CPU: one row for each sample that can be used."""


Part = TypeVar("Part", Job, Chunk)


def in_batches(parts: Iterable[Part], batch_size: int) -> Iterator[list[Part]]:
    """Lists of jobs, or of their chunks, each with at least a batch of samples."""
    batch: list[Part] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part.names)
        if size >= batch_size:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass
class Shared:
    """The batches of the inputs, and who has which."""

    ranks: Ranks
    batch_size: int
    expected: deque[list[str]] = field(default_factory=deque, init=False)
    """On rank 0: the names of the samples of each batch that was found and is not done."""

    def pick(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """The jobs of the batches that are this rank's."""
        if self.ranks.size == 1:
            yield from jobs
            return
        for number, batch in enumerate(in_batches(jobs, self.batch_size)):
            if self.ranks.is_first:
                self.expected.append([name for job in batch for name in job.names])
            if number % self.ranks.size == self.ranks.rank:
                yield from batch

    def rounds(self, own: Iterator[Computed]) -> Iterator[list[Computed]]:
        """One batch of each rank at a time, in order; nothing on the others, which have told rank 0.

        Raises:
            TrainkitError: the ranks have found other inputs.
        """
        if self.ranks.size == 1:
            yield from ([computed] for computed in own)
            return
        for computed in itertools.chain(own, itertools.repeat(None)):
            told = self.ranks.gather_bytes(b"" if computed is None else packed(computed))
            yield [self.checked(unpacked(text)) for text in told if text] if self.ranks.is_first else []
            if not any(told):
                break
        if self.expected:
            raise _changed(self.expected[0])

    def checked(self, computed: Computed) -> Computed:
        """The batch, after a look at whether it is the next one."""
        found = [name for chunk in computed.chunks for name in chunk.names]
        if not self.expected or self.expected.popleft() != found:
            raise _changed(found)
        return computed


def _changed(names: Sequence[str]) -> TrainkitError:
    return TrainkitError(
        f"the processes have found other inputs, at {names[0]}: did they change meanwhile? start again"
    )


def packed(computed: Computed) -> bytes:
    """A batch as bytes, without its inputs."""
    outputs = computed.outputs.numpy()
    chunks = [
        {
            "names": chunk.names,
            "bad": list(chunk.bad.items()),
            "traits": chunk.traits,
            "filled": None if chunk.filled is None else [chunk.filled.missing, chunk.filled.unseen, chunk.filled.days],
        }
        for chunk in computed.chunks
    ]
    head = {"chunks": chunks, "shape": outputs.shape, "dtype": outputs.dtype.str}
    return json.dumps(head).encode() + b"\n" + outputs.tobytes()


def unpacked(text: bytes) -> Computed:
    """The opposite of ``packed``."""
    first, _, values = text.partition(b"\n")
    head = json.loads(first)
    outputs = np.frombuffer(bytearray(values), head["dtype"]).reshape(head["shape"])
    return Computed([_chunk(**chunk) for chunk in head["chunks"]], torch.from_numpy(outputs))


def _chunk(names: list[str], bad: list[tuple[int, str]], traits: list[str], filled: Any) -> Chunk:
    found = None
    if filled is not None:
        missing, unseen, days = filled
        found = Filled(Counter(missing), {name: Counter(counts) for name, counts in unseen.items()}, Counter(days))
    return Chunk(names, [], dict(bad), traits, found)


def check_shareable(inputs: Iterable[str]) -> None:
    """See that every process can read the inputs for itself.

    Raises:
        UserError: one is a pipe.
    """
    for given in inputs:
        path = Path(given).expanduser()
        if path.exists() and not stat.S_ISREG(mode := os.stat(path).st_mode) and not stat.S_ISDIR(mode):
            raise UserError(f"--nproc: {given} can be read once, by one process; write it to a file, or predict alone")

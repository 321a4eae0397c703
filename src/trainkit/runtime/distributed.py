"""The processes that share a run, and what they exchange; a run in one process exchanges nothing.

The unit of computation is the piece of a batch, never the process: of A pieces, rank r of N computes those from
``r * A / N`` on.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainkit.errors import Interrupted
from trainkit.runtime.neighbours import Neighbours
from trainkit.runtime.transfers import Collectives, MemoryFile, SharedMemory, Transfer, all_gather, mapped, with_others
from trainkit.system import launched


def piece_bounds(num_samples: int, count: int) -> list[int]:
    """Where the pieces of a batch begin and end, ``count + 1`` positions: their sizes differ by one at most."""
    size, larger = divmod(num_samples, count)
    return [0, *accumulate(size + (number < larger) for number in range(count))]


@dataclass
class Ranks:
    """The processes of a run: this one's ``rank``, and how many there are."""

    rank: int = 0
    size: int = 1
    neighbours: Neighbours | None = None
    """A short way to the others, where all compute on the processors of one machine."""
    exact: bool = True
    """Whether gradients are added in an order that depends on the pieces alone."""
    signal: Callable[[], int] = lambda: 0
    """The signal that asked this process to stop; 0 for none."""
    stopping: int = field(default=0, init=False)
    """The signal that asked one of them, as all of them know since the same exchange."""

    @property
    def is_first(self) -> bool:
        """Whether this one logs, writes and reports."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The numbers that are this rank's, of ``count`` in order."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def shares(self, count: int) -> list[range]:
        """The numbers of each rank, of ``count`` in order."""
        return [Ranks(rank, self.size).share(count) for rank in range(self.size)]

    def rows(self, num_samples: int, *, pieces: int) -> slice:
        """The samples of a batch that this rank computes, where the batch is cut into pieces."""
        bounds = piece_bounds(num_samples, count := min(pieces, num_samples))
        mine = self.share(count)
        return slice(bounds[mine.start], bounds[mine.stop])

    def transfer(self, counts: Sequence[int], width: int, *, like: Tensor) -> Transfer:
        """A way to add rows of numbers together with the other ranks, for many times: all of them call this.

        Args:
            counts: rows of each rank.
            width: of a row, a multiple of the number of ranks.
            like: a tensor of the same device and type.
        """
        shape = sum(counts) + 1, width
        if self.neighbours is not None and like.device.type == "cpu":
            memory = self._shared_memory(shape[0] * width * like.element_size())
            if memory is not None:
                rows = memory.view(like.dtype).view(shape)
                return SharedMemory(self.rank, counts, rows, wait=self.neighbours.wait)
        return Collectives(self.rank, counts, width, like=like)

    def _shared_memory(self, num_bytes: int) -> Tensor | None:
        """Memory that all ranks see, (num_bytes,) uint8; None in all of them where one does not see it."""
        file = None
        if self.is_first:
            with suppress(OSError):
                file = MemoryFile(num_bytes)
        address = self.tell({"at": None if file is None else file.address} if self.is_first else None)["at"]
        memory = mapped(address, num_bytes)
        seen = self.all(memory is not None)
        if file is not None:
            file.close()
        return memory if seen else None

    def all(self, mine: bool) -> bool:
        """Whether it is so in all ranks."""
        return bool(self.gather(torch.tensor([float(mine)])).all())

    def gather(self, values: Tensor) -> Tensor:
        """What each rank has: (F,) to (N, F). With it goes the signal that asked one of them to stop."""
        if self.size == 1:
            return values[None]
        mine = torch.cat([values, values.new_tensor([self.signal()])])
        table = mine.new_empty(self.size, len(mine))
        with with_others("results"):
            if self.neighbours is not None and self.neighbours.carries(mine):
                self.neighbours.gather(mine, table)
            else:
                all_gather(table.view(-1), mine)
        self.stopping = max(self.stopping, int(table[:, -1].max()))
        return table[:, :-1]

    def gather_rows(self, rows: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """What each rank has: rank r has ``lengths[r]`` rows, (n, ...), and none where that does not exist."""
        if self.size == 1:
            return [rows]
        room = max(lengths) * rows[:0].new_empty(1, *rows.shape[1:]).numel()
        padded = rows.new_zeros(room)
        padded[: rows.numel()] = rows.reshape(-1)
        table = self.gather(padded).view(self.size, max(lengths), *rows.shape[1:])
        return [table[rank, :length].contiguous() for rank, length in enumerate(lengths)]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """What each rank has, of any length."""
        lengths = [int(length) for length in self.gather(torch.tensor([len(data)]))]
        if not any(lengths):
            return [b""] * self.size
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(data)] = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)[: len(data)]
        return [row[:length].numpy().tobytes() for row, length in zip(self.gather(padded), lengths, strict=True)]

    def differing(self, tensors: Sequence[Tensor]) -> int | None:
        """The first rank whose tensors have other bits than those of rank 0; None where all are equal."""
        if self.size == 1:
            return None
        sums = [
            tensor.detach().contiguous().view(torch.uint8).sum(dtype=torch.int64) for tensor in tensors if tensor.dim()
        ]
        table = self.gather(torch.stack(sums))
        different = (table != table[0]).any(dim=1).nonzero()
        return int(different[0]) if len(different) else None

    def tell(self, message: dict[str, Any] | None) -> dict[str, Any]:
        """What rank 0 says, plain data, to all; the others give None and wait for it."""
        if self.size == 1:
            assert message is not None, "a message"
            return message
        text = b"" if message is None else json.dumps(message).encode()
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        with with_others("the start of the run"):
            length = torch.tensor([len(text)], device=device)
            dist.broadcast(length, src=0)
            data = torch.tensor(list(text) or [0] * int(length), dtype=torch.uint8, device=device)
            dist.broadcast(data, src=0)
        told: dict[str, Any] = json.loads(bytes(data.tolist()))
        return told


def meet(store: Any, rank: int, size: int, *, timeout: float, should_stop: Callable[[], bool]) -> str:
    """A name that the processes agree on, and that none of a start before has had.

    After a restart the agent's store still has what the processes before left there. A count of the restarts names no
    start: each machine counts those of its own processes. So each says a word of its own, and goes on when all have
    seen the same words.

    Raises:
        RuntimeError: they did not come in time.
        Interrupted: a stop was asked for meanwhile.
    """
    word, end = secrets.token_hex(8), time.monotonic() + timeout
    words = [f"{size}/{one}" for one in range(size)]
    store.set(words[rank], word)
    while time.monotonic() < end:
        if should_stop():
            raise Interrupted("stopped while the processes met", 130)
        if store.check(words):
            said = [one.decode() for one in store.multi_get(words)]
            name = hashlib.sha256("".join(said).encode()).hexdigest()
            if said[rank] == word:
                store.set(f"{name}/{rank}", "seen")
                if store.check([f"{name}/{one}" for one in range(size)]):
                    return name
        time.sleep(0.01)
    raise RuntimeError("timed out")


# PyTorch 2.14 has the new name, and warns at the old one.
_set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout


def join(
    backend: str,
    *,
    timeout: float,
    patience: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Ranks:
    """Join the other processes, by the environment that torchrun sets (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` ...),
    or at the file that ``--nproc`` names.

    Args:
        timeout: seconds that one waits for the others.
        patience: seconds that one waits for them once they have come; None for ``timeout``.

    Raises:
        LostRank: they did not come.
        Interrupted: a stop was asked for meanwhile.
    """
    rank, size, wait = launched.rank(), launched.num_ranks(), timedelta(seconds=timeout)
    with with_others("addresses"):
        store: Any
        if (file := launched.meeting()) is not None:  # by no URL, in which a path with # ends there
            store = dist.FileStore(file, size)  # type: ignore[attr-defined]
            store.set_timeout(wait)
        else:
            store, _, _ = next(dist.rendezvous("env://", timeout=wait))  # type: ignore[attr-defined]
        prefixed = dist.PrefixStore  # type: ignore[attr-defined]
        store = prefixed("trainkit", store)
        name = meet(store, rank, size, timeout=timeout, should_stop=should_stop)
        dist.init_process_group(backend, store=prefixed(name, store), rank=rank, world_size=size, timeout=wait)
        if patience is not None:
            _set_timeout(timedelta(seconds=patience))
        short = backend == "gloo" and launched.ranks_here() == size
        return Ranks(rank, size, _neighbours(name, rank, size, patience=patience or timeout) if short else None)


def _neighbours(name: str, rank: int, size: int, *, patience: float) -> Neighbours | None:
    """A short way to the others; None in all of them where the system of one has none."""
    ranks, mine = Ranks(rank, size), None
    with suppress(OSError):
        mine = Neighbours(name, rank, size)
    ready = ranks.all(mine is not None)
    if mine is not None and ready:
        try:
            mine.connect(patience=patience)
        except OSError:
            ready = False
    if mine is not None and not (ready := ranks.all(ready)):
        mine.close()
    return mine if ready else None


def leave(ranks: Ranks) -> None:
    """Leave the group."""
    if ranks.neighbours is not None:
        ranks.neighbours.close()
    dist.destroy_process_group()

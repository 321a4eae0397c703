"""Rows of numbers that the processes of a run add together: by collectives, or in memory that all of them see.

Each process fills its own rows and says so with ``start``. When the processes have exchanged something else since, each
one takes its part of the columns of all rows (``received``), sends what it makes of them (``send``), and has what all
have made (``total``) until the next ``start``.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainkit.errors import LostRank

# PyTorch 2.14 has the new name, and warns at the old one.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@contextmanager
def with_others(what: str) -> Iterator[None]:
    """Turn what PyTorch raises when another process is gone into an error that says so."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        how = "did not answer in time (distributed.timeout)" if late else "is gone"
        raise LostRank(f"another process of the run {how}, while {what} were exchanged") from error


class Collectives:
    """By torch.distributed: ``all_to_all_single``, then ``all_gather``, as many bytes as a ring all-reduce.

    Args:
        counts: rows of each rank.
        width: of a row, a multiple of the number of ranks.
        like: a tensor of the same device and type.
    """

    def __init__(self, rank: int, counts: Sequence[int], width: int, *, like: Tensor) -> None:
        self.counts, self.part = counts, width // len(counts)
        self.own = like.new_empty(counts[rank], width)
        self.rows = like.new_empty(sum(counts), self.part)
        self.result = like.new_empty(width)
        self.sent: Tensor
        self.work: Any = None

    def start(self) -> None:
        count, size = len(self.own), len(self.counts)
        self.sent = self.own.view(count, size, self.part).transpose(0, 1).reshape(-1)  # a copy of several rows only
        splits = [rows * self.part for rows in self.counts], [count * self.part] * size
        with with_others("gradients"):
            self.work = dist.all_to_all_single(self.rows.view(-1), self.sent, *splits, async_op=True)

    def received(self) -> Tensor:
        """This rank's columns of all rows, in the ranks' order."""
        with with_others("gradients"):
            self.work.wait()
        return self.rows

    def send(self, part: Tensor) -> None:
        with with_others("gradients"):
            self.work = all_gather(self.result, part, async_op=True)

    def total(self) -> Tensor:
        with with_others("gradients"):
            self.work.wait()
        return self.result


class SharedMemory:
    """In memory that the processes of one machine share: a third of the time of gloo's ``all_reduce``.

    Args:
        counts: rows of each rank.
        memory: (sum of counts + 1, width); the last row is for the results.
        wait: returns when all ranks have called it.
    """

    def __init__(self, rank: int, counts: Sequence[int], memory: Tensor, *, wait: Callable[[], None]) -> None:
        first, part = sum(counts[:rank]), memory.shape[1] // len(counts)
        self.memory, self.wait = memory, wait
        self.own = memory[first : first + counts[rank]]
        self.columns = slice(rank * part, (rank + 1) * part)
        self.result = torch.empty(memory.shape[1], dtype=memory.dtype)

    def start(self) -> None:
        """Nothing to do: who has exchanged something with the others since has the rows that they wrote before."""

    def received(self) -> Tensor:
        """This rank's columns of all rows; nobody else reads or writes them."""
        return self.memory[:-1, self.columns]

    def send(self, part: Tensor) -> None:
        self.memory[-1, self.columns] = part

    def total(self) -> Tensor:
        with with_others("gradients"):
            self.wait()
        return self.result.copy_(self.memory[-1])


def added_up(row: Tensor) -> Callable[[], None]:
    """Begin to add the vectors of all ranks, in place; the end of it is waited for by a call."""
    with with_others("gradients"):
        work = dist.all_reduce(row, async_op=True)

    def wait() -> None:
        with with_others("gradients"):
            work.wait()

    return wait


Transfer = Collectives | SharedMemory


class MemoryFile:
    """Memory under an address that the other processes of this machine can open; nothing is left of it at the end."""

    def __init__(self, num_bytes: int) -> None:
        """Raises OSError where the system has no such thing, or not as much."""
        if not hasattr(os, "memfd_create"):
            raise OSError("not a Linux system")
        self.token = secrets.token_bytes(16)
        self.file = os.memfd_create("trainkit")
        try:
            os.posix_fallocate(self.file, 0, num_bytes + len(self.token))
            os.pwrite(self.file, self.token, num_bytes)
        except OSError:
            self.close()
            raise

    @property
    def address(self) -> dict[str, str]:
        return {"path": f"/proc/{os.getpid()}/fd/{self.file}", "token": self.token.hex()}

    def close(self) -> None:
        os.close(self.file)


def mapped(address: dict[str, str] | None, num_bytes: int) -> Tensor | None:
    """The memory at an address: uint8; None where this process does not see it, as on another machine."""
    token = bytes.fromhex(address["token"]) if address else b""
    with suppress(OSError, ValueError):
        file = os.open(address["path"] if address else "", os.O_RDWR)
        try:
            if os.pread(file, 17, num_bytes) == token:
                return torch.frombuffer(mmap.mmap(file, num_bytes), dtype=torch.uint8)
        finally:
            os.close(file)
    return None

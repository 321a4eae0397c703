"""The processes that share a run, and what they exchange; a run in one process exchanges nothing.

The unit of computation is the piece of a batch, never the process: of A pieces, rank r of N computes those from
``r * A / N`` on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainkit.errors import LostRank
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

    def rows(self, num_samples: int, *, pieces: int) -> slice:
        """The samples of a batch that this rank computes, where the batch is cut into pieces."""
        bounds = piece_bounds(num_samples, count := min(pieces, num_samples))
        mine = self.share(count)
        return slice(bounds[mine.start], bounds[mine.stop])

    def scatter(self, blocks: Tensor, counts: Sequence[int]) -> Tensor:
        """Send each rank its part of the columns of all blocks: (K, F) to (sum of counts, F / N), in the ranks' order.

        Args:
            counts: K of each rank.
        """
        width = blocks.shape[1] // self.size
        sent = blocks.view(len(blocks), self.size, width).transpose(0, 1).reshape(-1)
        received = sent.new_empty(sum(counts) * width)
        splits = [len(blocks) * width] * self.size
        with _with_others("gradients"):
            dist.all_to_all_single(received, sent, [count * width for count in counts], splits)
        return received.view(-1, width)

    def gather(self, values: Tensor) -> Tensor:
        """What each rank has: (F,) to (N, F). With it goes the signal that asked one of them to stop."""
        if self.size == 1:
            return values[None]
        mine = torch.cat([values, values.new_tensor([self.signal()])])
        all_of_them = mine.new_empty(self.size * len(mine))
        with _with_others("results"):
            _all_gather(all_of_them, mine)
        table = all_of_them.view(self.size, -1)
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
        with _with_others("the start of the run"):
            length = torch.tensor([len(text)], device=device)
            dist.broadcast(length, src=0)
            data = torch.tensor(list(text) or [0] * int(length), dtype=torch.uint8, device=device)
            dist.broadcast(data, src=0)
        told: dict[str, Any] = json.loads(bytes(data.tolist()))
        return told


# PyTorch 2.14 has the new name, and warns at the old one.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@contextmanager
def _with_others(what: str) -> Iterator[None]:
    """Turn what PyTorch raises when another process is gone into an error that says so."""
    try:
        yield
    except RuntimeError as error:
        late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        how = "did not answer in time (distributed.timeout)" if late else "is gone"
        raise LostRank(f"another process of the run {how}, while {what} were exchanged") from error


def join(backend: str, *, timeout: float) -> Ranks:
    """Join the other processes, by the environment that torchrun sets (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` ...).

    Args:
        timeout: seconds that one waits for the others.

    Raises:
        LostRank: they did not come.
    """
    rank, size, wait = launched.rank(), launched.num_ranks(), timedelta(seconds=timeout)
    with _with_others("addresses"):
        store, _, _ = next(dist.rendezvous("env://", timeout=wait))  # type: ignore[attr-defined]
        # After a restart the agent's store still has the addresses of the processes before.
        name = f"trainkit/{launched.restarts()}/{size}"
        start = dist.PrefixStore(name, store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=start, rank=rank, world_size=size, timeout=wait)
    return Ranks(rank, size)


def leave() -> None:
    """Leave the group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()

"""Rows of many requests, computed together: while one batch is computed the next one gathers."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = NDArray[Any]
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Refused(Exception):
    """A request that gets no answer but this status and reason."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Histogram:
    """Counts by upper bound."""

    bounds: Sequence[float]
    counts: Counter[float] = field(default_factory=Counter)
    total: float = 0

    def add(self, value: float) -> None:
        self.counts[next((bound for bound in self.bounds if value <= bound), math.inf)] += 1
        self.total += value

    def lines(self, name: str) -> Iterator[str]:
        yield f"# TYPE {name} histogram"
        running = 0
        for bound in (*self.bounds, math.inf):
            running += self.counts[bound]
            yield f'{name}_bucket{{le="{"+Inf" if bound == math.inf else f"{bound:g}"}"}} {running}'
        yield from (f"{name}_sum {self.total:g}", f"{name}_count {running}")


@dataclass(eq=False)
class Work:
    """The rows of one request, which may be computed in several batches."""

    rows: Sequence[Row]
    deadline: float
    done: asyncio.Future[list[Row]]
    outputs: list[Row] = field(default_factory=list)
    taken: int = 0


class Batches:
    """The queue in front of the model: what is waiting when a batch is done becomes the next one."""

    def __init__(self, run: Callable[[Row], Row], *, max_batch: int, max_wait: float = 0) -> None:
        self.run, self.max_batch, self.max_wait = run, max_batch, max_wait
        self.waiting: deque[Work] = deque()
        self.arrived = asyncio.Event()
        self.sizes = Histogram(BATCH_BOUNDS)

    @contextlib.contextmanager
    def added(self, rows: Sequence[Row], deadline: float) -> Iterator[asyncio.Future[list[Row]]]:
        """The outputs of some rows, to come; who leaves the block leaves the queue."""
        work = Work(rows, deadline, asyncio.get_running_loop().create_future())
        self.waiting.append(work)
        self.arrived.set()
        try:
            yield work.done
        finally:
            work.done.cancel()
            with contextlib.suppress(ValueError):
                self.waiting.remove(work)

    async def compute(self) -> None:
        """Batch after batch, for ever."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "model") as thread:
            while True:
                await self.arrived.wait()
                if self.max_wait:
                    await self.gather(loop.time() + self.max_wait)
                parts = self.take(loop.time())
                if not parts:
                    self.arrived.clear()
                    continue
                rows = [row for work, start, stop in parts for row in work.rows[start:stop]]
                self.sizes.add(len(rows))
                try:
                    outputs = await loop.run_in_executor(thread, run_by_shape, self.run, rows)
                except Exception as error:  # noqa: BLE001  (what a model raises; the requests of the batch get it)
                    print(f"error: the model failed: {type(error).__name__}: {error}", file=sys.stderr)
                    for work, _, _ in parts:
                        settle(work, Refused(500, "the model failed on this batch; the server's log says how"))
                    continue
                for work, start, stop in parts:
                    work.outputs += outputs[: stop - start]
                    outputs = outputs[stop - start :]
                    if stop == len(work.rows):
                        settle(work, None)

    async def gather(self, end: float) -> None:
        """Wait for a full batch, until ``end`` at most."""
        loop = asyncio.get_running_loop()
        while sum(len(work.rows) - work.taken for work in self.waiting) < self.max_batch and loop.time() < end:
            self.arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self.arrived.wait()
        self.arrived.set()

    def take(self, now: float) -> list[tuple[Work, int, int]]:
        """The next batch: (work, first row, behind the last). What nobody waits for, or comes too late, is dropped."""
        parts, room, unfinished = [], self.max_batch, []
        while self.waiting and room:
            work = self.waiting.popleft()
            if work.done.done():
                continue
            if work.deadline <= now:
                settle(work, Refused(504, "too late; it was not computed"))
                continue
            start, stop = work.taken, min(len(work.rows), work.taken + room)
            parts.append((work, start, stop))
            work.taken, room = stop, room - (stop - start)
            if stop < len(work.rows):
                unfinished.append(work)
        self.waiting.extend(unfinished)  # behind the others: a long table does not hold up small requests
        return parts


def settle(work: Work, error: Refused | None) -> None:
    if not work.done.done():
        work.done.set_result(work.outputs) if error is None else work.done.set_exception(error)


def run_by_shape(run: Callable[[Row], Row], rows: Sequence[Row]) -> list[Row]:
    """The outputs of rows; those of one shape are computed together."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.shape, []).append(place)
    outputs: dict[int, Row] = {}
    for group in places.values():
        outputs |= zip(group, run(np.stack([rows[place] for place in group])), strict=True)
    return [outputs[place] for place in range(len(rows))]

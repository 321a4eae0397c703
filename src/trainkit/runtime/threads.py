"""Threads that share the samples of a batch, a few at a time.

The threads of one operation wait for each other at its end, for as long as another program has the core of one of them.
These take the next samples as soon as they are done, and each computes its operations alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Call ``work`` with the numbers from 0 to ``count`` - 1, in as many threads as an operation of the caller has.

    The first exception of ``work`` is raised here.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1 or count == 1:
        for number in range(count):
            work(number)
        return
    inference = torch.is_inference_mode_enabled()

    def one(number: int) -> None:
        with torch.inference_mode(inference):  # each thread has a mode of its own
            work(number)

    list(_pool(num_threads, os.getpid()).map(one, range(count)))


@cache
def _pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Threads whose operations have one thread. A forked process has none of them, so it makes its own."""
    started = threading.Barrier(num_threads + 1)

    def alone() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # with its first question a thread settles on its number
        started.wait()

    pool = ThreadPoolExecutor(num_threads, "batch", alone)
    for _ in range(num_threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(num_threads)  # of this thread, and of those that are still to come
    return pool

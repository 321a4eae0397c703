"""Processes that share a run, forked from the test: without the seconds that each import of PyTorch takes."""

import multiprocessing
import os
import socket
import traceback

import torch

from trainkit.system import StopRequest, launched
from trainkit.workflows.ranks import joined_by


def in_ranks(size, work):
    """What ``work(ranks)`` returns in each of ``size`` processes, by rank; an error there is one here.

    Threads do not survive a fork: nothing that Polars reads, and the model in the main thread.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    place = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "TORCHELASTIC_RUN_ID": "test", **address}
    processes = [
        context.Process(target=_run, args=(pipe, {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}, work))
        for rank, (_, pipe) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        found = [read.recv() if read.poll(60) else ("no answer in a minute", None) for read, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    if errors := [error for error, _ in found if error]:
        raise AssertionError("\n".join(errors))
    return [result for _, result in found]


def _run(pipe, place, work):
    os.environ.update(place)
    torch.set_num_threads(1)
    assert launched.num_ranks() == int(place["WORLD_SIZE"])
    try:
        with joined_by("gloo", timeout=30, stop=StopRequest()) as ranks:
            pipe.send((None, work(ranks)))
    except BaseException:  # noqa: BLE001  (a failed assertion too)
        pipe.send((traceback.format_exc(), None))
    pipe.close()
    os._exit(0)

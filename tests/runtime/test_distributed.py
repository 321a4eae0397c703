"""How the processes of a run find each other, and what they exchange."""

import os
import threading

import pytest
import torch.distributed as dist
from in_ranks import in_ranks

from trainkit.errors import Interrupted
from trainkit.runtime.distributed import meet

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")


def test_bytes_of_any_length_reach_all():
    def work(ranks):
        ranks.signal = lambda: 15 if ranks.rank == 1 else 0
        messages = [b"", bytes(range(256)) * ranks.rank, b"x" * (ranks.rank == 2), b"\0" * 5]
        return [ranks.gather_bytes(message) for message in messages], ranks.stopping

    expected = [[b"", b"", b""], [bytes(range(256)) * rank for rank in range(3)], [b"", b"", b"x"], [b"\0" * 5] * 3]
    assert in_ranks(3, work) == [(expected, 15)] * 3


def names(store, ranks, size, *, timeout=5.0):
    """What each of these ranks, at the same time, calls the start."""
    found = {}

    def run(rank):
        try:
            found[rank] = meet(store, rank, size, timeout=timeout, should_stop=lambda: False)
        except RuntimeError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in ranks]


def test_each_start_has_a_name_of_its_own():
    """Of a start that did not come about too, whose processes left their words in the store."""
    store = dist.HashStore()
    first = names(store, (0, 1, 2), 3)
    assert len(set(first)) == 1
    assert names(store, (0,), 3, timeout=0.2) == ["timed out"]
    assert names(store, (1, 2), 3, timeout=0.2) == ["timed out", "timed out"]
    again = names(store, (2, 0, 1), 3)
    assert len(set(again)) == 1
    assert again[0] != first[0]
    fewer = names(store, (0, 1), 2)
    assert len({*fewer, *first, *again}) == 3


def test_a_stop_is_heard_while_one_waits_for_the_others():
    with pytest.raises(Interrupted):
        meet(dist.HashStore(), 0, 2, timeout=60, should_stop=lambda: True)

"""What processes that share a run exchange."""

import os

import pytest
from in_ranks import in_ranks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")


def test_bytes_of_any_length_reach_all():
    def work(ranks):
        ranks.signal = lambda: 15 if ranks.rank == 1 else 0
        messages = [b"", bytes(range(256)) * ranks.rank, b"x" * (ranks.rank == 2), b"\0" * 5]
        return [ranks.gather_bytes(message) for message in messages], ranks.stopping

    expected = [[b"", b"", b""], [bytes(range(256)) * rank for rank in range(3)], [b"", b"", b"x"], [b"\0" * 5] * 3]
    assert in_ranks(3, work) == [(expected, 15)] * 3

"""Small messages between the processes of one machine."""

import secrets
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.runtime.neighbours import Neighbours

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's abstract sockets")


def connected(size: int, *, patience: float = 5) -> list[Neighbours]:
    """All of them in this process."""
    name = secrets.token_hex(8)
    ranks = [Neighbours(name, rank, size) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        list(pool.map(lambda one: one.connect(patience=patience), ranks))
    return ranks


@settings(max_examples=20)
@given(
    size=st.integers(2, 5),
    length=st.integers(1, 300),
    dtype=st.sampled_from([torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.int64]),
    turns=st.integers(1, 3),
)
def test_each_has_what_all_have(size, length, dtype, turns):
    ranks = connected(size)
    sent = torch.randint(0, 100, (turns, size, length)).to(dtype)

    def work(one: Neighbours) -> list[torch.Tensor]:
        tables = [torch.empty(size, length, dtype=dtype) for _ in range(turns)]
        for turn, table in enumerate(tables):
            one.gather(sent[turn, one.rank], table)
        return tables

    with ThreadPoolExecutor(size) as pool:
        for tables in pool.map(work, ranks):
            assert torch.equal(torch.stack(tables), sent)
    for one in ranks:
        one.close()


def test_the_largest_message_waits_for_nobody():
    """One is two messages ahead before the other reads its first."""
    first, second = connected(2)
    message = torch.arange(1 << 14, dtype=torch.float32)
    assert first.carries(message)
    assert not first.carries(torch.cat([message, message[:1]]))
    table = torch.empty(2, len(message))
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(lambda: [first.gather(message, torch.empty_like(table)) for _ in range(2)])
        second.gather(message + 1, table)
        second.gather(message + 1, table)
        ahead.result(timeout=5)
    assert torch.equal(table, torch.stack([message, message + 1]))


def test_one_that_is_gone_and_one_that_is_silent_are_errors():
    first, second = connected(2, patience=0.05)
    with pytest.raises(TimeoutError, match="timed out"):
        first.wait()
    second.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset|closed"):
        first.wait()


def test_nobody_to_connect_to():
    lonely = Neighbours(secrets.token_hex(8), 1, 2)
    with pytest.raises(OSError, match="refused"):
        lonely.connect(patience=1)

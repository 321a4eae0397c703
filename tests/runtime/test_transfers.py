"""Memory that several processes see: found by its address, and by nothing else."""

import os

import pytest
import torch

from trainkit.runtime.transfers import MemoryFile, SharedMemory, mapped

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux has it")


@pytest.fixture
def file():
    file = MemoryFile(80)
    yield file
    file.close()


def test_two_views_of_one_memory(file):
    one, other = mapped(file.address, 80), mapped(file.address, 80)
    one[:] = 7
    assert other.tolist() == [7] * 80


def test_another_file_is_not_taken_for_it(file):
    """As the path may lead to one, on another machine or in a container."""
    assert mapped({**file.address, "token": "00" * 16}, 80) is None
    assert mapped(file.address, 64) is None
    assert mapped({**file.address, "path": "/proc/1/fd/123456"}, 80) is None
    assert mapped(None, 80) is None


def test_each_rank_adds_its_own_columns(file):
    """Two ranks in turn: the first has two rows, the second one."""
    memory = [mapped(file.address, 80).view(torch.float32).view(4, 5)[:, :4] for _ in range(2)]
    ranks = [SharedMemory(rank, (2, 1), own, wait=lambda: None) for rank, own in enumerate(memory)]
    ranks[0].own[:] = torch.arange(8.0).view(2, 4)
    ranks[1].own[:] = torch.tensor([[10.0, 20, 30, 40]])
    for rank in ranks:
        assert rank.received().shape == (3, 2)
        rank.send(rank.received().sum(0))
    assert ranks[0].memory[-1].tolist() == [14, 26, 38, 50]

"""Threads that share samples: as many as an operation has, each with operations of its own, and nothing left behind."""

import threading
from collections.abc import Iterator

import pytest
import torch

from trainkit.runtime import in_threads


@pytest.fixture(autouse=True)
def number_is_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def seen_by_work(num_threads: int, count: int) -> list[tuple[int, int, int]]:
    """The number, the thread and the threads of an operation in each call."""
    torch.set_num_threads(num_threads)
    both, seen = threading.Barrier(min(num_threads, count)), []

    def work(number: int) -> None:
        if number < both.parties:
            both.wait(60)  # so that every thread has one of them
        seen.append((number, threading.get_ident(), torch.get_num_threads()))

    in_threads(work, count)
    return sorted(seen)


@pytest.mark.parametrize("num_threads", [2, 3])
def test_as_many_threads_as_an_operation_has_and_one_for_each_of_theirs(num_threads: int) -> None:
    seen = seen_by_work(num_threads, 20)
    assert [number for number, _, _ in seen] == list(range(20))
    assert len({thread for _, thread, _ in seen}) == num_threads
    assert {threads for _, _, threads in seen} == {1}


def test_one_thread_works_in_the_thread_of_the_caller() -> None:
    assert {thread for _, thread, _ in seen_by_work(1, 5)} == {threading.get_ident()}


def test_the_caller_and_later_threads_keep_their_number() -> None:
    torch.set_num_threads(2)
    in_threads(lambda number: None, 5)
    found = [torch.get_num_threads()]
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [2, 2]


def test_an_error_is_raised_for_the_caller() -> None:
    torch.set_num_threads(2)

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        in_threads(work, 9)


@torch.inference_mode()
def test_the_mode_of_the_caller_holds_for_all() -> None:
    torch.set_num_threads(2)
    result = torch.zeros(8)
    in_threads(lambda number: result[number : number + 1].fill_(number), 8)
    assert result.tolist() == list(range(8))

"""How many threads: a rule on the config, within what the machine gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from digit_runs import config_with

from trainkit.builders import build_setup, choose_threads, describe_others, most_threads, use_most_threads
from trainkit.builders import threads as module
from trainkit.models import layer_table
from trainkit.runtime import Choice
from trainkit.system import CpuTime, launched

BUSY, ADVICE = "busy: other programs keep", "training.num_threads=1 may be faster"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "physical_cores", lambda: 4)
    yield
    torch.set_num_threads(before)


def chosen(*, device: torch.device = CPU, stored: Any = None, hidden: int = 8, **training: Any) -> Choice:
    """For a table of ten features, a hidden layer and ten classes: 20 multiply-adds for each hidden unit."""
    config = config_with(training)
    with torch.device("meta"):  # only its sizes count, and some are large
        model = torch.nn.Sequential(torch.nn.Linear(10, hidden, bias=False), torch.nn.Linear(hidden, 10, bias=False))
    return choose_threads(config, layer_table(model, (10,)), device=device, stored=stored)


def test_trials_of_a_sweep_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = 2 * module.SMALL_STEP // 20
    monkeypatch.setenv(launched.TRIALS, "2")
    assert chosen(hidden=hidden).value == "2"
    assert "the cores are shared by 2 trials" in chosen(hidden=hidden).reason
    monkeypatch.setenv(launched.TRIALS, "9")
    assert chosen(hidden=hidden).value == "1"


def test_a_small_step_gets_one_thread_and_a_large_one_all_cores() -> None:
    limit = module.SMALL_STEP // 20
    work = f"{module.SMALL_STEP / 1e6:,.3f} million multiply-adds a batch"
    assert chosen(batch_size=limit // 8) == Choice("4", f"auto: 4 physical cores may be used, for {work}")
    assert torch.get_num_threads() == 4
    less = f"{(module.SMALL_STEP - 160) / 1e6:,.3f} million multiply-adds a batch"
    assert chosen(batch_size=limit // 8 - 1) == Choice("1", f"auto: {less} are too few to share")
    assert torch.get_num_threads() == 1


def test_a_piece_of_a_batch_is_what_counts() -> None:
    size = module.SMALL_STEP // 160
    assert chosen(batch_size=size).value == "4"
    pieces = chosen(batch_size=size, accumulation_steps=2)
    assert (pieces.value, pieces.reason.endswith("a piece are too few to share")) == ("1", True)


@pytest.mark.parametrize("hidden", [8, 100_000])
def test_threads_as_asked_for(hidden: int) -> None:
    assert chosen(num_threads=3, hidden=hidden) == Choice("3", "as asked for")
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("text", "expected"), [("2", 2), ("6,3", 6), ("", 4), ("many", 4), ("0", 1)])
def test_openmp_may_be_told(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert most_threads() == expected
    assert chosen(hidden=100_000).value == str(expected)
    assert chosen().value == "1"


def test_without_a_count_of_cores_pytorch_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "physical_cores", lambda: None)
    module._threads_of_torch.cache_clear()
    torch.set_num_threads(3)
    assert chosen().value == "1"
    assert chosen(hidden=100_000).value == "3"
    module._threads_of_torch.cache_clear()


def test_on_a_gpu_the_host_uses_its_cores() -> None:
    found = chosen(device=torch.device("cuda:0"))
    assert found == Choice("4", "auto: 4 physical cores may be used; the steps are computed on cuda:0")


@pytest.mark.parametrize(("before", "expected"), [("2", "2"), ("4", "4"), ("5", "1")])
def test_a_resumed_run_keeps_its_threads_if_it_can(before: str, expected: str) -> None:
    stored = {"choices": {"threads": {"value": before, "reason": "auto"}}}
    found = chosen(stored=stored)
    assert found.value == expected
    assert (found.reason == "auto: as in the checkpoint, for the same last digits") == (before == expected)
    assert chosen(stored=stored, num_threads=3).value == "3"
    assert chosen(stored={"choices": {}}).value == "1"


def test_the_setup_of_a_small_model_computes_with_one_thread() -> None:
    assert build_setup(config_with({})).choices["threads"].value == "1"
    assert torch.get_num_threads() == 1


def test_before_the_model_is_known_all_cores_are_used() -> None:
    use_most_threads(config_with({}))
    assert torch.get_num_threads() == 4
    use_most_threads(config_with({"num_threads": 2}))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("threads", "others", "words"),
    [
        (1, 0.3, None),
        (1, 2.9, None),  # a core is free
        (4, 0.3, None),
        (1, 3.5, f"{BUSY} 3.5 of 4 cores busy, so training takes longer"),
        (3, 1.2, None),
        (4, 1.0, f"{BUSY} 1.0 of 4 cores busy, and 4 threads wait for each other; {ADVICE}"),
        (9, 0.1, None),  # more threads than cores wait for each other anyway
        (4, None, None),
    ],
)
def test_a_busy_machine_is_said(
    monkeypatch: pytest.MonkeyPatch, threads: int, others: float | None, words: str | None
) -> None:
    monkeypatch.setattr(module, "visible_cores", lambda: 4)
    monkeypatch.setattr(module, "cores_of_others", lambda since: others)
    choices = {"device": Choice("cpu", ""), "threads": Choice(str(threads), "")}
    assert describe_others(CpuTime(0, 0, 0), choices) == (words and f"the machine is {words}")
    assert describe_others(CpuTime(0, 0, 0), choices | {"device": Choice("cuda:0", "")}) is None

"""Callbacks, stops and signals of calls from Python; each in this process, as a notebook would."""

import asyncio
import logging
import os
import signal
import threading

import pytest
import torch

import trainkit

CONFIG = {
    "dataset": "digits",
    "model": {"type": "mlp", "hidden_sizes": [8], "dropout": 0.5},
    "training": {"epochs": 2},
    "logging": {"every": 5, "plots": False},
    "export": {"torchscript": False},
}
STEPS = 42


@pytest.fixture
def ctrl_c():
    """SIGINT as Python starts with it; pytest run in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def weights(result) -> list:
    return list(trainkit.load_model(result).model.state_dict().values())


def assert_same(one, other) -> None:
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def stopped_run(runs):
    """The run that stopped last, gone on with to its end."""
    result = trainkit.resume(runs_dir=runs)
    assert result is not None
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without a stop."""
    return trainkit.train(CONFIG, runs_dir=tmp_path_factory.mktemp("whole"))


def test_what_the_callbacks_get(tmp_path, whole, capfd):
    lines, seen = [], []
    result = trainkit.train(CONFIG, runs_dir=tmp_path, log=lines.append, progress=seen.append)
    assert f"run: {result.run.path}" in lines
    training = [progress for progress in seen if progress.stage == "training"]
    assert [progress.done for progress in training] == [5, 10, 15, 20, 21, 25, 30, 35, 40, 42]
    assert {progress.total for progress in training} == {STEPS}
    assert [progress.stage for progress in seen[10:12]] == ["scores", "export"]
    assert training[0].record["loss"] > 0
    assert training[-1].record["val_accuracy"] == pytest.approx(result.metrics["val"]["accuracy"])
    assert capfd.readouterr() == ("", "")
    assert_same(result, whole)  # the second of this process, whose generators were used in between


def test_without_log_lines_go_to_the_logger(tmp_path, caplog, capfd):
    with caplog.at_level(logging.INFO, "trainkit"):
        found = trainkit.train({**CONFIG, "training": {"epochs": 1}}, runs_dir=tmp_path)
    assert f"run: {found.run.path}" in caplog.messages
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert capfd.readouterr() == ("", "")


def test_an_exception_of_a_callback_stops_after_the_step_and_is_raised(tmp_path, whole):
    seen = []

    def fail(progress):
        seen.append(progress.done)
        if progress.done >= 10:
            raise ZeroDivisionError("of mine")

    with pytest.raises(ZeroDivisionError, match="of mine"):
        trainkit.train(CONFIG, runs_dir=tmp_path, progress=fail)
    assert seen == [5, 10]
    lines = []
    result = trainkit.resume(runs_dir=tmp_path, log=lines.append)
    assert any("after step 10" in line for line in lines), lines
    assert_same(result, whole)


def test_an_exception_of_log_is_raised_too(tmp_path):
    with pytest.raises(ZeroDivisionError):
        trainkit.train(CONFIG, runs_dir=tmp_path, log=lambda line: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainkit.evaluate(trainkit.train(CONFIG, runs_dir=tmp_path).run.path, log=lambda line: 1 / 0)


def test_should_stop_saves_the_state(tmp_path, whole):
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) > 30

    with pytest.raises(
        trainkit.Interrupted, match="stopped by a request: the state is saved; to go on: trainkit resume"
    ):
        trainkit.train(CONFIG, runs_dir=tmp_path, should_stop=should_stop)
    assert_same(stopped_run(tmp_path), whole)


def test_ctrl_c_saves_the_state(tmp_path, whole, ctrl_c):
    def press(progress):
        if progress.done == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT: the state is saved"):
        trainkit.train(CONFIG, runs_dir=tmp_path, progress=press)
    assert_same(stopped_run(tmp_path), whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path, ctrl_c):
    def press(progress):
        if progress.done == 10:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt):
        trainkit.train(CONFIG, runs_dir=tmp_path, progress=press)


def test_a_handler_of_the_program_stays(tmp_path):
    heard = []
    before = signal.signal(signal.SIGINT, lambda signum, frame: heard.append(signum))
    try:
        trainkit.train(
            CONFIG, runs_dir=tmp_path, progress=lambda p: p.done == 10 and os.kill(os.getpid(), signal.SIGINT)
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_trainings_in_two_threads_wait_for_each_other(tmp_path, whole):
    results, lines = [], []

    def work():
        results.append(trainkit.train(CONFIG, runs_dir=tmp_path, log=lines.append))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any("waiting for the training in another thread" in line for line in lines)
    for result in results:
        assert_same(result, whole)


def test_settings_of_a_notebook_neither_reach_a_run_nor_change(tmp_path, whole):
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.manual_seed(5)
    try:
        result = trainkit.train(CONFIG, runs_dir=tmp_path)
        config = {**CONFIG, "training": {"num_threads": threads + 1}}
        with pytest.raises(ZeroDivisionError):
            trainkit.train(config, runs_dir=tmp_path, progress=lambda progress: 1 / 0)
        assert torch.rand(3).tolist() == torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist()
        assert torch.get_num_threads() == threads
        assert torch.get_float32_matmul_precision() == "medium"
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision("highest")
    assert_same(result, whole)


def test_in_a_running_event_loop(tmp_path, whole):
    async def cell():
        return trainkit.train(CONFIG, runs_dir=tmp_path)

    assert_same(asyncio.run(cell()), whole)


def test_an_evaluation_in_the_middle_changes_nothing(tmp_path, whole):
    scores = []

    def look(progress):
        if progress.record.get("type") == "epoch":
            scores.append(trainkit.evaluate(whole, split="val").metrics["accuracy"])

    assert_same(trainkit.train(CONFIG, runs_dir=tmp_path, progress=look), whole)
    assert scores == [whole.metrics["val"]["accuracy"]] * 2

"""A terminal that closes, ``kill -HUP``, ``nohup``: real processes of a run that goes on until it is stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainkit.recorders.logs import read_json_lines
from trainkit.system.run_folder import newest_run
from trainkit.workflows.train import resume

if sys.platform != "win32":
    import fcntl
    import pty
    import termios

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")

CONFIG = """\
dataset: {type: digits}
model: {type: mlp, hidden_sizes: [8]}
training: {epochs: 100000, batch_size: 500}
logging: {every: 1, plots: false}
checkpoint: {every: 100000ep, monitor: train_loss}
"""
TRAIN = [sys.executable, "-m", "trainkit", "train", "config.yaml"]


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def wait_for_a_step(child: subprocess.Popen, place: Path) -> None:
    while child.poll() is None:
        run = newest_run(place / "runs")
        if run is not None and run.metrics.exists() and read_json_lines(run.metrics):
            return
        time.sleep(0.05)
    raise AssertionError("the run ended before its first step")


def check_stopped(child: subprocess.Popen, place: Path, code: int) -> None:
    assert child.wait(timeout=60) == code
    run = newest_run(place / "runs")
    assert run.status() == "interrupted"
    steps = [record["step"] for record in read_json_lines(run.metrics) if record["type"] == "step"]
    more = str(len(read_json_lines(run.metrics)) // 4 + 5)
    resume(run.path, overrides=[f"training.epochs={more}"])
    after = [record["step"] for record in read_json_lines(run.metrics) if record["type"] == "step"]
    assert after[: len(steps)] == steps
    assert after == list(range(1, len(after) + 1))
    assert len(after) > len(steps)


def hear_signals() -> None:
    """Tests that themselves run under nohup would hand it down."""
    for name in ("SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def test_a_terminal_that_closes(place):
    """The kernel sends SIGHUP, and every write to the terminal, of the bar too, fails from then on."""
    master, slave = pty.openpty()

    def take_terminal() -> None:
        hear_signals()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(
        TRAIN, cwd=place, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=take_terminal
    )
    os.close(slave)
    os.set_blocking(master, False)
    wait_for_a_step(child, place)
    os.close(master)
    check_stopped(child, place, 129)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGHUP", 129), ("SIGUSR2", 140)])
def test_a_signal_by_kill(place, name, code):
    child = subprocess.Popen(
        TRAIN, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=hear_signals
    )
    wait_for_a_step(child, place)
    subprocess.run(["kill", f"-{name.removeprefix('SIG')}", str(child.pid)], check=True)
    output = child.communicate()[1].decode()
    assert f"{name}: finishing the step and saving the state" in output
    assert f"stopped by {name}: the state is saved" in output
    check_stopped(child, place, code)


def test_a_run_under_nohup_goes_on(place):
    child = subprocess.Popen(["nohup", *TRAIN], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_a_step(child, place)
    child.send_signal(signal.SIGHUP)
    run = newest_run(place / "runs")
    before = len(read_json_lines(run.metrics))
    while len(read_json_lines(run.metrics)) < before + 20:
        assert child.poll() is None, "SIGHUP ended it"
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=60) == 143
    assert newest_run(place / "runs").status() == "interrupted"


@pytest.mark.slow
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(place):
    command = ["sh", "-c", "trap '' USR2; exec \"$@\"", "sh", *TRAIN]
    child = subprocess.Popen(
        command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=hear_signals
    )
    wait_for_a_step(child, place)
    child.send_signal(signal.SIGUSR2)
    run = newest_run(place / "runs")
    before = len(read_json_lines(run.metrics))
    while len(read_json_lines(run.metrics)) < before + 20:
        assert child.poll() is None, "SIGUSR2 ended it"
        time.sleep(0.05)
    child.send_signal(signal.SIGHUP)
    assert child.wait(timeout=60) == 129

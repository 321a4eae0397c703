"""Stop signals set a flag with the exit code that shells use; the old handlers are restored."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from trainkit.errors import Interrupted
from trainkit.system.frontend import StopRequest, catch_stop_signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs SIGUSR1")


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138), ("SIGUSR2", 140)]
)
def test_a_signal_is_a_flag(name, code):
    before = signal.getsignal(getattr(signal, name))
    names = []
    with catch_stop_signals(names.append) as stop:
        assert not stop()
        os.kill(os.getpid(), getattr(signal, name))
        assert stop()
        os.kill(os.getpid(), signal.SIGTERM)  # the first one counts
        error = stop.error("the state is saved")
    assert names == [name]
    assert (str(error), error.exit_code) == (f"stopped by {name}: the state is saved", code)
    assert signal.getsignal(getattr(signal, name)) is before


def test_an_interrupt_from_deep_code_gets_the_exit_code_of_the_signal():
    def work():
        os.kill(os.getpid(), signal.SIGTERM)
        raise Interrupted("stopped while the images were being prepared", 130)

    with pytest.raises(Interrupted) as caught, catch_stop_signals():
        work()
    assert caught.value.exit_code == 143


def test_other_threads_are_left_alone():
    seen = []

    def work():
        with catch_stop_signals() as stop:
            seen.append(stop())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_sigint_ends_at_once(first):
    code = f"""
import os, signal
from trainkit.system.frontend import catch_stop_signals
with catch_stop_signals():
    os.kill(os.getpid(), signal.{first})
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("never here", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "still here\n")


def test_a_request_without_a_signal():
    assert str(StopRequest().error("why")) == "stopped by a request: why"

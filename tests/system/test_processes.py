"""Child processes: their output, and their end when a stop is requested."""

import os
import subprocess
import sys
import time

import pytest

from trainkit.system import processes
from trainkit.system.processes import run_child

PYTHON = [sys.executable, "-S", "-c"]


def test_output_and_exit_code():
    done = run_child([*PYTHON, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_more_than_a_pipe_holds():
    done = run_child([*PYTHON, "import sys; print('x' * 10**6); print('y' * 10**6, file=sys.stderr)"])
    assert (len(done.stdout), len(done.stderr)) == (10**6 + 1, 10**6 + 1)


def test_stderr_may_be_shown(capfd):
    done = run_child([*PYTHON, "import sys; print('err', file=sys.stderr)"], show_stderr=True)
    assert done.stderr == ""
    assert capfd.readouterr().err == "err\n"


WITH_GRANDCHILD = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(grandchild.pid))
time.sleep(60)
"""
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)" + WITH_GRANDCHILD


@pytest.mark.parametrize("program", [WITH_GRANDCHILD, STUBBORN], ids=["willing", "stubborn"])
def test_a_stop_ends_a_child_and_its_children(program, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    pid = tmp_path / "pid"
    stop = lambda: pid.exists() and pid.read_text() != ""  # noqa: E731
    assert run_child([*PYTHON, program, str(pid)], should_stop=stop) is None
    for _ in range(100):
        if ended(int(pid.read_text())):
            return
        time.sleep(0.05)
    pytest.fail("the child of the child lives on")


def ended(pid: int) -> bool:
    """Whether a process is dead; a zombie is."""
    try:
        os.kill(pid, 0)
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except ProcessLookupError:
        return True
    return state.stdout.strip()[:1] in ("", "Z")


def test_a_child_that_takes_too_long():
    with pytest.raises(subprocess.TimeoutExpired):
        run_child([*PYTHON, "import time; time.sleep(60)"], timeout_seconds=0.2)


ENVIRONMENT = """
import os, sys
from trainkit.system import own_process
own_process()
print({name: os.environ.get(name) for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")}, "torch" in sys.modules)
"""
SHORT, UNCHANGED = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}, {"GOMP_SPINCOUNT": None, "KMP_BLOCKTIME": None}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, SHORT),
        ({"OMP_NUM_THREADS": "4"}, SHORT),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, UNCHANGED),
        ({"GOMP_SPINCOUNT": "7"}, UNCHANGED | {"GOMP_SPINCOUNT": "7"}),
        ({"KMP_BLOCKTIME": "infinite"}, UNCHANGED | {"KMP_BLOCKTIME": "infinite"}),
    ],
)
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(user, expected):
    """OpenMP reads the environment when PyTorch is loaded, so that must not have happened yet."""
    own = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", *SHORT)}
    done = subprocess.run([sys.executable, "-c", ENVIRONMENT], env={**own, **user}, capture_output=True, text=True)
    assert done.stdout == f"{expected} False\n"


def test_settings_that_would_come_too_late_are_left_alone():
    own = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", *SHORT)}
    program = "import sys; sys.modules['torch'] = sys" + ENVIRONMENT
    done = subprocess.run([sys.executable, "-c", program], env=own, capture_output=True, text=True)
    assert done.stdout == f"{UNCHANGED} True\n"

"""Signals before a command listens for them: no traceback, one line, the exit code; in real processes."""

import json
import signal
import subprocess
import sys

import pytest

CTRL_C = """\
import os, signal, sys, time
def ctrl_c():
    if "RANK" in os.environ:  # the launcher passes the signal on
        if os.environ["RANK"] == "0":
            os.kill(os.getppid(), signal.SIGINT)
    elif "--nproc" not in sys.argv:
        os.kill(os.getpid(), signal.SIGINT)
    else:
        return
    time.sleep(30)
"""
PLACES = {
    "in the module": "ctrl_c()",
    # Of a KeyboardInterrupt here, Python 3.11 makes a RuntimeError.
    "in a class": "class Name:\n    def __set_name__(self, *_):\n        ctrl_c()\nclass Owner:\n    name = Name()",
    # As when the import of numpy is cut short.
    "in a try": "try:\n    ctrl_c()\nexcept BaseException:\n    raise AttributeError('numpy has no intp') from None",
    # Python then ends itself by SIGINT, whatever the exit code was to be.
    "in a string": "exec('ctrl_c()')",
}


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    plugin = "\nimport trainkit\nplugin = trainkit.Plugin('own')\n"
    (tmp_path / "own.py").write_text(CTRL_C + PLACES[request.param] + plugin)
    (tmp_path / "c.yaml").write_text("dataset: digits\nmodel: mlp\n")
    return tmp_path


def run(place, *options, **how):
    whole = [sys.executable, "-m", "trainkit", "--plugin", "own", "train", "c.yaml", *options]
    return subprocess.run(whole, cwd=place, capture_output=True, text=True, timeout=60, **how)


def test_one_line_and_the_exit_code(place):
    done = run(place, "--json")
    assert done.returncode in (130, -signal.SIGINT)  # a shell says 130 of both
    assert done.stderr == "stopped by SIGINT\n"
    error = json.loads(done.stdout)["error"]
    assert (error["exit_code"], error["message"]) == (130, "stopped by SIGINT")
    assert not (place / "runs").exists()


def test_of_a_job_for_which_the_shell_ignores_it(tmp_path):
    (tmp_path / "own.py").write_text(CTRL_C + PLACES["in the module"])
    (tmp_path / "c.yaml").write_text("dataset: digits\nmodel: mlp\n")
    done = run(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr == "stopped by SIGINT\n"


def test_of_several_processes(place):
    done = run(place, "--nproc", "2")
    assert done.returncode == 130
    assert done.stderr.count("stopped by SIGINT") == 1
    assert "Traceback" not in done.stderr
    assert not (place / "runs").exists()


def test_one_that_got_lost_stops_the_work(tmp_path):
    lost = "class Lost:\n    def __del__(self):\n        ctrl_c()\nLost()\n"
    (tmp_path / "own.py").write_text(CTRL_C + lost + "import trainkit\nplugin = trainkit.Plugin('own')\n")
    (tmp_path / "c.yaml").write_text("dataset: digits\nmodel: mlp\ntraining: {epochs: 100000}\n")
    done = run(tmp_path)
    assert done.returncode == 130
    assert "KeyboardInterrupt" in done.stderr  # Python's own word of what it lost
    assert done.stderr.splitlines()[-1].startswith("stopped by SIGINT: ")


TWO = """\
import os, signal, threading, time
def once_it_listens():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.05)
    {first}
if os.environ.get("RANK") == "0":
    threading.Thread(target=once_it_listens, daemon=True).start()
if os.environ.get("RANK") == "1":
    {second}
import trainkit
plugin = trainkit.Plugin("own")
"""
"""What the first of two processes does once it listens, while the second one still loads."""


def run_two(place, *options, first, second):
    (place / "own.py").write_text(TWO.format(first=first, second=second))
    (place / "c.yaml").write_text("dataset: digits\nmodel: mlp\ntraining: {epochs: 100000}\n")
    return run(place, "--nproc", "2", *options)


@pytest.mark.slow
def test_one_line_where_one_of_two_processes_listens(tmp_path):
    done = run_two(tmp_path, first="os.kill(os.getppid(), signal.SIGTERM)", second="time.sleep(60)")
    assert done.returncode == 128 + signal.SIGTERM
    assert [line for line in done.stderr.splitlines() if "stopped" in line] == [
        "stopped by SIGTERM: nothing was written"
    ]


@pytest.mark.slow
def test_one_document_where_a_process_is_killed_while_the_other_waits_for_it(tmp_path):
    second = "while not os.path.exists('listens'): time.sleep(0.05)\n    os.kill(os.getpid(), signal.SIGKILL)"
    done = run_two(tmp_path, "--json", first="open('listens', 'w').close()", second=second)
    assert done.returncode == 1
    assert "rank 1 was ended by SIGKILL" in json.loads(done.stdout)["error"]["message"]
    assert "stopped by" not in done.stderr

"""``eval`` and ``predict`` in several processes: signals, deaths, and outputs that nobody reads."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from rank_processes import is_running, kill_tree, ranks_of

from trainkit.checkpoints import load_checkpoint
from trainkit.config import load_config
from trainkit.workflows.train.run import train

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes"), pytest.mark.slow]

CONFIG = """
dataset: {type: synthetic, problem: {type: blobs}, num_samples: 300000, val_fraction: 0.1, test_fraction: 0.1}
model: {type: mlp, hidden_sizes: [4]}
training: {epochs: 1, batch_size: 100000, num_threads: 1, eval_batch_size: 100000}
logging: {plots: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint whose evaluation takes long, 240,000 batches of one sample, and inputs that take long too."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "c.yaml").write_text(CONFIG)
    run = train(load_config(folder / "c.yaml"), runs_dir=folder / "runs")
    state = load_checkpoint(run.best_checkpoint)
    state["config"]["training"]["eval_batch_size"] = 1
    torch.save(state, folder / "long.pth")
    np.save(folder / "inputs.npy", np.zeros((1_000_000, 2), dtype=np.float32))
    return folder


COMMANDS = {
    "eval": ["eval", "long.pth", "--split", "train", "--json", "--output", "out", "--no-plots"],
    "predict": ["predict", "long.pth", "inputs.npy", "--output", "out.csv"],
}


@pytest.fixture
def running(request, folder):
    """The launcher of a command in two processes, and these by rank."""
    whole = [sys.executable, "-m", "trainkit", *COMMANDS[request.param], "--nproc", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    launcher = subprocess.Popen(whole, cwd=folder, **pipes)
    while len(ranks_of(launcher.pid)) < 2:
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.1)
    ranks = ranks_of(launcher.pid)
    yield launcher, ranks
    for pid in (launcher.pid, *ranks):
        kill_tree(pid)
    launcher.communicate(timeout=20)
    assert not (folder / "out").exists()
    assert not (folder / "out.csv").exists()


@pytest.mark.parametrize(("running", "victim"), [("eval", 0), ("eval", 1), ("predict", 1)], indirect=["running"])
def test_a_process_that_dies_ends_all(running, victim):
    launcher, ranks = running
    time.sleep(random.uniform(0, 4))
    os.kill(ranks[victim], signal.SIGKILL)
    out, said = launcher.communicate(timeout=20)
    assert launcher.returncode == 1
    assert f"rank {victim} was ended by SIGKILL; nothing was written" in said
    assert said.count("error:") == 1
    assert not out or json.loads(out)["error"]["exit_code"] == 1  # one document
    assert not any(map(is_running, ranks))


@pytest.mark.parametrize(
    ("running", "signum"), [("eval", signal.SIGTERM), ("predict", signal.SIGINT)], indirect=["running"]
)
def test_a_signal_to_the_launcher_stops_all(running, signum):
    launcher, ranks = running
    time.sleep(random.uniform(0, 4))
    launcher.send_signal(signum)
    out, said = launcher.communicate(timeout=20)
    assert launcher.returncode == 128 + signum, said
    times = said.count(f"stopped by {signal.Signals(signum).name}")
    assert times == 1, said
    assert "error" not in said
    assert not out or json.loads(out)["error"]["exit_code"] == 128 + signum
    assert not any(map(is_running, ranks))


@pytest.mark.parametrize("running", ["predict"], indirect=True)
def test_without_their_launcher_they_stop(running, folder):
    launcher, ranks = running
    while not list(folder.glob("*out.csv*")):  # they predict
        assert launcher.poll() is None
        time.sleep(0.1)
    launcher.kill()
    launcher.wait()
    for _ in range(200):
        if not any(map(is_running, ranks)):
            return
        time.sleep(0.1)
    raise AssertionError("they go on")


HIDDEN = """
import os
if os.environ.get("RANK") == "1":  # as on a machine where this process alone may not read the file
    real = os.open
    def opened(path, *arguments, **more):
        if str(path).endswith(".pth"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)
    os.open = opened
"""


def test_a_wrong_input_of_one_process_alone_is_its_message(folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    command = [sys.executable, "-m", "trainkit", *COMMANDS["predict"], "--nproc", "2"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("error: rank 1: long.pth: cannot be opened: Permission denied; ")
    assert not (folder / "out.csv").exists()

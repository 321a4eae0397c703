"""Several processes that share a run: the same bits as one, stops that all obey, and ends that say what happened."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_runs import differences
from forked_ranks import CNN
from rank_processes import children, is_running, kill_tree, ranks_of

from trainkit.system import RunDir, list_runs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")

LONG = """
dataset: {type: digits}
transforms: [normalize]
model: {type: mlp, hidden_sizes: [64]}
training: {epochs: 100000, batch_size: 60, accumulation_steps: 4, num_threads: 1}
distributed: {timeout: 4}
checkpoint: {every: 20st}
logging: {every: 5, plots: false}
"""


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "trainkit", *arguments, "--run-dir", str(folder / "runs"), "-q"]


def trained(folder: Path, text: str, *arguments: str) -> RunDir:
    """A run in a folder of its own, in processes of their own."""
    folder.mkdir()
    (folder / "c.yaml").write_text(text)
    done = subprocess.run(
        command(folder, "train", "c.yaml", *arguments), cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return list_runs(folder / "runs")[-1]


def test_two_processes_have_the_bits_of_one(tmp_path, monkeypatch):
    (odd := tmp_path / "a #1?%20").mkdir()
    monkeypatch.setenv("TMPDIR", str(odd))  # where they meet
    one, two = trained(tmp_path / "1", CNN), trained(tmp_path / "2", CNN, "--nproc", "2")
    assert differences(one, two) == []


@pytest.mark.slow
def test_resumed_on_other_numbers_of_processes(tmp_path):
    """1, 2, 4 and 1 processes, killed in between: the run that was left alone."""
    text = CNN.replace("epochs: 2", "epochs: 12") + "checkpoint: {every: 5st}\n"
    whole = trained(tmp_path / "whole", text)
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "c.yaml").write_text(text)
    for part, size in enumerate((1, 2, 4)):
        what = ["train", "c.yaml"] if part == 0 else ["resume"]
        process = subprocess.Popen(command(folder, *what, "--nproc", f"{size}"), cwd=folder, start_new_session=True)
        wait_for_checkpoints(folder, more_than=part + 1)
        kill_tree(process.pid)
        process.wait()
    done = subprocess.run(command(folder, "resume", "--nproc", "1"), cwd=folder, timeout=300)
    assert done.returncode == 0
    (run,) = list_runs(folder / "runs")
    assert differences(whole, run) == []


def test_a_wrong_config_starts_nothing(tmp_path):
    (tmp_path / "c.yaml").write_text(CNN)
    for arguments, message in [
        (["--nproc", "3"], "c.yaml:6:59: training.accumulation_steps: 3 processes cannot share 4 pieces of a batch"),
        (["--nproc", "2", "--set", "optimizer.lr=x"], "optimizer.lr"),
        (["--nproc", "two"], "--nproc takes a number of processes, or gpu for one on each GPU, got 'two'"),
        (["--nproc", "gpu"], "PyTorch finds no CUDA device here"),
        (["--launcher", "slurm"], "start the command by srun"),
    ]:
        done = subprocess.run(
            command(tmp_path, "train", "c.yaml", *arguments), cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        assert done.stderr.count("error") == 1
        assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_data_that_are_not_there_are_said_once(tmp_path):
    (tmp_path / "c.yaml").write_text(CNN.replace("{type: digits}", "{type: image_folder, root: nowhere}"))
    done = subprocess.run(
        command(tmp_path, "train", "c.yaml", "--nproc", "2"), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.count("does not exist") == 1


@pytest.mark.slow
def test_a_nan_that_all_of_them_have_is_said_once(tmp_path):
    (tmp_path / "c.yaml").write_text(LONG)
    options = ["--nproc", "2", "--set", "optimizer={type: sgd, lr: 1.0e+30}"]
    done = subprocess.run(
        command(tmp_path, "train", "c.yaml", *options), cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.count("the loss is nan") == 1
    assert "rank 1" not in done.stderr


@pytest.fixture
def running(tmp_path):
    """A long run in two processes: the launcher, and the processes by rank."""
    (tmp_path / "c.yaml").write_text(LONG)
    launcher = subprocess.Popen(
        command(tmp_path, "train", "c.yaml", "--nproc", "2"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for_checkpoints(tmp_path, more_than=0)
    yield tmp_path, launcher, ranks_of(launcher.pid)
    kill_tree(launcher.pid)
    launcher.communicate()


@pytest.mark.parametrize(
    ("who", "signum"),
    [(None, signal.SIGTERM), pytest.param(1, signal.SIGUSR1, marks=pytest.mark.slow)],
    ids=["launcher", "rank 1"],
)
def test_a_signal_stops_all_after_the_same_step(running, who, signum):
    folder, launcher, ranks = running
    os.kill(launcher.pid if who is None else ranks[who], signum)
    _, said = launcher.communicate(timeout=20)
    assert launcher.returncode == 128 + signum
    assert f"stopped by {signal.Signals(signum).name}: the state is saved; to go on: trainkit resume " in said
    assert " --nproc 2; for a report so far: " in said
    assert not any(map(is_running, ranks))
    (run,) = list_runs(folder / "runs")
    assert run.read_info()["status"] == "interrupted"
    steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines() if '"step"' in line]
    assert steps == sorted(steps)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_all(running, victim):
    folder, launcher, ranks = running
    time.sleep(random.uniform(0, 2))
    os.kill(ranks[victim], signal.SIGKILL)
    _, said = launcher.communicate(timeout=20)
    assert launcher.returncode == 1
    assert f"rank {victim} was ended by SIGKILL; the checkpoints saved so far are intact; to go on: " in said
    assert f"trainkit resume {list_runs(folder / 'runs')[0].path} --nproc 2" in said
    assert not any(map(is_running, ranks))


@pytest.mark.slow
def test_a_process_that_hangs_is_named(running):
    _, launcher, ranks = running
    os.kill(ranks[1], signal.SIGSTOP)
    _, said = launcher.communicate(timeout=30)
    assert launcher.returncode == 1
    assert "rank 1 did not answer within distributed.timeout; the checkpoints saved so far are intact" in said
    assert not any(map(is_running, ranks))


@pytest.mark.slow
def test_without_their_launcher_they_stop(running):
    folder, launcher, ranks = running
    launcher.kill()
    launcher.wait()
    for _ in range(200):
        if not any(map(is_running, ranks)):
            break
        time.sleep(0.1)
    (run,) = list_runs(folder / "runs")
    assert run.read_info()["status"] == "interrupted"


@pytest.mark.slow
def test_goes_on_by_itself_after_a_process_died(tmp_path):
    text = CNN.replace("epochs: 2", "epochs: 12") + "checkpoint: {every: 5st}\n"
    whole = trained(tmp_path / "whole", text, "--set", "checkpoint.keep_last=100")
    folder = tmp_path / "restarted"
    folder.mkdir()
    (folder / "c.yaml").write_text(text)
    began = min(whole.checkpoints.glob("*.pth"), key=lambda path: path.stat().st_mtime)
    options = ["--nproc", "2", "--max-restarts", "1", "--resume", str(began)]
    launcher = subprocess.Popen(command(folder, "train", "c.yaml", *options), cwd=folder)
    wait_for_checkpoints(folder, more_than=1)
    os.kill(ranks_of(launcher.pid)[1], signal.SIGKILL)
    assert launcher.wait(timeout=120) == 0
    (run,) = list_runs(folder / "runs")
    assert differences(whole, run) == []


@pytest.mark.slow
def test_torchrun_starts_again_and_goes_on_with_fewer_machines(tmp_path):
    """Two agents, as on two machines: a process dies, both start again; an agent dies, the other goes on alone."""
    text = CNN.replace("epochs: 2", "epochs: 24") + "checkpoint: {every: 5st}\n"
    whole = trained(tmp_path / "whole", text)
    (folder := tmp_path / "torchrun").mkdir()
    (folder / "c.yaml").write_text(text)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-backend", "c10d"]
    agents = []
    for host in (True, False):  # the first one is where they meet
        conf = ["--rdzv-endpoint", f"localhost:{port}", "--rdzv-conf", f"last_call_timeout=1,is_host={host}"]
        agent = [sys.executable, "-m", "torch.distributed.run", *options, *conf]
        training = command(folder, "train", "c.yaml", "--resume", "auto")[1:]
        agents.append(subprocess.Popen([*agent, *training], cwd=folder, stderr=subprocess.DEVNULL))
    try:
        wait_for_checkpoints(folder, more_than=1)
        os.kill(children(agents[1].pid)[0], signal.SIGKILL)
        wait_for_checkpoints(folder, more_than=newest_step(folder) // 5 + 4)
        kill_tree(agents[1].pid)
        assert agents[0].wait(timeout=180) == 0
    finally:
        for one in agents:
            kill_tree(one.pid)
            one.wait()
    (run,) = list_runs(folder / "runs")
    assert differences(whole, run) == []


def newest_step(folder: Path) -> int:
    journals = [json.loads(path.read_text()) for path in folder.glob("runs/*/checkpoints/checkpoints.json")]
    entries = journals[-1]["entries"] if journals else []
    return entries[-1]["step"] if entries else 0


def wait_for_checkpoints(folder: Path, *, more_than: int) -> None:
    for _ in range(1200):
        if newest_step(folder) > 5 * more_than:
            return
        time.sleep(0.1)
    raise AssertionError("no checkpoint")

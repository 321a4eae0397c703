"""``trainkit selftest resume`` with real child processes; equal runs have one digest, other ones do not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_runs import MLP, load

import trainkit
from trainkit.workflows.selftest import digest, digests_of
from trainkit.workflows.train.run import train

# The package under test, from any folder.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(trainkit.__file__).parents[1])}


def test_digest_sees_every_bit_and_no_seconds():
    state = {"weight": torch.zeros(2, 3), "steps": [1, 2], "train_seconds": 1.0}
    assert digest(state) == digest({**state, "weight": torch.zeros(2, 3), "train_seconds": 2.0})
    others = [
        {"weight": torch.tensor([[0.0, 0, 0], [0, 0, -0.0]])},
        {"weight": torch.zeros(3, 2)},
        {"weight": torch.zeros(2, 3, dtype=torch.int32)},
        {"steps": [1, 3]},
        {"steps": [[1], 2]},
        {"more": None},
    ]
    assert len({digest({**state, **other}) for other in others} | {digest(state)}) == len(others) + 1


def test_bf16_and_layout():
    one = torch.arange(6.0).reshape(2, 3)
    assert digest(one.bfloat16()) == digest(one.bfloat16().clone())
    assert digest(one.t().contiguous().t()) == digest(one)


@pytest.mark.usefixtures("fast_runs")
def test_another_seed_has_other_digests(tmp_path):
    runs = [train(load(tmp_path, MLP, f"seed={seed}"), runs_dir=tmp_path / str(i)).run for i, seed in enumerate("001")]
    first, same, other = map(digests_of, runs)
    assert first == same
    assert {"newest model", "metrics.jsonl"} <= {name for name in first if first[name] != other[name]}


@pytest.mark.slow
def test_the_command(tmp_path):
    (tmp_path / "config.yaml").write_text(MLP)
    command = [sys.executable, "-m", "trainkit", "selftest", "resume", "config.yaml", "--kills", "2", "--seed", "1"]
    command += ["--json", "--folder", "runs", "--set", "training.batch_size=20"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["selftests"]
    assert found["passed"] is True
    assert found["digest"] == found["killed_digest"]
    assert len(found["kills"]) == 2
    assert found["steps"] == 3 * 65


@pytest.mark.slow
def test_without_a_config_an_mlp_with_odd_sizes_is_killed_too(tmp_path):
    command = [sys.executable, "-m", "trainkit", "selftest", "resume", "--kills", "1", "--json", "--folder", "runs"]
    command += ["--set", "training.num_threads=2", "--set", "training.epochs=2"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is True
    assert [Path(one["config"]).name for one in found["selftests"]] == ["digits_cnn.yaml", "wine_mlp.yaml"]
    assert {Path(one["folder"]).name for one in found["selftests"]} == {"digits_cnn", "wine_mlp"}


@pytest.mark.slow
def test_a_mistake_in_the_config_is_found_before_any_child(tmp_path):
    command = [sys.executable, "-m", "trainkit", "selftest", "resume", "--set", "optimizer.lr=fast"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "optimizer.lr" in done.stderr


ONE_RUN = """
import sys, tempfile
from pathlib import Path
from trainkit.config import load_config
from trainkit.workflows.selftest import digests_of, digest
from trainkit.workflows.train import finish, run as workflow
finish.report_training = lambda run, setup, *, frontend: None
result = workflow.train(load_config("config.yaml"), runs_dir=Path("runs"))
print(digest(digests_of(result.run)))
"""


@pytest.mark.slow
def test_six_fresh_processes_are_one(tmp_path):
    """Other hash seeds, folders, locales and time zones; two at a time."""
    locales = ["C", "C.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8", "POSIX"]
    found = set()
    for pair in range(3):
        children = []
        for number in (2 * pair, 2 * pair + 1):
            folder = tmp_path / ("x" * number + "ä b") / str(number)
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text(MLP)
            environment = {
                **ENVIRONMENT,
                "PYTHONHASHSEED": str(number * 1000),
                "LC_ALL": locales[number % 5],
                "TZ": ["UTC", "Asia/Kathmandu"][number % 2],
                "TRAINKIT_CACHE": str(folder / "cache"),
            }
            command = [sys.executable, "-c", ONE_RUN]
            children.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True))
        for child in children:
            output, _ = child.communicate()
            assert child.returncode == 0
            found.add(output)
    assert len(found) == 1

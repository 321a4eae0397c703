"""A process of a run that is killed, has a NaN, a full disk or other weights than the rest: all end, and it can go on.

The processes are forks, which nobody starts again; what ``--nproc`` and torchrun add to that is in ``test_ranks``.
"""

import random
import re
import signal
import time

import pytest
import torch
from engine_runs import CNN, differences
from forked_ranks import ForkedRanks

from trainkit.checkpoints import CheckpointFolder, load_checkpoint
from trainkit.system import RunDir, newest_run

pytestmark = [pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL"), pytest.mark.slow]

TEXT = CNN.replace("precision: fp32", "precision: fp32, accumulation_steps: 2, num_threads: 1") + (
    "checkpoint: {every: 3st, keep_last: 2}\ndistributed: {timeout: 20}\n"
)
PLUGIN = """
import os

import torch
from pydantic import Field
from torch import nn

import trainkit


class Bad(nn.Module):
    def __init__(self, limit):
        super().__init__()
        self.limit, self.steps = limit, 0
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x):
        if not self.training:
            return x
        self.steps += 1
        if self.limit is not None:
            return x * float("nan") if x.abs().sum() > self.limit else x
        self.seen += self.steps == 4 and os.environ["RANK"] == "1"
        return x


class Layer(trainkit.Section):
    \"\"\"Is wrong for some batches, or on some process.\"\"\"

    limit: float | None = Field(None, description="A piece with a larger sum becomes NaN.")

    def build(self, input_shape):
        return Bad(self.limit)


plugin = trainkit.Plugin("bad", layers=[Layer])
"""
OWN = re.sub(
    r"(?m)^model: .*$",
    "model: {type: sequential, layers: [Flatten, {type: bad.Layer}, {type: Linear, out_features: 10}]}",
    TEXT,
)


@pytest.fixture(scope="module")
def ranks():
    one = ForkedRanks(2)
    yield one
    one.close()


@pytest.fixture(scope="module")
def whole(ranks, tmp_path_factory) -> RunDir:
    """The run of one process that is left alone."""
    folder = tmp_path_factory.mktemp("whole")
    (ended,) = trained(ranks, folder, size=1)
    assert ended.code == 0, ended.output
    return newest_run(folder / "runs")


def trained(ranks, folder, *arguments, size=2, text=TEXT, **rest):
    (folder / "c.yaml").write_text(text)
    (folder / "bad.py").write_text(PLUGIN)
    plugin = ["--plugin", "bad"] if "bad.Layer" in text else []
    return ranks.trainkit(*plugin, "train", "c.yaml", *arguments, folder=folder, size=size, **rest)


@pytest.mark.parametrize("machines", [1, 2], ids=["in the memory of one machine", "between machines"])
def test_the_bits_of_one(ranks, whole, tmp_path, machines):
    assert [ended.code for ended in trained(ranks, tmp_path, machines=machines)] == [0, 0]
    assert differences(whole, newest_run(tmp_path / "runs")) == []


def test_fast_is_close_and_says_so(ranks, whole, tmp_path):
    ended = trained(ranks, tmp_path, "--set", "distributed.reduce=fast")
    assert [one.code for one in ended] == [0, 0]
    assert ended[0].output.count("not the same bits") == 1
    assert "not the same bits" not in ended[1].output
    one, fast = (
        load_checkpoint(CheckpointFolder(run.checkpoints).newest_good()[0])["model"]
        for run in (whole, newest_run(tmp_path / "runs"))
    )
    for name, value in one.items():
        torch.testing.assert_close(fast[name], value, rtol=0.01, atol=1e-3)


def test_killed_at_20_instants(ranks, whole, tmp_path):
    """Any rank, at any instant: the other one ends by itself, and says why. Then the run goes on."""
    rng, kills, rounds = random.Random(0), 0, 0
    started = time.monotonic()
    trained(ranks, tmp_path)
    longest = 1.2 * (time.monotonic() - started)
    newest_run(tmp_path / "runs").path.rename(tmp_path / "finished")
    again = ["--resume", "auto", "--set", "distributed.timeout=3"]  # nobody ends the one that waits for the first step
    while kills < 20:
        victim, seconds = rng.randrange(2), rng.uniform(0, longest)
        ended = trained(ranks, tmp_path, *again, orders={victim: {"seconds": seconds}})
        kills += ended[victim].code == -signal.SIGKILL
        other = ended[1 - victim]
        assert other.code in (0, 1), other.output  # 0: what it had to do was done
        assert "Traceback" not in other.output
        run = newest_run(tmp_path / "runs")
        if run is not None and run.status() == "finished":
            assert differences(whole, run) == []
            run.path.rename(tmp_path / f"finished{(rounds := rounds + 1)}")
    (ended,) = trained(ranks, tmp_path, "--resume", "auto", size=1)
    assert ended.code == 0, ended.output
    assert differences(whole, newest_run(tmp_path / "runs")) == []


@pytest.mark.parametrize("skips", [False, True], ids=["stop", "skip"])
def test_a_nan_of_one_piece_is_that_of_all(ranks, tmp_path, skips):
    text = OWN.replace("{type: bad.Layer}", "{type: bad.Layer, limit: 2850}")
    arguments = ["--set", "training.on_non_finite={type: skip, limit: 50}"] if skips else []
    outputs, runs = [], []
    for size in (1, 2):
        (folder := tmp_path / f"{size}").mkdir()
        ended = trained(ranks, folder, *arguments, size=size, text=text)
        assert [one.code for one in ended] == [0 if skips else 1] * size
        runs.append(newest_run(folder / "runs"))
        outputs.append([line for line in ended[0].output.splitlines() if line.startswith("error")])
    if skips:
        assert differences(*runs) == []
        assert load_checkpoint(CheckpointFolder(runs[0].checkpoints).best())["progress"]["steps_skipped"] > 0
    else:
        assert outputs[0] == outputs[1]
        assert "the loss is nan" in outputs[0][0]
        assert "error" not in ended[1].output  # the first one has said it


def test_a_full_disk_of_the_first_ends_all(ranks, whole, tmp_path):
    first, other = trained(ranks, tmp_path, orders={0: {"full": 40}})
    assert (first.code, other.code) == (1, 1)
    assert "the disk is full" in first.output
    assert "Traceback" not in first.output + other.output
    assert [ended.code for ended in trained(ranks, tmp_path, "--resume", "auto")] == [0, 0]
    assert differences(whole, newest_run(tmp_path / "runs")) == []


def test_other_weights_on_one_are_found(ranks, tmp_path):
    ended = trained(ranks, tmp_path, "--set", "logging.every=3", text=OWN)
    assert [one.code for one in ended] == [1, 1]
    assert re.search(r"rank 1 differs from rank 0 at step [36]: ", ended[0].output)
    assert "error" not in ended[1].output

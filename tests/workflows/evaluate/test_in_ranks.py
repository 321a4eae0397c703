"""An evaluation that processes share: the numbers of one process, to the last bit."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from in_ranks import in_ranks
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from trainkit.builders import open_trained
from trainkit.cli import evaluate as command
from trainkit.config import load_config
from trainkit.errors import Interrupted, UserError
from trainkit.system import Frontend, StopRequest
from trainkit.workflows.evaluate import evaluate
from trainkit.workflows.evaluate.run import setup_on_data
from trainkit.workflows.scoring import score_and_keep
from trainkit.workflows.train.run import train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def opened(run, **changes):
    """The best checkpoint; evaluation in batches of 37, if nothing else is asked for."""
    trained = open_trained(run.best_checkpoint)
    training = trained.config.training.model_copy(update={"eval_batch_size": 37, "num_threads": 1, **changes})
    return replace(trained, config=trained.config.model_copy(update={"training": training}))


@pytest.mark.parametrize("size", [2, 3])
def test_the_bits_of_one_process(tiny_run, one_thread, size):
    trained = opened(tiny_run)
    alone = evaluate(trained)
    assert alone.num_samples == 359  # a prime
    first, *others = in_ranks(size, lambda ranks: evaluate(trained, ranks=ranks))
    assert json.dumps(first.as_json()) == json.dumps(alone.as_json())
    assert others == [None] * (size - 1)


def test_more_processes_than_batches_and_mirror_images(tiny_run, one_thread):
    trained = opened(tiny_run, eval_batch_size=200)
    alone = evaluate(trained, split="val", tta="flip")
    first, *_ = in_ranks(4, lambda ranks: evaluate(trained, split="val", tta="flip", ranks=ranks))
    assert json.dumps(first.as_json()) == json.dumps(alone.as_json())


def test_the_metrics_of_scikit_learn(tiny_run, one_thread):
    trained = opened(tiny_run)
    setup = setup_on_data(trained, frontend=Frontend())
    _, outputs = score_and_keep(setup, "test", frontend=Frontend(), stopped="")
    targets, probabilities = setup.data.split_targets("test"), outputs.double().softmax(dim=1).numpy()
    one_hot = np.eye(10)[targets]
    expected = {
        "accuracy": accuracy_score(targets, probabilities.argmax(axis=1)),
        "f1_macro": f1_score(targets, probabilities.argmax(axis=1), average="macro"),
        "roc_auc": roc_auc_score(one_hot, probabilities, average="macro"),
        "average_precision": average_precision_score(one_hot, probabilities, average="macro"),
    }
    first, *_ = in_ranks(3, lambda ranks: evaluate(trained, ranks=ranks))
    assert {name: first.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_a_signal_to_one_stops_all(tiny_run):
    trained = opened(tiny_run, eval_batch_size=1)

    def work(ranks):
        stop = StopRequest()
        stop.signum = signal.SIGTERM if ranks.rank == 1 else None
        with pytest.raises(Interrupted, match="stopped by SIGTERM: nothing was written") as stopped:
            evaluate(trained, ranks=ranks, frontend=Frontend(stop=stop))
        return stopped.value.exit_code

    assert in_ranks(2, work) == [143, 143]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nproc": "0"}, "--nproc takes a number of processes, or gpu for one on each GPU, got '0'"),
        ({"nproc": "gpu"}, "--nproc gpu: PyTorch finds no CUDA device here"),
        ({"nproc": "4", "split": "train", "data": "nowhere"}, "--data nowhere: does not exist"),
        ({"nproc": "4", "device": "cuda:7"}, "there is no device 'cuda:7'"),
        ({"nproc": "4", "precision": "fp16"}, "precision fp16 needs a CUDA device"),
        ({"nproc": "4", "checkpoint": "nothing.pth"}, "nothing.pth"),
    ],
)
def test_what_is_wrong_is_said_before_a_process_starts(tiny_run, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr("trainkit.workflows.launch.launch", lambda *a, **k: pytest.fail("started"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        command.evaluate(**{"checkpoint": tiny_run.best_checkpoint, "plots": False, **arguments})


TABLE = """
dataset: {type: table, path: t.csv, target: TARGET, columns: {OTHER: ignore}, val_fraction: 0.1, test_fraction: 0.3}
model: {type: mlp, hidden_sizes: [16]}
training: {epochs: 1, batch_size: 50, num_threads: 1, eval_batch_size: 19}
logging: {plots: false, metrics: [METRICS]}
"""


def run_cli(folder, *arguments, **more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-m", "trainkit", *arguments]
    return subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, **more)


@pytest.mark.slow
def test_tables_from_the_command_line(tmp_path):
    rng = np.random.default_rng(1)
    x, c = rng.random(1009), rng.integers(3, size=1009)
    lines = [
        f"{a:.4f},{'abc'[k]},{3 * a + k + n:.4f},{'yes' if a + n > 0.5 else 'no'}"
        for a, k, n in zip(x, c, rng.normal(0, 0.1, 1009), strict=True)
    ]
    (tmp_path / "t.csv").write_text("x,c,value,label\n" + "\n".join(lines))
    for target, other, metrics in [("value", "label", ""), ("label", "value", "val_roc_auc, val_average_precision")]:
        text = TABLE.replace("TARGET", target).replace("OTHER", other).replace("METRICS", metrics)
        (tmp_path / "c.yaml").write_text(text)
        run = train(load_config(tmp_path / "c.yaml"), runs_dir=tmp_path / f"runs-{target}").run.path
        alone = run_cli(tmp_path, "eval", str(run), "--json", "-q", "--no-plots", "--output", "out")
        shared = run_cli(tmp_path, "eval", str(run), "--json", "-q", "--no-plots", "--output", "out", "--nproc", "2")
        assert shared.returncode == 0, shared.stderr
        assert shared.stdout == alone.stdout
        assert (
            json.loads((tmp_path / "out" / "eval.json").read_text())["metrics"] == json.loads(alone.stdout)["metrics"]
        )

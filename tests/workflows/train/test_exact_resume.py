"""A run that is stopped and resumed is bitwise the run that was left alone: weights, optimizer, best, log, scores."""

import random
import shutil

import pytest
import torch
from engine_runs import CNN, FINE_TUNED, MLP, STEPS, Said, differences, load, train_with_stops
from no_room import leave_no_room_for_images

from trainkit.recorders.logs import read_json_lines
from trainkit.system.frontend import Frontend
from trainkit.system.run_folder import newest_run
from trainkit.workflows.train.run import train

pytestmark = pytest.mark.usefixtures("fast_runs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that is left alone, by config; made once."""
    runs = {}

    def get(text, *overrides):
        key = (text, overrides)
        if key not in runs:
            folder = tmp_path_factory.mktemp("whole")
            runs[key] = train_with_stops(load(folder, text, *overrides), folder / "runs")
        return runs[key]

    return get


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_stopped_at_each_step(tmp_path, whole, step):
    run = train_with_stops(load(tmp_path, CNN), tmp_path / "runs", [step])
    assert differences(whole(CNN), run) == []


@pytest.mark.parametrize("stops", [[4], [5], [6], [11, 12, 13]])
def test_stopped_around_what_is_unfrozen(tmp_path, whole, stops):
    run = train_with_stops(load(tmp_path, FINE_TUNED), tmp_path / "runs", stops)
    assert differences(whole(FINE_TUNED), run) == []


def test_another_run_differs(tmp_path, whole):
    """The comparison can fail: one more training sample or another seed is another run."""
    other = train_with_stops(load(tmp_path, CNN, "seed=1"), tmp_path / "runs")
    found = differences(whole(CNN), other)
    assert {"newest model", "newest optimizer", "best model", "metrics.jsonl", "scores"} <= set(found)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_compiled(tmp_path):
    """Stopped after the first ragged batch, for which the whole run has compiled a second time."""
    text = """
dataset: {type: synthetic, problem: {type: blobs, num_features: 13}, num_samples: 95, test_fraction: 0.1}
transforms: [standardize]
model: {type: mlp, hidden_sizes: [64, 32], norm: batch}
training: {epochs: 3, batch_size: 10, compile: true}
logging: {every: 1, plots: false}
"""
    runs = []
    for stops in ([], [10]):
        # Each start is one in a new process: nothing is compiled yet.
        folder = tmp_path / f"runs{len(runs)}"
        runs.append(train_with_stops(load(tmp_path, text), folder, stops, before=torch.compiler.reset))
    assert "compile failed" not in runs[0].log.read_text()
    assert differences(*runs) == []


def test_a_chain_of_ten_stops(tmp_path, whole):
    run = train_with_stops(load(tmp_path, CNN), tmp_path / "runs", [1, 2, 5, 7, 8, 11, 14, 15, 20, 21])
    assert differences(whole(CNN), run) == []


SGD = "optimizer={type: sgd, lr: 0.05, momentum: 0.9, nesterov: true}"
EMA = "training.ema={decay: 0.9}"
CLIP = "training.clip_grad_norm=0.5"
PARTS = "training.accumulation_steps=3"
PATIENCE = "training.early_stopping={patience: 2, min_delta: 1.0}"
PLATEAU = "scheduler={type: reduce_on_plateau, patience: 0, threshold: 0.5, factor: 0.5}"
BF16 = "training.precision=bf16"

COMBINATIONS = [
    (SGD, "scheduler={type: step, step_size: 4st, gamma: 0.5}", EMA),
    (SGD, "scheduler={type: one_cycle}", CLIP),
    ("optimizer=adamw", "scheduler={type: cosine, warmup: 5st}", EMA, PARTS),
    ("optimizer=adam", "scheduler={type: one_cycle}", PATIENCE),
    ("optimizer={type: nadam, weight_decay: 0.1, decoupled_weight_decay: true}", "scheduler={type: one_cycle}", EMA),
    ("optimizer={type: radam, weight_decay: 0.1, decoupled_weight_decay: true}", "scheduler={type: one_cycle}", CLIP),
    ("optimizer=adafactor", EMA, PARTS),
    ("optimizer=muon", "model.hidden_sizes=[16, 12, 8]", "scheduler={type: one_cycle}", EMA),
    ("optimizer=rmsprop", PLATEAU, "training.clip_grad_value=0.01"),
    ("optimizer=adagrad", "scheduler={type: exponential, gamma: 0.5}", BF16),
    (SGD, PLATEAU, EMA, PATIENCE),
    (SGD, "training.early_stopping={patience: 1}", "dataset.val_fraction=0.01"),  # epochs of equal accuracy
    ("optimizer={type: adam, amsgrad: true}", "scheduler={type: multi_step, milestones: [3st, 2ep]}", CLIP),
    ("optimizer={type: lbfgs, lr: 0.3, max_iter: 3, history_size: 4}", "training.batch_size=200", EMA),
    (SGD, "training.on_non_finite=skip", BF16, PARTS),
    ("checkpoint.monitor=train_loss", "dataset.val_fraction=0", EMA),
    (
        "training.mix={type: mixup_cutmix, p: 0.8, off_for_last: 5st}",
        EMA,
        PARTS,
        "training.sampler={type: balanced, power: 0.5}",
    ),
    ("training.average={type: swa, start: 50%, every: 3st}", "model.norm=batch", PARTS),
    ("training.shuffle=false", "training.drop_last=true", "checkpoint.every=2st", "checkpoint.keep_last=1"),
]
SLOW_COMBINATIONS = [
    (optimizer, scheduler, extra)
    for optimizer, scheduler, extra in zip(
        ["optimizer=adamw", SGD, "optimizer=adam", "optimizer=rmsprop", "optimizer=adagrad"] * 5,
        [
            "scheduler=cosine",
            "scheduler={type: one_cycle, cycle_momentum: false}",
            PLATEAU,
            "scheduler={type: step, step_size: 1ep}",
            "scheduler={type: exponential}",
            "scheduler={type: multi_step, milestones: [1ep, 11st], warmup: 3st}",
        ]
        * 4
        + ["scheduler=constant"],
        [EMA, CLIP, PARTS, PATIENCE, BF16, "checkpoint.every=3st", "checkpoint.monitor=val_loss"] * 3
        + [EMA, CLIP, PARTS, BF16],
        strict=True,
    )
]


def check_combination(tmp_path, text, overrides, *, stops):
    whole = train_with_stops(load(tmp_path, text, *overrides), tmp_path / "whole")
    steps = max(record["step"] for record in read_json_lines(whole.metrics))  # fewer where it stops early
    run = train_with_stops(load(tmp_path, text, *overrides), tmp_path / "runs", [s for s in stops if s <= steps])
    assert differences(whole, run) == []


@pytest.mark.parametrize("overrides", COMBINATIONS, ids=" ".join)
def test_combinations(tmp_path, overrides):
    check_combination(tmp_path, MLP, overrides, stops=[4, 7, 12, 17])


@pytest.mark.slow
@pytest.mark.parametrize("overrides", SLOW_COMBINATIONS, ids=" ".join)
def test_more_combinations(tmp_path, overrides):
    rng = random.Random(" ".join(overrides))
    check_combination(tmp_path, CNN, overrides, stops=sorted(rng.sample(range(1, STEPS + 1), rng.randint(1, 10))))


@pytest.fixture
def image_files(tmp_path):
    """90 PNGs in 3 classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in range(3):
        folder = tmp_path / "images" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8) // 2 + 40 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 2)])
def test_data_workers_on_either_side(tmp_path, image_files, monkeypatch, before, after):
    """Files that are decoded while training: their number of processes does not matter, and may change at a resume."""
    leave_no_room_for_images(monkeypatch)
    data = f"{{type: image_folder, root: {image_files}, color: gray, val_fraction: 0.2, test_fraction: 0.0}}"
    text = CNN.replace("{type: digits, val_fraction: 0.1, test_fraction: 0.2}", data).replace(
        "epochs: 3, batch_size: 200", "epochs: 2, batch_size: 20"
    )
    messages = Said()
    train(load(tmp_path, text), runs_dir=tmp_path / "whole", frontend=Frontend(say=messages.append))
    whole = newest_run(tmp_path / "whole")
    assert "images are decoded while training, by no extra processes" in messages
    loaded = load(tmp_path, text, f"training.num_workers={before}")
    run = train_with_stops(loaded, tmp_path / "runs", [3], between=[[f"training.num_workers={after}"]])
    assert differences(whole, run) == []

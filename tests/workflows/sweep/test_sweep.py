"""Whole sweeps as commands: what is in the folder, that the best is trained again exactly, and kills of everything."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sweeps
from engine_runs import differences

from trainkit.checkpoints import CheckpointFolder, load_checkpoint
from trainkit.config import load_sweep
from trainkit.errors import UserError
from trainkit.system import RunDir
from trainkit.workflows.sweep import sweep
from trainkit.workflows.sweep.runner import score_of

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("TRAINKIT_SWEEP_TRIALS", "4"))
KILLS = int(os.environ.get("TRAINKIT_SWEEP_KILLS", "2"))
"""The figures of benchmarks/README.md are with 12 trials and 20 kills."""
RANDOM = f"sampler: random\nbudget: {{trials: {COUNT}}}\nparallel: {{trials: 2}}\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A random search of which nobody disturbed anything."""
    folder = sweeps.write_sweep(tmp_path_factory.mktemp("whole"), RANDOM)
    folder.joinpath("result.json").write_text(json.dumps(sweeps.run(folder)))
    return folder


ASHA = """sampler: {type: tpe, startup: 2}
pruner: {type: asha, min: 1, reduction: 2}
budget: {trials: 5}
confirm: {top: 2, seeds: 2}
"""


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """Successive halving, one trial at a time, of which nobody disturbed anything."""
    folder = sweeps.write_sweep(tmp_path_factory.mktemp("halved"), ASHA)
    folder.joinpath("result.json").write_text(json.dumps(sweeps.run(folder)))
    return folder


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def train_best(folder):
    """Train best.yaml; returns what is printed."""
    command = [sys.executable, "-m", "trainkit", "train", "sweeps/search/best.yaml", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_folder_and_the_best_config(whole):
    result, folder = result_of(whole), whole / "sweeps" / "search"
    assert (folder / "sweep.yaml").read_text() == (whole / "search.yaml").read_text()
    assert [one["state"] for one in result["trials"]] == ["complete"] * COUNT
    runs = sweeps.trial_runs(whole)
    assert sorted(runs) == [f"search-{number:03d}" for number in range(COUNT)]
    scores = [score_of(runs[f"search-{one['number']:03d}"], "val_accuracy") for one in result["trials"]]
    assert [one["score"] for one in result["trials"]] == scores
    assert (result["score"], result["best"]) == (max(scores), scores.index(max(scores)))
    assert train_best(whole)["metrics"]["val"]["accuracy"] == result["score"]


def test_the_same_command_has_nothing_left_to_do_and_another_sweep_is_refused(whole, monkeypatch):
    monkeypatch.chdir(whole)
    again = sweep(load_sweep("search.yaml"))
    assert [one.score for one in again.trials] == [one["score"] for one in result_of(whole)["trials"]]
    assert len(sweeps.trial_runs(whole)) == COUNT
    text = (whole / "search.yaml").read_text()
    (whole / "search.yaml").write_text(text.replace("[0.003, 0.3]", "[0.003, 0.4]"))
    with pytest.raises(UserError, match=r"search.optimizer.lr.* was \[0.003, 0.3\], and is \[0.003, 0.4\] now"):
        sweep(load_sweep("search.yaml"))
    (whole / "search.yaml").write_text(text.replace("val_accuracy", "val_f1_macro"))
    with pytest.raises(UserError, match="began with other settings: objective was 'val_accuracy', and is 'val_f1_m"):
        sweep(load_sweep("search.yaml"))
    (whole / "search.yaml").write_text(text)


def test_kills_of_everything_lose_nothing(whole, tmp_path):
    folder, rng = sweeps.write_sweep(tmp_path, RANDOM), random.Random(0)
    hits = sweeps.kill_at_random(folder, rng, kills=KILLS, seconds=1.5)
    print(f"{hits} of {KILLS} kills hit the sweep")
    assert hits >= KILLS // 2, "the sweep is over too soon to be killed"
    result = sweeps.run(folder)
    undisturbed = {one["number"]: one for one in result_of(whole)["trials"]}
    assert [one["number"] for one in result["trials"]] == list(range(COUNT))
    expected = sweeps.trial_runs(whole)
    for name, run in sweeps.trial_runs(folder).items():
        assert not differences(run, expected[name]), name
        steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines() if '"epoch"' in line]
        assert len(steps) == len(set(steps)), "an epoch was written down twice"
    for one in result["trials"]:
        assert (one["values"], one["score"]) == (
            undisturbed[one["number"]]["values"],
            undisturbed[one["number"]]["score"],
        )


def test_a_promoted_trial_goes_on_bit_for_bit(halved):
    result = result_of(halved)
    states = [one["state"] for one in result["trials"]]
    assert states.count("complete") >= 1
    assert states.count("paused") >= 2
    epochs = [one["epochs"] for one in result["trials"]]
    assert set(epochs) <= {1, 2, 3}
    assert sum(epochs) < 12
    again = train_best(halved)
    assert again["metrics"]["val"]["accuracy"] == result["score"]
    winner = sweeps.trial_runs(halved)[f"search-{result['best']:03d}"]
    assert sweeps.parts_of(winner) > 1, "it was never paused"
    assert not differences(winner, RunDir(halved / again["run"]))


def test_fresh_seeds_are_trained_once(halved):
    confirmed = result_of(halved)["confirmed"]
    complete = [one for one in result_of(halved)["trials"] if one["state"] == "complete"]
    assert len(confirmed) == min(2, len(complete))
    assert all(list(one["scores"]) == ["1", "2"] for one in confirmed)
    assert result_of(halved)["best"] == confirmed[0]["number"]
    runs = sweeps.trial_runs(halved)
    assert sum("seed" in name for name in runs) == 2 * len(confirmed)


def test_a_killed_search_by_tpe_ends_as_it_would_have(halved, tmp_path):
    folder, rng = sweeps.write_sweep(tmp_path, ASHA), random.Random(1)
    assert sweeps.kill_at_random(folder, rng, kills=1, seconds=4) == 1
    result = sweeps.run(folder)
    for key in ("values", "state", "score", "epochs"):
        assert [one[key] for one in result["trials"]] == [one[key] for one in result_of(halved)["trials"]], key
    assert result["verdict"] == result_of(halved)["verdict"]
    expected = sweeps.trial_runs(halved)
    for name, run in sweeps.trial_runs(folder).items():
        assert not differences(run, expected[name]), name


FAILING = """sampler: grid
parallel: {trials: 2}
"""


def test_trials_that_fail_are_recorded_and_a_stop_saves_every_trial(tmp_path):
    folder = sweeps.write_sweep(tmp_path, FAILING)
    text = (folder / "search.yaml").read_text()
    search = "search:\n  optimizer.lr: {choice: [0.1, 1.0e+30]}\n  training.epochs: {choice: [2, 3000]}\n"
    (folder / "search.yaml").write_text(text.replace(sweeps.SEARCH.strip("\n"), search))
    process = sweeps.start(folder)
    # The first trial ends, two fail, and the one of 3000 epochs is left.
    wait_for(lambda: "search-003: failed" in sweeps.output(folder), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    said = sweeps.output(folder)
    assert re.search(r"search-000: val_accuracy 0\.\d+", said)
    assert re.search(r"search-002: failed: step 2: the loss is nan", said)
    stopped = re.search(r"search-001: stopped after (\d+) epochs?", said)
    assert "every trial has saved its state; to go on: trainkit sweep search.yaml" in said
    run = sweeps.trial_runs(folder)["search-001"]
    assert run.status() == "interrupted"
    saved = load_checkpoint(CheckpointFolder(run.checkpoints).last())
    assert saved["progress"]["epochs_completed"] == int(stopped[1])


def test_other_data_are_refused(tmp_path, monkeypatch):
    """Scores on them are not compared with those of the trials before."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{number % 7},{number % 3 * 1.5},{'yes' if number % 7 > 3 else 'no'}\n" for number in range(60)]
    Path("t.csv").write_text("".join(["a,b,y\n", *rows]))
    Path("t.yaml").write_text("dataset: {type: table, path: t.csv, target: y}\nmodel: {type: mlp, hidden_sizes: [4]}\n")
    text = "config: t.yaml\nset: {training.epochs: 1}\nobjective: val_loss\nbudget: {trials: 1}\nsampler: random\n"
    Path("s.yaml").write_text(text + "search: {optimizer.lr: {uniform: [0.01, 0.1]}}\n")
    assert len(sweep(load_sweep("s.yaml")).trials) == 1
    Path("s.yaml").write_text(Path("s.yaml").read_text().replace("trials: 1", "trials: 2"))
    Path("t.csv").write_text("".join(["a,b,y\n", *rows[:50]]))
    with pytest.raises(UserError, match=r"sweeps/s: the data are not those that this sweep began with: .* 60 samples"):
        sweep(load_sweep("s.yaml"))
    Path("t.csv").write_text("".join(["a,b,y\n", *rows]))
    assert len(sweep(load_sweep("s.yaml")).trials) == 2


def wait_for(ready, process, seconds=180):
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, "the sweep ended too early"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)

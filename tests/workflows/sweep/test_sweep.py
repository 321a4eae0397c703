"""Whole sweeps as commands: what is in the folder, that the best is trained again exactly, and kills of everything."""

import json
import os
import random
import subprocess
import sys

import pytest
import sweeps
from engine_runs import differences

from trainkit.workflows.sweep.runner import score_of

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("TRAINKIT_SWEEP_TRIALS", "5"))
KILLS = int(os.environ.get("TRAINKIT_SWEEP_KILLS", "3"))
"""The figures of benchmarks/README.md are with 12 trials and 20 kills."""
RANDOM = f"sampler: random\nbudget: {{trials: {COUNT}}}\nparallel: {{trials: 2}}\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A random search of which nobody disturbed anything."""
    folder = sweeps.write_sweep(tmp_path_factory.mktemp("whole"), RANDOM)
    folder.joinpath("result.json").write_text(json.dumps(sweeps.run(folder)))
    return folder


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_folder_and_the_best_config(whole):
    result, folder = result_of(whole), whole / "sweeps" / "search"
    assert (folder / "sweep.yaml").read_text() == (whole / "search.yaml").read_text()
    assert [one["state"] for one in result["trials"]] == ["complete"] * COUNT
    runs = sweeps.trial_runs(whole)
    assert sorted(runs) == [f"search-{number:03d}" for number in range(COUNT)]
    scores = [score_of(runs[f"search-{one['number']:03d}"], "val_accuracy") for one in result["trials"]]
    assert [one["score"] for one in result["trials"]] == scores
    assert (result["score"], result["best"]) == (max(scores), scores.index(max(scores)))
    command = [sys.executable, "-m", "trainkit", "train", "sweeps/search/best.yaml", "--json"]
    again = subprocess.run(command, cwd=whole, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["metrics"]["val"]["accuracy"] == result["score"]


def test_the_same_command_has_nothing_left_to_do_and_another_sweep_is_refused(whole):
    assert sweeps.run(whole)["trials"] == result_of(whole)["trials"]
    assert len(sweeps.trial_runs(whole)) == COUNT
    text = (whole / "search.yaml").read_text()
    (whole / "search.yaml").write_text(text.replace("[0.003, 0.3]", "[0.003, 0.4]"))
    with pytest.raises(AssertionError, match=r"search.optimizer.lr.* was \[0.003, 0.3\], and is \[0.003, 0.4\] now"):
        sweeps.run(whole)
    (whole / "search.yaml").write_text(text)


def test_kills_of_everything_lose_nothing(whole, tmp_path):
    folder, rng = sweeps.write_sweep(tmp_path, RANDOM), random.Random(0)
    seconds = tuple(map(float, os.environ.get("TRAINKIT_SWEEP_SECONDS", "5,12").split(",")))
    hits = sweeps.kill_at_random(folder, rng, kills=KILLS, seconds=seconds)
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

"""``kill -9`` of real training runs, at named points of saving and at random times: nothing that was saved is lost.

Each run is killed several times, resumed each time, and ends bitwise equal to one that was left alone. The children are
forks of a process that has imported torch; each is the command line in a process of its own.
"""

import random
import signal
from pathlib import Path

import file_layers
import numpy as np
import pytest
from engine_runs import FINE_TUNED, MLP, differences
from PIL import Image
from real_processes import ForkServer

from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.checkpoints.verification import verify
from trainkit.errors import TrainkitError
from trainkit.system.run_folder import RunDir, newest_run

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")

POINTS = [
    *file_layers.CRASH_POINTS,
    "before-replace-run.json",
    "after-replace-run.json",
    "during-write-metrics.jsonl",
    "before-fsync-metrics.jsonl",
    "before-replace-config.resolved.yaml",
]
SAVE_OFTEN = ["checkpoint.every=3st", "checkpoint.keep_last=1", "training.ema={decay: 0.9}"]


@pytest.fixture(scope="module")
def server():
    one = ForkServer()
    yield one
    one.close()


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory) -> RunDir:
    """The run that is left alone."""
    folder = tmp_path_factory.mktemp("whole")
    write_config(folder)
    ended = server.trainkit(*command(), cwd=folder)
    assert ended.code == 0, ended.output
    return newest_run(folder / "runs")


def write_config(folder: Path, text: str = MLP) -> None:
    (folder / "config.yaml").write_text(text)


def command() -> list[str]:
    return ["train", "config.yaml", "--resume", "auto", *(word for item in SAVE_OFTEN for word in ("--set", item))]


def problems_of(folder: Path) -> list[str]:
    """What a kill has harmed: a checkpoint that was announced and is lost, a half file that looks whole."""
    run = newest_run(folder / "runs")
    said = [int(line) for line in (folder / "said.txt").read_text().split()] if (folder / "said.txt").exists() else []
    if run is None:
        return [f"step {said[-1]} was saved, and there is no run"] if said else []
    problems = [str(verdict) for verdict in verify(run.path) if verdict.word == "BAD"]
    checkpoints = CheckpointFolder(run.checkpoints)
    try:
        newest, skipped = checkpoints.newest_good()
    except TrainkitError as error:
        return [*problems, str(error)]
    problems += [f"damaged: {path}" for path, _ in skipped]
    steps = {entry.name: entry.step for entry in checkpoints.entries()}
    if said and (newest is None or steps[newest.name] < said[-1]):
        problems.append(f"step {said[-1]} was saved, and {newest} is the newest")
    return problems


def kill_again_and_again(server, folder: Path, rng: random.Random, *, kills: int, naive=False) -> tuple[int, list[str]]:
    """Kill one run up to ``kills`` times, half of them at named points. Returns (kills that hit, what they harmed)."""
    write_config(folder)
    hits, problems = 0, []
    for number in range(kills):
        if number % 2:
            point = f"{rng.choice(POINTS)}#{rng.randint(1, 3)}"
            ended = server.trainkit(*command(), cwd=folder, crash=point, naive=naive)
        else:
            ended = server.trainkit(*command(), cwd=folder, seconds=rng.uniform(0.05, 0.5), naive=naive)
        if ended.code == 0:
            break
        if ended.code != -signal.SIGKILL:
            return hits, [*problems, f"ended with {ended.code}: {ended.output}"]
        hits += 1
        problems += problems_of(folder)
        if is_finished(folder):
            break
    return hits, problems


def is_finished(folder: Path) -> bool:
    run = newest_run(folder / "runs")
    return run is not None and run.status() == "finished"


def check_kills(server, whole: RunDir, folder: Path, *, seed: int, num_kills: int) -> None:
    rng = random.Random(seed)
    hits = runs = 0
    while hits < num_kills:
        runs += 1
        place = folder / str(runs)
        place.mkdir()
        found, problems = kill_again_and_again(server, place, rng, kills=min(6, num_kills - hits))
        assert problems == []
        if not is_finished(place):
            ended = server.trainkit(*command(), cwd=place)
            assert ended.code == 0, ended.output
        assert differences(whole, newest_run(place / "runs")) == []
        hits += found
    assert hits == num_kills


@pytest.mark.slow
def test_killed_25_times(server, whole, tmp_path):
    check_kills(server, whole, tmp_path, seed=0, num_kills=25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_killed_200_times(server, whole, tmp_path, seed):
    check_kills(server, whole, tmp_path, seed=seed, num_kills=25)


def test_a_naive_writer_is_caught(server, tmp_path):
    """Deletes first, writes to the final name: the same kills find half files and lost checkpoints."""
    points = ["during-write-checkpoint#2", "before-write-checkpoint#3", "during-write-journal#2"]
    problems = []
    for number, point in enumerate(points):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_config(folder)
        assert server.trainkit(*command(), cwd=folder, crash=point, naive=True).code == -signal.SIGKILL
        problems.append(problems_of(folder))
    assert all(problems), problems


AUGMENTED = """
name: augmented
dataset: {{type: image_folder, root: {root}, val_fraction: 0.2, test_fraction: 0.1}}
transforms:
  - {{type: random_resized_crop, size: [16, 12], scale: [0.4, 1.0]}}
  - random_horizontal_flip
  - trivial_augment
  - {{type: rand_augment, num_ops: 1}}
  - normalize
model: {{type: cnn, blocks: [{{channels: 4, pool: 2}}], norm: batch, dropout: 0.2, global_pool: avg}}
optimizer: {{type: adam, lr: 0.02}}
training:
  epochs: 3
  batch_size: 9
  num_threads: 2
  precision: fp32
  mix: {{type: mixup_cutmix, p: 0.8, off_for_last: 2st}}
  sampler: balanced
  average: {{type: swa, start: 40%, every: 2st}}
logging: {{every: 1, plots: false}}
export: {{torchscript: false}}
device: cpu
"""


def check_kills_at_saves(server, folder: Path, text: str = FINE_TUNED, *overrides: str, saves: list[int]) -> None:
    """Kill a run that saves after each step in the middle of these saves, and compare what it becomes."""
    every = [word for item in ("checkpoint.every=1st", *overrides) for word in ("--set", item)]
    runs = []
    for name, points in {"whole": [], "killed": saves}.items():
        place = folder / name
        place.mkdir(parents=True)
        write_config(place, text)
        for number, save in enumerate(points):
            before = points[number - 1] - 1 if number else 0  # what that kill has left
            crash = f"during-write-checkpoint#{save - before}"
            assert server.trainkit(*command(), *every, cwd=place, crash=crash).code == -signal.SIGKILL
            assert problems_of(place) == []
        ended = server.trainkit(*command(), *every, cwd=place)
        assert ended.code == 0, ended.output
        runs.append(newest_run(place / "runs"))
    assert differences(*runs) == []


def test_killed_3_times_around_what_is_unfrozen(server, tmp_path):
    check_kills_at_saves(server, tmp_path, saves=[5, 6, 13])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_20_times_around_what_is_unfrozen(server, tmp_path, seed):
    rng = random.Random(seed)
    check_kills_at_saves(server, tmp_path, saves=sorted([*rng.sample(range(3, 9), 3), *rng.sample(range(10, 16), 2)]))


@pytest.mark.slow
def test_killed_in_an_epoch_with_all_that_augments(server, tmp_path):
    """Crops of own sizes, policies, mixing, balanced sampling and the mean of the weights."""
    rng = np.random.default_rng(0)
    for index in range(50):
        folder = tmp_path / "photos" / ("a" if index % 5 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (*rng.integers(14, 50, 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    text = AUGMENTED.format(root=tmp_path / "photos")
    check_kills_at_saves(server, tmp_path / "runs", text, "training.ema=null", saves=[2, 6, 7, 11])

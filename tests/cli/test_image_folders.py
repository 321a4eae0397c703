"""Image folders as people have them, from the command line: what is printed, and the right accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from trainkit.cli.app import app
from trainkit.errors import UserError

JOINED = "\u0633\u06cc\u0628\u200c\u0632\u0645\u06cc\u0646\u06cc"  # with a zero-width non-joiner
SPACED = "\u6771\u4eac\u3000\u30bf\u30ef\u30fc"  # with an ideographic space


def write_images(root: Path, folders: dict[str, tuple[int, int]]) -> Path:
    """``{"train/a": (20, 60)}``: twenty images of noise around the gray level 60."""
    rng = np.random.default_rng(0)
    for name, (count, level) in folders.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(rng.normal(level, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:03}.png")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def config(root: Path, folder: Path, *, epochs: int = 15) -> Path:
    path = folder / "c.yaml"
    path.write_text(
        f"name: t\ndataset: {{type: image_folder, root: {root}}}\n"
        "model: {type: cnn, blocks: [{channels: 8}]}\noptimizer: {type: adam, lr: 0.01}\n"
        f"training: {{epochs: {epochs}, batch_size: 16}}\nexport: {{torchscript: false}}\n"
    )
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_split_names(place: Path) -> None:
    splits = {"Training": 20, "Testing": 10}
    layout = {
        f"{split}/{name}": (n, level)
        for split, n in splits.items()
        for name, level in (("glioma", 60), ("healthy", 200))
    }
    path = config(write_images(place / "images", layout), place)
    checked = run("check", path)
    assert checked.exit_code == 0, checked.output
    assert "splits: train from Training, test from Testing" in checked.stdout
    assert "  classes          glioma 18/2/10, healthy 18/2/10 (train/val/test)\n" in checked.stdout
    trained = run("train", path)
    assert trained.exit_code == 0, trained.output
    assert "note: splits: train from Training, test from Testing" in trained.stderr
    assert "classes: glioma 18/2/10, healthy 18/2/10 (train/val/test)" in trained.stderr
    scored = json.loads(run("eval", "--json", "--no-plots").stdout)
    assert (scored["split"], scored["num_samples"], scored["metrics"]["accuracy"]) == ("test", 20, 1.0)


def test_own_validation(place: Path) -> None:
    splits = {"train": 20, "valid": 10, "test": 10}
    layout = {f"{split}/{name}": (n, level) for split, n in splits.items() for name, level in (("a", 60), ("b", 200))}
    checked = json.loads(run("check", config(write_images(place / "images", layout), place), "--json").stdout)
    assert checked["data"]["splits"] == {"train": 40, "val": 20, "test": 20}
    assert checked["data"]["class_counts"] == {"train": [20, 20], "val": [10, 10], "test": [10, 10]}
    assert checked["notes"][0] == "splits: train from train, val from valid, test from test"
    assert [note.partition("; ")[0] for note in checked["notes"][1:]] == [
        "of 80 image files the header and the end were read, and 24 were decoded"
    ]


def test_flat_test(place: Path) -> None:
    root = write_images(place / "images", {"train/a": (20, 60), "train/b": (20, 200), "test": (10, 130)})
    trained = run("train", config(root, place, epochs=2))
    assert trained.exit_code == 0, trained.output
    assert f"note: {root}/test has 10 images and no class folders: they are unlabeled" in trained.stderr
    [trained_run] = (place / "runs").iterdir()
    answers = json.loads(run("predict", trained_run, root / "test", "--json").stdout)["predictions"]
    assert len(answers) == 10
    assert {answer["label"] for answer in answers} <= {"a", "b"}


def test_competition(place: Path) -> None:
    root = write_images(place / "images", {"train": (20, 100), "test1": (20, 100)})
    for command in ("check", "train"):
        error = run(command, config(root, place)).exception
        assert isinstance(error, UserError)
        assert error.exit_code == 2
        assert f"c.yaml:2:37: dataset.root: {root} has train and test1, which look like splits" in str(error)
        assert f"put the images of each class into a folder of its own, such as {root}/train/cat" in str(error)
    assert not (place / "runs").exists()


def test_joiners(place: Path) -> None:
    path = config(write_images(place / "images", {JOINED: (20, 60), SPACED: (20, 200)}), place)
    checked = run("check", path)
    assert checked.exit_code == 0, checked.output
    assert f"{JOINED} 14/2/4, {SPACED} 15/1/4 (train/val/test)" in checked.stdout
    trained = run("train", path)
    assert trained.exit_code == 0, trained.output
    scored = json.loads(run("eval", "--json", "--no-plots").stdout)
    assert scored["class_names"] == [JOINED, SPACED]
    assert scored["metrics"]["accuracy"] == 1.0


def test_one_class_to_score(place: Path) -> None:
    levels = {"a": 40, "b": 128, "c": 220}
    root = write_images(place / "train_on", {name: (20, level) for name, level in levels.items()})
    trained = run("train", config(root, place))
    assert trained.exit_code == 0, trained.output
    other = write_images(place / "score_on", {"c": (10, 220)})
    (other / "b").mkdir()
    scored = run("eval", "--data", other, "--json", "--no-plots")
    assert scored.exit_code == 0, scored.output
    assert "note: no samples of 'a', 'b'; labels go by name" in scored.stderr
    result = json.loads(scored.stdout)
    assert (result["num_samples"], result["metrics"]["accuracy"]) == (10, 1.0)
    assert [row["support"] for row in result["per_class"]] == [0, 0, 10]


def test_the_first_ten_classes_are_printed(place: Path) -> None:
    root = write_images(place / "images", {str(number): (10, 20 * number) for number in range(12)})
    checked = run("check", config(root, place))
    assert "  classes          0 7/1/2, 1 7/1/2, 10 7/1/2, 11 7/1/2, 2 7/1/2, " in checked.stdout
    assert ", 7 7/1/2 and 2 more (train/val/test)\n" in checked.stdout


def test_a_class_that_a_split_has_no_room_for(place: Path) -> None:
    root = write_images(place / "images", {f"c{number:02}": (5, 20 * number) for number in range(10)})
    path = config(root, place)
    checked = run("check", path)
    assert "classes          c00 4/0/1, " in checked.stdout or "classes          c00 3/1/1, " in checked.stdout
    note = "add samples, or raise dataset.val_fraction to 0.17 (the seed decides which classes are in it now): "
    assert f"{note}the val split has no sample of c0" in checked.stdout
    again = run("check", path, "--set", "dataset.val_fraction=0.17")
    assert "has no sample of" not in again.stdout
    assert "c00 3/1/1" in again.stdout

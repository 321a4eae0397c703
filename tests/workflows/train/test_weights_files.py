"""The file of weights that a run begins with: pinned by its hash, needed once, refused before anything is written."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from audit import CONNECTS, noticed
from engine_runs import Said, StopAt, differences, frontend, train_with_stops
from hostile_files import Payload
from PIL import Image
from torchvision import models

from trainkit.api import evaluate, export
from trainkit.checkpoints import load_checkpoint
from trainkit.config import LoadedConfig, load_config
from trainkit.errors import ConfigError, Interrupted, UserError
from trainkit.system import Frontend, list_runs
from trainkit.workflows.check import check
from trainkit.workflows.predict import predict
from trainkit.workflows.train.run import resume, train

CONFIG = """
name: tiny
dataset: {type: image_folder, root: pictures}
transforms: [{type: resize, size: [40, 40]}, normalize]
model: {type: torchvision, name: mobilenet_v3_small, weights: WEIGHTS}
optimizer: {type: sgd, lr: 0.01}
training: {epochs: 2, batch_size: 8, precision: fp32}
logging: {every: 1, plots: false}
device: cpu
"""


@pytest.fixture
def folder(tmp_path: Path, fast_runs: None) -> Path:
    """Pictures of two classes, and weights with the right hash in the name of their file."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for channel, name in enumerate(("a", "b")):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] //= 3
                Image.fromarray(pixels).save(tmp_path / "pictures" / split / name / f"{index}.png")
    write_weights(tmp_path)
    return tmp_path


def write_weights(folder: Path, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    plain = folder / "plain.pth"
    torch.save(models.mobilenet_v3_small().state_dict(), plain)
    return plain.rename(folder / f"small-{sha256(plain)[:8]}.pth")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_of(folder: Path) -> Path:
    return next(folder.glob("small-*.pth"))


def load(folder: Path, weights: str | None = None, *overrides: str) -> LoadedConfig:
    path = folder / "config.yaml"
    path.write_text(CONFIG.replace("WEIGHTS", weights or file_of(folder).name))
    return load_config(path, overrides=overrides)


def test_a_run_says_which_file_it_began_with_and_its_resolved_config_repeats_it(folder):
    first = train_with_stops(load(folder), folder / "runs")
    file, digest = file_of(folder), sha256(file_of(folder))
    pin = {"library": "file", "name": "mobilenet_v3_small", "weights": str(file), "file": file.name}
    pin |= {"sha256": digest, "size": file.stat().st_size, "revision": None}
    saved = load_checkpoint(first.checkpoints / "best")
    assert first.read_info()["pretrained"] == saved["pretrained"] == pin
    assert yaml.safe_load(first.resolved_config.read_text())["model"]["sha256"] == digest
    assert saved["config"]["model"]["sha256"] == digest
    again = train_with_stops(load_config(first.resolved_config), folder / "again")
    assert differences(first, again) == []
    assert again.read_info()["config_hash"] == first.read_info()["config_hash"]


def test_another_file_under_the_name_is_an_error_with_both_hashes(folder):
    """The name says nothing about the hash here, so that only the pin can know."""
    file = file_of(folder).rename(folder / "mine.pth")
    first = train_with_stops(load(folder, "mine.pth"), folder / "runs")
    digest = sha256(file)
    write_weights(folder, seed=2).rename(file)
    other = sha256(file)
    with pytest.raises(ConfigError) as caught:
        train(load_config(first.resolved_config), runs_dir=folder / "again", frontend=frontend())
    message = str(caught.value)
    assert f"{file}: its SHA-256 is {other}, and model.sha256 is {digest}: " in message
    assert message.startswith(f"{first.resolved_config}:")
    assert caught.value.exit_code == 2
    assert not (folder / "again").exists()
    train(load(folder, "mine.pth"), runs_dir=folder / "again", frontend=frontend())


def test_after_the_first_save_nothing_needs_the_file(folder):
    """Stopped after the first of four steps, in the middle of an epoch; then the file is deleted."""
    whole = train_with_stops(load(folder), folder / "whole")

    def remove() -> None:
        if (folder / "stopped").exists():
            for file in folder.glob("small-*.pth"):
                file.rename(folder / "away")

    stopped = train_with_stops(load(folder), folder / "stopped", [1], before=remove)
    assert differences(whole, stopped) == []
    best = stopped.checkpoints / "best"
    with noticed(CONNECTS) as seen:
        assert evaluate(best).num_samples == 4
        assert [one.error for one in predict(best, [str(folder / "pictures/test")])] == [None] * 4
        assert export(best, formats=("safetensors",), output=folder / "bundle").programs
    assert seen == []


def test_a_run_that_is_killed_before_its_first_epoch_ends_goes_on_without_the_file(folder):
    """When the first step is logged, the state before it is saved."""
    kept: list[list[str]] = []

    class Look(StopAt):
        def log(self, record) -> None:
            kept.append([load_checkpoint(path)["progress"] for path in (folder / "runs").rglob("*.pth")])

    front = Frontend(make_display=lambda setup, batches: Look(front, None))
    train(load(folder), runs_dir=folder / "runs", frontend=front)
    assert [progress["steps_completed"] for progress in kept[0]] == [0]


def test_the_config_as_it_was_written_goes_on_with_its_run(folder):
    with pytest.raises(Interrupted):
        train(load(folder), runs_dir=folder / "runs", frontend=frontend(stop_at=3))
    file_of(folder).rename(folder / "away")
    train(load_config(folder / "config.yaml"), runs_dir=folder / "runs", resume="auto", frontend=frontend())
    assert len(list_runs(folder / "runs")) == 1


def test_a_resume_with_another_pin_is_refused(folder):
    run = train_with_stops(load(folder), folder / "runs")
    with pytest.raises(UserError, match=r"model\.sha256: '\w{64}' in the checkpoint, '0{64}' in the config"):
        resume(run.path, runs_dir=folder / "runs", overrides=[f"model.sha256={'0' * 64!r}", "training.epochs=3"])


def no_network(folder: Path) -> dict[str, str]:
    """An environment without one, for processes that keep in the folder what they download."""
    refusing = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    return {**refusing, "no_proxy": "", "TORCH_HOME": str(folder / "torch"), "TRAINKIT_CACHE": str(folder / "cache")}


def test_without_a_network_a_message_says_what_to_put_where_and_nothing_is_written(folder, monkeypatch):
    for name, value in no_network(folder).items():
        monkeypatch.setenv(name, value)
    loaded = load(folder, "default")
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        train(loaded, runs_dir=folder / "runs", frontend=frontend())
    message, hub = str(caught.value), folder / "torch" / "hub" / "checkpoints"
    assert f"mobilenet_v3_small-047dcff4.pth (10 MB) is not in {hub}, and cannot be downloaded from https:" in message
    assert message.startswith(f"{folder / 'config.yaml'}:5:")
    assert message.endswith("put it into that folder")
    assert sorted(folder.rglob("*")) == before


def test_check_says_what_would_be_downloaded_and_opens_no_connection(folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    loaded = load(folder, "default")
    with noticed(CONNECTS) as seen:
        report = check(loaded, runs_dir=folder / "runs")
    assert seen == []
    choice = report.choices["weights"]
    assert choice.value == "IMAGENET1K_V1"
    assert choice.reason == (
        f"default: mobilenet_v3_small-047dcff4.pth (10 MB) is not in {folder / 'torch' / 'hub' / 'checkpoints'} yet: "
        "training downloads it from https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth"
    )
    assert not (folder / "torch").exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("prefix", "its name says 00000bad"),
        ("pin", f"and model.sha256 is {'0' * 64}"),
        ("not finite", "with NaN or infinity: features.0.0.weight"),
        ("no such file", "gone.pth: no such file"),
    ],
)
def test_a_bad_file_is_an_error_before_anything_is_written(folder, kind, words):
    file, overrides = file_of(folder), []
    if kind == "prefix":
        file = file.rename(folder / "small-00000bad.pth")
    elif kind == "pin":
        overrides = [f"model.sha256='{'0' * 64}'"]
    elif kind == "not finite":
        weights = torch.load(file)
        weights["features.0.0.weight"][0, 0, 0, 0] = float("nan")
        torch.save(weights, file)
        file = file.rename(folder / "mine.pth")
    loaded = load(folder, "gone.pth" if kind == "no such file" else file.name, *overrides)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        train(loaded, runs_dir=folder / "runs", frontend=frontend())
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
    assert sorted(folder.rglob("*")) == before


def test_a_payload_ends_with_exit_code_2_and_is_not_run(folder):
    file, canary = file_of(folder), folder / "canary"
    torch.save({"w": Payload(canary.touch)}, file)
    file = file.rename(folder / f"small-{sha256(file)[:8]}.pth")
    load(folder)
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "trainkit", "train", "config.yaml"],
        cwd=folder, env={**os.environ, **no_network(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "it names the Python object" in done.stderr
    assert sorted(folder.rglob("*")) == before
    torch.load(file, weights_only=False)
    assert canary.exists()


def test_the_weights_are_said(folder):
    said = Said()
    train(load(folder), runs_dir=folder / "runs", frontend=frontend(say=said.append))
    assert f"weights: {file_of(folder)} (as asked for; the head is new" in said

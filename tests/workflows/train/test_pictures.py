"""Pictures as people have them: trained on, scored, predicted and exported, to the right value."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch_forks import run_script

from trainkit.api import evaluate, export
from trainkit.checkpoints import load_checkpoint
from trainkit.config import load_config
from trainkit.data.images import quick_look
from trainkit.errors import UserError
from trainkit.system import Frontend
from trainkit.workflows.check import check
from trainkit.workflows.predict import predict
from trainkit.workflows.train.run import TrainResult, resume, train

pytestmark = pytest.mark.usefixtures("fast_runs", "forked_checks")
CONFIG = """
dataset: {{type: image_folder, root: {root}, val_fraction: 0.1, test_fraction: 0.2}}
transforms: [normalize]
model: {{type: cnn, blocks: [{{channels: 8, kernel_size: 3, pool: 2}}], global_pool: avg}}
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 15, batch_size: 16, precision: fp32}}
export: {{torchscript: false}}
device: cpu
"""


def saying(lines: list[str]) -> Frontend:
    return replace(Frontend(), say=lines.append)


def train_on(root: Path, *overrides: str, lines: list[str] | None = None) -> TrainResult:
    path = root.with_suffix(".yaml")
    path.write_text(CONFIG.format(root=root))
    loaded = load_config(path, overrides=overrides)
    return train(loaded, runs_dir=root.parent / "runs", frontend=saying([] if lines is None else lines))


def write(root: Path, make: Callable[[str, int, np.random.Generator], None]) -> Path:
    """40 pictures of each of two classes; ``make`` writes one."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for index in range(40):
            make(name, index, rng)
    return root


def noise(rng: np.random.Generator, name: str, size: int = 16) -> np.ndarray:
    level = 60 if name == "a" else 200
    return np.clip(rng.normal(level, 20, (size, size, 3)), 0, 255).astype(np.uint8)


def test_alpha_only(tmp_path: Path) -> None:
    root = tmp_path / "data"

    def make(name: str, index: int, rng: np.random.Generator) -> None:
        side = 4 if name == "a" else 16
        pixels = np.zeros((32, 32, 4), np.uint8)
        y, x = rng.integers(0, 32 - side, 2)
        pixels[y : y + side, x : x + side, 3] = 255
        Image.fromarray(pixels).save(root / name / f"{index}.png")

    write(root, make)
    lines: list[str] = []
    assert train_on(root, lines=lines).metrics["test"]["accuracy"] == 1
    assert "note: among 80 images: 80 transparent (blended on white)" in lines
    with pytest.raises(UserError, match=r"all 58 training images are the same after decoding \(every pixel is 0\)"):
        train_on(root, "dataset.background=black")


def twelve_bits(root: Path, *, scale: int = 1, suffix: str = ".png", size: int = 16) -> Path:
    def make(name: str, index: int, rng: np.random.Generator) -> None:
        low = 1030 if name == "a" else 1200
        pixels = rng.integers(low, low + 71, (size, size)) * scale
        if scale == 1:
            pixels[0, :2] = low, low + 70
        Image.fromarray(pixels.astype(np.uint16)).save(root / name / f"{index}{suffix}")

    return write(root, make)


def test_twelve_bit(tmp_path: Path) -> None:
    root = twelve_bits(tmp_path / "data")
    lines: list[str] = []
    result = train_on(root, lines=lines)
    assert result.metrics["test"]["accuracy"] == 1
    assert any(line.startswith("note: gray values 1030 to 1270, of more than 8 bits, become 0 to 1") for line in lines)
    stored = load_checkpoint(result.best_checkpoint)["preprocessing"]["pixels"]
    assert stored == {"background": [255, 255, 255], "value_range": [1030, 1270], "allow_8_bit": False}
    assert evaluate(result.best_checkpoint, split="test").metrics["accuracy"] == 1


def test_the_range_of_the_training_holds_for_other_data_and_in_predict(tmp_path: Path) -> None:
    root = twelve_bits(tmp_path / "data")
    result = train_on(root)
    (tmp_path / "other" / "a").mkdir(parents=True)
    for index in range(10):  # in a range of their own half of these were white, as pictures of b are
        pixels = np.full((16, 16), 1040 + 10 * (index % 2), np.uint16)
        Image.fromarray(pixels).save(tmp_path / "other" / "a" / f"{index}.png")
    assert evaluate(result.best_checkpoint, data=tmp_path / "other").metrics["accuracy"] == 1
    answers = list(predict(result.best_checkpoint, [tmp_path / "other", root / "b"], device="cpu"))
    assert [answer.label for answer in answers] == ["a"] * 10 + ["b"] * 40
    array = tmp_path / "x.npy"
    np.save(array, np.full((3, 16, 16), 1240, np.uint16))
    assert [answer.label for answer in predict(result.best_checkpoint, [array], device="cpu")] == ["b"] * 3
    small = tmp_path / "8bit.png"
    Image.new("L", (16, 16), 200).save(small)
    [answer] = predict(result.best_checkpoint, [small], device="cpu")
    assert "8 bits, and the images of the training have more, with values 1030 to 1270" in str(answer.error)


@pytest.mark.slow
@pytest.mark.parametrize("transforms", ["[normalize]", "[{type: resize, size: [9, 10]}, normalize]"])
def test_a_bundle_of_twelve_bits_answers_as_predict(tmp_path: Path, transforms: str) -> None:
    root = twelve_bits(tmp_path / "data")
    result = train_on(root, f"transforms={transforms}", "training.epochs=3")
    formats = ("torchscript", "onnx")
    bundle = export(result.best_checkpoint, formats=formats, output=tmp_path / "bundle").bundle
    files = [root / "a" / "0.png", root / "b" / "0.png"]
    expected = [answer.probability for answer in predict(result.best_checkpoint, files, device="cpu")]
    for program in ("model.pt", "model.onnx"):
        by_trainkit = [answer.probability for answer in predict(bundle / program, files)]
        assert by_trainkit == pytest.approx(expected, abs=1e-5)
        done = run_script(bundle / "predict.py", *files, "--program", program)
        by_itself = [json.loads(line)["probability"] for line in done.stdout.splitlines()]
        assert by_itself == pytest.approx(expected, abs=1e-5)


def test_other_extensions(tmp_path: Path) -> None:
    root = tmp_path / "data"
    suffixes = [".jfif", ".jpe", ".JPG", ".webp", ".avif", ".tif", ".bmp", ".gif", ".ppm", ""]
    formats = {".jfif": "JPEG", ".jpe": "JPEG", ".JPG": "JPEG", "": "PNG"}

    def make(name: str, index: int, rng: np.random.Generator) -> None:
        suffix = ".png" if name == "a" else suffixes[index % len(suffixes)]
        Image.fromarray(noise(rng, name)).save(root / name / f"{index}{suffix}", format=formats.get(suffix))

    write(root, make)
    (root / "b" / "._1.jpe").write_bytes(b"\0\5\x16\7 resource fork")
    result = train_on(root)
    assert result.metrics["test"]["accuracy"] == 1
    (root / "notes.txt").write_text("not a picture")
    lines: list[str] = []
    answers = list(predict(result.best_checkpoint, [root], device="cpu", frontend=saying(lines)))
    assert len(answers) == 80
    assert {Path(answer.source).parent.name == answer.label for answer in answers} == {True}
    assert f"note: left out 1 file in folders that are no images: {root}/notes.txt" in lines


def test_bad_exif(tmp_path: Path) -> None:
    root = tmp_path / "data"

    def make(name: str, index: int, rng: np.random.Generator) -> None:
        Image.fromarray(noise(rng, name)).save(root / name / f"{index}.jpg")

    write(root, make)
    clean = train_on(root, "training.epochs=3")
    path = root / "a" / "0.jpg"
    data, block = path.read_bytes(), b"Exif\0\0no tiff header here"
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(block)) + block + data[2:])
    broken = train_on(root, "training.epochs=3")
    assert broken.metrics == clean.metrics
    assert train_on(root).metrics["test"]["accuracy"] == 1


def test_a_checkpoint_that_dropped_transparency_still_does(tmp_path: Path) -> None:
    root = tmp_path / "data"

    def make(name: str, index: int, rng: np.random.Generator) -> None:
        pixels = np.dstack([noise(rng, name), np.full((16, 16), 255, np.uint8)])
        pixels[:8, :, 3] = 0
        Image.fromarray(pixels).save(root / name / f"{index}.png")

    result = train_on(write(root, make), "training.epochs=3")
    saved = torch.load(result.best_checkpoint, weights_only=True)
    del saved["preprocessing"]["pixels"]  # as versions wrote it that had no rules
    old = result.best_checkpoint.with_name("old.pth")
    torch.save(saved, old)
    for path in (root / "a").iterdir():
        with Image.open(path) as image:
            image.convert("RGB").save(tmp_path / path.name)
    clear = [answer.probability for answer in predict(old, [root / "a"], device="cpu")]
    plain = [answer.probability for answer in predict(old, sorted(tmp_path.glob("*.png")), device="cpu")]
    assert clear == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_twelve_bits_that_fit_nowhere_are_decoded_in_every_epoch(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = twelve_bits(tmp_path / "data")
    expected = train_on(root, "training.epochs=2", "transforms=[]").metrics
    monkeypatch.setattr("trainkit.data.images.materialize.free_host_bytes", lambda: 10)
    monkeypatch.setattr("trainkit.data.images.materialize._shortage", lambda job, cache_dir: "the disk is full")
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    lines: list[str] = []
    found = train_on(root, "training.epochs=2", f"training.num_workers={workers}", "transforms=[]", lines=lines).metrics
    assert found == expected
    assert any("decoded in every epoch" in line for line in lines)


def test_a_run_of_twelve_bits_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    root = twelve_bits(tmp_path / "data")
    whole = train_on(root, "training.epochs=4")
    half = train_on(root, "training.epochs=2")
    done = resume(half.run.path, overrides=["training.epochs=4"])
    assert done is not None
    assert done.metrics == whole.metrics


def test_check_says_the_range_or_that_it_is_still_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = twelve_bits(tmp_path / "data")
    path = root.with_suffix(".yaml")
    path.write_text(CONFIG.format(root=root))
    notes = check(load_config(path), runs_dir=tmp_path / "runs").notes
    assert any(note.startswith("gray values 1030 to 1270, of more than 8 bits, become 0 to 1") for note in notes)
    monkeypatch.setattr(quick_look, "DECODED", 8)
    notes = check(load_config(path), runs_dir=tmp_path / "runs").notes
    assert any(note.startswith("gray values 1030 to 1270 in the images that were tried") for note in notes)


def test_heic_without_its_package_is_counted(tmp_path: Path) -> None:
    if importlib.util.find_spec("pillow_heif"):
        pytest.skip("pillow-heif is installed")
    root = tmp_path / "data"

    def make(name: str, index: int, rng: np.random.Generator) -> None:
        Image.fromarray(noise(rng, name)).save(root / name / f"{index}.png")

    write(root, make)
    for index in range(12):
        (root / "b" / f"IMG_{index}.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(UserError, match=r"12 \.heic files: install pillow-heif, or remove them"):
        train_on(root)
    lines: list[str] = []
    result = train_on(root, "training.epochs=1", "dataset.max_bad_files=12", lines=lines)
    assert any("skipped 12 unreadable images" in line and "install pillow-heif" in line for line in lines)
    [answer] = predict(result.best_checkpoint, [root / "b" / "IMG_1.HEIC"], device="cpu")
    assert "install pillow-heif" in str(answer.error)

"""Exports without data: samples travel in the checkpoint, and what a file says about them is not believed."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from trainkit.api import export
from trainkit.builders.trained import open_trained
from trainkit.checkpoints.loading import load_checkpoint
from trainkit.config import load_config
from trainkit.errors import CheckpointError, DataError
from trainkit.workflows.samples import KEPT_BYTES, MAX_KEPT, kept_samples
from trainkit.workflows.train.run import train

pytestmark = pytest.mark.usefixtures("forked_checks")
TRAINING = "model: {type: mlp, hidden_sizes: [8]}\ntraining: {epochs: 1, batch_size: 8}\nexport: {torchscript: false}\n"


def photos(folder, *, mode="RGB", sides=(60, 400), dtype=np.uint8):
    """Twenty pictures of two classes, each of another size."""
    generator = np.random.default_rng(0)
    for number in range(20):
        height, width = generator.integers(*sides, 2)
        shape = (height, width, 3) if mode == "RGB" else (height, width)
        pixels = generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
        path = folder / "photos" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def trained_alone(folder, config):
    """The checkpoint of a run, alone: run and data are gone."""
    path = folder / "config.yaml"
    path.write_text(config + TRAINING)
    result = train(load_config(path), runs_dir=folder / "runs")
    alone = shutil.copy(result.best_checkpoint, folder / "alone.pth")
    shutil.rmtree(folder / "runs")
    for name in ("photos", "rows.csv"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    return folder / alone


def kept_with(checkpoint, folder, value):
    """The samples of a checkpoint whose first value is another one."""
    rows = load_checkpoint(checkpoint)["samples"]["rows"].clone()
    rows.view(-1)[0] = value
    return kept_samples(open_trained(changed(checkpoint, folder, {"rows": rows})))


def of_photos(transforms):
    return f"dataset: {{type: image_folder, root: photos}}\ntransforms: [{transforms}]\n"


RESIZED = "{type: resize, size: 24}, {type: center_crop, size: 20}, normalize"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photos(folder)
    return trained_alone(folder, of_photos(RESIZED))


def test_a_checkpoint_alone_is_exported(alone):
    said = []
    result = export(alone, formats=("torchscript", "pt2", "safetensors"), log=said.append)
    assert result.bundle == alone.parent / "exports" / "alone_torchscript-pt2-safetensors"
    assert "compared on 2 validation samples from the checkpoint; --data-root DIR takes more from the data" in said
    kept = load_checkpoint(alone)["samples"]
    golden = np.load(result.bundle / "golden.npz")
    np.testing.assert_array_equal(golden["images"][:2], kept["rows"])
    np.testing.assert_array_equal(golden["images_targets"], np.resize(kept["targets"], 64))
    assert "golden.npz: 2 validation samples" in (result.bundle / "README.md").read_text()
    assert json.loads((result.bundle / "signature.json").read_text())["samples_from"] == "val"


def test_samples_are_few_and_small(alone):
    kept = load_checkpoint(alone)["samples"]
    assert kept["split"] == "val"
    assert kept["rows"].nbytes <= KEPT_BYTES
    assert not torch.equal(kept["rows"][0], kept["rows"][1])


@pytest.mark.parametrize(
    ("pictures", "transforms"),
    [
        ({"sides": (300, 301)}, "{type: resize, size: 7}"),  # no crop: any height would not do
        ({"sides": (20, 21)}, "{type: grayscale}"),
        ({"sides": (20, 21)}, "{type: random_crop, size: 12}"),
        ({"mode": "L"}, "{type: resize, size: [5, 9]}"),
        ({"mode": "L", "dtype": np.uint16}, "{type: resize, size: [12, 12]}"),
        ({"sides": (150, 151)}, "normalize"),  # nothing may be cut off, so two are more than the limit
    ],
)
def test_pictures_of_every_kind(pictures, transforms, tmp_path):
    photos(tmp_path, **pictures)
    trained = open_trained(trained_alone(tmp_path, of_photos(transforms)))
    _, count, samples = kept_samples(trained)
    assert 2 <= count <= MAX_KEPT
    assert samples.inputs.shape == (64, *trained.input_shape)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_tables(task, tmp_path):
    rows = [f"{k / 7},{'ab'[k % 2]},{k % 3 if task == 'regression' else 'xyz'[k % 3]}" for k in range(300)]
    (tmp_path / "rows.csv").write_text("\n".join(["size,kind,target", *rows]))
    checkpoint = trained_alone(tmp_path, f"dataset: {{type: table, path: rows.csv, target: target, task: {task}}}\n")
    export(checkpoint, formats=("torchscript",))
    assert len(load_checkpoint(checkpoint)["samples"]["rows"]) == MAX_KEPT
    assert np.isnan(kept_with(checkpoint, tmp_path, float("nan"))[2].inputs[0, 0]), "a gap"
    with pytest.raises(CheckpointError, match="rows with values that are not finite"):
        kept_with(checkpoint, tmp_path, float("inf"))


def test_what_needs_the_data_says_so(alone):
    with pytest.raises(DataError, match="photos does not exist") as caught:
        export(alone, formats=("torchscript",), half=True)
    assert str(caught.value).endswith("\n--half needs the data; where they have moved, add --data-root DIR")


def changed(alone, folder, samples):
    state = load_checkpoint(alone)
    path = folder / "changed.pth"
    torch.save({**state, "samples": samples and {**state["samples"], **samples}}, path)
    return path


def test_a_checkpoint_without_samples_needs_the_data(alone, tmp_path):
    path = changed(alone, tmp_path, None)
    with pytest.raises(DataError, match="this checkpoint has no samples to compare programs on, so export needs the"):
        export(path, formats=("torchscript",))
    photos(tmp_path)
    export(path, formats=("torchscript",), data_root=tmp_path / "photos")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"split": "here"}, "they have no split, no rows or no targets"),
        ({"rows": [1, 2]}, "they have no split, no rows or no targets"),
        ({"rows": torch.zeros(0, 3, 30, 30, dtype=torch.uint8)}, "0 rows of 0 bytes with 2 targets"),
        ({"rows": torch.zeros(17, 3, 9, 9, dtype=torch.uint8), "targets": torch.zeros(17)}, "17 rows of 4,131 bytes"),
        ({"rows": torch.zeros(2, 3, 9, 9)}, "rows of torch.float32"),
        ({"rows": torch.zeros(2, 1, 9, 9, dtype=torch.uint8)}, r"rows of shape \[1, 9, 9\] do not fit inputs of shape"),
        ({"rows": torch.zeros(2, 3, 9, 0, dtype=torch.uint8)}, r"rows of shape \[3, 9, 0\] do not fit"),
        ({"rows": torch.zeros(2, dtype=torch.uint8)}, r"rows of shape \[\] do not fit"),
        ({"targets": torch.tensor([0, 2])}, "their targets are not those of the model"),
        ({"targets": torch.zeros(2)}, "their targets are not those of the model"),
        ({"targets": torch.tensor(1)}, "their rows or targets are single numbers"),
        ({"rows": torch.tensor(1, dtype=torch.uint8)}, "their rows or targets are single numbers"),
    ],
)
def test_samples_of_a_hostile_file_are_refused(samples, message, alone, tmp_path):
    path = changed(alone, tmp_path, samples)
    with pytest.raises(CheckpointError, match=message) as caught:
        export(path, formats=("torchscript",))
    assert str(caught.value).startswith(f"{path}: its samples, which exported programs are compared on, are damaged")
    assert "--data-root DIR takes samples from the data in DIR instead" in str(caught.value)
    assert not (tmp_path / "exports").exists()

"""Slow: the six networks in three formats, each proven in a process of its own."""

import json

import numpy as np
import pytest
from published_networks import SIX, color_pictures, published_network, weights_file

from trainkit.builders import build_setup
from trainkit.config import load_config
from trainkit.data.dataset import Dataset, Part, Split
from trainkit.exports import ExportRequest, Source, make_files, write_bundle
from trainkit.workflows.samples import pick_samples

pytestmark = pytest.mark.slow
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", SIX)
def test_three_formats_are_proven(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("trainkit.workflows.samples.MIN_GOLDEN", 4)
    indices = np.arange(8, dtype=np.int64)
    data = Dataset(
        name="pictures",
        kind="image",
        task="classification",
        parts={"train": Part(color_pictures(8, 224, 224), indices % 7)},
        splits={"train": Split("train", indices)},
        class_names=tuple("abcdefg"),
        feature_names=(),
        target_names=(),
        fingerprint={"parts": {"train": {"inputs": "published networks"}}},
        channels=3,
    )
    weights = weights_file(published_network(name), name, tmp_path)
    config = {
        "dataset": {"type": "image_folder", "root": "unused"},
        "transforms": ["normalize"],
        "model": {"type": "torchvision", "name": name, "weights": str(weights), "head": {"dropout": 0.1}},
        "device": "cpu",
    }
    setup = build_setup(load_config(config).config, data=data)
    source = Source(
        name=name,
        model=setup.model,
        preprocessing=setup.preprocessing,
        loss=setup.loss.name,
        task="classification",
        class_names=data.class_names,
        target_names=(),
        details={"classes": list(data.class_names)},
    )
    samples = pick_samples(setup, "train", preprocessing=setup.preprocessing)
    files = make_files(source, ExportRequest(("torchscript", "pt2", "onnx")), samples)
    report = write_bundle(tmp_path / "bundle", files)
    assert sorted(report["programs"]) == ["model.onnx", "model.pt", "model.pt2"]
    assert json.loads((tmp_path / "bundle/signature.json").read_text())["task"] == "classification"

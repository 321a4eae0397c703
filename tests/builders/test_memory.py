"""One budget for the samples of all splits and the model."""

from dataclasses import replace

import pytest
import torch

from trainkit.builders import build_setup, data_bytes, residency_of
from trainkit.config import load_config
from trainkit.data.loading import resident

CUDA = torch.device("cuda:0")


@pytest.fixture
def setup(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}\nmodel: {type: mlp}\n")
    return build_setup(load_config(path).config)


def test_all_splits_count_once(setup):
    assert data_bytes(setup.data) == 1797 * 64  # uint8, 8 x 8


def test_the_model_takes_its_part_first(setup, monkeypatch):
    monkeypatch.setattr(resident, "free_device_bytes", lambda device: 1_000_000)
    room = {
        reserved: residency_of(setup.config, setup.data, device=CUDA, reserved=reserved).value
        for reserved in (0, 500_000, 850_000, 870_000)
    }
    assert room == {0: "device", 500_000: "device", 850_000: "device", 870_000: "host"}


def test_the_choice_is_made_once_and_holds_for_every_split(setup, monkeypatch):
    """After the first split is on the device, less is free: the second must not choose anew."""
    free = iter([10_000_000, 0, 0])
    monkeypatch.setattr(resident, "free_device_bytes", lambda device: next(free))
    on_cuda = replace(setup, device=CUDA)
    assert [on_cuda.residency.value for _ in range(3)] == ["device"] * 3


@pytest.mark.parametrize("residency", ["host", "map", "device"])
def test_the_asked_residency_is_taken(setup, residency):
    training = setup.config.training.model_copy(update={"residency": residency})
    asked = replace(setup, config=setup.config.model_copy(update={"training": training}))
    assert {asked.batches(split).residency for split in ("train", "val", "test")} == {residency}
    first = [next(iter(one.batches("train", training=True).epoch(3))).inputs for one in (setup, asked)]
    assert torch.equal(*first)

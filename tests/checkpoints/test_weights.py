"""Weights from elsewhere: state_dicts, checkpoints of others, safetensors; matched by name and shape."""

import json
import os
import struct

import pytest
import torch
from checkpoint_checks import save
from torch import nn

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.checkpoints.loading import load_weights_file
from trainkit.checkpoints.state_dicts import match_weights


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "lr": 0.1},
        lambda state: {"model_state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {
            name: nn.Parameter(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()
        },
    ],
    ids=["state_dict", "state_dict key", "model key", "module.", "_orig_mod.", "parameters"],
)
def test_files_of_others(tmp_path, wrap):
    source, target = build(), build()
    path = tmp_path / "w.pth"
    torch.save(wrap(source.state_dict()), path)
    weights = load_weights_file(path)
    report = match_weights(weights, target)
    assert report.matched == tuple(source.state_dict())
    assert (report.missing, report.unexpected, report.wrong_shape) == ((), (), ())
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in weights.items())


def test_a_trainkit_checkpoint_gives_its_weights(tmp_path):
    save(CheckpointFolder(tmp_path), 7)
    assert load_weights_file(tmp_path / "last")["layer.bias"].tolist() == [7.0, 7.0]


def test_averaged_weights_come_first(tmp_path):
    state = {"model": {"w": torch.zeros(1)}, "ema": {"model": {"w": torch.ones(1)}, "updates": 3}}
    folder = CheckpointFolder(tmp_path)
    path = folder.save(state, name="x.pth", step=1, epoch=1, score=None, best=False, keep_last=1)
    assert load_weights_file(path)["w"].item() == 1.0


def test_the_report(tmp_path):
    weights = {"0.weight": torch.ones(3, 4), "0.bias": torch.ones(5), "head.weight": torch.ones(1)}
    report = match_weights(weights, build())
    assert report.matched == ("0.weight",)
    assert report.wrong_shape == (("0.bias", (5,), (3,)),)
    assert report.unexpected == ("head.weight",)
    assert report.missing[:2] == ("1.weight", "1.bias")


def safetensors(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors(tmp_path):
    path = tmp_path / "w.safetensors"
    data = struct.pack("<2f", 1.5, 2.5) + struct.pack("<2H", 0x3F80, 0x4000) + b"\x01"
    header = {
        "__metadata__": {"format": "pt"},
        "a": entry("F32", [2, 1], 0, 8),
        "b": entry("BF16", [2], 8, 12),
        "c": entry("BOOL", [], 12, 13),
        "d": entry("F32", [0, 3], 13, 13),
    }
    path.write_bytes(safetensors(header, data))
    weights = load_weights_file(path)
    assert weights["a"].tolist() == [[1.5], [2.5]]
    assert weights["b"].tolist() == [1.0, 2.0]
    assert weights["b"].dtype == torch.bfloat16
    assert weights["c"].item() is True
    assert weights["d"].shape == (0, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
        safetensors({"a": entry("F32", [2], 0, 8)}, bytes(4)),
        safetensors({"a": entry("F32", [2], 0, 8)}, bytes(12)),
        safetensors({"a": entry("F32", [2], 4, 12)}, bytes(12)),
        safetensors({"a": entry("F32", [1 << 40], 0, 8)}, bytes(8)),
        safetensors({"a": entry("F32", [-2, -1], 0, 8)}, bytes(8)),
        safetensors({"a": entry("Q4", [2], 0, 8)}, bytes(8)),
        safetensors({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)}, bytes(8)),
        safetensors({"a": entry("F6_E2M3", [4], 0, 3)}, bytes(3)),
        safetensors({"a": entry("F32", [1 << 32, 1 << 32, 0], 0, 0)}, b""),
        safetensors({"a": {"dtype": "F32"}}, bytes(8)),
        safetensors({"a": "x"}, bytes(8)),
        struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
)
def test_damaged_safetensors(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"w\.safetensors: (damaged, or not a safetensors file|holds no tensors)"):
        load_weights_file(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_a_pipe_called_safetensors_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(DamagedFile, match="a pipe, not a file"):
        load_weights_file(tmp_path / "w.safetensors")


def test_safetensors_keep_their_numbers_when_the_file_changes(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({"a": entry("F32", [2], 0, 8)}, struct.pack("<2f", 1.5, 2.5)))
    weights = load_weights_file(path)
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))
    assert weights["a"].tolist() == [1.5, 2.5]

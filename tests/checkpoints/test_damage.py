"""Damaged files: one flipped bit, cut short, bytes added; refused, or the tensors are bitwise equal."""

import random
import struct
from pathlib import Path

import pytest
import torch
from checkpoint_checks import save
from torch import Tensor, nn

from trainkit.checkpoints.archive import DamagedFile, open_archive, open_regular
from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.checkpoints.loading import load_checkpoint


def build_checkpoint(folder: Path) -> Path:
    """About 20 kB: model, optimizer, plain values, tensors of several dtypes, an empty one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 5))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 20)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": {"half": torch.randn(7).to(torch.bfloat16), "empty": torch.empty(0, 3), "scalar": torch.tensor(2)},
        "progress": {"step": 7, "seconds": 1.5, "big": 2**40, "negative": -3, "flag": True, "none": None},
        "class_names": ["ä", "b"],
    }
    return CheckpointFolder(folder).save(state, name="net.pth", step=7, epoch=1, score=0.5, best=True, keep_last=1)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[bytes, dict]:
    path = build_checkpoint(tmp_path_factory.mktemp("good"))
    return path.read_bytes(), load_checkpoint(path)


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same_kind = one.dtype == other.dtype and one.shape == other.shape
        return same_kind and one.contiguous().flatten().view(torch.uint8).equal(
            other.contiguous().flatten().view(torch.uint8)
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def loads_otherwise(data: bytes, expected: dict, path: Path) -> bool:
    """Whether the bytes load as something else than what was saved. Nothing but DamagedFile may be raised."""
    path.write_bytes(data)
    try:
        state = load_checkpoint(path)
    except DamagedFile:
        return False
    return not same(state, expected)


def test_the_comparison_sees_differences(good):
    data, state = good
    assert same(state, state)
    other = {**state, "model": {**state["model"], "0.bias": state["model"]["0.bias"] + 1e-6}}
    assert not same(state, other)
    assert 10_000 < len(data) < 40_000


def test_one_flipped_bit(good, tmp_path):
    data, state = good
    rng = random.Random(1)
    header_bytes = [*range(600), *range(len(data) - 1200, len(data))]
    positions = [rng.randrange(len(data) * 8) for _ in range(700)] + [
        8 * rng.choice(header_bytes) + rng.randrange(8) for _ in range(300)
    ]
    bad = []
    for position in positions:
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        if loads_otherwise(bytes(flipped), state, tmp_path / "net.pth"):
            bad.append(position)
    assert bad == []


def test_torch_load_alone_would_not_notice(good, tmp_path):
    """Why the checks are there: if this fails, torch has learned to look at its checksums."""
    data, state = good
    weight = state["model"]["0.weight"].numpy().tobytes()
    flipped = bytearray(data)
    flipped[data.index(weight) + 2] ^= 1
    path = tmp_path / "net.pth"
    path.write_bytes(flipped)
    assert not same(torch.load(path, weights_only=True), state)
    with pytest.raises(DamagedFile, match=r"the record data/\d+ differs from its checksum"):
        load_checkpoint(path)


def test_cut_short_at_any_length(good, tmp_path):
    data, _ = good
    rng = random.Random(2)
    for length in {0, 1, 4, 21, 22, 30, len(data) - 1, len(data) - 22, *(rng.randrange(len(data)) for _ in range(200))}:
        path = tmp_path / "net.pth"
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFile, match="the file is empty" if length == 0 else "."):
            load_checkpoint(path)


@pytest.mark.parametrize("where", ["before", "after", "zeros in the middle", "a block of zeros", "two copies"])
def test_other_bytes(good, tmp_path, where):
    data, _ = good
    middle = len(data) // 2
    changed = {
        "before": b"xx" + data,
        "after": data + b"\0",
        "zeros in the middle": data[:middle] + bytes(64) + data[middle:],
        "a block of zeros": data[:4096] + bytes(4096) + data[8192:],
        "two copies": data + data,
    }[where]
    path = tmp_path / "net.pth"
    path.write_bytes(changed)
    with pytest.raises(DamagedFile):
        load_checkpoint(path)


def test_random_bytes(tmp_path):
    rng = random.Random(3)
    for number in range(200):
        path = tmp_path / "net.pth"
        path.write_bytes((b"PK\x03\x04" if number % 2 else b"") + rng.randbytes(rng.randrange(1, 3000)))
        with pytest.raises(DamagedFile):
            load_checkpoint(path)


def test_another_whole_file_under_the_same_name(tmp_path):
    one, other = CheckpointFolder(tmp_path / "one"), CheckpointFolder(tmp_path / "other")
    path, wrong = save(one, 1), save(other, 2)
    path.write_bytes(wrong.read_bytes())
    with pytest.raises(DamagedFile, match=r"its SHA-256 differs from the one in checkpoints\.json"):
        load_checkpoint(path)


@pytest.mark.slow
def test_no_header_byte_leads_elsewhere(good, tmp_path):
    """All bits of one record's headers, of its line in the directory, and of the end of the file.

    Some say the same twice (sizes and checksums before a record) or nothing (times, padding): those load as they were.
    """
    data, state = good
    path = tmp_path / "net.pth"
    path.write_bytes(data)
    with open_regular(path) as file:
        record = open_archive(file, path).records["data/0"]
    begin = record.header_offset
    end = begin + 30 + sum(struct.unpack_from("<2H", data, begin + 26)) + record.file_size
    line = data.rindex(b"archive/data/0PK")
    regions = [
        (begin, begin + 60),
        (end, end + 60),
        (line - 46, line + 14),
        (len(data) - 100, len(data)),
    ]
    bits = [bit for start, stop in regions for bit in range(8 * start, 8 * stop)]
    for bit in bits:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not loads_otherwise(bytes(flipped), state, path), bit

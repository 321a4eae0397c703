"""Loading and fitting: what comes back is what was saved; what does not fit is named before the model is touched."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from checkpoint_checks import save, tiny_state
from torch import nn

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.folder import CheckpointFolder, checkpoint_name
from trainkit.checkpoints.journal import JOURNAL_NAME
from trainkit.checkpoints.loading import load_checkpoint
from trainkit.checkpoints.state_dicts import check_fits, plain_state
from trainkit.errors import CheckpointError

NOW = datetime(2026, 11, 20, 15, 30, 55)


@pytest.fixture
def folder(tmp_path) -> CheckpointFolder:
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        save(checkpoints, step, best=step == 2)
    return checkpoints


def test_names():
    name = checkpoint_name("mnist_cnn", when=NOW, epoch=3, metric="val_accuracy", value=0.99123)
    assert name == "mnist_cnn_20261120-153055_epoch03_acc99.12.pth"
    name = checkpoint_name("mlp", when=NOW, epoch=12, step=700, metric="loss", value=0.001234567)
    assert name == "mlp_20261120-153055_epoch12_step000700_loss0.001235.pth"
    assert checkpoint_name("mlp", when=NOW, epoch=1, metric="loss", value=None) == "mlp_20261120-153055_epoch01.pth"
    assert checkpoint_name("mlp", when=NOW, epoch=1, metric="loss", value=float("nan")).endswith("_epoch01.pth")


def test_everything_comes_back(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(8))
    model[0].weight.data = model[0].weight.data.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "tied": {"a": model[0].weight, "b": model[0].weight},
        "part": torch.arange(1000)[10:20],
        "dtypes": [
            torch.ones(2).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool)
        ],
        "newer": [torch.ones(2).to(dtype) for dtype in (torch.float8_e4m3fn, torch.uint16)],
        "complex": torch.ones(2, dtype=torch.complex64),
        "empty": torch.empty(0, 3),
        "plain": {"n": None, "t": True, "i": -(2**62), "f": 0.1, "s": "ä", "l": [1, (2, 3)], "d": {1: "x"}},
    }
    path = CheckpointFolder(tmp_path).save(state, name="x.pth", step=1, epoch=1, score=1.0, best=True, keep_last=1)
    loaded = load_checkpoint(path)
    plain = torch.load(path, weights_only=True)
    assert list(loaded) == list(plain)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded["model"][name], tensor)
    assert loaded["model"]["0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert loaded["tied"]["a"].data_ptr() == loaded["tied"]["b"].data_ptr()
    assert loaded["part"].untyped_storage().nbytes() == 80, "only the part is saved"
    assert [tensor.dtype for tensor in loaded["dtypes"]] == [tensor.dtype for tensor in state["dtypes"]]
    assert [tensor.dtype for tensor in loaded["newer"]] == [tensor.dtype for tensor in state["newer"]]
    assert loaded["plain"] == state["plain"]
    optimizer.load_state_dict(loaded["optimizer"])


def test_it_opens_in_a_process_without_trainkit(folder):
    code = "import sys, torch; state = torch.load(sys.argv[1], weights_only=True); print(state['progress']['step'])"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code, str(folder.last())]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, cwd="/")
    assert done.stdout == "3\n"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), r"x\.y\[0\]: a object cannot be saved"),
        (Path("a"), r"x\.y\[0\]: a PosixPath cannot be saved"),
        ({(1, 2): 3}, r"x\.y\[0\]: the key \(1, 2\) is neither text nor an integer"),
        (torch.eye(2).to_sparse(), r"x\.y\[0\]: a torch\.sparse_coo tensor"),
        (torch.empty(2, device="meta"), r"x\.y\[0\]: a torch\.strided tensor on meta"),
    ],
)
def test_what_is_not_plain_is_named(value, words):
    with pytest.raises(TypeError, match=words):
        plain_state({"x": {"y": [value]}})


def test_subclasses_become_plain():
    import numpy

    plain = plain_state({"a": numpy.float64(1.5), "b": nn.Parameter(torch.ones(2))})
    assert type(plain["a"]) is float
    assert type(plain["b"]) is torch.Tensor
    assert not plain["b"].requires_grad


def test_pointers_stand_for_their_files(folder):
    assert load_checkpoint(folder.path / "best")["progress"]["step"] == 2
    assert load_checkpoint(folder.path / "last")["progress"]["step"] == 3
    (folder.path / "best").write_text("gone.pth\n")
    with pytest.raises(DamagedFile, match=r"names gone\.pth, which is not there"):
        load_checkpoint(folder.path / "best")
    (folder.path / "best").write_text("../../etc/passwd.pth\n")
    with pytest.raises(DamagedFile, match="should hold the name of a checkpoint beside it"):
        load_checkpoint(folder.path / "best")


def test_a_moved_file_needs_no_journal(folder, tmp_path):
    path = folder.last().rename(tmp_path / "mine.pth")
    assert load_checkpoint(path)["progress"]["step"] == 3


def test_the_newest_good_one_and_what_was_skipped(folder):
    newest = folder.last()
    newest.write_bytes(newest.read_bytes()[:-1])
    path, skipped = CheckpointFolder(folder.path).newest_good()
    assert path.name == "net_step2.pth"
    assert [(item.name, "cut short" in reason) for item, reason in skipped] == [("net_step3.pth", True)]
    assert CheckpointFolder(folder.path / "none").newest_good() == (None, [])


def test_order_comes_from_the_saves_not_from_name_or_clock(tmp_path):
    checkpoints = CheckpointFolder(tmp_path)
    for number, name in enumerate(["z_20300101.pth", "m_20200101.pth", "a_20250101.pth"]):
        path = checkpoints.save(tiny_state(number), name=name, step=number, epoch=0, score=0.0, best=False, keep_last=9)
        os.utime(path, (1e9 - 1000 * number, 1e9 - 1000 * number))
    assert [entry.step for entry in checkpoints.entries()] == [0, 1, 2]
    (tmp_path / JOURNAL_NAME).unlink()
    again = CheckpointFolder(tmp_path)
    assert [entry.step for entry in again.entries()] == [0, 1, 2]
    assert again.last().name == "a_20250101.pth"


def test_a_damaged_journal_is_rebuilt_as_it_was(folder):
    before = json.loads((folder.path / JOURNAL_NAME).read_text())
    (folder.path / JOURNAL_NAME).write_text("{")
    notes = CheckpointFolder(folder.path).recover()
    assert notes == ["checkpoints.json was missing or damaged: rebuilt from 2 files"]
    assert json.loads((folder.path / JOURNAL_NAME).read_text()) == before


def test_a_checkpoint_of_another_run_never_becomes_part_of_this_one(folder, tmp_path):
    mine = CheckpointFolder(tmp_path / "mine")
    mine.recover()
    foreign = mine.path / folder.last().name
    foreign.write_bytes(folder.last().read_bytes())
    again = CheckpointFolder(mine.path)
    assert again.recover() == []
    assert again.entries() == ()
    for step in (11, 12, 13, 14):
        save(again, step, keep_last=1)
    assert foreign.exists()
    assert [entry.step for entry in again.entries()] == [14]


def test_a_file_that_somebody_put_in_the_place_of_a_checkpoint_is_not_deleted(folder):
    replaced = folder.path / "net_step3.pth"
    replaced.write_text("mine")
    for step in (11, 12, 13):
        save(folder, step)
    assert replaced.read_text() == "mine"
    assert [entry.step for entry in folder.entries()] == [2, 12, 13]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])


def test_what_fits(model):
    check_fits(model.state_dict(), model)


def test_what_does_not_fit_is_named_and_the_model_untouched(model):
    good = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = {name: tensor.clone() for name, tensor in good.items() if not name.startswith("0")}
    weights["1.weight"] = torch.ones(3, 4)
    weights["1.bias"] = weights["1.bias"].half()
    weights["2.bias"][1] = float("nan")
    weights |= {f"extra{number}": torch.ones(1) for number in range(8)}
    with pytest.raises(CheckpointError) as caught:
        check_fits(weights, model)
    assert str(caught.value) == (
        "the checkpoint does not fit the model, which was left as it was; missing: 0.weight, 0.bias; "
        "not in the model: extra0, extra1, extra2, extra3, extra4 and 3 more; "
        "of another shape: 1.weight ([3, 4] in the checkpoint, [3, 3] in the model); "
        "of another dtype: 1.bias (float16 in the checkpoint, float32 in the model); with NaN or infinity: 2.bias"
    )
    assert all(torch.equal(tensor, good[name]) for name, tensor in model.state_dict().items())

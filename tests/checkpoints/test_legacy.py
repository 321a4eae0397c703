"""Files in PyTorch's format from before 1.6: the same tensors as ``torch.load`` gives, and nothing is unpickled."""

import functools
import pickle
import struct
import sys
from pathlib import Path

import pytest
import torch
from hostile_files import Payload, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.loading import load_checkpoint, load_weights_file

MAGIC = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def save_old(value: object, path: Path) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


def old_file(value: bytes, *, keys: list, storages: bytes, version: int = 1001, machine: dict = MACHINE) -> bytes:
    """A file of the format with the opcodes of its value given."""
    parts = [pickle.dumps(version, 2), pickle.dumps(machine, 2), b"\x80\x02" + value + b".", pickle.dumps(keys, 2)]
    return MAGIC + b"".join(parts) + storages


def short(value: str) -> bytes:
    """Text as Python 2 pickled it."""
    return b"U" + bytes([len(value)]) + value.encode()


def python2_tensor(key: str, count: int) -> bytes:
    """A float32 vector as PyTorch 0.3 on Python 2 pickled it."""
    storage = b"(" + short("storage") + b"ctorch\nFloatStorage\n" + short(key) + short("cpu") + b"K" + bytes([count])
    shape = b"ctorch\nSize\n(K" + bytes([count]) + b"t\x85R"
    return b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"NtQK\x00" + shape + b"K\x01\x85tR"


def floats(*values: float) -> bytes:
    return struct.pack(f"<q{len(values)}f", len(values), *values)


def test_a_network_of_many_dtypes_and_shared_tensors(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    state = {**network.state_dict(), "empty": torch.empty(0, 3), "number": torch.tensor(3), "flag": torch.tensor(True)}
    state |= {"half": torch.ones(3).half(), "brain": torch.ones(2, 2).bfloat16(), "complex": torch.ones(2) * 1j}
    state |= {"part": torch.arange(20.0)[5:9], "turned": torch.arange(6.0).reshape(2, 3).t()}
    state |= {"strides": torch.arange(24.0).reshape(4, 6)[::2, 1:5:3], "parameter": nn.Parameter(torch.ones(2))}
    path = save_old(state, tmp_path / "w.pth")
    expected = torch.load(path, weights_only=True)
    weights = load_weights_file(path)
    assert list(weights) == list(expected)
    for name, tensor in weights.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=6), wrapped=st.booleans())
def test_all_shapes(tmp_path, shapes, wrapped):
    state = {f"t{index}": torch.randn(shape) for index, shape in enumerate(shapes)}
    path = save_old({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "w.pth")
    weights = load_weights_file(path)
    assert all(torch.equal(weights[name], tensor) for name, tensor in state.items())


def test_as_pytorch_on_python_2_wrote_it(tmp_path):
    """``_rebuild_tensor``, short strings, and an OrderedDict made of a list of pairs."""
    pairs = b"](](" + short("a") + python2_tensor("0", 2) + b"e](" + short("b") + python2_tensor("1", 1) + b"ee"
    path = tmp_path / "w.pth"
    data = old_file(
        b"ccollections\nOrderedDict\n" + pairs + b"\x85R", keys=["0", "1"], storages=floats(1, 2) + floats(3)
    )
    path.write_bytes(data)
    expected = torch.load(path, weights_only=True)
    weights = load_weights_file(path)
    assert {name: tensor.tolist() for name, tensor in weights.items()} == {"a": [1, 2], "b": [3]}
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_as_a_checkpoint_it_is_refused_with_the_way_to_its_weights(tmp_path):
    path = save_old({"w": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(DamagedFile, match="not a checkpoint; start from its weights with --init-from"):
        load_checkpoint(path)


VECTOR = b"}" + text("w") + python2_tensor("0", 2) + b"s"
GOOD = {"value": VECTOR, "keys": ["0"], "storages": floats(1, 2)}
LAUGHS = pickle.dumps(functools.reduce(lambda inner, _: [inner, inner], range(40), []), 2)[2:-1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"storages": floats(1, 2) + b"\0"}, "bytes behind its last tensor"),
        ({"storages": floats(1, 2)[:-1]}, "cut short"),
        ({"storages": floats(1)}, "cut short, or its tensors are not where it says"),
        ({"storages": b""}, "cut short"),
        ({"storages": struct.pack("<q", -2) + bytes(8)}, "not where it says"),
        ({"keys": []}, "its list of storages is not that of its tensors"),
        ({"keys": ["0", "0"]}, "its list of storages"),
        ({"keys": [0]}, "its list of storages"),
        ({"keys": "0"}, "its list of storages"),
        ({"version": 1000}, "refused"),
        ({"machine": {**MACHINE, "little_endian": False}}, "another order of bytes"),
        ({"machine": {}}, "another order of bytes"),
        ({"value": VECTOR.replace(b"FloatStorage", b"EvilStorage")}, "names the Python object 'torch.EvilStorage'"),
        ({"value": VECTOR.replace(b"K\x01\x85tR", b"K\x02\x85tR")}, "does not fit into its 2 elements"),
        ({"value": LAUGHS}, "nested too deeply"),
        ({"value": b"K\x01"}, "its list of storages"),
        ({"value": b"K\x01", "keys": [], "storages": b""}, "holds no state_dict"),
        ({"value": b"}" + text("w") + python2_tensor("0", 250) + b"s"}, "claims 250 elements"),
    ],
)
def test_damaged_or_forged(tmp_path, changes, reason):
    path = tmp_path / "w.pth"
    path.write_bytes(old_file(**{**GOOD, **changes}))
    with pytest.raises(DamagedFile, match=reason):
        load_weights_file(path)


def test_the_undamaged_file_is_read(tmp_path):
    (tmp_path / "w.pth").write_bytes(old_file(**GOOD))
    assert load_weights_file(tmp_path / "w.pth")["w"].tolist() == [1, 2]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_is_cut_or_changed_is_refused_or_still_plain(tmp_path, data):
    good = old_file(**GOOD)
    position = data.draw(st.integers(0, len(good) - 1))
    changed = good[:position]
    if data.draw(st.booleans()):
        changed += bytes([data.draw(st.integers(0, 255))]) + good[position + 1 :]
    path = tmp_path / "w.pth"
    path.write_bytes(changed)
    try:
        weights = load_weights_file(path)
    except DamagedFile:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in weights.values())


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_a_payload_in_any_of_its_pickles_is_not_run(tmp_path, place):
    """An audit hook sees neither an import nor a call; plain unpickling would have run it."""
    canary = tmp_path / "canary"
    payload = pickle.dumps(Payload(canary.touch), 2)
    parts = [
        MAGIC,
        pickle.dumps(1001, 2),
        pickle.dumps(MACHINE, 2),
        b"\x80\x02" + VECTOR + b".",
        pickle.dumps(["0"], 2),
    ]
    parts[place] = payload if place else MAGIC + payload
    path = tmp_path / "w.pth"
    path.write_bytes(b"".join(parts) + floats(1, 2))
    load_weights_file(save_old({"w": torch.ones(1)}, tmp_path / "good.pth"))  # what it imports is imported now
    seen: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple) -> None:
        if watching and event in ("import", "exec", "os.system", "subprocess.Popen", "pickle.find_class"):
            seen.append(event)

    sys.addaudithook(hook)
    with pytest.raises(DamagedFile, match="refused: it names the Python object"):
        load_weights_file(path)
    watching = False
    assert seen == []
    assert not canary.exists()
    pickle.loads(payload)
    assert canary.exists()

"""Files that want to do harm: each refused at once, with little memory, and nothing in them is ever run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_files
import pytest
import torch

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.loading import load_checkpoint, load_weights_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
JUDGE = Path(hostile_files.__file__).with_name("judge_files.py")
WORDS = {
    "pickle: os.system": "it names the Python object 'posix.system'",
    "pickle: numpy": "it names the Python object 'numpy",
    "pickle: newobj": "it names the Python object 'subprocess.Popen'",
    "pickle: protocol 4": "a pickle protocol that torch.save does not use",
    "tensor: larger than its storage": "a tensor of shape [10000000000] does not fit into its 4 elements",
    "values: billion laughs": "nested too deeply, or within themselves, or are too many",
    "values: a key of billions": "a dict key that is neither text nor an integer (tuple)",
    "values: attributes of a name": "an object with attributes of its own",
    "values: attributes of a tensor": "an object with attributes of its own",
    "values: a newer format": "saved by a newer trainkit: format 99, and this trainkit reads formats up to 1",
    "zip: compressed": "compressed",
    "zip: bomb": "compressed",
    "zip: TorchScript renamed": "a TorchScript program",
    "zip: bytes between the records": "the record version does not follow the one before it",
    "zip: two names for one record": "the header of the record version differs from the zip directory",
    "zip: other case": "'archive/DATA.PKL'",
    "zip: path out of the folder": "'archive/../../evil'",
    "zip: overlapping records": "does not follow the one before it",
    "zip: more lines in the directory than records": "the zip directory does not end where the file says",
    "zip: the directory elsewhere": "the ends of the zip directory contradict each other",
    "zip: attributes of a folder": "not stored as torch.save stores it",
    "zip: encrypted": "not stored as torch.save stores it",
    "zip: a name twice": "two records are called data.pkl",
    "other: a raw pickle": "can run code",
    "other: PyTorch before 1.6": "PyTorch's format from before 1.6",
    "other: tar of PyTorch 0.1": "a tar archive",
    "other: HTML": "a web page",
    "other: nothing": "the file is empty",
    "other: safetensors": "--init-from",
    "special: pipe": "a pipe, not a file",
    "special: folder": "a folder, not a file",
    "special: endless device": "a device or socket, not a file",
    "special: dangling": "a link to ",
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> tuple[dict[str, list[dict]], Path]:
    folder = tmp_path_factory.mktemp("hostile")
    canary = tmp_path_factory.mktemp("canary") / "canary"
    paths = hostile_files.build_all(folder, canary)
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    done = subprocess.run(
        [sys.executable, str(JUDGE)],
        input=json.dumps([str(path) for path in paths.values()]),
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(paths, map(json.loads, done.stdout.splitlines()), strict=True)), canary


def test_there_are_enough_of_them(judged):
    assert len(judged[0]) >= 80


def test_each_is_refused_as_a_checkpoint(judged):
    assert {
        name: one["outcome"] for name, (one, _) in judged[0].items() if not one["outcome"].startswith("refused: ")
    } == {}


def test_each_is_refused_at_once_with_little_memory(judged):
    costs = {name: (one["seconds"], one["megabytes"]) for name, both in judged[0].items() for one in both}
    assert {name: cost for name, cost in costs.items() if cost[0] > 2 or cost[1] > 200} == {}


def test_nothing_was_run(judged):
    assert not judged[1].exists()


@pytest.mark.parametrize("name", WORDS)
def test_the_reason_is_in_the_message(judged, name):
    assert WORDS[name] in judged[0][name][0]["outcome"]


def test_the_payloads_are_real(tmp_path):
    """Plain unpickling would have run them."""
    canary = tmp_path / "canary"
    path = tmp_path / "net.pth"
    path.write_bytes(hostile_files.pickled_calls(canary)["pickle: os.system"])
    torch.load(path, weights_only=False)
    assert canary.exists()


def test_an_allow_list_that_somebody_extended_changes_nothing(tmp_path):
    canary = tmp_path / "canary"
    path = tmp_path / "net.pth"
    path.write_bytes(hostile_files.pickled_calls(canary)["pickle: os.system"])
    with torch.serialization.safe_globals([os.system]), pytest.raises(DamagedFile, match="nothing of it was run"):
        load_checkpoint(path)
    assert not canary.exists()


def test_the_forgeries_differ_from_good_files_by_their_trick_alone(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(hostile_files.checkpoint_with(b"N"))
    assert load_checkpoint(path)["model"]["w"].shape == (4,)
    assert list(load_weights_file(path)) == ["w"]

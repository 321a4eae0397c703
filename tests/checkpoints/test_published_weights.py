"""Published weights: found by name, downloaded once, compared by hash at every load, and never unpickled."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit import CONNECTS, RUNS_CODE, noticed
from file_server import Served, serving
from hostile_files import Payload
from safetensors.torch import save as to_safetensors

from trainkit.checkpoints import DamagedFile, WeightsFile, find_weights, open_weights
from trainkit.errors import CheckpointError, UserError
from trainkit.system import Frontend

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}


def saved(value: object, *, old: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def published(folder: Path, data: bytes, *, address: str = "http://127.0.0.1:9") -> WeightsFile:
    """A file with the right hash in its name, as torchvision has them."""
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    return WeightsFile("torchvision", "net", "IMAGENET1K_V1", name, folder, url=f"{address}/{name}", size=45_000_000)


def same(weights: dict[str, torch.Tensor]) -> bool:
    return list(weights) == list(STATE) and all(torch.equal(weights[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_it_is_downloaded_once_and_then_no_connection_is_opened(tmp_path, old):
    data = saved(STATE, old=old)
    with serving({}) as server:
        found = published(tmp_path / "hub", data, address=server.address)
        server.files[found.file] = Served(data)
        assert not found.is_here
        assert found.describe() == (
            f"{found.file} (45 MB) is not in {tmp_path / 'hub'} yet: training downloads it from {found.url}"
        )
        weights, pin = open_weights(found)
        assert same(weights)
        with noticed(CONNECTS) as seen:
            again, pinned = open_weights(found, sha256=pin.sha256)
        assert seen == []
        assert server.requests == [f"GET /{found.file}"]
    assert same(again)
    assert pin == pinned
    digest = hashlib.sha256(data).hexdigest()
    assert (pin.library, pin.name, pin.weights, pin.file) == ("torchvision", "net", "IMAGENET1K_V1", found.file)
    assert (pin.sha256, pin.size, pin.revision) == (digest, len(data), None)
    assert found.describe().startswith(f"{found.file} (")
    assert found.describe().endswith(f" is in {tmp_path / 'hub'}")


def test_without_a_network_the_message_has_name_size_address_and_folder(tmp_path):
    found = published(tmp_path / "hub", saved(STATE))
    with pytest.raises(UserError) as caught:
        open_weights(found)
    assert str(caught.value) == (
        f"{found.file} (45 MB) is not in {tmp_path / 'hub'}, and cannot be downloaded from {found.url}: Connection "
        "refused; download it where there is a network and put it into that folder"
    )
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_another_file(tmp_path):
    with serving({}) as server:
        found = published(tmp_path, saved(STATE), address=server.address)
        server.files[found.file] = Served(saved({"other": torch.ones(1)}))
        with pytest.raises(UserError, match=r"what came is another file: its SHA-256 begins with \w{8}, its name says"):
            open_weights(found)
    assert list(tmp_path.iterdir()) == []


def test_the_hash_in_the_name_is_compared_at_every_load(tmp_path):
    found = published(tmp_path, saved(STATE))
    found.path.write_bytes(saved({"other": torch.ones(1)}))
    with (
        noticed(CONNECTS) as seen,
        pytest.raises(
            CheckpointError, match=r"begins with \w{8}, its name says \w{8}: it is damaged, or another file; delete it"
        ),
    ):
        open_weights(found)
    assert seen == []


def test_a_pinned_sha256_must_be_that_of_the_file_and_the_message_has_both(tmp_path):
    found = find_weights("torchvision", "resnet18", "default", path=str(tmp_path / "mine.pth"))
    found.path.write_bytes(saved(STATE))
    _, pin = open_weights(found)
    assert (pin.library, pin.weights, pin.file) == ("file", str(tmp_path / "mine.pth"), "mine.pth")
    open_weights(found, sha256=pin.sha256)
    wrong = "0" * 64
    with pytest.raises(CheckpointError, match=f"its SHA-256 is {pin.sha256}, and model.sha256 is {wrong}"):
        open_weights(found, sha256=wrong)


def test_a_pin_that_is_not_of_this_name_is_refused_before_the_download(tmp_path):
    with serving({}) as server:
        found = published(tmp_path, saved(STATE), address=server.address)
        with pytest.raises(
            CheckpointError, match=f"begins with {found.hash_prefix}, as its name says, and model.sha256 is 00"
        ):
            open_weights(found, sha256="0" * 64)
        assert server.requests == []


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("net-0123abcd.pth", "0123abcd"),
        ("net-3ffadce67e.safetensors", "3ffadce67e"),
        ("net-20261126.pth", None),  # a date
        ("step-00012000.pth", None),
        ("net-0123abc.pth", None),
        ("net_0123abcd.pth", None),
        ("net-feedback.pth", None),
        ("0123abcd.pth", None),
    ],
)
def test_which_digits_in_the_name_of_a_users_file_are_a_hash(name, prefix):
    assert find_weights("torchvision", "resnet18", "x", path=f"/data/{name}").hash_prefix == prefix


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_a_payload_is_not_run(tmp_path, old):
    """The hash is right: only reading without unpickling helps."""
    canary = tmp_path / "canary"
    found = published(tmp_path, saved({"w": Payload(canary.touch)}, old=old))
    found.path.write_bytes(saved({"w": Payload(canary.touch)}, old=old))
    mine = tmp_path / "mine.pth"
    mine.write_bytes(saved(STATE, old=old))
    open_weights(find_weights("torchvision", "x", "x", path=str(mine)))  # what this imports is imported now
    with noticed(RUNS_CODE) as seen, pytest.raises(DamagedFile, match="refused: it names the Python object"):
        open_weights(found)
    assert seen == []
    assert not canary.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(found.path, weights_only=True)
    torch.load(found.path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "folder", "web page", "cut"])
def test_files_that_are_none(tmp_path, kind):
    path = tmp_path / "mine.pth"
    data = {"empty": b"", "web page": b"<!DOCTYPE html><html>", "cut": saved(STATE)[:-100]}
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(data[kind])
    with pytest.raises(DamagedFile, match=r"mine\.pth: "):
        open_weights(find_weights("torchvision", "resnet18", "x", path=str(path)))


class TestTorchvision:
    def test_names(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with noticed(CONNECTS) as seen:
            default = find_weights("torchvision", "resnet50", "default")
            first = find_weights("torchvision", "resnet50", "IMAGENET1K_V1")
        assert seen == []
        assert (default.weights, default.file, default.hash_prefix) == (
            "IMAGENET1K_V2",
            "resnet50-11ad3fa6.pth",
            "11ad3fa6",
        )
        assert default.folder == tmp_path / "hub" / "checkpoints"
        assert default.url == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
        assert default.size == pytest.approx(102.5e6, rel=0.01)
        assert first.file == "resnet50-0676ba61.pth"

    def test_a_wrong_name(self):
        with pytest.raises(UserError) as caught:
            find_weights("torchvision", "resnet50", "IMAGENET_V2")
        assert str(caught.value) == (
            "resnet50 has no weights 'IMAGENET_V2' in torchvision, but IMAGENET1K_V2, IMAGENET1K_V1; "
            "did you mean IMAGENET1K_V2?"
        )

    def test_default_with_a_pin_stays_what_it_was_when_a_newer_torchvision_has_others(self):
        pinned = "0676ba61" + "0" * 56
        assert find_weights("torchvision", "resnet50", "default", sha256=pinned).weights == "IMAGENET1K_V1"

    def test_every_classifier_has_files_with_a_hash_and_a_size(self):
        from torchvision import models

        for name in models.list_models(module=models):
            found = find_weights("torchvision", name, "default")
            assert found.hash_prefix, name
            assert found.size, name


HUB = """
import json, sys
from dataclasses import asdict
from audit import CONNECTS, noticed
from trainkit.checkpoints import find_weights, open_weights
from trainkit.errors import TrainkitError
from trainkit.system import Frontend
said, counted = [], []
with noticed(CONNECTS) as seen:
    try:
        found = find_weights("timm", sys.argv[1], sys.argv[2], revision=sys.argv[3] or None)
        before = list(seen)
        weights, pin = open_weights(found, frontend=Frontend(say=said.append, progress=lambda *n: counted.append(n)))
        out = {"pin": asdict(pin), "names": list(weights)}
    except TrainkitError as error:
        out, before = {"error": str(error), "exit_code": error.exit_code}, []
print(json.dumps({**out, "before": before, "connected": bool(seen), "said": said, "counted": len(counted)}))
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def ask_hub(home: Path, address: str, *, name="resnet18", weights="default", revision="", offline=False) -> dict:
    """A process of its own, since huggingface_hub reads its environment when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    done = subprocess.run(
        [sys.executable, "-c", HUB, name, weights, revision],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


class TestTimm:
    """Its weights, from a Hub on this machine that speaks as the real one does."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("timm")
        pytest.importorskip("huggingface_hub")

    @pytest.mark.slow
    def test_downloaded_once_with_its_commit_recorded(self, tmp_path):
        data = to_safetensors(STATE)
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        served = Served(data, headers=headers)
        files = {f"timm/resnet18.a1_in1k/resolve/{at}/model.safetensors": served for at in ("main", COMMIT)}
        with serving(files) as server:
            first = ask_hub(tmp_path, server.address)
            asked = len(server.requests)
            assert asked > 0
            again = ask_hub(tmp_path, server.address, revision=COMMIT, offline=True)
            assert len(server.requests) == asked
        assert first["before"] == []
        assert first["names"] == sorted(STATE)
        assert first["pin"] == {
            "library": "timm", "name": "resnet18", "weights": "a1_in1k", "file": "model.safetensors",
            "sha256": digest, "size": len(data), "revision": COMMIT,
        }  # fmt: skip
        assert len(first["said"]) == 1
        assert "model.safetensors of timm/resnet18.a1_in1k" in first["said"][0]
        assert again["pin"] == first["pin"]
        assert not again["connected"]

    @pytest.mark.slow
    def test_offline_nothing_is_asked(self, tmp_path):
        with serving({}) as server:
            got = ask_hub(tmp_path, server.address, offline=True)
            assert server.requests == []
        assert got["exit_code"] == 2
        folder = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
        assert got["error"] == (
            f"model.safetensors is not in {folder}, and cannot be downloaded from {server.address}/timm/"
            "resnet18.a1_in1k/resolve/main/model.safetensors: HF_HUB_OFFLINE is set; download it where there is a "
            "network (hf download timm/resnet18.a1_in1k model.safetensors) and copy the folder models--timm--"
            f"resnet18.a1_in1k of its cache to {tmp_path / 'hub'}, or name the file in model.weights"
        )

    @pytest.mark.slow
    def test_no_network(self, tmp_path):
        got = ask_hub(tmp_path, "http://127.0.0.1:9")
        assert got["exit_code"] == 2
        assert "resolve/main/model.safetensors: [Errno 111] Connection refused; download it where" in got["error"]

    @pytest.mark.slow
    def test_a_pickle_in_the_repository_is_not_taken(self, tmp_path):
        with serving({"timm/resnet18.a1_in1k/resolve/main/pytorch_model.bin": Served(saved(STATE))}) as server:
            got = ask_hub(tmp_path, server.address)
            assert not any("pytorch_model" in request for request in server.requests)
        assert got["exit_code"] == 2
        assert "404" in got["error"]

    def test_names(self):
        assert find_weights("timm", "resnet18", "default").weights == "a1_in1k"
        assert find_weights("timm", "resnet18.tv_in1k", "default").hub.repo == "timm/resnet18.tv_in1k"
        assert find_weights("timm", "resnet18", "gluon_in1k").hub.repo == "timm/resnet18.gluon_in1k"
        with pytest.raises(UserError) as caught:
            find_weights("timm", "resnet18", "tv_ink")
        assert str(caught.value).startswith("resnet18 has no weights 'tv_ink' in timm, but a1_in1k, ")
        assert str(caught.value).endswith("; did you mean tv_in1k?")
        with pytest.raises(UserError, match="timm has no weights of seresnet18 on the Hugging Face Hub"):
            find_weights("timm", "seresnet18", "default")


def test_a_frontend_is_told(tmp_path):
    said: list[str] = []
    with serving({}) as server:
        found = published(tmp_path, saved(STATE), address=server.address)
        server.files[found.file] = Served(saved(STATE))
        open_weights(found, frontend=Frontend(say=said.append))
        open_weights(replace(found), frontend=Frontend(say=said.append))
    assert len(said) == 1
    assert said[0].startswith(f"downloading {found.file} (")

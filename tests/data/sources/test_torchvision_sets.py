"""IDX and CIFAR files: where they lie, what is wrong with them, and what to do without a network."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flat_sources import load_downloaded
from torchvision import datasets

from trainkit.data.dataset import Dataset
from trainkit.data.sources import torchvision_sets as module
from trainkit.data.sources.torchvision_sets import read_idx
from trainkit.errors import DataError, ProblemsError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def idx_bytes(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_idx(folder: Path, *, packed: bool = False, train: int = 40, test: int = 20) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        for kind, values in ((IMAGES, rng.integers(0, 256, (count, 28, 28))), (LABELS, np.arange(count) % 10)):
            data = idx_bytes(values)
            path = folder / f"{part}-{kind}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return folder


def load(root: Path, name: Any = "mnist", **changes: Any) -> Dataset:
    return load_downloaded(name, **({"root": root, "download": False, "val_fraction": 0.25, "seed": 0} | changes))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "subfolder"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("kmnist", "KMNIST/raw"),
        ("mnist", "x"),
        ("mnist", "raw"),
    ],
)
def test_idx_files_are_found_plain_or_packed(tmp_path: Path, name: Any, subfolder: str, packed: bool) -> None:
    folder = write_idx(tmp_path / subfolder, packed=packed)
    data = load(folder if subfolder == "x" else tmp_path, name)
    assert data.input_shape == (1, 28, 28)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "val": 10, "test": 20}
    assert data.num_classes == 10
    inputs = data.parts["train"].inputs
    assert isinstance(inputs, np.ndarray)
    assert np.array_equal(inputs[:, 0], np.random.default_rng(0).integers(0, 256, (40, 28, 28)))
    assert isinstance(inputs, np.memmap) or packed


def test_plain_and_packed_files_have_one_fingerprint(tmp_path: Path) -> None:
    write_idx(tmp_path / "plain" / "MNIST" / "raw")
    write_idx(tmp_path / "packed" / "MNIST" / "raw", packed=True)
    plain, packed = load(tmp_path / "plain"), load(tmp_path / "packed", cache_dir=tmp_path / "cache")
    assert (
        plain.fingerprint == packed.fingerprint == load(tmp_path / "packed", cache_dir=tmp_path / "cache").fingerprint
    )


def test_torch_takes_the_mapped_images_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    inputs = load(tmp_path).parts["train"].inputs
    assert isinstance(inputs, np.ndarray)
    assert torch.from_numpy(inputs).shape == (40, 1, 28, 28)
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (f"train-{IMAGES}", lambda data: data[:-1], r"has 31375 bytes, expected 31376"),
        (f"train-{IMAGES}", lambda data: data[:3], "not an IDX file"),
        (f"train-{IMAGES}", lambda data: b"", "is damaged"),
        (f"train-{IMAGES}", lambda data: b"<html>not found</html>", "not an IDX file"),
        (f"train-{IMAGES}", lambda data: data[:4] + b"\xff" * 12 + data[16:], "expected 7922816"),
        (f"t10k-{LABELS}", lambda data: idx_bytes(np.zeros(21)), "holds 20 images, but .* 21 labels"),
        (f"t10k-{LABELS}", lambda data: data[:-1] + b"\x0a", r"1 label out of range, the first at sample 19: 10"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path: Path, file: str, change: Any, message: str) -> None:
    path = write_idx(tmp_path / "MNIST" / "raw") / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_packed_file_cut_short_is_named(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "MNIST" / "raw", packed=True) / f"train-{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz is damaged .*delete it and get it again"):
        load(tmp_path, cache_dir=tmp_path / "cache")


def test_a_fifo_is_no_file(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "MNIST" / "raw") / f"train-{IMAGES}"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ProblemsError, match="by hand: put there train-images-idx3-ubyte"):
        load(tmp_path)


def test_missing_files_without_download(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        load(tmp_path / "data")
    [problem] = caught.value.problems
    assert problem.key == "dataset.root"
    assert "downloading is switched off (dataset.download: false)" in problem.message
    for part in ("train", "t10k"):
        assert f"{part}-{IMAGES}" in problem.message
    assert "configs/digits_cnn.yaml" in problem.message
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
    ],
)
def test_offline_says_where_the_files_go_and_leaves_nothing(tmp_path: Path, name: Any, folder: str) -> None:
    with pytest.raises(ProblemsError) as caught:
        load(tmp_path / "deep" / "data", name, download=True)
    message = caught.value.problems[0].message
    assert f"{name} is not in {tmp_path / 'deep' / 'data' / folder}" in message
    assert "the download failed" in message
    assert "Temporary failure in name resolution" in message
    assert "configs/digits_cnn.yaml" in message
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.5)
        with pytest.raises(ProblemsError, match=r"mnist is not in .* the download failed \("):
            load(tmp_path / "data", download=True)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_root_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProblemsError, match="cannot be written"):
        load(tmp_path / "file" / "data", download=True)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packed IDX files, and a server on this machine that torchvision takes for its mirror."""
    source = write_idx(tmp_path / "server", packed=True)
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(source.iterdir())]
    handler = functools.partial(QuietHandler, directory=str(source))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(datasets.MNIST, "resources", resources)
        yield source
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_download_arrives_where_torchvision_looks(tmp_path: Path, mirror: Path) -> None:
    data = load(tmp_path / "data", download=True)
    assert len(data.parts["train"]) == 40
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["MNIST"]
    theirs = datasets.MNIST(tmp_path / "data", train=False)
    ours = data.parts["test"]
    assert isinstance(ours.inputs, np.ndarray)
    assert np.array_equal(theirs.data.numpy(), ours.inputs[:, 0])
    assert np.array_equal(theirs.targets.numpy(), ours.targets)
    shutil.rmtree(mirror)
    assert load(tmp_path / "data", download=True).fingerprint == data.fingerprint  # nothing is asked for again


def test_an_interrupted_download_leaves_no_data(tmp_path: Path, mirror: Path) -> None:
    sorted(mirror.iterdir())[-1].unlink()  # three of four files arrive
    with pytest.raises(ProblemsError, match="the download failed"):
        load(tmp_path / "data", download=True)
    assert not (tmp_path / "data").exists()


def test_a_download_with_other_bytes_is_refused(tmp_path: Path, mirror: Path) -> None:
    (mirror / f"train-{IMAGES}.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((40, 28, 28)))))
    with pytest.raises(ProblemsError, match="the download failed"):
        load(tmp_path / "data", download=True)
    assert not (tmp_path / "data").exists()


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, list[int]]:
    """Files of CIFAR-10's layout with few images; torchvision gets their checksums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (60, 3072), dtype=np.uint8), [index % 10 for index in range(60)]
    checksums = {}

    def write(name: str, content: dict[str, Any]) -> None:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        checksums[name] = hashlib.md5(data).hexdigest()

    for number, (name, _) in enumerate([*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list]):
        chosen = slice(number * 10, number * 10 + 10)
        write(name, {"data": pixels[chosen], "labels": labels[chosen]})
    write("batches.meta", {"label_names": [f"class {label}" for label in range(10)]})
    for attribute in ("train_list", "test_list"):
        listed = [[name, checksums[name]] for name, _ in getattr(datasets.CIFAR10, attribute)]
        monkeypatch.setattr(datasets.CIFAR10, attribute, listed)
    meta = {"filename": "batches.meta", "key": "label_names", "md5": checksums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return pixels.reshape(60, 3, 32, 32), labels


def test_cifar_is_read_once_and_then_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = write_cifar(tmp_path / "data", monkeypatch)
    data = load(tmp_path / "data", "cifar10", val_fraction=0.2, cache_dir=tmp_path / "cache")
    train = data.parts["train"]
    assert isinstance(train.inputs, np.ndarray)
    assert np.array_equal(train.inputs, pixels[:50])
    assert train.targets.tolist() == labels[:50]
    assert data.class_names[3] == "class 3"
    assert data.input_shape == (3, 32, 32)
    code = (
        "import sys; from pathlib import Path; from trainkit.data.sources.torchvision_sets import load_downloaded\n"
        f"root, cache = Path({str(tmp_path / 'data')!r}), Path({str(tmp_path / 'cache')!r})\n"
        "from trainkit.data.splits import HeldOut\n"
        "held = HeldOut({'val': 0.2}, seed=0)\n"
        "data = load_downloaded('cifar10', root=root, download=False, held=held, cache_dir=cache)\n"
        "print(data.fingerprint['parts']['train']['inputs'], 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [data.fingerprint["parts"]["train"]["inputs"], "False"]


def test_a_changed_cifar_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path / "data", monkeypatch)
    path = tmp_path / "data" / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.")
    with pytest.raises(DataError, match="cifar-10-batches-py is damaged"):
        load(tmp_path / "data", "cifar10")
    assert not (tmp_path / "owned").exists()


def test_read_idx_of_real_mnist() -> None:
    folder = os.environ.get("TRAINKIT_TEST_DATA")
    if not folder:
        pytest.skip("TRAINKIT_TEST_DATA is not set: no real MNIST")
    data = load(Path(folder), val_fraction=0.1)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 54000, "val": 6000, "test": 10000}
    theirs = datasets.MNIST(folder, train=True)
    assert np.array_equal(read_idx(Path(folder) / "MNIST" / "raw" / f"train-{IMAGES}", num_axes=3), theirs.data.numpy())
    assert np.array_equal(data.parts["train"].targets, theirs.targets.numpy())

"""MNIST and sets of its format from IDX files, CIFAR from pickles; torchvision downloads them where that is allowed."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import socket
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import cached_arrays, stamp_files
from trainkit.data.dataset import Dataset, Part, fingerprint_dataset
from trainkit.data.splits import HeldOut, split_part, whole_part
from trainkit.errors import DataError, Interrupted, Problem, ProblemsError
from trainkit.wording import counted

TIMEOUT_SECONDS = 10.0
"""A download fails when the server sends nothing for this long."""

DownloadedName = Literal["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100"]
Arrays = tuple[NDArray[Any], NDArray[Any]]
Fetch = Callable[[Path, str], str | None]
"""Downloads the set, given the root and the folder in it. Returns the reason of a failure, or None."""

_IDX_CLASSES = {
    "mnist": tuple(str(digit) for digit in range(10)),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
_TORCHVISION_CLASS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
_CIFAR_FOLDER = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_CIFAR_FILES = {
    "cifar10": (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    "cifar100": ("train", "test", "meta"),
}
_IDX_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)  # fmt: skip


def load_downloaded(
    name: DownloadedName,
    *,
    root: str | Path,
    download: bool,
    held: HeldOut,
    cache_dir: Path | None = None,
    save: bool = True,
    should_stop: Callable[[], bool] | None = None,
) -> Dataset:
    """The official parts ``"train"`` and ``"test"`` as uint8 images (N, C, H, W); validation comes out of train.

    The files have torchvision's layout: ``root/MNIST/raw`` (``FashionMNIST``, ``KMNIST``), plain or ``.gz``,
    or in ``root`` itself; ``root/cifar-10-batches-py`` and ``root/cifar-100-python``. With ``cache_dir``, what has to
    be unpacked is kept there: later calls neither unpack nor import torchvision. ``save=False`` only reads it.

    Raises:
        ProblemsError: Files are missing and could not be, or must not be, downloaded.
        DataError: A file is damaged.
        Interrupted: ``should_stop`` returned true during a download, of which nothing is left.
    """
    fetch = partial(fetch_with_torchvision, _TORCHVISION_CLASS[name], should_stop=should_stop) if download else None
    root = Path(root).expanduser()
    if name in _IDX_CLASSES:
        folder = _find_or_download_idx(name, root, fetch)
        train, test = (_read_idx_pair(folder, part, cache_dir, save=save) for part in ("train", "t10k"))
        class_names = _IDX_CLASSES[name]
    else:
        train, test, class_names = _read_cifar(name, root, fetch, cache_dir=cache_dir, save=save)
    parts = {"train": Part(*train), "test": Part(*test)}
    for part_name, part in parts.items():
        _check_labels(part.targets, len(class_names), f"{name}, part {part_name!r}")
    splits = split_part(parts["train"], "train", task="classification", held=held, class_names=class_names)
    splits["test"] = whole_part(parts["test"], "test")
    return Dataset(
        name=name,
        kind="image",
        task="classification",
        parts=parts,
        splits=splits,
        class_names=class_names,
        fingerprint=fingerprint_dataset(name, parts, splits, class_names=class_names),
        channels=int(train[0].shape[1]),
    )


def _check_labels(labels: NDArray[Any], num_classes: int, where: str) -> None:
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(bad):
        raise DataError(
            f"{where}: {counted(len(bad), 'label')} out of range, the first at sample {bad[0]}: {labels[bad[0]]}; "
            f"expected 0 to {num_classes - 1}; the file is damaged or not this data set"
        )


def _find_or_download_idx(name: str, root: Path, fetch: Fetch | None) -> Path:
    """The folder that holds all four IDX files."""
    usual = root / _TORCHVISION_CLASS[name] / "raw"
    for folder in (usual, root, root / "raw"):
        if all(_idx_path(folder, file) is not None for file in _IDX_FILES):
            return folder
    missing = [file for file in _IDX_FILES if _idx_path(usual, file) is None]
    _download(name, root, usual, missing, fetch, note=" (plain or .gz)")
    return usual


def _download(name: str, root: Path, folder: Path, missing: list[str], fetch: Fetch | None, *, note: str = "") -> None:
    """Download the missing files into ``folder``, or raise ProblemsError where that is off or fails."""
    off = "downloading is switched off (dataset.download: false)"
    reason = fetch(root, str(folder.relative_to(root))) if fetch is not None else off
    if reason:
        message = (
            f"{name} is not in {folder}, and {reason}; by hand: put there {', '.join(missing)}{note}, "
            "as the authors of the set publish them; or start with configs/digits_cnn.yaml: it needs no download"
        )
        raise ProblemsError([Problem(message, key="dataset.root")])


def _idx_path(folder: Path, file: str) -> Path | None:
    """The plain or the compressed file, if it is a regular file."""
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _read_idx_pair(folder: Path, part: str, cache_dir: Path | None, *, save: bool) -> Arrays:
    """Images uint8 (N, 1, H, W) and labels int64 (N,)."""
    images_path, labels_path = (_idx_path(folder, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    assert images_path is not None
    assert labels_path is not None
    labels = read_idx(labels_path, num_axes=1)
    if images_path.suffix == ".gz":
        description = {"kind": "idx", "files": stamp_files([images_path])}
        arrays, _ = cached_arrays(
            cache_dir,
            images_path.name,
            description,
            lambda: ({"images": read_idx(images_path, num_axes=3)}, {}),
            save=save,
        )
        images = arrays["images"]
    else:
        images = read_idx(images_path, num_axes=3)
    if len(images) != len(labels):
        images_found, labels_found = counted(len(images), "image"), counted(len(labels), "label")
        raise DataError(f"{images_path} holds {images_found}, but {labels_path} {labels_found}")
    return images[:, None], labels.astype(np.int64)


def read_idx(path: Path, *, num_axes: int) -> NDArray[np.uint8]:
    """A uint8 array from an IDX file: mapped where it is plain, unpacked into memory where it is ``.gz``.

    Format (Y. LeCun's page on MNIST): two zero bytes, the type (8: uint8), the number of axes, the size of each axis
    as a big-endian 32-bit number, then the values.

    Raises:
        DataError: Not such a file, or one that is cut short.
    """
    data: NDArray[np.uint8]
    try:
        if path.suffix == ".gz":
            data = np.frombuffer(bytearray(gzip.decompress(path.read_bytes())), dtype=np.uint8)
        else:
            data = np.memmap(path, dtype=np.uint8, mode="c")  # copy on write: torch wants writable memory
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise DataError(f"{path} is damaged ({error}); delete it and get it again") from error
    start = 4 + 4 * num_axes
    if len(data) < start or bytes(data[:4]) != bytes((0, 0, 8, num_axes)):
        raise DataError(f"{path} is not an IDX file of bytes with {num_axes} axes; delete it and get it again")
    shape = [int(size) for size in data[4:start].view(">u4")]
    expected = start + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise DataError(f"{path} has {len(data)} bytes, expected {expected}; delete it and get it again")
    return data[start:].reshape(shape)


def _read_cifar(
    name: str, root: Path, fetch: Fetch | None, *, cache_dir: Path | None, save: bool
) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """Both parts and the class names."""
    folder = root / _CIFAR_FOLDER[name]
    missing = [file for file in _CIFAR_FILES[name] if not (folder / file).is_file()]
    if missing:
        _download(name, root, folder, missing, fetch)
    description = {"kind": name, "files": stamp_files([folder / file for file in _CIFAR_FILES[name]])}
    arrays, info = cached_arrays(cache_dir, name, description, lambda: _read_torchvision(name, root, folder), save=save)
    train, test = ((arrays[f"{part}_inputs"], arrays[f"{part}_targets"]) for part in ("train", "test"))
    return train, test, tuple(info["class_names"])


def _read_torchvision(name: str, root: Path, folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """CIFAR's files are pickles: torchvision compares the MD5 of each with its own list before it opens it."""
    from torchvision import datasets

    arrays: dict[str, NDArray[Any]] = {}
    class_names: list[str] = []
    for part in ("train", "test"):
        try:
            loaded = getattr(datasets, _TORCHVISION_CLASS[name])(root, train=part == "train")
        except (RuntimeError, OSError) as error:
            raise DataError(f"{folder} is damaged ({error}); delete it and get it again") from error
        arrays[f"{part}_inputs"] = np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2))
        arrays[f"{part}_targets"] = np.asarray(loaded.targets, dtype=np.int64)
        class_names = list(loaded.classes)
    return arrays, {"class_names": class_names}


def fetch_with_torchvision(
    class_name: str, root: Path, subfolder: str, *, should_stop: Callable[[], bool] | None = None
) -> str | None:
    """Download a set of ``torchvision.datasets`` and put its files into ``root/subfolder``.

    The files arrive in a temporary folder and are moved when torchvision has checked them all, so an interrupted
    download leaves nothing that looks like data. Returns None when done, else the reason why it did not work.

    Args:
        should_stop: called several times a second.

    Raises:
        Interrupted: ``should_stop`` returned true.
    """
    created = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
    except OSError as error:
        return f"{root} cannot be written ({error.strerror})"
    try:
        reason = _download_in_thread(class_name, temporary, should_stop)
        if reason is None:
            _move_files(temporary / subfolder, root / subfolder)
        return reason
    except OSError as error:
        return f"the download could not be stored ({error})"
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in created:  # a download that failed leaves no empty folders
            with contextlib.suppress(OSError):
                folder.rmdir()


def _download_in_thread(class_name: str, folder: Path, should_stop: Callable[[], bool] | None) -> str | None:
    """In a thread, since a download of torchvision cannot be stopped."""
    from torchvision import datasets  # here: importing it in the thread would delay the stop

    failures: list[str] = []
    done = threading.Event()

    def work() -> None:
        try:
            with _socket_timeout(TIMEOUT_SECONDS):
                getattr(datasets, class_name)(folder, download=True)
        except Exception as error:  # noqa: BLE001  whatever torchvision or the network raised is a reason, not a crash
            failures.append(_last_line(error))
        finally:
            done.set()

    threading.Thread(target=work, name=f"download {class_name}", daemon=True).start()
    while not done.wait(0.2):
        if should_stop is not None and should_stop():  # the thread ends with the process
            raise Interrupted(f"stopped while {class_name} was being downloaded", 130)
    return f"the download failed ({failures[0]})" if failures else None


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _move_files(source: Path, target: Path) -> None:
    """Everything but archives; a file that another process put there meanwhile is replaced by the same bytes."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix != ".gz":
            os.replace(path, target / path.name)

"""Weights in the format that ``torch.save`` wrote before PyTorch 1.6, read without unpickling.

Many published files still have it. Five pickles stand one after the other: a magic number, the version of the format,
the machine's sizes, the value, and the keys of its storages; then come the storages' bytes in that order, each after
its number of elements (``torch.serialization._legacy_save``). The pickles are read as those of newer files are, and
tensors are made of the bytes here, so that nothing of ``torch.load`` is needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.inspection import check_plain
from trainkit.checkpoints.safe_pickle import MAX_PICKLE_BYTES, TensorSpec, read_value, refuse

if TYPE_CHECKING:
    from torch import Tensor

_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of torch.serialization.MAGIC_NUMBER
_VERSION = 1001


def is_legacy(file: BufferedReader) -> bool:
    """Whether the file begins as one of before PyTorch 1.6."""
    file.seek(0)
    return file.read(len(_MAGIC)) == _MAGIC


def load_legacy(file: BufferedReader, path: str | Path) -> Any:
    """The value in an open file of this format, with tensors on the CPU. ``path`` is for messages.

    Raises:
        DamagedFile: it holds anything but plain values and tensors, is cut short, or contradicts itself.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = BytesIO(file.read(MAX_PICKLE_BYTES))
    head.seek(len(_MAGIC))
    claimed: dict[str, tuple[int, int]] = {}

    def claim(key: str, count: int, item_size: int) -> None:
        if count < 0 or count * item_size > size or claimed.setdefault(key, (count, item_size)) != (count, item_size):
            refuse(f"damaged or forged: a tensor's storage claims {count} elements, the file has {size} bytes")

    version, machine, value, keys = (read_value(head, path, claim) for _ in range(4))
    if version != _VERSION or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise DamagedFile(path, "refused: saved by a PyTorch before 1.6 on a machine with another order of bytes")
    check_plain(value, path)
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(claimed):
        raise DamagedFile(path, "damaged or forged: its list of storages is not that of its tensors")
    file.seek(head.tell())
    storages = {key: _read_storage(file, path, *claimed[key]) for key in keys}
    if file.read(1):
        raise DamagedFile(path, "damaged or forged: there are bytes behind its last tensor")
    return _with_tensors(value, storages)


def _read_storage(file: BufferedReader, path: str | Path, count: int, item_size: int) -> bytearray:
    data = bytearray(count * item_size)
    if file.read(8) != count.to_bytes(8, "little") or file.readinto(data) != len(data):
        raise DamagedFile(path, "damaged: the file is cut short, or its tensors are not where it says")
    return data


def _with_tensors(value: Any, storages: Mapping[str, bytearray]) -> Any:
    match value:
        case TensorSpec():
            return _tensor(value, storages[value.key])
        case dict():
            return {key: _with_tensors(item, storages) for key, item in value.items()}
        case list() | tuple():
            return [_with_tensors(item, storages) for item in value]
    return value


def _tensor(spec: TensorSpec, data: bytearray) -> Tensor:
    import torch

    dtype = getattr(torch, spec.dtype)
    whole = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return whole.as_strided(spec.shape, spec.strides, spec.offset)

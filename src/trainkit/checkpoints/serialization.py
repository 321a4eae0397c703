"""A state to a file and back: what ``torch.save`` makes of tensors and plain values, read with an empty allow-list.

``torch.load(path, weights_only=True)`` opens these files.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

from trainkit.checkpoints.archive import DamagedFile, open_regular
from trainkit.checkpoints.inspection import check_format, read_archive
from trainkit.checkpoints.journal import follow_pointer, known_sha256
from trainkit.system import durable


def write_state(state: Mapping[str, Any], draft: durable.Draft) -> None:
    """``torch.save`` into a draft.

    Raises:
        durable.WriteError: the system refused; ``torch.save`` would speak of an unexpected position.
    """
    import torch

    try:
        torch.save(state, cast(IO[bytes], draft))
    except Exception:
        if draft.failure is not None:
            raise draft.failure from None
        raise


def load_checkpoint(path: str | Path, *, expected_sha256: str | None = None) -> dict[str, Any]:
    """Read a checkpoint after every check of its file; tensors are on the CPU, and nothing in the file is ever run.

    ``best`` and ``last`` stand for the checkpoints that they name. Where the journal beside the file knows its SHA-256,
    that is compared too.

    Raises:
        DamagedFile: says what is wrong with the file, and what to do with it where it is a good file of another kind.
    """
    path = follow_pointer(path)
    with open_regular(path) as file:
        outline = read_archive(file, path, expected_sha256=expected_sha256 or known_sha256(path))
        check_format(outline)
        state = load_plain(file, path)
    assert isinstance(state, dict)
    return state


def load_plain(file: BufferedReader, path: str | Path) -> Any:
    """``torch.load`` of an open file that ``read_archive`` has passed.

    The names in it are known to be those of tensors and containers, so neither an allow-list that a plugin has extended
    nor an environment variable makes a difference; ``weights_only`` is the second lock.
    """
    import torch

    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (torch raises whatever it likes)
        raise DamagedFile(path, f"PyTorch cannot read it: {str(error).splitlines()[0][:200]}") from None

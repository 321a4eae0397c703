"""Files read after every check: whole checkpoints, and the weights in ``.pth`` and ``.safetensors`` files of others."""

from __future__ import annotations

import warnings
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.checkpoints.archive import DamagedFile, open_regular
from trainkit.checkpoints.inspection import KIND, check_format, read_archive
from trainkit.checkpoints.journal import follow_pointer, known_sha256
from trainkit.checkpoints.legacy import is_legacy, load_legacy

if TYPE_CHECKING:
    from torch import Tensor

# Where programs keep the state_dict in a larger checkpoint, and what wrappers put before each name.
_WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "weights", "net")
_WRAPPERS = ("module.", "_orig_mod.")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint after every check of its file; tensors are on the CPU, and nothing in the file is ever run.

    ``best`` and ``last`` stand for the checkpoints that they name. Where the journal beside the file knows its SHA-256,
    that is compared too.

    Raises:
        DamagedFile: the file is damaged, or of another kind; the message then names what to do with it.
    """
    path = follow_pointer(path)
    with open_regular(path) as file:
        check_format(read_archive(file, path, expected_sha256=known_sha256(path)))
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


def load_weights_file(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a trainkit checkpoint (averaged ones first), a state_dict, or a safetensors file.

    A checkpoint of another program is searched for its state_dict, and the prefixes of wrappers, ``module.`` and
    ``_orig_mod.``, are removed from every name. Files are checked as checkpoints are, and code in them is refused.

    Raises:
        DamagedFile: the file is damaged, holds code, or holds no weights.
    """
    path = follow_pointer(path)
    if path.suffix == ".safetensors":
        weights = _read_safetensors(path)
    else:
        with open_regular(path) as file:
            weights = _find_weights(_read_value(file, path), path)
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return weights


def _read_value(file: BufferedReader, path: Path) -> Any:
    if is_legacy(file):
        return load_legacy(file, path)
    read_archive(file, path)
    return load_plain(file, path)


def _find_weights(value: Any, path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    if isinstance(value, dict):
        candidates = [value, *(value[key] for key in _WEIGHT_KEYS if key in value)]
        if value.get("kind") == KIND and value.get("members"):
            raise DamagedFile(path, "an ensemble, the weights of several networks; take those of one of its runs")
        if value.get("kind") == KIND:
            ema = value.get("ema")
            averaged = ema.get("model", ema) if isinstance(ema, dict) else None
            candidates = [averaged, value.get("model")]
        for candidate in candidates:
            values = candidate.values() if isinstance(candidate, dict) else ()
            if values and all(isinstance(item, Tensor) for item in values):
                return {str(name): tensor for name, tensor in candidate.items()}
    raise DamagedFile(path, f"holds no state_dict, neither itself nor under {', '.join(_WEIGHT_KEYS)}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    open_regular(path).close()  # a pipe would block
    try:
        with safe_open(path, framework="pt") as file:
            # Copies: what the library gives are views of the file.
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")[:200]
        raise DamagedFile(path, f"damaged, or not a safetensors file: {reason}") from None
    if not weights:
        raise DamagedFile(path, "holds no tensors")
    return weights

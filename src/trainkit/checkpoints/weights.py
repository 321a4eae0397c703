"""Published weights: which file they are in, whether it is here, and its tensors, read without running anything.

torchvision's are kept where torchvision keeps them, ``$TORCH_HOME/hub/checkpoints``, and what is there is used; timm's
are in the cache of huggingface_hub. No loader of theirs is called: torchvision's unpickles.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainkit.checkpoints.archive import open_regular
from trainkit.checkpoints.hub import HubFile, fetch_from_hub, find_on_hub
from trainkit.checkpoints.loading import load_weights_file
from trainkit.errors import CheckpointError, UserError
from trainkit.system import DownloadFailed, Frontend, download
from trainkit.wording import closest, listed, size_text

if TYPE_CHECKING:
    from torch import Tensor

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, which may have to be downloaded."""

    library: str
    """``torchvision``, ``timm``, or ``file``: the user's."""
    name: str
    """Of the network."""
    weights: str
    """Which of its weights: ``IMAGENET1K_V2``, a tag of timm, or the path of a file."""
    file: str
    """The file's name."""
    folder: Path
    """Where it is, or will be."""
    url: str | None = None
    """Where it is downloaded from; None for a file of the user."""
    size: int | None = None
    """Bytes, about, as its publisher says."""
    hub: HubFile | None = None
    """The same file on the Hugging Face Hub, for timm."""

    @property
    def path(self) -> Path:
        return self.folder / self.file

    @property
    def is_here(self) -> bool:
        return self.path.exists()

    @property
    def hash_prefix(self) -> str | None:
        """How its SHA-256 begins, as its name says. Digits alone are a date or a step in the names that users give."""
        found = _HASH_IN_NAME.search(self.file)
        if found is None or (self.url is None and found[1].isdecimal()):
            return None
        return found[1]

    def describe(self) -> str:
        """Whether it is here, its size, and what would be downloaded."""
        if self.is_here:
            return f"{self.file} ({size_text(self.path.stat().st_size)}) is in {self.folder}"
        size = "" if self.size is None else f" ({size_text(self.size)})"
        return f"{self.file}{size} is not in {self.folder} yet: training downloads it from {self.url}"


@dataclass(frozen=True)
class Pin:
    """Which weights a run began with: a part of run.json and of its checkpoints."""

    library: str
    name: str
    weights: str
    file: str
    sha256: str
    size: int
    """Bytes."""
    revision: str | None


def find_weights(
    library: str,
    name: str,
    weights: str,
    *,
    path: str | None = None,
    sha256: str | None = None,
    revision: str | None = None,
) -> WeightsFile:
    """The file of a network's weights, without a connection.

    Args:
        library: ``torchvision`` or ``timm``.
        weights: ``default`` or their name.
        path: of the user's own file, in place of published ones.
        sha256: that of the file, where it is pinned: ``default`` then means the weights that it was when it was pinned.
        revision: of timm: the commit to take them from.

    Raises:
        UserError: the network has no weights of this name.
    """
    if path is not None:
        return WeightsFile("file", name, path, Path(path).name, Path(path).parent)
    if library == "timm":
        hub = find_on_hub(name, weights, revision=revision)
        return WeightsFile("timm", name, hub.tag, hub.file, hub.folder, url=hub.url, hub=hub)
    from torch.hub import get_dir

    published = _published_by_torchvision(name, Path(get_dir()) / "checkpoints")
    if weights == "default":
        pinned = [one for one in published if sha256 and one.hash_prefix and sha256.startswith(one.hash_prefix)]
        return (pinned or published)[0]
    for one in published:
        if one.weights == weights:
            return one
    names = [one.weights for one in published]
    near = closest(weights, names)
    hint = f"; did you mean {near}?" if near else ""
    raise UserError(f"{name} has no weights {weights!r} in torchvision, but {listed(names, quoted=False)}{hint}")


def _published_by_torchvision(name: str, folder: Path) -> list[WeightsFile]:
    """The default first."""
    from torchvision.models import get_model_weights

    entries: Any = get_model_weights(name)
    ordered = sorted(entries, key=lambda entry: entry is not entries.DEFAULT)
    return [
        WeightsFile(
            "torchvision",
            name,
            entry.name,
            urlsplit(entry.url).path.rpartition("/")[2],
            folder,
            url=entry.url,
            size=round(entry.meta["_file_size"] * 2**20) if "_file_size" in entry.meta else None,
        )
        for entry in ordered
    ]


def open_weights(
    found: WeightsFile, *, sha256: str | None = None, frontend: Frontend | None = None
) -> tuple[dict[str, Tensor], Pin]:
    """The tensors of a file, which is downloaded where it is not here. Its hash is compared at every load.

    Args:
        sha256: what the file must have, where it is pinned.

    Raises:
        CheckpointError: the file is damaged, another one, or holds code.
        UserError: it is not here and cannot be downloaded.
        Interrupted: the frontend asked for a stop.
    """
    wrong = _comparison(found, sha256)
    if sha256 is not None and found.hash_prefix is not None and not sha256.startswith(found.hash_prefix):
        raise CheckpointError(
            f"{found.file}: its SHA-256 begins with {found.hash_prefix}, as its name says, and model.sha256 is "
            f"{sha256}: remove that, or name the weights that it belongs to"
        )
    if found.url is not None and not found.is_here:
        found = _fetch(found, check=wrong, frontend=frontend or Frontend())
    with open_regular(found.path) as file:
        digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    if (reason := wrong(digest)) is not None:
        instead = "delete it, and it is downloaded again" if found.url else "put the right one there"
        other = "remove model.sha256 to take this one" if sha256 else "rename it if the digits are no hash"
        raise CheckpointError(f"{found.path}: {reason}: it is damaged, or another file; {instead}, or {other}")
    weights = load_weights_file(found.path)
    revision = None if found.hub is None else found.folder.name  # a snapshot in the cache has the name of its commit
    return weights, Pin(found.library, found.name, found.weights, found.file, digest, size, revision)


def _comparison(found: WeightsFile, sha256: str | None) -> Callable[[str], str | None]:
    """A function of a SHA-256 that says what is wrong with it, or None."""

    def wrong(digest: str) -> str | None:
        if sha256 is not None and digest != sha256:
            return f"its SHA-256 is {digest}, and model.sha256 is {sha256}"
        prefix = found.hash_prefix
        if prefix is not None and not digest.startswith(prefix):
            return f"its SHA-256 begins with {digest[: len(prefix)]}, its name says {prefix}"
        return None

    return wrong


def _fetch(found: WeightsFile, *, check: Callable[[str], str | None], frontend: Frontend) -> WeightsFile:
    assert found.url is not None
    advice = "download it where there is a network and put it into that folder"
    try:
        if found.hub is not None:
            advice = (
                f"download it where there is a network (hf download {found.hub.repo} {found.file}) and copy the folder "
                f"{found.folder.name} of its cache to {found.folder.parent}, or name the file in model.weights"
            )
            return replace(found, folder=fetch_from_hub(found.hub, frontend=frontend))
        download(found.url, found.path, check=check, frontend=frontend)
    except DownloadFailed as error:
        size = "" if found.size is None else f" ({size_text(found.size)})"
        raise UserError(
            f"{found.file}{size} is not in {found.folder}, and cannot be downloaded from {found.url}: {error}; {advice}"
        ) from None
    return found

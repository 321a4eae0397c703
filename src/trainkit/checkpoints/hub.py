"""timm's weights on the Hugging Face Hub: safetensors only, through huggingface_hub and its cache.

``HF_HUB_OFFLINE``, ``HF_HOME``, ``HF_ENDPOINT`` and tokens mean what they mean there. A file in the cache is used
without asking the Hub for a newer one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainkit.errors import TrainkitError, UserError
from trainkit.system import DownloadFailed, Frontend
from trainkit.wording import closest, listed

_FILE = "model.safetensors"


@dataclass(frozen=True)
class HubFile:
    """The safetensors file of a network's weights."""

    repo: str
    tag: str
    """Which of its weights: ``a1_in1k``."""
    file: str
    revision: str | None
    """The commit: that of the file in the cache, or the one that was asked for."""
    folder: Path
    """Where the cache keeps it, or will."""
    url: str


def find_on_hub(name: str, weights: str, *, revision: str | None = None) -> HubFile:
    """The file of a network of timm, without a connection.

    Args:
        name: of the network, with or without a tag (``resnet18``, ``resnet18.a1_in1k``).
        weights: ``default`` or the tag.

    Raises:
        UserError: timm is not installed, or has no such network or weights.
    """
    if find_spec("timm") is None or find_spec("huggingface_hub") is None:
        raise UserError("it needs the timm package, which is not installed; pip install timm")
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
    from timm.models import get_arch_pretrained_cfgs, split_model_name_tag

    network, tag = split_model_name_tag(name)
    known = {full.partition(".")[2]: config for full, config in get_arch_pretrained_cfgs(network).items()}
    published = {key: config for key, config in known.items() if config is not None and config.hf_hub_id}
    if not published:
        raise UserError(f"timm has no weights of {network} on the Hugging Face Hub; take weights: none, or a file")
    wanted = weights if weights != "default" else tag or next(iter(published))
    if wanted not in published:
        near = closest(wanted, published)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(
            f"{network} has no weights {wanted!r} in timm, but {listed(list(published), quoted=False)}{hint}"
        )
    config = published[wanted]
    repo, _, at = str(config.hf_hub_id).partition("@")
    own = config.hf_hub_filename or ""
    file, commit = own if own.endswith(".safetensors") else _FILE, revision or at or None
    cached = try_to_load_from_cache(repo, file, revision=commit)
    if isinstance(cached, str):
        folder, commit = Path(cached).parent, Path(cached).parent.name
    else:
        folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    return HubFile(repo, wanted, file, commit, folder, hf_hub_url(repo, file, revision=commit))


def fetch_from_hub(found: HubFile, *, frontend: Frontend) -> Path:
    """Download it into the cache of huggingface_hub. The folder that it is in then has the name of the commit.

    Raises:
        DownloadFailed: offline, no network, or the repository has no such file.
        Interrupted: the frontend asked for a stop.
    """
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise DownloadFailed("HF_HUB_OFFLINE is set")
    frontend.say(f"downloading {found.file} of {found.repo} from {found.url} into the cache of huggingface_hub")
    try:
        path = hf_hub_download(found.repo, found.file, revision=found.revision, tqdm_class=_shown_by(frontend))
    except TrainkitError:
        raise
    except Exception as error:  # noqa: BLE001  (its own errors, and those of the HTTP library that it uses)
        cause: BaseException = error  # its own words are a page of advice about proxies
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise DownloadFailed((str(cause).strip() or type(cause).__name__).splitlines()[0][:200]) from None
    return Path(path).parent


def _shown_by(frontend: Frontend) -> Any:
    """A bar for huggingface_hub that hands its numbers to the frontend."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False})

        def update(self, n: float = 1) -> None:
            super().update(n)
            frontend.check("weights were being downloaded")
            if frontend.progress is not None and self.total:
                frontend.progress(int(self.n), int(self.total))

    return Bar

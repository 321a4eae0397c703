"""Download a file: whole and with the right SHA-256 under its name, or nothing at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit._version import __version__
from trainkit.errors import TrainkitError
from trainkit.system import durable
from trainkit.system.frontend import Frontend
from trainkit.wording import size_text

if TYPE_CHECKING:
    from http.client import HTTPResponse

TIMEOUT_SECONDS = 20.0
"""A download fails when the server sends nothing for this long."""
_CHUNK = 1 << 18


class DownloadFailed(TrainkitError):
    """Nothing was kept. The message is the reason alone, for the caller to add what it was for."""


def download(url: str, path: Path, *, check: Callable[[str], str | None], frontend: Frontend) -> None:
    """Download ``url`` to ``path``. Several processes may do so at once: each file that appears is whole.

    Args:
        check: gets the SHA-256 of what came; says what is wrong with it, or None.
        frontend: is told, shows the progress, and may ask for a stop.

    Raises:
        DownloadFailed: there is no network, the server refuses, what came is not whole, or ``check`` objects.
        WriteError: it cannot be stored.
        Interrupted: the frontend asked for a stop.
    """
    with _opened(url) as response:
        total = _length(response)
        known = "" if total is None else f" ({size_text(total)})"
        frontend.say(f"downloading {path.name}{known} from {url} to {path.parent}")
        with durable.writing(path, needed=total):
            path.parent.mkdir(parents=True, exist_ok=True)
        durable.clear_stale(path.parent)
        durable.require_space(path, total or 0)
        with durable.open_for_replace(path, needed=total) as draft:
            digest = hashlib.sha256()
            while chunk := _read(response):
                draft.write(chunk)
                digest.update(chunk)
                if frontend.progress is not None and total:
                    frontend.progress(min(draft.size, total), total)
                frontend.check(f"{path.name} was being downloaded; nothing of it was kept")
            if total is not None and draft.size != total:
                raise DownloadFailed(f"the connection ended after {draft.size:,} of {total:,} bytes")
            if (wrong := check(digest.hexdigest())) is not None:
                raise DownloadFailed(f"what came is another file: {wrong}")


def _opened(url: str) -> HTTPResponse:
    from http.client import HTTPException  # here: with urllib they take every command 50 ms
    from urllib.error import HTTPError
    from urllib.request import Request, build_opener

    headers = {"User-Agent": f"trainkit/{__version__}", "Accept-Encoding": "identity"}
    try:
        # ``urlopen`` would keep the proxies of the process's first download.
        response: HTTPResponse = build_opener().open(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        raise DownloadFailed(f"the server answers {error.code} {error.reason}".rstrip()) from None
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadFailed(_reason(error)) from None
    return response


def _read(response: HTTPResponse) -> bytes:
    from http.client import HTTPException

    try:
        return response.read(_CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadFailed(f"the connection broke: {_reason(error)}") from None


def _length(response: HTTPResponse) -> int | None:
    """``Content-Length``; None where the server does not say."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _reason(error: Exception) -> str:
    """In words: urllib wraps the error of the system."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:.0f} seconds"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner) or type(inner).__name__

"""Downloads by torchvision, into a folder of their own, given up when the server falls silent."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from trainkit.errors import Interrupted

TIMEOUT_SECONDS = 10.0
"""A server that sends nothing for so long is given up."""


def fetch_with_torchvision(
    class_name: str, root: Path, subfolder: str, *, should_stop: Callable[[], bool] | None = None
) -> str | None:
    """Download a set of ``torchvision.datasets`` and put its files into ``root/subfolder``.

    The files arrive in a temporary folder and are moved when torchvision has checked them all, so an interrupted
    download leaves nothing that looks like data. Returns None when done, else the reason why it did not work.

    Args:
        should_stop: asked several times a second.

    Raises:
        Interrupted: ``should_stop`` said so.
    """
    created = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
    except OSError as error:
        return f"{root} cannot be written ({error.strerror})"
    try:
        reason = _download(class_name, temporary, should_stop)
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


def _download(class_name: str, folder: Path, should_stop: Callable[[], bool] | None) -> str | None:
    """In a thread, since torchvision asks nobody whether to go on."""
    from torchvision import datasets  # not in the thread, which then makes its folders at once, if ever

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

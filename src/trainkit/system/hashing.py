"""A hash of a file that is being written, by a thread that follows the writer."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

# Below this a thread costs more than it saves.
_HASHED_BEHIND = 1 << 20


class HashBehind:
    """SHA-256 of a file while it is written. From the first large piece on, a thread hashes behind the writer.

    It reads the bytes back, so the writer need not wait for it before its memory is used again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._hashed = self._size = 0
        self._changed = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def written(self, piece: memoryview, size: int) -> None:
        """``piece`` was just written; the file has ``size`` bytes now."""
        if self._thread is None and len(piece) < _HASHED_BEHIND:
            self._hash.update(piece)
            self._hashed = size
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow)
            self._thread.start()
        with self._changed:
            self._size = size
            self._changed.notify()

    def hexdigest(self) -> str:
        self.stop()
        if self._error is not None:
            raise self._error
        return self._hash.hexdigest()

    def stop(self) -> None:
        """Hash what is left and end the thread."""
        if self._thread is not None:
            with self._changed:
                self._ended = True
                self._changed.notify()
            self._thread.join()

    def _follow(self) -> None:
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(self._hashed)
                buffer = memoryview(bytearray(1 << 18))  # of a size that stays in the processor's cache
                while self._hashed < self._written_so_far():
                    count = file.readinto(buffer[: self._size - self._hashed])
                    if not count:
                        raise OSError(errno.EIO, os.strerror(errno.EIO))
                    self._hash.update(buffer[:count])
                    self._hashed += count
        except OSError as error:
            self._error = error

    def _written_so_far(self) -> int:
        """Waits for a large piece, or the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._size - self._hashed >= _HASHED_BEHIND)
            return self._size

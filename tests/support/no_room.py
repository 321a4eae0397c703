"""Images that fit neither in the cache nor in memory, so that they are decoded while training."""

import pytest


def leave_no_room_for_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the cache is full, and so is the memory. Run folders can still be written."""
    monkeypatch.setattr("trainkit.data.images.materialize.free_host_bytes", lambda: 0)
    monkeypatch.setattr("trainkit.system.durable.free_bytes", lambda folder: 0 if "cache" in str(folder) else None)

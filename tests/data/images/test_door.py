"""The door of data/images: every public name is there, and the cache alone needs no torch."""

import subprocess
import sys

import pytest

from trainkit.data import images


@pytest.mark.parametrize("name", images.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(images, name) is not None


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match=r"module 'trainkit.data.images' has no attribute 'nothing'"):
        images.nothing  # noqa: B018


def test_the_cache_needs_no_torch() -> None:
    code = "import sys; from trainkit.data.images import cache_root, cache; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

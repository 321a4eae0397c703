"""A quick look finds what decoding finds, as far as it says that it looked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flat_sources import load_bundled, load_image_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainkit.data.dataset import Dataset
from trainkit.data.images import quick_look
from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import decode_image, probe_file
from trainkit.data.images.quick_look import few_are_fine, look_at_files
from trainkit.data.transforms.static import Resize
from trainkit.errors import Interrupted, ProblemsError


def load(root: Path) -> Dataset:
    return load_image_folder(root, val_fraction=0.2, test_fraction=0.2, seed=0)


def write(root: Path, suffix: str, count: int = 40) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [root / "ab"[index % 2] / f"{index:03}.{suffix}" for index in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(path)
    return paths


def not_looked_at(data: Dataset) -> str:
    return data.notes[-1].partition("not looked at, and found when training decodes them: ")[2]


@settings(deadline=None)
@given(suffix=st.sampled_from(["jpg", "png", "gif", "bmp", "tif", "webp", "ppm"]), share=st.floats(0, 1))
def test_a_file_that_is_cut_anywhere_is_found_or_whole(
    suffix: str, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / f"x.{suffix}"
    Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    if refused(lambda: decode_image(path, channels=3)):
        assert refused(lambda: probe_file(path)) or probe_file(path).doubtful


def refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except BadImageError:
        return True
    return False


def test_whole_files_are_not_decoded_again(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "gif"):
        [path, *_] = write(tmp_path / suffix, suffix, 2)
        assert not probe_file(path).doubtful
        path.write_bytes(path.read_bytes() + b"\0\0\r\n")  # as some cameras pad it
        assert not probe_file(path).doubtful


def test_what_lies_behind_a_picture_is_no_damage(tmp_path: Path) -> None:
    for path in write(tmp_path, "jpg"):
        path.write_bytes(path.read_bytes() + b"a film of two seconds")
    left = look_at_files(load(tmp_path), ())
    assert [len(split) for split in left.splits.values()] == [26, 6, 8]
    assert not_looked_at(left).startswith("pictures that are the same only once decoded; ")  # all 40 were decoded


def test_formats_without_an_end_are_decoded_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path, "bmp", 100)
    paths[50].write_bytes(paths[50].read_bytes()[:80])
    with pytest.raises(ProblemsError, match=r"050.bmp: damaged BMP (?s:.)*1 of 100 images"):
        look_at_files(load(tmp_path), ())
    paths[50].write_bytes(paths[48].read_bytes())
    monkeypatch.setattr(quick_look, "DECODED", 10)
    note = not_looked_at(look_at_files(load(tmp_path), ()))
    assert "whether 90 that need decoding are whole" in note


def test_what_is_not_compared_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_, last = write(tmp_path, "bmp")
    last.write_bytes(first.read_bytes())
    assert any("1 picture is in two classes" in note for note in look_at_files(load(tmp_path), ()).notes)
    monkeypatch.setattr(quick_look, "COMPARED_BYTES", 30 * first.stat().st_size)
    assert "whether 10 of equal length are the same" in not_looked_at(look_at_files(load(tmp_path), ()))


def test_a_few_files_are_enough_to_doubt_them_all(tmp_path: Path) -> None:
    paths = write(tmp_path, "png")
    assert few_are_fine(load(tmp_path), ())
    Image.new("RGB", (3, 3)).save(paths[5])
    assert not few_are_fine(load(tmp_path), ())
    for path in paths[::4]:
        path.write_bytes(b"")
    assert not few_are_fine(load(tmp_path), ())


def test_progress_ends_at_the_number_of_files_and_a_stop_is_heard(tmp_path: Path) -> None:
    write(tmp_path, "jpg")
    calls: list[tuple[int, int]] = []
    look_at_files(load(tmp_path), (), progress=lambda *call: calls.append(call))
    assert calls[-1] == (40, 40)
    with pytest.raises(Interrupted):
        look_at_files(load(tmp_path), (), should_stop=lambda: True)


def test_the_room_for_what_is_transformed_is_not_looked_at() -> None:
    data = load_bundled("digits", val_fraction=0.1, test_fraction=0.2, seed=0)
    assert look_at_files(data, ()) is data
    [note] = look_at_files(data, (Resize(12),)).notes
    assert note == f"not looked at: {quick_look.ROOM}"

"""Entries of the cache: whole or absent, named by what they depend on, listed and cleared."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from trainkit.cli.data import app
from trainkit.data import cache, cache_arrays
from trainkit.data.cache import EntryDraft, cached_arrays, make_key, open_entry
from trainkit.data.cache_arrays import DamagedEntryError
from trainkit.system import durable

ARRAYS = {
    "images": np.arange(3_000_000, dtype=np.uint8).reshape(-1, 3, 10, 10),
    "targets": np.arange(10_000) % 7,
    "empty": np.zeros((0, 4), dtype=np.float32),
}


def put(folder: Path, description: dict[str, Any] | None = None, label: str = "some data") -> cache.Entry:
    description = description or {"a": 1}
    folder.mkdir(exist_ok=True)
    with EntryDraft(folder, make_key(description), label) as draft:
        for name, array in ARRAYS.items():
            draft.add_array(name, array.shape, array.dtype).write_all(array)
        return draft.publish(description, {"note": "ä"})


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    entry = put(tmp_path)
    opened = open_entry(tmp_path, make_key({"a": 1}))
    assert opened == entry
    assert entry.info == {"note": "ä"}
    assert entry.num_bytes == sum(path.stat().st_size for path in entry.path.glob("*.npy"))
    for name, array in cache.load_arrays(entry).items():
        assert array.dtype == ARRAYS[name].dtype
        assert np.array_equal(array, ARRAYS[name])
        assert np.array_equal(np.load(entry.path / f"{name}.npy"), array)  # plain files for everybody
    assert [path.name for path in tmp_path.iterdir()] == [entry.path.name]


def test_writing_to_a_map_does_not_reach_the_file(tmp_path: Path) -> None:
    entry = put(tmp_path)
    cache.load_arrays(entry)["targets"][:] = 99
    assert np.array_equal(cache.load_arrays(entry)["targets"], ARRAYS["targets"])


def test_blocks_may_be_written_in_any_order(tmp_path: Path) -> None:
    with EntryDraft(tmp_path, "0" * 24, "x") as draft:
        writer = draft.add_array("images", ARRAYS["images"].shape, np.uint8)
        blocks = range(0, len(ARRAYS["images"]), writer.rows_per_block)
        assert len(blocks) == 3
        for block in (2, 0, 1):
            start = block * writer.rows_per_block
            writer.write_block(block, ARRAYS["images"][start : start + writer.rows_per_block])
        draft.publish({}, {})
    entry = open_entry(tmp_path, "0" * 24)
    assert entry is not None
    assert np.array_equal(cache.load_arrays(entry)["images"], ARRAYS["images"])


def test_a_key_depends_on_values_not_on_their_order() -> None:
    assert make_key({"a": 1, "b": [2, "x"]}) == make_key({"b": [2, "x"], "a": 1})
    assert len({make_key({"a": value}) for value in (1, 2, "1", [1], None)}) == 5


def test_nothing_is_found_before_it_is_published(tmp_path: Path) -> None:
    key = make_key({"a": 1})
    with EntryDraft(tmp_path, key, "x") as draft:
        draft.add_array("targets", ARRAYS["targets"].shape, np.int64).write_all(ARRAYS["targets"])
        assert open_entry(tmp_path, key) is None
        assert cache.list_entries(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_builders_takes_the_entry_of_the_first(tmp_path: Path) -> None:
    first = put(tmp_path)
    inode = (first.path / "images.npy").stat().st_ino
    second = put(tmp_path)
    assert second == first
    assert (second.path / "images.npy").stat().st_ino == inode
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("size_limit", [cache_arrays.FULL_CHECK_BYTES, 1 << 20])
@pytest.mark.parametrize("position", [0, 60, 200, 1_100_000, -1])
def test_one_flipped_bit_anywhere_is_seen(
    tmp_path: Path, position: int, size_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_arrays, "FULL_CHECK_BYTES", size_limit)
    path = put(tmp_path).path / "images.npy"
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedEntryError, match=r"images\.npy"):
        open_entry(tmp_path, make_key({"a": 1}))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"body": {}}', '{"body": {"key": "x"}, "sha256": ""}'])
def test_a_manifest_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    (put(tmp_path).path / "manifest.json").write_text(text)
    with pytest.raises(DamagedEntryError, match="manifest"):
        open_entry(tmp_path, make_key({"a": 1}))
    [entry] = cache.list_entries(tmp_path)
    assert entry.label == "(damaged)"


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path).path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["body"]["arrays"]["images"]["file"] = "../../secret.npy"
    path.write_text(json.dumps(manifest))
    with pytest.raises(DamagedEntryError, match="checksum of the manifest"):
        open_entry(tmp_path, make_key({"a": 1}))


def test_a_full_disk_is_an_error_with_numbers_and_leaves_nothing(tmp_path: Path) -> None:
    class FullDisk:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    with EntryDraft(tmp_path, "0" * 24, "x") as draft:
        writer = draft.add_array("images", ARRAYS["images"].shape, np.uint8)
        writer._file = FullDisk(writer._file)  # type: ignore[assignment]
        with pytest.raises(durable.WriteError, match=r"the disk is full \(needs 3,000,000 bytes, .* bytes free\)"):
            writer.write_all(ARRAYS["images"])
    assert list(tmp_path.iterdir()) == []


def test_cached_arrays_builds_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        calls.append(1)
        return ARRAYS, {"names": ["x"]}

    for _ in range(3):
        arrays, info = cached_arrays(tmp_path / "cache", "thing", {"v": 1}, build)
        assert info == {"names": ["x"]}
        assert np.array_equal(arrays["targets"], ARRAYS["targets"])
    assert len(calls) == 1
    cached_arrays(tmp_path / "cache", "thing", {"v": 2}, build)
    cached_arrays(None, "thing", {"v": 1}, build)
    assert len(calls) == 3


def test_cached_arrays_works_where_nothing_can_be_written_and_repairs_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        return ARRAYS, {}

    arrays, _ = cached_arrays(tmp_path / "file", "thing", {}, build)
    assert arrays is ARRAYS
    cached_arrays(tmp_path, "thing", {}, build)
    [entry] = cache.list_entries(tmp_path)
    (entry.path / "targets.npy").unlink()
    assert cached_arrays(tmp_path, "thing", {}, build)[0] is ARRAYS
    assert open_entry(tmp_path, make_key({})) is not None


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "chosen"))
    assert cache.cache_root() == tmp_path / "chosen"
    monkeypatch.delenv("TRAINKIT_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache.cache_root() == tmp_path / "trainkit"


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[cache.Entry]:
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path))
    return [put(tmp_path, {"a": number}, f"set {number}") for number in range(3)]


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def test_data_list(filled: list[cache.Entry]) -> None:
    lines = run("list").stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines[:3]] == ["set 2", "set 1", "set 0"]
    assert "3.1 MB" in lines[0]
    described = json.loads(run("list", "--json").stdout)
    assert [entry["key"] for entry in described["entries"]] == [entry.key for entry in reversed(filled)]
    assert described["bytes"] == sum(entry.num_bytes for entry in filled)


def test_data_clear_frees_what_is_named_or_all(filled: list[cache.Entry], tmp_path: Path) -> None:
    still_open = cache.load_arrays(filled[1])
    described = json.loads(run("clear", filled[1].key[:8], "--json").stdout)
    assert [entry["key"] for entry in described["removed"]] == [filled[1].key]
    assert np.array_equal(still_open["images"], ARRAYS["images"])
    assert "removed 2 entries" in run("clear").stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "f", "zzzz", "x" * 24])
def test_data_clear_never_guesses(filled: list[cache.Entry], key: str) -> None:
    result = CliRunner().invoke(app, ["clear", key])
    assert result.exit_code != 0
    assert "no cached entry has the key" in str(result.exception)
    assert all(entry.path.exists() for entry in filled)


def test_data_list_of_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "absent"))
    assert json.loads(run("list", "--json").stdout)["entries"] == []
    run("clear")
    assert not (tmp_path / "absent").exists()


def test_the_cache_needs_no_torch():
    """``trainkit data list`` and ``clear`` import it."""
    code = "import sys; from trainkit.data.cache import cache_root; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

"""Materialized images: right, found again, built anew when anything changed, and never half there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flat_sources import load_bundled, load_image_folder
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from trainkit.data import cache
from trainkit.data.dataset import Dataset
from trainkit.data.images import materialize as materializing
from trainkit.data.images.decode import decode_image
from trainkit.data.images.materialize import image_shape, materialize_images
from trainkit.data.loading import resident
from trainkit.data.transforms.static import CenterCrop, Grayscale, Resize, StaticTransform
from trainkit.errors import DataError, Interrupted, ProblemsError
from trainkit.system import durable

STATIC = (Resize(12), CenterCrop((10, 10)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of twelve different photographs, of different sizes."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 256, (15 + index % 3, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return tmp_path / "photos"


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(root: Path, **changes: object) -> Dataset:
    return load_image_folder(root, **({"val_fraction": 0.2, "test_fraction": 0.2, "seed": 0} | changes))


class Built:
    """A materialized data set and how many images had to be decoded for it."""

    def __init__(self, data: Dataset, cache_dir: Path | None, transforms: tuple[StaticTransform, ...]) -> None:
        calls: list[tuple[int, int]] = []
        self.data = materialize_images(data, transforms, cache_dir=cache_dir, progress=lambda *call: calls.append(call))
        self.decoded = calls[-1][0] if calls else 0
        assert all(done <= total for done, total in calls)
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)

    @property
    def images(self) -> np.ndarray:
        inputs = self.data.parts["all"].inputs
        assert isinstance(inputs, np.ndarray)
        return inputs


def build(
    root: Path, cache_dir: Path | None, transforms: tuple[StaticTransform, ...] = STATIC, **changes: object
) -> Built:
    return Built(load(root, **changes), cache_dir, transforms)


def test_images_equal_torchvision_on_the_decoded_files(root: Path, cache_dir: Path) -> None:
    built = build(root, cache_dir, (*STATIC, Grayscale(3)))
    paths = load(root).parts["all"].inputs
    assert isinstance(paths, tuple)
    assert built.data.input_shape == (3, 10, 10)
    assert built.data.channels == 3
    assert image_shape(load(root), (*STATIC, Grayscale(3))) == (3, 10, 10)
    for path, image in zip(paths, built.images, strict=True):
        original = torch.from_numpy(np.asarray(Image.open(path)).transpose(2, 0, 1).copy())
        expected = reference.center_crop(reference.resize(original, [12], antialias=True), [10, 10])
        assert np.array_equal(image, reference.rgb_to_grayscale(expected, num_output_channels=3).numpy())


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_pixels_come_out_of_the_cache_as_they_were_decoded(root: Path, cache_dir: Path, color: str) -> None:
    for path in root.glob("*/*"):
        Image.open(path).resize((20, 15)).save(path)
    channels = 3 if color == "rgb" else 1
    for _ in range(2):  # from scratch, and from the cache
        built = build(root, cache_dir, (), color=color)
        paths = load(root).parts["all"].inputs
        for path, image in zip(paths, built.images, strict=True):
            assert np.array_equal(image, decode_image(path, channels=channels))
    [entry] = cache.list_entries(cache_dir)
    stored = np.load(entry.path / "inputs.npy", mmap_mode="r")
    assert stored.shape == ((24, 15, 20, 3) if channels == 3 else (24, 1, 15, 20))
    assert resident.is_mapped(built.images)


def test_entries_in_nchw_are_not_read_as_nhwc(root: Path, cache_dir: Path) -> None:
    build(root, cache_dir)
    [entry] = cache.list_entries(cache_dir)
    description = json.loads((entry.path / "manifest.json").read_bytes())["body"]["description"]
    assert cache.make_key(description) == entry.key
    assert description.pop("axes") == "NHWC"
    assert cache.make_key(description) != entry.key


def test_the_second_time_nothing_is_decoded(root: Path, cache_dir: Path) -> None:
    first, second = build(root, cache_dir), build(root, cache_dir)
    assert (first.decoded, second.decoded) == (24, 0)
    assert isinstance(second.images, np.memmap)
    assert np.array_equal(first.images, second.images)
    assert first.data.fingerprint == second.data.fingerprint
    assert first.data.notes == second.data.notes == ()


def test_other_splits_and_bad_file_limits_use_the_same_entry(root: Path, cache_dir: Path) -> None:
    build(root, cache_dir)
    assert build(root, cache_dir, seed=5, val_fraction=0.4, max_bad_files=3).decoded == 0


def overwrite(path: Path) -> None:
    """Other pixels; size and modification time as before."""
    status = path.stat()
    with Image.open(path) as image:
        turned = Image.fromarray(255 - np.asarray(image))
    turned.save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda root: overwrite(root / "a" / "03.png"),
        lambda root: (root / "b" / "11.png").unlink(),
        lambda root: shutil.copy(root / "b" / "11.png", root / "b" / "12.png"),
        lambda root: (root / "b" / "11.png").rename(root / "b" / "99.png"),
    ],
)
def test_a_changed_file_is_seen(
    root: Path, cache_dir: Path, change: object, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not small:
        monkeypatch.setattr(materializing, "HASHED_BYTES", 0)
    assert callable(change)
    before = build(root, cache_dir)
    change(root)
    after = build(root, cache_dir)
    assert after.decoded == len(after.images)
    assert not np.array_equal(before.images, after.images) or len(after.images) == 24
    assert np.array_equal(after.images, build(root, None).images)
    assert build(root, cache_dir).decoded == 0


@pytest.mark.parametrize(
    "transforms",
    [
        (Resize(12), CenterCrop((10, 9))),
        (Resize(13), CenterCrop((10, 10))),
        (Resize(12, "bicubic"), CenterCrop((10, 10))),
        (*STATIC, Grayscale(1)),
    ],
)
def test_a_changed_parameter_is_seen(root: Path, cache_dir: Path, transforms: tuple[StaticTransform, ...]) -> None:
    build(root, cache_dir)
    assert build(root, cache_dir, transforms).decoded == 24
    assert build(root, cache_dir).decoded == 0


def test_how_files_are_decoded_is_seen_where_the_shape_does_not_tell(root: Path, cache_dir: Path) -> None:
    luma_of_torchvision = build(root, cache_dir, (*STATIC, Grayscale(1)))
    luma_of_pillow = build(root, cache_dir, (*STATIC, Grayscale(1)), color="gray")
    assert (luma_of_torchvision.decoded, luma_of_pillow.decoded) == (24, 24)


def test_a_changed_color_is_seen(root: Path, cache_dir: Path) -> None:
    build(root, cache_dir)
    gray = build(root, cache_dir, color="gray")
    assert (gray.decoded, gray.data.input_shape) == (24, (1, 10, 10))


def test_only_the_part_that_changed_is_built_again(root: Path, cache_dir: Path) -> None:
    whole = root.parent / "whole"
    shutil.copytree(root, whole / "train")
    shutil.copytree(root, whole / "test")
    data = load(whole)
    assert Built(data, cache_dir, STATIC).decoded == 48
    overwrite(whole / "test" / "a" / "00.png")
    assert Built(load(whole), cache_dir, STATIC).decoded == 24


@pytest.mark.parametrize("place", ["inputs.npy", "hashes.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "flip keeping the time"])
def test_a_damaged_entry_is_built_again(root: Path, cache_dir: Path, place: str, damage: str) -> None:
    first = build(root, cache_dir)
    expected = np.array(first.images)
    [entry] = cache.list_entries(cache_dir)
    path = entry.path / place
    status, data = path.stat(), bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        data[len(data) * 3 // 4] ^= 1
        path.write_bytes(data[: len(data) - 1] if damage == "cut" else data)
    if damage.endswith("time"):
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = build(root, cache_dir)
    assert second.decoded == 24
    assert np.array_equal(second.images, expected)
    assert "were damaged" in second.data.notes[0]
    assert build(root, cache_dir).decoded == 0
    assert len(cache.list_entries(cache_dir)) == 1


def test_without_a_cache_everything_is_in_memory(root: Path, cache_dir: Path) -> None:
    built = build(root, None)
    assert not isinstance(built.images, np.memmap)
    assert np.array_equal(built.images, build(root, cache_dir).images)
    assert built.data.notes == ()


def test_a_cache_that_cannot_be_written_is_said_and_memory_taken(root: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    built = build(root, blocked)
    assert built.decoded == 24
    assert "kept in memory, not cached: cannot write" in built.data.notes[0]


def test_a_full_disk_is_said_and_memory_taken(root: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "free_bytes", lambda folder: 1000)
    built = build(root, cache_dir)
    assert "1,000 bytes free, 7,200 are needed" in built.data.notes[0]
    assert np.array_equal(built.images, build(root, None).images)
    assert cache.list_entries(cache_dir) == []


def test_what_fits_nowhere_stays_files_and_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materializing, "free_host_bytes", lambda: 1000)
    data = materialize_images(load(root), STATIC, cache_dir=None)
    assert data.parts["all"].is_files
    assert "decoded in every epoch" in data.notes[0]
    assert image_shape(data, STATIC) == (3, 10, 10)


def test_images_of_different_sizes_need_a_transform(root: Path, cache_dir: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        build(root, cache_dir, ())
    [problem] = caught.value.problems
    assert problem.key == "transforms"
    assert "a/00.png is 15 x 20 (height x width), but " in problem.message
    assert "a/02.png is 17 x 20" in problem.message
    assert "{type: resize, size: 16} and {type: center_crop, size: 16}" in problem.message
    assert [path for path in cache_dir.iterdir() if path.name != ".locks"] == []


def spoil(root: Path) -> list[Path]:
    """One file of each kind that cannot be read."""
    good = (root / "a" / "00.png").read_bytes()
    broken = [root / "a" / "03.png", root / "a" / "04.png", root / "b" / "05.png", root / "b" / "06.png"]
    broken[0].write_bytes(b"")
    broken[1].write_text("text")
    broken[2].write_bytes(good[: len(good) // 2])
    broken[3].unlink()
    os.mkfifo(broken[3])
    return broken


def test_unreadable_files_are_all_named(root: Path, cache_dir: Path) -> None:
    broken = spoil(root)
    for _ in range(2):  # from scratch, and from the cache
        with pytest.raises(DataError) as caught:
            build(root, cache_dir, max_bad_files=3)
        lines = str(caught.value).splitlines()
        assert [line.split(": ")[0] for line in lines[:4]] == [str(path) for path in broken]
        reasons = ["empty file", "not an image", "damaged PNG", "FIFO"]
        assert all(reason in line for reason, line in zip(reasons, lines, strict=False))
        assert "4 of 24 images cannot be read" in lines[4]
        assert "max_bad_files: 4 (now 3)" in lines[4]


def test_many_unreadable_files_are_ten_and_a_count(root: Path, cache_dir: Path) -> None:
    for path in sorted(root.glob("a/*"))[1:]:
        path.write_bytes(b"")
    for path in sorted(root.glob("b/*"))[:2]:
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        build(root, cache_dir)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[10] == "and 3 more"
    assert lines[11].startswith("13 of 24")


def test_allowed_bad_files_leave_the_splits_and_are_counted(root: Path, cache_dir: Path) -> None:
    intact = build(root, None)
    broken = spoil(root)
    built = build(root, cache_dir, max_bad_files=4)
    paths = load(root).parts["all"].inputs
    assert isinstance(paths, tuple)
    used = np.concatenate([split.indices for split in built.data.splits.values()])
    assert sorted(paths[index] for index in set(range(24)) - set(used.tolist())) == sorted(broken)
    assert np.array_equal(built.images[used], intact.images[used])
    assert built.data.fingerprint["parts"]["all"]["skipped"] == 4
    assert "skipped 4 unreadable images" in built.data.notes[0]
    for name, split in built.data.splits.items():
        assert set(split.indices) <= set(intact.data.splits[name].indices)


def test_no_readable_image_at_all(root: Path, cache_dir: Path) -> None:
    for path in root.glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(ProblemsError, match=r"none of 15 train images can be read; the first is .*empty file"):
        build(root, cache_dir, max_bad_files=100)


def test_a_class_that_lost_every_training_image_is_an_error(root: Path, cache_dir: Path) -> None:
    for path in root.glob("a/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no training image of 1 class can be read: 'a'"):
        build(root, cache_dir, max_bad_files=100)


@pytest.mark.parametrize(("first", "second"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_the_same_image_in_two_splits_is_noted(root: Path, cache_dir: Path, first: str, second: str) -> None:
    whole = root.parent / "whole"
    for split in ("train", "val", "test"):
        shutil.copytree(root, whole / split)
        for place, path in enumerate(sorted((whole / split).glob("*/*"))):
            if split == second and place >= 4:
                path.unlink()
            elif split not in (first, second):
                overwrite(path)
    data = Built(load(whole), cache_dir, STATIC).data
    [note] = [note for note in data.notes if "byte for byte" in note]
    assert note.startswith(f"4 images of {second} are in {first} too, byte for byte: {whole / first}")
    assert note.count(" = ") == 3
    assert note.endswith("and 1 more")


def test_an_array_without_static_transforms_is_used_as_it_is(cache_dir: Path) -> None:
    digits = load_bundled("digits", val_fraction=0.1, test_fraction=0.2, seed=0)
    assert materialize_images(digits, (), cache_dir=cache_dir).parts["all"].inputs is digits.parts["all"].inputs
    assert not cache_dir.exists()


def test_an_array_with_static_transforms_is_transformed_and_cached(cache_dir: Path) -> None:
    digits = load_bundled("digits", val_fraction=0.1, test_fraction=0.2, seed=0)
    built, again = (Built(digits, cache_dir, (Resize((16, 16)), Grayscale(3))) for _ in range(2))
    assert (built.decoded, again.decoded) == (1797, 0)
    pixels = torch.from_numpy(np.array(digits.parts["all"].inputs))
    expected = reference.rgb_to_grayscale(reference.resize(pixels, [16, 16], antialias=True), num_output_channels=3)
    assert np.array_equal(again.images, expected.numpy())


def test_a_table_is_left_alone(cache_dir: Path) -> None:
    iris = load_bundled("iris", val_fraction=0.1, test_fraction=0.2, seed=0)
    assert materialize_images(iris, (), cache_dir=cache_dir) is iris


def test_a_stop_is_clean(root: Path, cache_dir: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        materialize_images(load(root), STATIC, cache_dir=cache_dir, should_stop=lambda: True)
    assert caught.value.exit_code == 130
    assert not cache_dir.exists() or [path for path in cache_dir.iterdir() if path.name != ".locks"] == []
    assert build(root, cache_dir).decoded == 24


BUILD = """
import sys, time
from pathlib import Path
from trainkit.data.images.materialize import materialize_images
from trainkit.data.sources.image_folder import load_image_folder
from trainkit.data.splits import HeldOut
from trainkit.data.transforms.static import CenterCrop, Resize
root, cache_dir, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
data = load_image_folder(root, held=HeldOut({"test": 0.2, "val": 0.2}, seed=0))
calls = []
def progress(done, total):
    calls.append(done)
    print("building", done, flush=True)
    time.sleep(pause)
built = materialize_images(data, (Resize(12), CenterCrop((10, 10))), cache_dir=cache_dir, progress=progress)
print("done", calls, built.fingerprint["parts"]["all"]["contents"], "torchvision" in sys.modules, flush=True)
"""


def start(root: Path, cache_dir: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(root), str(cache_dir), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_build_leaves_nothing_that_is_used(root: Path, cache_dir: Path) -> None:
    process = start(root, cache_dir, pause=60)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("building")
    temporary = [path for path in cache_dir.iterdir() if path.name.endswith(".tmp")]
    assert len(temporary) == 1
    assert cache.list_entries(cache_dir) == []
    assert durable.clear_stale(cache_dir) == []  # its process is alive
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert temporary[0].exists()
    built = build(root, cache_dir)
    assert built.decoded == 24
    assert np.array_equal(built.images, build(root, None).images)
    assert not temporary[0].exists()


def test_two_processes_at_once_build_one_entry(root: Path, cache_dir: Path) -> None:
    first = start(root, cache_dir, pause=1.0)
    assert first.stdout is not None
    first.stdout.readline()
    second = start(root, cache_dir, pause=0.0)
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    done = [next(line for line in output.splitlines() if line.startswith("done")) for output in outputs]
    assert done[0].split()[-2] == done[1].split()[-2]
    assert done[0].split()[-1] == "False"  # torchvision was not needed
    assert len(cache.list_entries(cache_dir)) == 1
    assert [path for path in cache_dir.iterdir() if path.name.endswith(".tmp")] == []
    assert build(root, cache_dir).decoded == 0


def test_waiting_for_another_process_can_be_stopped(root: Path, cache_dir: Path) -> None:
    build(root, cache_dir)
    [entry] = cache.clear_entries(cache_dir)
    asked = iter([False, True])
    with cache.building(cache_dir, entry.key), pytest.raises(Interrupted, match="waiting for another process"):
        materialize_images(load(root), STATIC, cache_dir=cache_dir, should_stop=lambda: next(asked))

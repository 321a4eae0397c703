"""What ``train`` refuses, ``check`` refuses in the same words, or its notes say that it did not look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainkit.config import LoadedConfig, load_config
from trainkit.errors import TrainkitError
from trainkit.system import Frontend
from trainkit.workflows.check import check
from trainkit.workflows.train import train

FOLDER = "dataset: {type: image_folder, root: pics}\nmodel: mlp\n"
TABLE = "dataset: {type: table, path: t.csv, target: y}\nmodel: mlp\n"
SPLITS = ("train", "val")
ODD = 11
"""A file of each class that is not among those which are decoded in any case."""


def pictures(
    suffix: str = "png", *, count: int = 30, shape: tuple[int, ...] = (8, 9, 3), dtype: type = np.uint8
) -> None:
    """``pics/train`` and ``pics/val`` with the classes a and b, in files of different lengths."""
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for name in "ab":
            folder = Path("pics", split, name)
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = rng.integers(0, 256, shape).astype(dtype)
                pixels[: index % 5] = 0
                Image.fromarray(pixels).save(folder / f"{index:02}.{suffix}")


def odd(split: str = "train", suffix: str = "png") -> Path:
    return Path("pics", split, "b", f"{ODD:02}.{suffix}")


def cut(suffix: str, *, split: str = "train", keep: float = 0.6) -> None:
    pictures(suffix, shape=(40, 40, 3))
    path = odd(split, suffix)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def replaced(content: bytes, split: str = "train") -> None:
    pictures()
    odd(split).write_bytes(content)


def other_kind_of_file(make: Callable[[Path], object]) -> None:
    pictures()
    odd().unlink()
    make(odd())


def of_another_size(split: str = "train") -> None:
    pictures(count=170, shape=(4, 4, 3))
    Image.new("RGB", (9, 5)).save(odd(split))


def all_the_same() -> None:
    pictures()
    for path in sorted(Path("pics/train").glob("*/*"))[1:]:
        shutil.copy("pics/train/a/00.png", path)


def all_the_same_once_decoded() -> None:
    pictures()
    for index, path in enumerate(sorted(Path("pics/train").glob("*/*"))):
        pixels = np.full((8, 9, 3), 7, np.uint8)
        Image.fromarray(pixels).save(path, compress_level=index % 10)


def damaged_inside() -> None:
    pictures(shape=(40, 40, 3))
    data = bytearray(odd().read_bytes())
    data[len(data) // 2] ^= 0xFF
    odd().write_bytes(data)


def deep(split: str, name: str, low: int, high: int, dtype: type = np.uint16) -> None:
    rng = np.random.default_rng(1)
    for path in sorted(Path("pics", split, name).glob("*")):
        pixels = rng.integers(low, high, (8, 9)).astype(dtype)
        path.unlink()
        Image.fromarray(pixels).save(path.with_suffix(".tif" if dtype is np.float32 else ".png"))


def dark_in_validation() -> None:
    pictures(shape=(8, 9))
    deep("val", "a", 0, 1000)


def integers_and_floats() -> None:
    pictures(shape=(8, 9))
    deep("train", "a", 0, 50_000)
    deep("train", "b", 0, 2, np.float32)


def one_gray_value() -> None:
    pictures(shape=(8, 9))
    for name in "ab":
        deep("train", name, 500, 501)


def eight_bits_in_validation() -> None:
    pictures(shape=(8, 9))
    for name in "ab":
        deep("train", name, 500, 5000)


def class_lost() -> None:
    pictures(count=3)
    for path in Path("pics/train/b").glob("*"):
        path.write_bytes(b"")


def split_lost() -> None:
    pictures(count=3)
    for path in Path("pics/val").glob("*/*"):
        path.write_bytes(b"")


def one_bad() -> None:
    pictures(count=4)
    Path("pics/train/a/00.png").write_bytes(b"")


def unlabeled() -> None:
    pictures()
    for path in Path("pics/train").glob("*/*"):
        path.rename(Path("pics/train") / f"{path.parent.name}{path.name}")


def table(text: str | bytes, name: str = "t.csv") -> None:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def rows(count: int = 40) -> str:
    return "x,y\n" + "".join(f"{index},{'pq'[index % 2]}\n" for index in range(count))


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "text named as a picture": (lambda: replaced(b"not a picture"), FOLDER),
    "an empty file": (lambda: replaced(b""), FOLDER),
    "an empty file in validation": (lambda: replaced(b"", "val"), FOLDER),
    "a page of HTML": (lambda: replaced(b"<!DOCTYPE html><html>404</html>"), FOLDER),
    "half a JPEG": (lambda: cut("jpg"), FOLDER),
    "a JPEG without its last bytes": (lambda: cut("jpg", keep=0.98), FOLDER),
    "half a JPEG in validation": (lambda: cut("jpg", split="val"), FOLDER),
    "half a PNG": (lambda: cut("png"), FOLDER),
    "half a GIF": (lambda: cut("gif"), FOLDER),
    "half a BMP": (lambda: cut("bmp"), FOLDER),
    "half a TIFF": (lambda: cut("tif"), FOLDER),
    "half a WebP": (lambda: cut("webp"), FOLDER),
    "a header alone": (lambda: cut("png", keep=0.01), FOLDER),
    "a named pipe": (lambda: other_kind_of_file(os.mkfifo), FOLDER),
    "a link to nothing": (lambda: other_kind_of_file(lambda path: path.symlink_to("gone.png")), FOLDER),
    "one picture of another size": (of_another_size, FOLDER),
    "one picture of another size in validation": (lambda: of_another_size("val"), FOLDER),
    "one of another size and one bad": (
        lambda: (of_another_size(), Path("pics/val/a/77.png").write_bytes(b"?")),
        FOLDER,
    ),
    "one picture in many files": (all_the_same, FOLDER),
    "values of 12 bits in validation": (dark_in_validation, FOLDER),
    "integers and floats": (integers_and_floats, FOLDER),
    "one gray value of 16 bits": (one_gray_value, FOLDER),
    "8 bits where training has 16": (eight_bits_in_validation, FOLDER),
    "a class that is lost": (class_lost, FOLDER.replace("pics", "pics, max_bad_files: 9")),
    "a split that is lost": (split_lost, FOLDER.replace("pics", "pics, max_bad_files: 9")),
    "too few for a batch without the bad": (
        one_bad,
        FOLDER.replace("pics", "pics, max_bad_files: 9") + "training: {batch_size: 8, drop_last: true}\n",
    ),
    "no folder": (lambda: None, FOLDER),
    "no class folders": (unlabeled, FOLDER),
    "an empty class": (lambda: (pictures(), Path("pics/train/c").mkdir()), FOLDER),
    "a class that training lacks": (lambda: (pictures(), Path("pics/val/a").rename("pics/val/c")), FOLDER),
    "pictures of phones": (lambda: (pictures(), odd().rename(odd().with_suffix(".heic"))), FOLDER),
    "fractions that leave nothing": (lambda: table(rows()), TABLE.replace("target", "val_fraction: 0.001, target")),
    "no table": (lambda: None, TABLE),
    "an empty table": (lambda: table(""), TABLE),
    "no rows": (lambda: table("x,y\n"), TABLE),
    "no target": (lambda: table("x,z\n1,p\n2,q\n"), TABLE),
    "an empty cell": (lambda: table(rows() + ",p\n"), TABLE.replace("target", "missing: refuse, target")),
    "dates that may be read in two ways": (
        lambda: table("x,y\n" + "".join(f"0{1 + row % 9}/0{1 + row % 7}/2024,{'pq'[row % 2]}\n" for row in range(40))),
        TABLE,
    ),
    "a word among numbers": (lambda: table(rows() + "five,p\n"), TABLE),
    "a row that is too long": (lambda: table(rows() + "5,p,q\n"), TABLE),
    "one label": (lambda: table("x,y\n1,p\n2,p\n"), TABLE),
    "a label that only the test file has": (
        lambda: (table(rows()), table("x,y\n1,r\n", "u.csv")),
        TABLE.replace("target", "test_path: u.csv, target"),
    ),
    "runs where a file is": (lambda: (table(rows()), Path("runs").write_text("")), TABLE),
}
NOT_LOOKED_AT: dict[str, tuple[Callable[[], object], str]] = {
    "damage inside a file": (damaged_inside, FOLDER),
    "one picture in many forms": (all_the_same_once_decoded, FOLDER),
}


def words(run: Callable[[], object]) -> str:
    with pytest.raises(TrainkitError) as caught:
        run()
    return f"{caught.value.exit_code}: {caught.value}"


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))


def loaded(config: str) -> LoadedConfig:
    Path("c.yaml").write_text(config)
    return load_config("c.yaml")


@pytest.mark.parametrize("name", CASES)
def test_check_and_train_refuse_in_the_same_words(name: str) -> None:
    make, config = CASES[name]
    make()
    found = words(lambda: check(loaded(config)))
    assert found.startswith("2: c.yaml")
    assert found == words(lambda: train(loaded(config)))


@pytest.mark.parametrize("name", NOT_LOOKED_AT)
def test_what_check_does_not_look_at_is_said(name: str) -> None:
    make, config = NOT_LOOKED_AT[name]
    make()
    [note] = [note for note in check(loaded(config)).notes if "not looked at" in note]
    assert "damage inside the other 96; pictures that are the same only once decoded" in note
    assert words(lambda: train(loaded(config))).startswith("2: c.yaml")


@pytest.mark.slow
def test_the_commands_exit_alike() -> None:
    make, config = CASES["half a JPEG"]
    make()
    Path("c.yaml").write_text(config)
    done = [
        subprocess.run(
            [sys.executable, "-m", "trainkit", command, "c.yaml"], capture_output=True, text=True, check=False
        )
        for command in ("check", "train")
    ]
    assert [one.returncode for one in done] == [2, 2]
    assert done[0].stderr == done[1].stderr
    assert "b/11.jpg: damaged JPEG (image file is truncated" in done[0].stderr
    assert not Path("runs").exists()


def test_a_file_in_two_splits_is_noted_as_train_notes_it() -> None:
    pictures()
    shutil.copy("pics/train/a/03.png", "pics/val/b/05.png")
    said: list[str] = []
    noted = check(loaded(FOLDER)).notes
    train(loaded(FOLDER + "training: {epochs: 1}\n"), frontend=Frontend(say=said.append))
    shared = [note for note in noted if "is in train too" in note or "is in two classes" in note]
    assert len(shared) == 2
    assert {f"note: {note}" for note in shared} <= set(said)

"""Which files a path stands for: one file, a pattern, a folder of Parquet."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainkit.data.tables.file_kinds import Kind
from trainkit.data.tables.formats import TableFormat
from trainkit.errors import Problem, ProblemsError
from trainkit.wording import counted, listed, not_a_folder

_EXPECTED = "give the path of a table: CSV, TSV, Parquet or Arrow"
_PACKED = r"(\.(gz|zst|bz2|xz))?"
_TEXT = re.compile(rf".*\.(csv|tsv|txt|tab|dat|data){_PACKED}", re.IGNORECASE)
_TYPED = re.compile(r".*\.(parquet|parq|pq|arrow|feather|ipc)", re.IGNORECASE)


def is_table_name(name: str) -> bool:
    """Whether a file in a folder is taken for a table: by its ending, which says nothing else."""
    return bool(_TYPED.fullmatch(name) or (_TEXT.fullmatch(name) and not re.search(r"\.(txt|dat|data)\b", name, re.I)))


@dataclass(frozen=True)
class TableFile:
    """One file, and what it was when it was opened."""

    path: Path
    kind: Kind
    format: TableFormat
    names: tuple[str, ...]
    """Its columns, in its own order."""
    state: tuple[int, int]
    """Size and time of the last change."""
    offset: int = 0
    """How many bytes of UTF-8 stand before its first row."""
    line: int = 0
    """How many lines do."""
    added: dict[str, str | None] = field(default_factory=dict)
    """Columns that the names of its folders give."""


def find_paths(path: str | Sequence[str], key: str) -> list[tuple[Path, Path]]:
    """Each file, behind the folder below which the names of subfolders give columns.

    Raises:
        ProblemsError: No such file, all of them together; a folder of several tables.
    """
    found: list[tuple[Path, Path]] = []
    problems = []
    for one in [path] if isinstance(path, str) else path:
        files = _find(one)
        if isinstance(files, str):
            problems.append(Problem(files, key=key))
        else:
            found += files
    if not problems and not found:
        problems.append(Problem(f"an empty list; {_EXPECTED}", key=key))
    counts = Counter(file.resolve() for _, file in found)
    problems += [Problem(f"{file} is there twice", key=key) for file, count in counts.items() if count > 1]
    if problems:
        raise ProblemsError(problems)
    return found


def _find(text: str) -> list[tuple[Path, Path]] | str:
    """The files, or what is wrong."""
    if re.match(r"[a-z][a-z0-9+]+://", text):
        return f"{text} is not on this machine; download it and give its path"
    path = Path(text).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        return [(path.parent, path)]
    if not path.exists() and re.search(r"[*?\[]", text):
        files = sorted(map(Path, glob.glob(str(path), recursive=True)), key=_as_people_sort)
        files = [file for file in files if file.is_file() and not file.name.startswith((".", "_"))]
        base = Path(re.split(r"[*?\[]", str(path))[0] + "x").parent
        return [(base, file) for file in files] or f"no file matches {text}"
    what = not_a_folder(path) if not path.exists() or not path.is_file() else ""
    return f"{path} {what.replace('is not a folder but', 'is')}; {_EXPECTED}"


def _in_folder(folder: Path) -> list[tuple[Path, Path]] | str:
    for sign, name in (("_delta_log", "Delta"), ("metadata/version-hint.text", "Iceberg"), (".hoodie", "Hudi")):
        if (folder / sign).exists():
            return f"{folder} is a {name} table, which keeps old rows among its files; write it as Parquet first"
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=_as_people_sort)
    files = [f for f in files if not any(part.startswith((".", "_")) for part in f.relative_to(folder).parts)]
    typed = [file for file in files if _TYPED.fullmatch(file.name)]
    if typed:
        return [(folder, file) for file in typed]
    texts = [file for file in files if _TEXT.fullmatch(file.name)]
    if texts and all(file.name.startswith("part-") for file in texts):
        return [(folder, file) for file in texts]
    if texts:
        names = listed([str(file.relative_to(folder)) for file in texts], limit=3)
        return f"{folder} is a folder of {counted(len(texts), 'table')}; give one of them, a list or a pattern: {names}"
    return f"{folder} is a folder without tables; {_EXPECTED}"


def _as_people_sort(path: Path) -> list[tuple[int, int, str]]:
    """``part-2`` before ``part-10``."""
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", str(path))]

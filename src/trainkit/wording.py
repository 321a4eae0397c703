"""How numbers, names and lists are written for people, the same in every message, table and page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""The splits as a sentence names them."""
SPLIT_WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
"""What people call the splits, as folders and in columns of tables."""
_LOWER_IS_BETTER = ("loss", "mae", "rmse")


def enumerated(names: Iterable[object]) -> str:
    """``a, b and c``."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def listed(names: Sequence[object], *, limit: int = 10, quoted: bool = True) -> str:
    """``'a', 'b' and 3 more``: at most ``limit`` names."""
    shown = ", ".join(repr(name) if quoted else str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def counted(number: int, noun: str) -> str:
    """``1 epoch``, ``1,200 epochs``, ``0 classes``, ``2 entries``."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    hisses = noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch")
    return f"{number:,} {noun}{'es' if hisses else 's'}"


def not_a_folder(path: str | os.PathLike[str]) -> str:
    """What is there instead of a folder: ``does not exist``, ``is not a folder but a file``."""
    if not os.path.exists(path):
        return "does not exist (a link to nothing)" if os.path.islink(path) else "does not exist"
    if not os.path.isfile(path):
        return "is not a folder but a pipe or a device"
    packed = str(path).lower().endswith((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"))
    return "is not a folder but an archive: unpack it" if packed else "is not a folder but a file"


def first_lines(lines: Sequence[str], *, limit: int = 10) -> list[str]:
    """The first lines, and ``and 3 more`` where there are more."""
    return [*lines[:limit], *([f"and {len(lines) - limit} more"] if len(lines) > limit else [])]


def size_text(num_bytes: float) -> str:
    """``1.5 GB``, ``20 MB``, ``3.1 kB``: decimal units, two or three digits."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= factor:
            value = num_bytes / factor
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def told_apart(value: float, other: float) -> tuple[str, str]:
    """Two numbers with five digits, or as many as show three of their difference: ``200000.5``, ``200013``."""
    apart, size = abs(value - other), max(abs(value), abs(other))
    digits = 5
    if apart > 0 and math.isfinite(apart):
        digits = min(17, max(digits, 3 + math.ceil(math.log10(size / apart))))
    return f"{value:.{digits}g}", f"{other:.{digits}g}"


def duration(seconds: float | None) -> str:
    """``350 ms``, ``1.5 s``, ``3 min 5 s``, ``2 h 10 min``; a dash where it is not known."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def stage_times(seconds: Mapping[str, float]) -> str:
    """``scores 3.1 s, export 1.5 s``, without stages of less than 0.1 s."""
    return ", ".join(f"{name} {duration(spent)}" for name, spent in seconds.items() if 0.1 <= spent < math.inf)


def percent(share: float | None, *, decimals: int = 1) -> str:
    """A share in percent: ``97.3 %``; a dash where it is not known. What is less than 1 is never written as 100 %."""
    if share is None or math.isnan(share):
        return "–"
    top = 100 - 10.0**-decimals
    if share < 1 and round(100 * share, decimals) >= 100:
        return f"> {top:.{decimals}f} %"
    return f"{100 * share:.{decimals}f} %"


def computed_in(precision: str, *, trained_in: str) -> str:
    """What the scores of the best checkpoint were computed in, and what chose it where that computed otherwise."""
    if trained_in == precision:
        return f"computed in {precision}"
    return f"computed in {precision}; the validation during training, which chose the checkpoint, in {trained_in}"


def better(metric: str) -> Literal["min", "max"]:
    """Whether a lower or a higher value of a metric (``val_loss``, ``rmse``, ``val_acme.HammingLoss``) is better."""
    if "." in metric:  # of a plug-in, which need not be loaded
        return "min" if metric.lower().endswith((*_LOWER_IS_BETTER, "error", "distance")) else "max"
    return "min" if metric.split("_")[-1] in _LOWER_IS_BETTER else "max"


def by_key(value: Any, key: str = "") -> dict[str, Any]:
    """The leaves of nested plain data by key path: ``{"model.blocks[0].channels": 16}``. A list of numbers is one."""
    if isinstance(value, Mapping) and (value or not key):
        items = [(f"{key}.{name}" if key else str(name), item) for name, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        items = [(f"{key}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {key: value}
    return {name: leaf for where, item in items for name, leaf in by_key(item, where).items()}


def edit_distance(left: str, right: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbors that turn one into the other."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, above, row = row, before, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be, or None."""
    if not 1 <= len(word) <= 64:
        return None
    folded = _folded(word)
    scored: list[tuple[int, int, str]] = []
    for order, candidate in enumerate(known):
        target = _folded(candidate)
        distance = edit_distance(folded, target)
        if distance <= max(1, max(len(folded), len(target)) // 3) and distance < max(len(folded), len(target)):
            scored.append((distance, order, candidate))
        elif len(folded) >= 4 and (target.startswith(folded) or (len(target) >= 4 and folded.startswith(target))):
            scored.append((4, order, candidate))
    return min(scored)[2] if scored else None


def _folded(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace(" ", "")

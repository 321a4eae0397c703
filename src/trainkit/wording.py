"""Did you mean ...?"""

from __future__ import annotations

from collections.abc import Iterable


def edit_distance(left: str, right: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours that turn one into the other."""
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

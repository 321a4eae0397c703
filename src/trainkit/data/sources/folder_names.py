"""What the name of a folder says: a split, by the names that people use, or one class in two Unicode forms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from trainkit.wording import SPLIT_WORDS

_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_BESIDE = ("dataset", "set", "data", "images", "image", "imgs", "img", "seg", "split", "folder", "dir")
"""Words that a split's folder may have beside the split: ``test_set``, ``train_images``, ``seg_test``."""
_JOINED = re.compile(rf"\b({'|'.join(_SPLIT_OF)})({'|'.join(_BESIDE)})\b")
_HOLDERS = {
    *_BESIDE,
    *_SPLIT_OF,
    "pictures",
    "photos",
    "unknown",
    "unlabeled",
    "unlabelled",
    "all",
    "fold",
    "part",
    "batch",
}
_IMAGES = {"images", "image", "imgs", "img"}
_ANNOTATIONS = {"masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "trimaps"}


def is_text(name: str) -> bool:
    """Whether a name has neither control characters nor bytes that are no text."""
    return not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name)


def split_names(names: Iterable[str]) -> dict[str, str]:
    """``{"Training": "train", "test_set": "test"}``: the folders that are called like a split, in any case.

    A name with further words counts where these are in the name of another folder: ``letters_train`` beside
    ``letters_test``, ``letters`` (which is the training split) beside ``letters_test``; or where there is ``train`` and
    no other folder for its split: ``validation-letters``. ``eval`` is the validation set, or the test set where there
    is another validation set.
    """
    words = {name: _words(name) for name in names}
    of = {name: {_SPLIT_OF[word] for word in words[name] if word in _SPLIT_OF} for name in words}
    rest = {name: [word for word in words[name] if word not in _SPLIT_OF and word not in _BESIDE] for name in words}
    found = {name: min(of[name]) for name in words if len(of[name]) == 1 and not rest[name]}
    plain = set(found.values())
    for name in words:
        if len(of[name]) != 1 or not rest[name]:
            continue
        [split] = of[name]
        alike = [other for other in words if other != name and rest[other] == rest[name] and of[other] != of[name]]
        if any(len(of[other]) == 1 for other in alike) or ("train" in plain and split not in plain):
            found[name] = split
        elif alike and split != "train" and not of[alike[0]]:
            found |= {name: split, alike[0]: "train"}
    if list(found.values()).count("val") > 1 and "test" not in found.values():
        found |= {name: "test" for name in found if not {"eval", "evaluation"}.isdisjoint(words[name])}
    return found


def says_split(name: str) -> bool:
    """Whether a word of a name is one for a split."""
    return any(word in _SPLIT_OF for word in _words(name))


def is_holder(name: str) -> bool:
    """Whether a folder's name says only that images are in it: ``images``, ``test``, ``unknown``."""
    words = _words(name)
    return bool(words) and all(word in _HOLDERS for word in words)


def are_images_and_annotations(names: Iterable[str]) -> bool:
    """``images`` beside ``masks`` or ``labels``: data for segmentation or detection, not two classes."""
    folded = {name.casefold() for name in names}
    return folded <= _IMAGES | _ANNOTATIONS and not folded.isdisjoint(_IMAGES) and not folded.isdisjoint(_ANNOTATIONS)


def _words(name: str) -> list[str]:
    """The words of a name without numbers: ``["test", "set"]`` of ``TestSet_2``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)).casefold()
    spaced = " ".join(re.findall(r"[^\W\d_]+", spaced))
    return _JOINED.sub(r"\1 \2", spaced).split()

"""What a shell offers after ``--set``: key paths of the schema."""

from __future__ import annotations

from typing import Any

from trainkit.config.help.introspect import annotation_of, item_annotation, sections, variants
from trainkit.config.schema import Config


def complete_set(incomplete: str) -> list[str]:
    """The continuations of a ``--set`` argument by one more key, or by the names of a choice after ``=``.

    ``optim`` gives ``optimizer.`` and ``optimizer=``; ``optimizer.l`` gives ``optimizer.lr=``; ``optimizer=a`` gives
    ``optimizer=adam`` and others. Where the variant is not known, the keys of all of them are offered.
    """
    left, equals, value = incomplete.partition("=")
    *parents, last = left.split(".")
    annotations: list[Any] = [Config]
    for key in parents:
        annotations = [child for annotation in annotations for child in _children(annotation, key.split("[")[0])]
    if equals:
        names = [
            name for annotation in annotations for child in _children(annotation, last) for name in variants(child)
        ]
        return [f"{left}={name}" for name in dict.fromkeys(names) if name.startswith(value)]
    prefix = "".join(f"{key}." for key in parents)
    found: dict[str, None] = {}
    for annotation in annotations:
        for section in sections(annotation):
            for key, field in section.model_fields.items():
                if key.startswith(last):
                    child = annotation_of(field)
                    if sections(child):
                        found[f"{prefix}{key}."] = None
                    if not sections(child) or variants(child):
                        found[f"{prefix}{key}="] = None
    return list(found)


def _children(annotation: Any, key: str) -> list[Any]:
    """What stands under a key, over all sections that an annotation allows; of a list, what its items are."""
    found = [annotation_of(s.model_fields[key]) for s in sections(annotation) if key in s.model_fields]
    return [child if item_annotation(child) is None else item_annotation(child) for child in found]

"""``docs/config.md``: every key of the config with its meaning, what it may be, its default and an example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from trainkit.config.help.introspect import (
    annotation_of,
    entry_annotation,
    expected,
    item_annotation,
    sections,
    type_name,
    variants,
)
from trainkit.config.schema.base import Section
from trainkit.config.schema.extended import config_class
from trainkit.config.text import flow

_INTRODUCTION = """\
# The config, key by key

Made from the schema by `trainkit config schema --markdown`. Only `dataset` and `model` are needed. A closed choice is
`{type: NAME, ...}` with the keys of that type; a bare `NAME` is short for it. Durations are `10ep` (epochs), `500st`
(optimizer steps) and, where the table says so, `30min`; a number alone is epochs. Learning rates, probabilities and
shares have no unit, sizes of pictures are pixels `[height, width]`. An example stands where the default is none.
"""
_COMMON = 3
"""A key that so many types share is told once."""


_EXAMPLES: dict[str, tuple[Any, ...]] = {
    "T_max": ("10ep",),
    "accumulation_steps": (4,),
    "activation": ("relu",),
    "at": ("3ep",),
    "bits": (4,),
    "channels": (32,),
    "clip_grad_norm": (1.0,),
    "clip_grad_value": (0.5,),
    "column": ("patient",),
    "count": (5,),
    "decimal": (",",),
    "degrees": (15, [-15.0, 15.0]),
    "delimiter": (";",),
    "dropout": (0.2,),
    "dropout_schedule": ("flat_cos",),
    "encoding": ("cp1252",),
    "eval_resize": (256,),
    "every": ("1ep",),
    "features": (["distance", "carrier"],),
    "fold": (0,),
    "folds": ({"count": 5, "fold": 0},),
    "header": (False,),
    "kernel_size": (3, [3, 3]),
    "layer_decay": (0.75,),
    "line_search_fn": ("strong_wolfe",),
    "max_eval": (25,),
    "metrics": (["val_roc_auc"],),
    "milestones": (["10ep", "20ep"],),
    "missing_values": (["n/a", "-"],),
    "modules": (["head"], "all"),
    "monitor": ("val_loss",),
    "name": ("resnet18",),
    "no_decay": ("norm_and_bias",),
    "norm": ("batch",),
    "normalized_shape": (128,),
    "num_channels": (32,),
    "num_features": (128,),
    "num_groups": (8,),
    "in_channels": (3,),
    "in_features": (128,),
    "out_channels": (32,),
    "out_features": (128,),
    "off_for_last": ("2ep",),
    "output_size": (1, [1, 1]),
    "path": ("flights.csv",),
    "pos_weight": (3.0,),
    "problem": ("moons",),
    "revision": ("3c4f02e",),
    "root": ("photos",),
    "scale": ([0.8, 1.2],),
    "sha256": ("37c1a3f0" * 8,),
    "sharpness_factor": (2.0,),
    "shear": (10.0, [-10.0, 10.0]),
    "size": (224, [224, 224]),
    "start": ("75%",),
    "step_size": ("10ep",),
    "stride": (2, [2, 2]),
    "target": ("arr_delay",),
    "test": (["test"],),
    "test_path": ("test.csv",),
    "threshold": (0.5,),
    "translate": ([0.1, 0.1],),
    "val": (["valid"],),
    "value_range": ([0.0, 4095.0],),
    "warmup": ("1ep",),
    "weight": ("sample_weight", [1.0, 3.0]),
    "weight_decay": (0.01,),
    "weight_decay_schedule": ("flat_cos",),
}
"""What stands in the table for a key without a default: the first value that the key takes there."""


@dataclass(frozen=True)
class Row:
    """A key in a table: what is told of it."""

    key: str
    meaning: str
    values: str
    default: str


def reference() -> str:
    """The page in Markdown."""
    return "\n".join([_INTRODUCTION, *_keys(config_class(), "", told={})]).rstrip() + "\n"


def _keys(section: type[Section], path: str, told: dict[frozenset[type[Section]], str]) -> Iterator[str]:
    """The table of a section, then what its keys hold."""
    yield from _table([_row(name, field) for name, field in section.model_fields.items() if name != "type"])
    for name, field in section.model_fields.items():
        yield from _below(f"{path}.{name}" if path else name, field, told)


def _below(path: str, field: FieldInfo, told: dict[frozenset[type[Section]], str]) -> Iterator[str]:
    """The keys of the sections that a field may hold, once for the whole page."""
    annotation = annotation_of(field)
    for inner in (item_annotation(annotation), entry_annotation(annotation)):
        if inner is not None and sections(inner):
            annotation, path = inner, f"{path}[...]"
    if not (found := sections(annotation)):
        return
    level = "#" * min(2 + path.count("."), 4)
    for before, where in told.items():
        if before.issuperset(found):
            yield f"{level} `{path}`\n\nAs in [`{where}`](#{_anchor(where)}).\n"
            return
    told[frozenset(found)] = path
    yield f"{level} `{path}`\n\n{field.description or ''}\n"
    choices = variants(annotation)
    for plain in (section for section in found if type_name(section) is None):
        yield from _keys(plain, path, told)
    if choices:
        yield from _choice(choices, path, told)


def _choice(
    choices: Mapping[str, type[Section]], path: str, told: dict[frozenset[type[Section]], str]
) -> Iterator[str]:
    """The keys that several types share, with their names; then each type with its own."""
    holders: dict[Row, list[str]] = {}
    for name, section in choices.items():
        for key, field in section.model_fields.items():
            if key != "type":
                holders.setdefault(_row(key, field), []).append(name)
    shared = {row: names for row, names in holders.items() if len(names) >= _COMMON}
    if shared:
        yield from _table(list(shared), types=[_names(names, choices) for names in shared.values()])
    for name, section in choices.items():
        own = [row for key, field in section.model_fields.items() if (row := _row(key, field)) in holders]
        yield f"**`{name}`**: {_sentence(section.__doc__)}\n"
        yield from _table([row for row in own if row not in shared and row.key != "type"])
    seen: set[str] = set()
    for section in choices.values():
        for key, field in section.model_fields.items():
            inner = f"{path}.{key}"
            if inner not in seen and sections(_innermost(annotation_of(field))):
                seen.add(inner)
                yield from _below(inner, field, told)


def _names(names: list[str], choices: Mapping[str, type[Section]]) -> str:
    missing = [name for name in choices if name not in names]
    if not missing:
        return "all"
    return ", ".join(names) if len(names) <= len(missing) + 1 else f"all but {', '.join(missing)}"


def _innermost(annotation: Any) -> Any:
    for inner in (item_annotation(annotation), entry_annotation(annotation)):
        if inner is not None:
            return inner
    return annotation


def _row(key: str, field: FieldInfo) -> Row:
    if field.is_required():
        default = "needed"
    else:
        value = field.get_default(call_default_factory=True)
        if isinstance(value, Section):
            default = f"`{name}`" if (name := type_name(type(value))) else "its keys' defaults"
        else:
            default = "none" if value is None else f"`{flow(value)}`"
    if default in ("needed", "none") and (example := example_of(key, annotation_of(field))) is not None:
        default += f"; e.g. `{flow(example)}`"
    return Row(key, _sentence(field.description), expected(annotation_of(field)), default)


def example_of(key: str, annotation: Any) -> Any:
    """The first example of the key that the annotation takes; None where only sections would do."""
    for value in (*_EXAMPLES.get(key, ()), *variants(annotation)):
        with suppress(ValidationError):
            TypeAdapter(annotation).validate_python(value)
            return value
    return None


def _table(rows: list[Row], types: list[str] | None = None) -> Iterator[str]:
    if not rows:
        return
    yield "| key | meaning | may be | default |" + (" of |" if types else "")
    yield "|---|---|---|---|" + ("---|" if types else "")
    for index, row in enumerate(rows):
        cells = [f"`{row.key}`", row.meaning, row.values, row.default, *([types[index]] if types else [])]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _sentence(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").split())


def _anchor(path: str) -> str:
    """What GitHub makes of a heading."""
    return "".join(character for character in path.lower() if character.isalnum() or character in "_-")

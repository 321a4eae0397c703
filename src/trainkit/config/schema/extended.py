"""The schema with the parts of plug-ins: every closed choice also has theirs, wherever it stands."""

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache, reduce
from operator import or_
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from trainkit.config.schema import Config
from trainkit.config.schema.base import Section
from trainkit.config.schema.data import Digits, OwnData, OwnValues
from trainkit.config.schema.losses import OUTPUTS_AS, CrossEntropy
from trainkit.config.schema.model import LinearLayer, Mlp
from trainkit.config.schema.transforms import Resize, TransformSection
from trainkit.errors import UserError
from trainkit.plugins import Plugin, active, place_of
from trainkit.wording import listed

_KIND_OF: dict[type[Section], str] = {
    LinearLayer: "layers",
    Mlp: "models",
    CrossEntropy: "losses",
    Resize: "transforms",
    Digits: "datasets",
}
"""A variant of each choice that grows, and the kind of parts that it gets."""


_SAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "losses": {"outputs": tuple(OUTPUTS_AS)},
    "metrics": {"task": ("classification", "regression")},
    "datasets": {"kind": ("image", "table"), "task": ("classification", "regression")},
}
"""What a part of a kind has to say beside its knobs, as a class variable, and the possible values."""


def config_class() -> type[Config]:
    """``Config``, or the one with the parts of the plug-ins that are loaded now.

    Raises:
        UserError: a part of a plug-in is not a section as it has to be.
    """
    return _extended(plugins) if (plugins := active()) else Config


def grows(variants: Iterable[type[Section]]) -> bool:
    """Whether plug-ins can add to a choice with these variants."""
    return not _KIND_OF.keys().isdisjoint(variants)


@lru_cache(maxsize=8)
def _extended(plugins: tuple[Plugin, ...]) -> type[Config]:
    parts = {
        kind: tuple(_variant(plugin, part, kind) for plugin in plugins for part in plugin.parts[kind])
        for kind in Plugin.KINDS
    }
    grown = _Growth({sibling: parts[kind] for sibling, kind in _KIND_OF.items()}).section(Config)
    assert issubclass(grown, Config)
    metrics = {f"val_{get_args(part.model_fields['type'].annotation)[0]}": part for part in parts["metrics"]}
    about = {"__doc__": Config.__doc__, "__module__": __name__}
    return type("Config", (grown,), {"plugins": plugins, "own_parts": parts, "own_metrics": metrics, **about})


@dataclass
class _Growth:
    """Copies of the schema's sections in which the choices have more variants."""

    more: dict[type[Section], tuple[type[Section], ...]]
    prefix: str = ""
    """Of the names of a plug-in's own sections, which may be those of trainkit's, in the JSON Schema."""
    seen: set[type[Section]] = dataclass_field(default_factory=set)

    def annotation(self, annotation: Any) -> Any:
        """The same object where nothing in it grows."""
        origin, parts = get_origin(annotation), get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return self.section(annotation)
        if origin not in (Annotated, Union, UnionType, list):
            return annotation
        if origin is Annotated:
            inner = self.annotation(parts[0])
            return annotation if inner is parts[0] else Annotated[inner, *parts[1:]]
        grown = [self.annotation(part) for part in parts]
        if origin is not list:
            grown += [new for part in parts if isinstance(part, type) for new in self.more.get(part, ())]
        if len(grown) == len(parts) and all(new is old for new, old in zip(grown, parts, strict=True)):
            return annotation
        return GenericAlias(list, grown[0]) if origin is list else reduce(or_, grown)

    def section(self, section: type[Section]) -> type[Section]:
        if section in self.seen:  # it holds itself
            return section
        self.seen.add(section)
        fields = self.fields(section)
        self.seen.remove(section)
        foreign = bool(self.prefix) and not section.__module__.startswith("trainkit.")
        if not fields and not foreign:
            return section
        name = f"{self.prefix}_{section.__name__}" if foreign else section.__name__
        grown: type[Section] = create_model(name, __base__=section, __doc__=section.__doc__, **fields)
        return grown

    def fields(self, section: type[Section]) -> dict[str, Any]:
        """The fields of a section in which something grows."""
        pairs = [(name, field, self.annotation(field.annotation)) for name, field in section.model_fields.items()]
        return {name: _field(field, new) for name, field, new in pairs if new is not field.annotation}


def _field(field: FieldInfo, annotation: Any) -> tuple[Any, Any]:
    """The field with another annotation: pydantic keeps the discriminator and the constraints of a choice in it."""
    choice = [] if field.discriminator is None else [Field(discriminator=field.discriminator)]
    knobs: dict[str, Any] = {"description": field.description}
    if field.default_factory is not None:
        knobs["default_factory"] = field.default_factory
    elif not field.is_required():
        knobs["default"] = field.default
    metadata = [*choice, *field.metadata]
    return (Annotated[annotation, *metadata] if metadata else annotation, Field(**knobs))


def _variant(plugin: Plugin, part: type, kind: str) -> type[Section]:
    """The part with the ``type`` that names it in configs.

    Raises:
        UserError: it is no section, or lacks a sentence or its build method.
    """
    name = f"{plugin.name}.{getattr(part, '__name__', repr(part))}"
    mistake = _mistake_of(part, kind)
    if mistake is None:
        about: dict[str, Any] = {**_bases(part, kind), "__module__": part.__module__, "__doc__": part.__doc__}
        about |= _Growth({}, prefix=plugin.name).fields(part)
        about["type"] = (Literal[name], ...)
        variant: Any = cast(Any, create_model)(name.replace(".", "_"), **about)
        try:
            variant.model_rebuild()
            if kind == "datasets":
                variant.location_keys = tuple(key for key in ("root", "path") if key in variant.model_fields)
            return cast(type[Section], variant)
        except Exception as error:  # noqa: BLE001  (pydantic's many, and those of annotations)
            mistake = f"its fields are not types that pydantic knows: {str(error).strip().splitlines()[0]}"
    raise UserError(f"{place_of(part) or plugin.module}: {name}: {mistake}")


def _bases(part: type, kind: str) -> dict[str, Any]:
    """What pydantic derives the variant from: what the rest of trainkit asks such sections."""
    if kind == "transforms":
        what = {"stage": "random", "works_on": "image", "needs_pixel_values": True, "costly": True}
        return {"__base__": (part, TransformSection), "__cls_kwargs__": what}
    if kind == "datasets":
        return {"__base__": (part, OwnValues if part.task == "regression" else OwnData)}  # type: ignore[attr-defined]
    return {"__base__": part}


def _mistake_of(part: Any, kind: str) -> str | None:
    if not (isinstance(part, type) and issubclass(part, Section)):
        return "a part of a plug-in is a class with its knobs: class Name(trainkit.Section)"
    if not callable(getattr(part, "build", None)):
        return "it has no build method, which makes it; see docs/extending.md"
    if not (part.__doc__ or "").strip():
        return "it has no docstring; say in a sentence what it is, for messages and editors"
    for field, info in part.model_fields.items():
        if field == "type":
            return "its type is its name; take another name for this field"
        if not (info.description or "").strip():
            return f'{field} has no description; write {field}: ... = Field(..., description="...")'
        if kind == "metrics":
            return f"a metric has a name and no knobs, got {field}; make another class for another metric"
    for name, values in _SAYS.get(kind, {}).items():
        if getattr(part, name, None) not in values:
            return f'it has to say {name}: ClassVar[str] = "{values[0]}"; or {listed(values[1:])}'
    draws = getattr(part, "num_draws", 1)
    if kind == "transforms" and not (isinstance(draws, property) or (isinstance(draws, int) and draws > 0)):
        return f"num_draws has to be a whole number above 0, or a property that gives one, got {draws!r}"
    return None

"""The schema as JSON Schema, for editors: completion, hover texts and marks while a config is typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainkit.config.help.introspect import (
    annotation_of,
    entry_annotation,
    item_annotation,
    sections,
    type_name,
    variants,
)
from trainkit.config.schema.base import Section
from trainkit.config.schema.extended import config_class
from trainkit.config.schema.sweep import Space, Sweep

_EXTENDS = {
    "type": "string",
    "minLength": 1,
    "description": "Another config, relative to this file, that this one completes and changes.",
}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 7) of a config file: descriptions, ranges, choices with their short forms."""
    schema, definitions = _documented(config_class())
    transforms = schema["properties"]["transforms"]
    transforms["anyOf"] = [{"const": "auto"}, {"type": transforms.pop("type"), "items": transforms.pop("items")}]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "trainkit config",
        **{key: value for key, value in schema.items() if key != "properties"},
        "properties": {"extends": _EXTENDS, **schema["properties"]},
        # a file that extends another one may leave out what that one has
        "if": {"required": ["extends"]},
        "then": True,
        "else": {"required": schema["required"]},
        "required": [],
        "$defs": definitions,
    }


def sweep_json_schema() -> dict[str, Any]:
    """JSON Schema (draft 7) of the file of a sweep. The paths under ``search`` and ``set`` are free."""
    schema, definitions = _documented(Sweep)
    for name in variants(Space):
        definition = definitions[variants(Space)[name].__name__]
        del definition["properties"]["type"]
        definition["required"] = [name]
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "trainkit sweep"}
    return {**head, **schema, "$defs": definitions}


def _documented(root: type[Section]) -> tuple[dict[str, Any], dict[str, Any]]:
    """pydantic's schema of a file, tidied and with all defaults; and its definitions."""
    found = _all_sections(root, {})
    schema = _tidy(root.model_json_schema(by_alias=False), found)
    definitions: dict[str, Any] = schema.pop("$defs")
    for section in found.values():
        _fill_defaults(section, schema if section is root else definitions[section.__name__])
    return schema, definitions


def _all_sections(section: type[Section], found: dict[str, type[Section]]) -> dict[str, type[Section]]:
    if section.__name__ not in found:
        found[section.__name__] = section
        for field in section.model_fields.values():
            _sections_in(annotation_of(field), found)
    return found


def _sections_in(annotation: Any, found: dict[str, type[Section]]) -> None:
    for inside in (item_annotation(annotation), entry_annotation(annotation)):
        if inside is not None:
            _sections_in(inside, found)
    for section in sections(annotation):
        _all_sections(section, found)


def _fill_defaults(section: type[Section], schema: dict[str, Any]) -> None:
    """Defaults that are made by a factory are not in pydantic's output."""
    for name, field in section.model_fields.items():
        entry = schema["properties"][name]
        if "$ref" in entry:
            entry = schema["properties"][name] = {"allOf": [{"$ref": entry["$ref"]}]}
        if field.description:
            entry["description"] = field.description
        if len(choices := variants(annotation_of(field))) == 1:  # pydantic has a discriminator for several only
            entry["anyOf"].insert(0, {"type": "string", "enum": list(choices)})
        if field.default_factory is not None:
            default = field.get_default(call_default_factory=True)
            entry["default"] = (type_name(type(default)) or {}) if isinstance(default, Section) else default


def _tidy(node: Any, by_name: Mapping[str, type[Section]]) -> Any:
    """Without pydantic's titles and discriminators; short forms beside the mappings; nothing beside a ``$ref``."""
    if isinstance(node, list):
        return [_tidy(item, by_name) for item in node]
    if not isinstance(node, dict):
        return node
    tidied: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties" or key == "$defs":
            tidied[key] = {name: _tidy(item, by_name) for name, item in value.items()}
        elif key == "title" or (key == "default" and value is None):
            continue
        elif key != "discriminator":
            tidied[key] = _tidy(value, by_name)
    if "discriminator" in node:
        tidied["anyOf"] = [*_short_forms(node["discriminator"]["mapping"], by_name), *tidied.pop("oneOf")]
    if "$ref" in tidied and len(tidied) > 1:
        tidied = {"allOf": [{"$ref": tidied.pop("$ref")}], **tidied}
    if "$ref" not in tidied and tidied.get("description"):
        tidied["description"] = " ".join(tidied["description"].split())
    return tidied


def _short_forms(mapping: dict[str, str], by_name: Mapping[str, type[Section]]) -> list[dict[str, Any]]:
    """The bare names of a choice, if any: those of variants that need nothing but their ``type``."""
    names = []
    for name, reference in mapping.items():
        fields = by_name[reference.rsplit("/", 1)[1]].model_fields
        if not any(field.is_required() for key, field in fields.items() if key != "type"):
            names.append(name)
    return [{"type": "string", "enum": names}] if names else []

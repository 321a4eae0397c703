"""The schema itself: every field explained, every choice closed, and the JSON Schema for editors current."""

import json
from pathlib import Path

import pytest

from trainkit.config.help.introspect import annotation_of, expected, item_annotation, sections, type_name, variants
from trainkit.config.help.json_schema import json_schema, sweep_json_schema
from trainkit.config.schema import Config
from trainkit.config.schema.base import Section, parse_duration
from trainkit.config.schema.optimization import Optimizer

SCHEMA = Path(__file__).parents[3] / "configs" / "trainkit.schema.json"


def all_sections() -> list[type[Section]]:
    found: list[type[Section]] = [Config]
    for section in found:
        for field in section.model_fields.values():
            annotation = annotation_of(field)
            inner = item_annotation(annotation)
            nested = sections(annotation) + (sections(inner) if inner is not None else [])
            found += [other for other in nested if other not in found]
    return found


SECTIONS = all_sections()


def test_all_sections_are_found() -> None:
    names = {section.__name__ for section in SECTIONS}
    assert len(SECTIONS) > 80
    assert {"Config", "Adam", "Conv2dLayer", "Moons", "SkipNonFinite", "KaimingNormal", "RandomErasing"} <= names


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_and_field_is_explained(section: type[Section]) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():
        if name != "type":  # the docstring of the variant
            assert field.description, f"{section.__name__}.{name} has no description"
            assert field.description.endswith("."), f"{section.__name__}.{name}: a sentence ends with a full stop"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_can_be_put_in_words(section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        words = expected(annotation_of(field))
        assert words, f"{section.__name__}.{name}"
        assert "<" not in words, words  # no repr of a class
        assert "typing" not in words, words


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_defaults_are_valid(section: type[Section]) -> None:
    required = {name for name, field in section.model_fields.items() if field.is_required()}
    if required <= {"type"}:
        name = type_name(section)
        made = section.model_validate({"type": name} if name else {})
        assert section.model_validate(made.model_dump()) == made


def test_variants_have_distinct_names_and_bare_names() -> None:
    choices = variants(Optimizer)
    assert list(choices) == [
        *("sgd", "adam", "adamw", "nadam", "radam", "adafactor", "rmsprop", "adagrad", "muon", "lbfgs")
    ]


@pytest.mark.parametrize(
    ("value", "unit", "number"),
    [(3, "epochs", 3), ("3ep", "epochs", 3), ("500st", "steps", 500), ("10min", "minutes", 10)],
)
def test_durations(value: int | str, unit: str, number: int) -> None:
    duration = parse_duration(value)
    assert (duration.value, duration.unit) == (number, unit)


def test_the_shipped_json_schema_is_current() -> None:
    current = json.dumps(json_schema(), indent=1) + "\n"
    assert SCHEMA.read_text(encoding="utf-8") == current, "trainkit config schema > configs/trainkit.schema.json"


def test_the_shipped_json_schema_of_sweeps_is_current() -> None:
    current = json.dumps(sweep_json_schema(), indent=1) + "\n"
    renew = "trainkit config schema --sweep > configs/sweep.schema.json"
    assert SCHEMA.with_name("sweep.schema.json").read_text(encoding="utf-8") == current, renew


def test_the_json_schema_of_sweeps_takes_spaces_as_they_are_written() -> None:
    schema = sweep_json_schema()
    uniform = schema["$defs"]["Uniform"]
    assert (list(uniform["properties"]), uniform["required"]) == (["uniform", "step"], ["uniform"])
    assert schema["properties"]["sampler"]["anyOf"][0]["enum"] == ["cmaes", "gp", "grid", "random", "tpe"]
    assert schema["properties"]["search"]["additionalProperties"]["anyOf"][0] == {"$ref": "#/$defs/LogUniform"}


def test_the_json_schema_says_what_editors_need() -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    adam = definitions["Adam"]
    assert adam["properties"]["lr"] == {
        "default": 0.001,
        "description": "Learning rate.",
        "exclusiveMinimum": 0,
        "type": "number",
    }
    assert adam["additionalProperties"] is False
    optimizer = schema["properties"]["optimizer"]
    assert optimizer["default"] == "adam"
    assert optimizer["description"] == "How the weights move."
    assert optimizer["anyOf"][0]["enum"] == [
        *("adafactor", "adagrad", "adam", "adamw", "lbfgs", "muon", "nadam", "radam", "rmsprop", "sgd")
    ]
    assert {"$ref": "#/$defs/Sgd"} in optimizer["anyOf"]
    scheduler_names = schema["properties"]["scheduler"]["anyOf"][0]["enum"]
    assert "constant" in scheduler_names
    assert "step" not in scheduler_names, "a bare name is allowed only where no knob is required"
    assert definitions["Training"]["properties"]["precision"]["enum"] == ["auto", "fp32", "tf32", "bf16", "fp16"]
    for definition in [schema, *definitions.values()]:
        for name, field in definition["properties"].items():
            assert name == "type" or field["description"]


@pytest.mark.parametrize("schema", [json_schema(), sweep_json_schema()], ids=["config", "sweep"])
def test_references_in_the_json_schema_resolve_and_stand_alone(schema: dict) -> None:

    def visit(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert list(node) == ["$ref"], "draft 7 ignores what stands beside a $ref"
                assert node["$ref"].removeprefix("#/$defs/") in schema["$defs"]
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(schema)

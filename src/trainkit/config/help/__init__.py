"""Explanations of the config: messages, completion, the JSON Schema, the shipped configs, a starter."""

from trainkit.config.help.introspect import complete_set, homes, variants
from trainkit.config.help.json_schema import json_schema, sweep_json_schema
from trainkit.config.help.messages import render
from trainkit.config.help.reference import reference
from trainkit.config.help.shipped import find_config, is_copied, list_shipped, list_sweeps, schema_line, write_starter

__all__ = [
    "complete_set",
    "find_config",
    "homes",
    "is_copied",
    "json_schema",
    "list_shipped",
    "list_sweeps",
    "reference",
    "render",
    "schema_line",
    "sweep_json_schema",
    "variants",
    "write_starter",
]

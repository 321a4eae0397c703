"""Explanations of the config: messages, completion, the JSON Schema, the shipped configs, a starter."""

from trainkit.config.help.introspect import complete_set, variants
from trainkit.config.help.json_schema import json_schema
from trainkit.config.help.messages import render
from trainkit.config.help.reference import reference
from trainkit.config.help.shipped import find_config, list_shipped, write_starter

__all__ = [
    "complete_set",
    "find_config",
    "json_schema",
    "list_shipped",
    "reference",
    "render",
    "variants",
    "write_starter",
]

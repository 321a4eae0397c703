"""Explanations of the config: messages, completion, the JSON Schema, the shipped configs, a starter."""

from trainkit.config.help.completion import complete_set
from trainkit.config.help.introspect import variants
from trainkit.config.help.json_schema import json_schema
from trainkit.config.help.messages import render
from trainkit.config.help.shipped import list_shipped
from trainkit.config.help.starter import write_starter

__all__ = [
    "complete_set",
    "json_schema",
    "list_shipped",
    "render",
    "variants",
    "write_starter",
]

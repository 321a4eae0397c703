"""Explanations of the config: messages, completion, the JSON Schema, the shipped configs, a starter."""
# mypy: implicit-reexport

from trainkit.config.help.introspect import complete_set, homes, variants
from trainkit.config.help.json_schema import json_schema, sweep_json_schema
from trainkit.config.help.messages import render
from trainkit.config.help.reference import reference
from trainkit.config.help.shipped import find_config, is_copied, list_shipped, list_sweeps, schema_line, write_starter

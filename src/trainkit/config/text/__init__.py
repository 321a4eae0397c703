"""The text of configs: reading, writing, overrides."""

from trainkit.config.text.edit import set_in_section
from trainkit.config.text.nodes import parse_path
from trainkit.config.text.writer import flow, to_yaml

__all__ = ["flow", "parse_path", "set_in_section", "to_yaml"]

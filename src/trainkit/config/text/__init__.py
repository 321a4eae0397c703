"""The text of configs: reading, writing, overrides."""

from trainkit.config.text.nodes import parse_path
from trainkit.config.text.writer import flow, to_yaml

__all__ = [
    "flow",
    "parse_path",
    "to_yaml",
]

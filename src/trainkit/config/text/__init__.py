"""The text of configs: reading, writing, overrides."""
# mypy: implicit-reexport

from trainkit.config.text.edit import set_in_section
from trainkit.config.text.nodes import parse_path
from trainkit.config.text.writer import flow, to_yaml

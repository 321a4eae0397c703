"""Config files: read with places, checked with all mistakes at once. Knows no torch."""

from trainkit.config.loading import LoadedConfig, Origin, config_from_dict, load_config
from trainkit.config.schema import Config

__all__ = ["Config", "LoadedConfig", "Origin", "config_from_dict", "load_config"]

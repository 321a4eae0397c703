"""Config files: read with places, checked with all mistakes at once. Knows no torch."""
# mypy: implicit-reexport

from trainkit.config.data_paths import at_data_root
from trainkit.config.loading import LoadedConfig, check_pieces, config_from_dict, load_config, to_plain
from trainkit.config.schema import Config
from trainkit.config.sweeps import Choice, LoadedSweep, Range, Space, load_sweep

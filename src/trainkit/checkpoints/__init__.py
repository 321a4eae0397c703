"""Checkpoints: saved whole or not at all, and checked before they are loaded. Importing this package needs no torch."""
# mypy: implicit-reexport

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.folder import CheckpointFolder, checkpoint_name, write_checkpoint
from trainkit.checkpoints.inspection import inspect_checkpoint
from trainkit.checkpoints.journal import follow_pointer, known_sha256, read_journal, with_uncommitted
from trainkit.checkpoints.loading import load_checkpoint, load_weights_file
from trainkit.checkpoints.state_dicts import check_fits, is_finite, match_weights
from trainkit.checkpoints.verification import checkpoint_folder, verify
from trainkit.checkpoints.weights import WeightsFile, find_weights, open_weights

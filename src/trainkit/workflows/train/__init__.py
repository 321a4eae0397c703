"""``trainkit train`` and ``trainkit resume``."""
# mypy: implicit-reexport

from trainkit.workflows.train.dry_run import dry_run
from trainkit.workflows.train.finish import TrainResult
from trainkit.workflows.train.resume_point import find_unfinished, unfinished_in_pieces
from trainkit.workflows.train.run import continue_run, resume, train

"""``trainkit train`` and ``trainkit resume``."""

from trainkit.workflows.train.dry_run import dry_run
from trainkit.workflows.train.finish import TrainResult
from trainkit.workflows.train.resume_point import find_unfinished, unfinished_in_pieces
from trainkit.workflows.train.run import continue_run, resume, train

__all__ = ["TrainResult", "continue_run", "dry_run", "find_unfinished", "resume", "train", "unfinished_in_pieces"]

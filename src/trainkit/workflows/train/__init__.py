"""``trainkit train`` and ``trainkit resume``."""

from trainkit.workflows.train.finish import TrainResult
from trainkit.workflows.train.resume_point import find_unfinished
from trainkit.workflows.train.run import resume, train

__all__ = [
    "TrainResult",
    "find_unfinished",
    "resume",
    "train",
]

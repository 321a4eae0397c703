"""``trainkit lr-find``. ``search``, which trains, needs torch and is imported apart."""

from trainkit.workflows.lr_find.curves import Curve, LrFindResult, NoLearningRate, find
from trainkit.workflows.lr_find.run import SEEDS, STEPS, check_searchable, edited, left_out, search_apart, write_rate

__all__ = [
    "SEEDS",
    "STEPS",
    "Curve",
    "LrFindResult",
    "NoLearningRate",
    "check_searchable",
    "edited",
    "find",
    "left_out",
    "search_apart",
    "write_rate",
]

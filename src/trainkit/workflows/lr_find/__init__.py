"""``trainkit lr-find``. ``search``, which trains, needs torch and is imported apart."""
# mypy: implicit-reexport

from trainkit.workflows.lr_find.curves import Curve, LrFindResult, NoLearningRate, find
from trainkit.workflows.lr_find.run import SEEDS, STEPS, check_searchable, edited, left_out, search_apart, write_rate

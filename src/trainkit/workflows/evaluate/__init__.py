"""``trainkit eval``."""

from trainkit.workflows.evaluate.run import EvalResult, evaluate, evaluation_folder, write_evaluation

__all__ = [
    "EvalResult",
    "evaluate",
    "evaluation_folder",
    "write_evaluation",
]

"""``trainkit eval``."""

from trainkit.workflows.evaluate.run import (
    EvalResult,
    check_evaluation,
    evaluate,
    evaluation_folder,
    open_checkpoint,
    write_evaluation,
)

__all__ = [
    "EvalResult",
    "check_evaluation",
    "evaluate",
    "evaluation_folder",
    "open_checkpoint",
    "write_evaluation",
]

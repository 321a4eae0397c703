"""``trainkit eval``."""

from trainkit.workflows.evaluate.run import (
    EvalResult,
    check_evaluation,
    evaluate,
    evaluation_folder,
    same_in_all,
    write_evaluation,
)

__all__ = ["EvalResult", "check_evaluation", "evaluate", "evaluation_folder", "same_in_all", "write_evaluation"]

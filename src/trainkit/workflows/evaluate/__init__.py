"""``trainkit eval``."""
# mypy: implicit-reexport

from trainkit.workflows.evaluate.run import (
    EvalResult,
    check_evaluation,
    evaluate,
    evaluation_folder,
    same_in_all,
    write_evaluation,
)

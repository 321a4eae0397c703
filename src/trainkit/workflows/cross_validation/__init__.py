"""``trainkit cv``."""
# mypy: implicit-reexport

from trainkit.workflows.cross_validation.plan import make_plan
from trainkit.workflows.cross_validation.run import CvResult, cross_validate

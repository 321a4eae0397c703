"""``trainkit cv``."""

from trainkit.workflows.cross_validation.run import CvResult, FoldResult, cross_validate

__all__ = ["CvResult", "FoldResult", "cross_validate"]

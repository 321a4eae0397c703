"""``trainkit cv``."""

from trainkit.workflows.cross_validation.run import CvResult, cross_validate

__all__ = ["CvResult", "cross_validate"]

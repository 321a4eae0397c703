"""Rules that find what is wrong with a run. Probes and layer statistics need torch: import them as modules."""

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach, evidence_from_records
from trainkit.findings.rules import find

__all__ = [
    "Change",
    "Evidence",
    "Finding",
    "chance_reach",
    "evidence_from_records",
    "find",
]

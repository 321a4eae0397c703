"""What stands out in a run. Probes and layer statistics look at live models: import them as modules."""

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

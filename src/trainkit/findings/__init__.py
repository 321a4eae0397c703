"""Rules that find what is wrong with a run. What measures for them needs torch, and is imported as modules."""
# mypy: implicit-reexport

from trainkit.findings.evidence import Evidence, Finding, chance_reach, evidence_from_records
from trainkit.findings.guessing import guessing, may_fall_short
from trainkit.findings.rules import find

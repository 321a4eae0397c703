"""What stands out in a run, in plain words: pure functions from what was measured to findings.

A finding says what is the matter, the numbers that show it, and which lines of the config to change. A cause hides its
consequences: where the inputs are out of scale, nothing is said about the loss spikes that follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainkit.findings.evidence import Evidence, Finding, Rule
from trainkit.findings.model import (
    class_collapse,
    data_bound,
    dead_units,
    loss_spikes,
    overfitting,
    validation_too_small,
)
from trainkit.findings.optimization import (
    inputs_out_of_scale,
    labels_unrelated,
    learning_rate_too_high,
    learning_rate_too_low,
)

CAUSES: tuple[Rule, ...] = (
    inputs_out_of_scale,
    learning_rate_too_high,
    labels_unrelated,
    learning_rate_too_low,
)
CONSEQUENCES: tuple[Rule, ...] = (
    overfitting,
    loss_spikes,
    dead_units,
    class_collapse,
    validation_too_small,
)
INDEPENDENT: tuple[Rule, ...] = (data_bound,)
EXPLAINS: Mapping[str, tuple[str, ...]] = {
    # Few samples wake few units of a large model, and are few for validation too.
    "overfitting": ("dead-units", "validation-set-too-small"),
    # A leap of the weights leaves units behind that no sample reaches, and scores that jump.
    "loss-spikes": ("dead-units", "class-collapse", "validation-set-too-small"),
    # What does not fire cannot tell classes apart.
    "dead-units": ("class-collapse", "validation-set-too-small"),
    "class-collapse": ("validation-set-too-small",),
}
"""What a finding accounts for, so that it is not said again as a finding of its own."""


def find(evidence: Evidence) -> list[Finding]:
    """Everything that stands out, the gravest first; [] for a healthy run."""
    found: list[Finding] = []
    for rule in CAUSES:
        finding = rule(evidence)
        if finding is not None:
            found.append(finding)
            break
    else:
        for rule in CONSEQUENCES:
            finding = rule(evidence)
            if finding is not None and not any(finding.name in EXPLAINS.get(graver.name, ()) for graver in found):
                found.append(finding)
    return found + [finding for rule in INDEPENDENT if (finding := rule(evidence)) is not None]

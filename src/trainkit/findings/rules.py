"""The order of the rules, which are pure functions from the evidence about a run to a finding.

A finding has a title, the numbers that show it, and which lines of the config to change. A cause hides its
consequences: where the inputs are out of scale, the loss spikes that follow from it are no finding.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainkit.findings.data import (
    class_collapse,
    data_bound,
    inputs_out_of_scale,
    labels_unrelated,
    validation_too_small,
)
from trainkit.findings.evidence import Evidence, Finding, Rule
from trainkit.findings.training import (
    dead_units,
    learning_rate_too_high,
    learning_rate_too_low,
    loss_spikes,
    overfitting,
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
    # Few samples activate few units of a large model, and are few for validation too.
    "overfitting": ("dead-units", "validation-set-too-small"),
    # A large step of the weights leaves units that no sample activates, and makes scores jump.
    "loss-spikes": ("dead-units", "class-collapse", "validation-set-too-small"),
    # Units that are always 0 cannot tell classes apart.
    "dead-units": ("class-collapse", "validation-set-too-small"),
    "class-collapse": ("validation-set-too-small",),
}
"""By finding, those that it accounts for: they are left out."""


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

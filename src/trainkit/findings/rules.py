"""The order of the rules, which are pure functions from the evidence about a run to a finding.

A finding has a title, the numbers that show it, and which lines of the config to change. A cause hides its
consequences: where the inputs are out of scale, the loss spikes that follow from it are no finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainkit.findings.data import class_collapse, data_bound, validation_too_small
from trainkit.findings.evidence import Evidence, Finding, Rule
from trainkit.findings.guessing import labels_unrelated, learned_nothing, too_much_regularization, underfitting
from trainkit.findings.scale import first_weights, inputs_identical, inputs_out_of_scale, targets_out_of_scale
from trainkit.findings.training import (
    dead_units,
    learning_rate_too_high,
    learning_rate_too_low,
    loss_spikes,
    overfitting,
    training_too_short,
)

CAUSES: tuple[Rule, ...] = (
    inputs_identical,
    inputs_out_of_scale,
    targets_out_of_scale,
    first_weights,
    labels_unrelated,
    too_much_regularization,
    learning_rate_too_high,
    learning_rate_too_low,
    training_too_short,
)
CONSEQUENCES: tuple[Rule, ...] = (
    overfitting,
    loss_spikes,
    dead_units,
    underfitting,
    class_collapse,
    learned_nothing,
    validation_too_small,
)
INDEPENDENT: tuple[Rule, ...] = (data_bound,)
EXPLAINS: Mapping[str, tuple[str, ...]] = {
    # Few samples activate few units of a large model, and are few for validation too.
    "overfitting": ("dead-units", "underfitting", "no-better-than-guessing", "validation-set-too-small"),
    # A large step of the weights leaves units that no sample activates, and makes scores jump.
    "loss-spikes": (
        "dead-units",
        "underfitting",
        "no-better-than-guessing",
        "class-collapse",
        "validation-set-too-small",
    ),
    # Units that are always 0 cannot tell classes apart.
    "dead-units": ("underfitting", "no-better-than-guessing", "class-collapse", "validation-set-too-small"),
    "underfitting": ("class-collapse", "no-better-than-guessing", "validation-set-too-small"),
    "class-collapse": ("no-better-than-guessing", "validation-set-too-small"),
    "no-better-than-guessing": ("validation-set-too-small",),
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
    found += [finding for rule in INDEPENDENT if (finding := rule(evidence)) is not None]
    return [_without_what_is_there(finding) for finding in found]


def _without_what_is_there(finding: Finding) -> Finding:
    """A change to the value that the config has is none."""
    return replace(finding, changes=tuple(change for change in finding.changes if change.value != change.was))

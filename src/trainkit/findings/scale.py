"""Rules about the scale of what a network is given: inputs, targets, and its own first weights.

Their thresholds were set on real runs of the bundled data sets, healthy ones and ones with a planted fault.
"""

from __future__ import annotations

import math

from trainkit.findings.evidence import Change, Evidence, Finding
from trainkit.findings.guessing import guessing
from trainkit.findings.training import TOO_HIGH_START, diverged, overflow
from trainkit.recorders import number

INPUT_SCALE = (0.02, 10.0)
"""Deviation of the widest input column, and root mean square of the largest, within which networks are at home."""
OFF_CENTER = 10.0
"""Mean over deviation: with more in each column, samples hardly differ for the network."""
TARGET_SCALE = (0.01, 10.0)
"""Deviation of a target, and its root mean square, within which outputs that begin around 0 come to it."""
FAR_TARGET = 1000.0
"""Root mean square of a target that is the cause whatever the learning rate is."""
LOW_RATE = 5e-4
"""A learning rate that may be the cause where a target is large, but not far."""
TINY_OUTPUTS = 1e-6
"""Outputs of the untrained network, or their differences between samples, that tell samples no longer apart."""


def inputs_identical(evidence: Evidence) -> Finding | None:
    seen = evidence.facts.get("identical_inputs")
    if not seen:
        return None
    image = len(evidence.facts.get("input_shape", ())) == 3
    what = "pictures are the same picture" if image else "samples have the same value in every column"
    keys = ("dataset.features", "dataset.root", "dataset.path", "dataset.type")
    key = next((key for key in keys if evidence.value(key) is not None), "dataset")
    return Finding(
        "inputs-identical",
        "All inputs are the same",
        f"{seen:,} training {what} when they reach the model, so nothing can be learned from them.",
        "Look at the files with trainkit data preview: are they what they should be, and do the transforms leave "
        "something of them?",
        (evidence.change(key, "..."),),
    )


def inputs_out_of_scale(evidence: Evidence) -> Finding | None:
    scale = evidence.facts.get("input_scale")
    if not scale:
        return None
    text = _too_large(scale) or _too_even(scale)
    if text is None:
        return None
    image = len(evidence.facts.get("input_shape", ())) == 3
    kinds = ("normalize",) if image else ("standardize", "robust_scale", "quantile")
    transform = next((kind for kind in kinds if evidence.transform(kind) is not None), kinds[0])
    present = evidence.transform(transform)
    if present is None:
        advice = f"Let transforms end with {transform}: it takes mean and standard deviation from the training split."
        changes: tuple[Change, ...] = (Change("transforms", evidence.transforms(add=transform)),)
    elif image and not present.get("mean") == present.get("std") == "auto":
        advice = "The mean and std of normalize are not those of these images; auto takes them from the training split."
        changes = (Change("transforms", evidence.transforms(replace={transform: transform})),)
    else:
        advice = f"{transform} has done its part, so a few samples must lie far away from the others: look at them."
        changes = (Change("dataset", "..."),)
    return Finding("inputs-out-of-scale", "The inputs are out of scale", text, advice, changes)


def _too_large(scale: dict[str, object]) -> str | None:
    smallest, largest = number(scale["smallest_rms"]), number(scale["largest_rms"])
    if not largest > INPUT_SCALE[1]:
        return None
    return (
        f"The inputs of the model are large: {scale['largest']} has a root mean square of {largest:.4g} over the "
        f"training samples, {scale['smallest']} of {smallest:.4g}; networks are made for values around 1."
    )


def _too_even(scale: dict[str, object]) -> str | None:
    """Values that hardly differ, for their size or beside the bias that every layer adds."""
    mean, std, offset = (number(scale.get(name)) for name in ("widest_mean", "widest_std", "least_offset"))
    if not 0 < std < INPUT_SCALE[0] and not offset > OFF_CENTER:
        return None
    return (
        f"The inputs of the model hardly differ: {scale['widest']}, which varies most, has mean {mean:.4g} and "
        f"standard deviation {std:.4g} over the training samples; networks are made for mean 0 and deviation 1."
    )


def targets_out_of_scale(evidence: Evidence) -> Finding | None:
    """Outputs begin around 0, and a step moves them by about the learning rate: far targets are out of reach."""
    scale = evidence.facts.get("target_scale")
    if not scale:
        return None
    mean, std = number(scale["mean"]), number(scale["std"])
    size = math.hypot(mean, std)
    if std == 0 or (size <= TARGET_SCALE[1] and std >= TARGET_SCALE[0]):
        return None
    trouble = _missed_targets(evidence, size)
    if trouble is None:
        return None
    return Finding(
        "targets-out-of-scale",
        "The values to predict are out of scale",
        f"{scale['name']} has mean {mean:.4g} and standard deviation {std:.4g} over the training samples, while the "
        f"outputs of a new network lie around 0 and differ by less than 1. {trouble}",
        "Let dataset.scale_target be auto: the model then sees the values with mean 0 and deviation 1, and all that it "
        "predicts comes in their own units.",
        (evidence.change("dataset.scale_target", "auto"),),
    )


def _missed_targets(evidence: Evidence, size: float) -> str | None:
    """What went wrong, where the scale of the targets accounts for it."""
    squared_steps = evidence.loss == "mse" and evidence.value("optimizer.type") in ("sgd", "lbfgs")
    failed = overflow(evidence)
    if failed is not None:
        return failed if squared_steps or size > FAR_TARGET else None
    rough = diverged(evidence)
    if size > TARGET_SCALE[1] and rough is not None:
        return rough if squared_steps else None
    lr = evidence.value("optimizer.lr")
    if TARGET_SCALE[1] < size < FAR_TARGET and isinstance(lr, int | float) and lr < LOW_RATE:
        return None
    text = guessing(evidence)
    return None if text is None else f"{text}."


def first_weights(evidence: Evidence) -> Finding | None:
    """A network that was broken before the first step: silent layers, outputs far too large or all the same."""
    first = evidence.facts.get("first_outputs")
    if not first:
        return None
    text = _broken_start(evidence, first)
    if text is None or (guessing(evidence) is None and overflow(evidence) is None and diverged(evidence) is None):
        return None
    return Finding(
        "first-weights",
        "The network was broken before the first step: its first weights do not fit it",
        text,
        "Take another initialization; in a deep network also batch norm, an activation that is not 0 below 0, or fewer "
        "and wider layers.",
        _other_start(evidence, first),
    )


def _broken_start(evidence: Evidence, first: dict[str, object]) -> str | None:
    loss, spread, size = (number(first[name]) for name in ("loss", "spread", "size"))
    silent, samples = first["silent"], first["samples"]
    if isinstance(silent, list) and silent:
        layers = "; ".join(f"{dead} of {total} in {name} ({key})" for name, key, dead, total in silent[:4])
        return f"Before the first step these ReLU units were 0 for each of {samples} samples: {layers}."
    if loss > TOO_HIGH_START * evidence.reference_loss or math.isnan(loss):
        return (
            f"Before the first step the loss was {loss:.4g} with outputs around {size:.3g}; a network that knows "
            f"nothing has {evidence.reference_loss:.4g}."
        )
    if spread <= TINY_OUTPUTS * max(size, 1.0):
        return f"Before the first step the outputs for {samples} samples differed by {spread:.1g} only."
    return None


def _other_start(evidence: Evidence, first: dict[str, object]) -> tuple[Change, ...]:
    given, kind = evidence.value("model.init.type"), evidence.value("model.type")
    changes = []
    if given not in (None, "default"):
        changes.append(evidence.change("model.init", "default", was=str(given)))
    elif given == "default":
        changes.append(evidence.change("model.init", "kaiming_normal", was="default"))
    if first["silent"] and evidence.value("model.norm") == "none" and kind in ("mlp", "cnn"):
        changes.append(evidence.change("model.norm", "batch"))
    return tuple(changes)

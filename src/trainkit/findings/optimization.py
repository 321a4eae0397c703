"""Rules about what spoils a whole run: inputs, labels, learning rate. Where one holds, more follows from it.

Their thresholds were set on real runs of the bundled data sets, healthy ones and ones with a planted fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach, mean, rises, warm_up
from trainkit.recorders.history import number
from trainkit.wording import listed

TOO_HIGH_START = 3.0
"""A batch loss of so many times that of a network which knows nothing: the first steps went astray."""
UNSTABLE_RISE = 1.5
"""An epoch whose training loss is so many times the lowest before it went up, not down."""
UNTRAINED_SHARE = 0.7
"""Of the loss of knowing nothing: with less, the network has learnt something, slowly or not."""
STRAIGHT = 0.7
"""The loss falls as steadily at the end as at the start: by this share of the early slope, or more."""
INPUT_SCALE = (0.02, 10.0)
"""Root mean square of an input column within which optimizers and first weights are at home."""
NO_BETTER_R2 = (0.02, 0.1)
"""R² over the last epochs, and in the best one, of a model that has learnt nothing about new samples."""


def inputs_out_of_scale(evidence: Evidence) -> Finding | None:
    scale = evidence.facts.get("input_scale")
    if not scale:
        return None
    low, high = INPUT_SCALE
    smallest, largest = number(scale["smallest_rms"]), number(scale["largest_rms"])
    if smallest != smallest or (largest <= high and largest >= low):
        return None
    image = len(evidence.facts.get("input_shape", ())) == 3
    step = "normalize" if image else "standardize"
    size = "large" if largest > high else "small"
    return Finding(
        "inputs-not-normalised",
        "The inputs are not normalised",
        f"What the model is given is {size}: {scale['largest']} has a root mean square of {largest:.4g} over the "
        f"training samples, {scale['smallest']} of {smallest:.4g}; networks are made for values around 1.",
        f"Let transforms end with {step}: it takes mean and standard deviation from the training split.",
        (Change("transforms", evidence.transforms(add=step)),),
    )


def learning_rate_too_high(evidence: Evidence) -> Finding | None:
    reason = _overflow(evidence) or _rough_start(evidence) or _unsettled(evidence)
    if reason is None:
        return None
    changes = [evidence.scaled("optimizer.lr", 0.1)]
    if evidence.value("training.clip_grad_norm") is None:
        changes.append(Change("training.clip_grad_norm", "1.0"))
    return Finding(
        "learning-rate-too-high",
        "The learning rate is too high",
        reason,
        "Try a tenth of it; clipping the gradient or a warm-up (scheduler.warmup) also helps.",
        tuple(changes),
    )


def _overflow(evidence: Evidence) -> str | None:
    failure = evidence.failure or ""
    if not any(text in failure for text in ("loss is nan", "loss is inf", "not finite")):
        return None
    return f"The run ended when the numbers overflowed ({failure.split('; ')[0].removeprefix('failed: ')})."


def _rough_start(evidence: Evidence) -> str | None:
    history, reference = evidence.history, evidence.reference_loss
    means, peaks = history.values("train_loss"), history.values("train_loss_max")
    for epoch in range(1, min(warm_up(history), len(means)) + 1):
        average, peak = means[epoch - 1], peaks[epoch - 1]
        if peak > TOO_HIGH_START * reference and average > reference:
            return (
                f"In epoch {epoch} the loss of a batch went up to {peak:.4g} and the epoch's mean is {average:.4g}; "
                f"a network that knows nothing has {reference:.4g}."
            )
    return None


def _unsettled(evidence: Evidence) -> str | None:
    means = evidence.history.values("train_loss")
    risen = rises(means, by=UNSTABLE_RISE, at_least=0.05 * evidence.reference_loss)
    if len(risen) < max(3, len(means) / 4):
        return None
    return (
        f"The training loss rose by half or more over its lowest value so far in {len(risen)} of {len(means)} "
        f"epochs ({listed(risen, limit=6, quoted=False)}): the steps are too long to settle."
    )


def labels_unrelated(evidence: Evidence) -> Finding | None:
    """The training loss falls, and nothing of it carries over: labels that do not belong to their samples."""
    history = evidence.history
    train, val = history.values("train_loss"), history.values("val_loss")
    if len(val) < 2 or not train[-1] < train[0]:
        return None
    text = _accuracy_of_chance(evidence) if history.series("val_accuracy") else _r2_of_chance(evidence)
    if text is None:
        return None
    return Finding(
        "labels-unrelated",
        "What the model learns does not carry over: the labels may not belong to the samples",
        f"{text}. The training loss went from {train[0]:.4g} to {train[-1]:.4g}, the validation loss from {val[0]:.4g} "
        f"to {val[-1]:.4g}.",
        "Look at samples beside their labels: were rows shuffled, or sorted differently from the labels? Is it the "
        "right column or folder?",
        (_source_of_labels(evidence),),
    )


def _accuracy_of_chance(evidence: Evidence) -> str | None:
    history = evidence.history
    val, scores = history.values("val_loss"), history.values("val_accuracy")
    chance = number(evidence.facts.get("majority_share"))
    samples, of = evidence.num_samples("val"), evidence.num_samples("train")
    if not samples or not of or not val[-1] > val[0]:
        return None
    score, learnt = mean(scores[-max(1, len(scores) // 3) :]), history.values("train_accuracy")[-1]
    if score > chance + chance_reach(chance, samples) or learnt < chance + chance_reach(chance, of):
        return None
    return (
        f"Validation accuracy is {score:.1%} over the last epochs, no better than always naming the most frequent "
        f"class ({chance:.1%}), while training accuracy went up to {learnt:.1%}"
    )


def _r2_of_chance(evidence: Evidence) -> str | None:
    """The loss itself tells little: it may start above that of the mean, and fall to it without learning anything."""
    history = evidence.history
    scores = history.values("val_r2")
    score = mean(scores[-max(1, len(scores) // 3) :])
    constant = number(evidence.facts.get("constant_loss"))
    learnt = history.values("train_loss")[-1] < 0.8 * constant
    if not learnt or not score <= NO_BETTER_R2[0] or not max(scores) <= NO_BETTER_R2[1]:
        return None
    return f"R² on the validation split is {score:.3f} over the last epochs, no better than always saying the mean"


def _source_of_labels(evidence: Evidence) -> Change:
    """Where the config says which labels belong to which samples."""
    for key in ("dataset.target", "dataset.root", "dataset.problem.type", "dataset.type"):
        value = evidence.value(key)
        if value is not None:
            return Change(key, "...", str(value))
    return Change("dataset", "...")


def learning_rate_too_low(evidence: Evidence) -> Finding | None:
    """Still on the straight part of the curve at the end: each step does as much as the first ones did."""
    history, reference = evidence.history, evidence.reference_loss
    train, val, rates = (history.values(name) for name in ("train_loss", "val_loss", "lr"))
    if len(train) < 5 or not train[-1] > UNTRAINED_SHARE * reference or train[0] > TOO_HIGH_START * reference:
        return None
    has_val = not math.isnan(val[-1])
    curve = val if has_val else train  # no dropout and no draw of batches blurs the validation loss
    if not _falls_by_thirds(train) or not _falls_by_thirds(curve):
        return None
    # Labels that cannot be learnt: half of all that can be gained is gained in the first epoch.
    if train[0] - train[1] > max(0.4, 2 / len(train)) * (train[0] - train[-1]):
        return None
    if not _straightness(curve, rates) >= STRAIGHT:
        return None
    return Finding(
        "learning-rate-too-low",
        "The learning rate is too low",
        f"Over {len(train)} epochs the training loss has come down by {1 - train[-1] / train[0]:.2%} only, from "
        f"{train[0]:.4g} to {train[-1]:.4g}, and was still falling as steadily as at the start; a network that knows "
        f"nothing has {reference:.4g}.",
        "Try ten times the learning rate, or train for longer.",
        (evidence.scaled("optimizer.lr", 10.0),),
    )


def _falls_by_thirds(values: Sequence[float]) -> bool:
    first, middle, last = _thirds(values)
    return first > middle > last


def _straightness(curve: Sequence[float], rates: Sequence[float]) -> float:
    """The slope of the later half over that of the earlier, by the sum of the learning rates so far.

    Both from the means of thirds, which smooth.
    """
    passed = [sum(rates[:epoch]) + rates[epoch] / 2 for epoch in range(len(rates))]
    (first, middle, last), (early, half, late) = _thirds(curve), _thirds(passed)
    if not early < half < late or not first > middle:
        return math.nan
    return (middle - last) / (late - half) / ((first - middle) / (half - early))


def _thirds(values: Sequence[float]) -> tuple[float, float, float]:
    third = max(1, len(values) // 3)
    return mean(values[:third]), mean(values[third:-third]), mean(values[-third:])

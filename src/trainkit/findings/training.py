"""Rules about the course of training: the learning rate, spikes of the loss, overfitting, units that never fire.

Their thresholds were set on real runs of the bundled data sets, healthy ones and ones with a planted fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach, mean, rises, warm_up
from trainkit.wording import listed

TOO_HIGH_START = 3.0
"""Times the loss of knowing nothing: with such a batch loss, the first steps were too large."""
UNSTABLE_RISE = 1.5
"""Times the lowest training loss so far: with more, an epoch went up, not down."""
UNTRAINED_SHARE = 0.7
"""Of the loss of knowing nothing: with less, the network has learned something, slowly or not."""
STRAIGHT = 0.7
"""The loss falls as steadily at the end as at the start: by this share of the early slope, or more."""
SPIKE_RISE = 3.0
SPIKE_SHARE = 0.15
"""Of the loss of knowing nothing: smaller jumps are seen on a logarithmic axis only."""
OVERFIT_GAP = 0.08
"""Training accuracy less validation accuracy."""


def learning_rate_too_high(evidence: Evidence) -> Finding | None:
    reason = _overflow(evidence) or _rough_start(evidence) or _unsettled(evidence)
    if reason is None:
        return None
    return Finding(
        "learning-rate-too-high",
        "The learning rate is too high",
        reason,
        "Try a tenth of it; clipping the gradient or a warm-up (scheduler.warmup) also helps.",
        (evidence.scaled("optimizer.lr", 0.1), *_clipping(evidence)),
    )


def _clipping(evidence: Evidence) -> tuple[Change, ...]:
    key = "training.clip_grad_norm"
    return (Change(key, "1.0"),) if evidence.value(key) is None else ()


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


def learning_rate_too_low(evidence: Evidence) -> Finding | None:
    """The curve is still straight at the end: each step lowers the loss as much as the first ones."""
    history, reference = evidence.history, evidence.reference_loss
    train, val, rates = (history.values(name) for name in ("train_loss", "val_loss", "lr"))
    if len(train) < 5 or not train[-1] > UNTRAINED_SHARE * reference or train[0] > TOO_HIGH_START * reference:
        return None
    has_val = not math.isnan(val[-1])
    curve = val if has_val else train  # no dropout and no draw of batches blurs the validation loss
    if not _falls_by_thirds(train) or not _falls_by_thirds(curve):
        return None
    # Labels that cannot be learned: half of all that can be gained is gained in the first epoch.
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


def loss_spikes(evidence: Evidence) -> Finding | None:
    history = evidence.history
    means, peaks, rates = (history.values(name) for name in ("train_loss", "train_loss_max", "lr"))
    risen = rises(means, by=SPIKE_RISE, at_least=SPIKE_SHARE * evidence.reference_loss)
    spikes = [epoch for epoch in risen if epoch > warm_up(history)]
    if not spikes:
        return None
    worst = max(spikes, key=lambda epoch: means[epoch - 1])
    return Finding(
        "loss-spikes",
        "The training loss spikes",
        f"In epoch {worst} the training loss jumped to {means[worst - 1]:.3g}, from {min(means[: worst - 1]):.3g}; "
        f"the worst batch had {peaks[worst - 1]:.3g}, the learning rate was {rates[worst - 1]:.3g}. "
        f"Spikes after warm-up: epoch {listed(spikes, limit=6, quoted=False)}.",
        "Clip the gradient, or take a lower peak of the learning rate; also look at the samples of such batches.",
        (*_clipping(evidence), evidence.scaled("optimizer.lr", 0.3)),
    )


def overfitting(evidence: Evidence) -> Finding | None:
    history = evidence.history
    val = history.values("val_loss")
    if len(val) < 3 or math.isnan(val[-1]):
        return None
    texts = [text for text in (_accuracy_gap(evidence), _loss_gap(evidence), _turned_back(evidence)) if text]
    if not texts:
        return None
    return Finding(
        "overfitting",
        "The model overfits: it knows the training samples better than it knows the task",
        " ".join(texts) + f" There are {evidence.num_samples('train'):,} training samples.",
        "More data or augmentation helps most; then dropout, weight decay, a smaller model, or stopping earlier.",
        _against_overfitting(evidence),
    )


def _accuracy_gap(evidence: Evidence) -> str | None:
    history = evidence.history
    train, val = history.values("train_accuracy")[-1], history.values("val_accuracy")[-1]
    samples = evidence.num_samples("val")
    if not samples or not train - val > max(OVERFIT_GAP, chance_reach(val, samples)):
        return None
    if not history.values("train_loss")[-1] < 0.5 * history.values("val_loss")[-1]:
        return None
    return (
        f"At the end the model is right on {train:.1%} of the training samples and on {val:.1%} of the validation "
        f"samples, a gap of {100 * (train - val):.1f} points."
    )


def _loss_gap(evidence: Evidence) -> str | None:
    """Of a regression, which has no accuracy: as shares of the loss of knowing nothing."""
    history, reference = evidence.history, evidence.reference_loss
    train, val = history.values("train_loss")[-1], history.values("val_loss")[-1]
    if history.series("val_accuracy") or not train < 0.3 * val or not val - train > 0.15 * reference:
        return None
    return (
        f"At the end the training loss is {train:.4g} and the validation loss {val:.4g}; a network that knows nothing "
        f"has {reference:.4g}."
    )


def _turned_back(evidence: Evidence) -> str | None:
    history = evidence.history
    train, val = history.values("train_loss"), history.values("val_loss")
    lowest = min(range(len(val)), key=lambda at: math.inf if math.isnan(val[at]) else val[at])
    rise = 1.5 if history.series("val_accuracy") else 1.25
    matters = val[-1] - val[lowest] > 0.1 * evidence.reference_loss
    if not (val[-1] > rise * val[lowest] and train[-1] < 0.8 * train[lowest] and matters):
        return None
    return (
        f"The validation loss was lowest in epoch {history.epochs[lowest]['epoch']} ({val[lowest]:.4g}) and has risen "
        f"to {val[-1]:.4g} since, while the training loss went on falling ({train[lowest]:.4g} to {train[-1]:.4g})."
    )


def _against_overfitting(evidence: Evidence) -> tuple[Change, ...]:
    changes = []
    for key, least in (("model.dropout", 0.3), ("optimizer.weight_decay", 0.01)):
        value = evidence.value(key)
        if isinstance(value, int | float) and value < least:
            changes.append(evidence.change(key, f"{least:g}"))
    if evidence.value("training.early_stopping") is None:
        changes.append(Change("training.early_stopping", "{patience: 5}"))
    return tuple(changes)


def dead_units(evidence: Evidence) -> Finding | None:
    bad = [layer for layer in evidence.dead_units if layer.is_mostly_dead]
    if not bad:
        return None
    counts = "; ".join(f"{layer.dead} of {layer.total} in {layer.name} ({layer.key})" for layer in bad[:4])
    return Finding(
        "dead-units",
        "Many units never fire",
        f"Their output is 0 for every one of {max(layer.seen for layer in bad):,} samples: {counts}. They learn "
        "nothing any more and cost time.",
        "A lower learning rate, normalization, or a leaky activation keeps units alive; a smaller layer would do too.",
        (*dict.fromkeys(_leaky(layer.key) for layer in bad), evidence.scaled("optimizer.lr", 0.3)),
    )


def _leaky(key: str) -> Change:
    """``model.layers[3]`` is a layer by its PyTorch name, ``model.blocks[3]`` has an activation of its own."""
    if ".layers[" in key:
        return Change(key, "LeakyReLU", "ReLU")
    return Change(f"{key}.activation" if ".blocks[" in key else "model.activation", "leaky_relu", "relu")

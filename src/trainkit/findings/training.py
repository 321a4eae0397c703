"""Rules about the course of training: the learning rate, spikes of the loss, overfitting, units that never fire.

Their thresholds were set on real runs of the bundled data sets, healthy ones and ones with a planted fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach, mean, mean_of_last_third, rises, warm_up
from trainkit.findings.guessing import guessing
from trainkit.recorders import number
from trainkit.wording import listed

TOO_HIGH_START = 3.0
"""Times the loss of knowing nothing: with such a batch loss, the first steps were too large."""
NEVER_SETTLED = 1.3
"""Times the loss of the start: with more at the end, training did harm."""
FEW_STEPS = 20
"""Of the optimizer. The training loss of fewer is near that of the first weights, with dropout, at any rate."""
UNSTABLE_RISE = 1.5
"""Times the lowest training loss so far: with more, an epoch went up, not down."""
UNTRAINED_SHARE = 0.7
"""Of the loss of knowing nothing: with less, the network has learned something, slowly or not."""
STILL = 1e-3
"""Of the loss of knowing nothing: when the losses of all epochs differ by less, nothing moved."""
STILL_GUESSING = 0.02
STILL_FALLING = 0.03
"""Of the loss of knowing nothing: an epoch that lowers the loss by more has others to come."""
LEFT_OVER = 0.1
"""Of the loss of knowing nothing: with less, there is little left to learn."""
STRAIGHT = 0.7
"""The loss falls as steadily at the end as at the start: by this share of the early slope, or more."""
SPIKE_RISE = 3.0
SPIKE_SHARE = 0.15
"""Of the loss of knowing nothing: smaller jumps are seen on a logarithmic axis only."""
OVERFIT_GAP = 0.08
"""Training accuracy less validation accuracy."""


def learning_rate_too_high(evidence: Evidence) -> Finding | None:
    reason = overflow(evidence) or diverged(evidence)
    if reason is None:
        return None
    gentle = _clipping(evidence)
    softer = [] if not gentle else ["clipping the gradient"]
    begins_at_0 = evidence.value("scheduler.warmup") is not None or evidence.value("scheduler.type") == "coslog"
    softer += [] if begins_at_0 else ["a warm-up (scheduler.warmup)"]
    also = f"; {' or '.join(softer)} also helps" if softer else ""
    return Finding(
        "learning-rate-too-high",
        "The learning rate is too high",
        reason,
        f"Try a tenth of it, and a tenth again{also}.",
        (evidence.scaled("optimizer.lr", 0.1), *gentle),
    )


def _clipping(evidence: Evidence) -> tuple[Change, ...]:
    given = any(evidence.value(f"training.clip_grad_{what}") is not None for what in ("norm", "value"))
    return () if given else (Change("training.clip_grad_norm", "1.0"),)


def overflow(evidence: Evidence) -> str | None:
    failure = evidence.failure or ""
    if not any(text in failure for text in ("loss is nan", "loss is inf", "not finite")):
        return None
    return f"The run ended when the numbers overflowed ({failure.split('; ')[0].removeprefix('failed: ')})."


def diverged(evidence: Evidence) -> str | None:
    """Steps that were too large, however that came."""
    return _rough_start(evidence) or _unsettled(evidence) or _never_settled(evidence)


def _never_settled(evidence: Evidence) -> str | None:
    """Training that ends far above where it began, and where a network that knows nothing begins."""
    means, reference = evidence.history.values("train_loss"), evidence.reference_loss
    harm = TOO_HIGH_START if _few_steps(evidence) else NEVER_SETTLED
    if not means or not mean_of_last_third(means) > harm * _start(evidence):
        return None
    return (
        f"The training loss is {mean_of_last_third(means):.4g} over the last epochs; a network that knows nothing has "
        f"{reference:.4g}."
    )


def _few_steps(evidence: Evidence) -> bool:
    return bool(evidence.history.epochs) and evidence.history.epochs[-1]["step"] < FEW_STEPS


def _start(evidence: Evidence) -> float:
    """The loss of the first weights, at least that of knowing nothing.

    First weights that are a little off have a loss above that of knowing nothing, whatever the learning rate is.
    """
    reference, first = evidence.reference_loss, number(evidence.facts.get("first_outputs", {}).get("loss"))
    return max(reference, min(first, TOO_HIGH_START * reference))


def _rough_start(evidence: Evidence) -> str | None:
    history, reference = evidence.history, evidence.reference_loss
    means, peaks = history.values("train_loss"), history.values("train_loss_max")
    above = _start(evidence)
    if mean_of_last_third(means) < LEFT_OVER * reference:  # it did no harm
        return None
    for epoch in range(1, min(warm_up(history), len(means)) + 1):
        average, peak = means[epoch - 1], peaks[epoch - 1]
        if peak > TOO_HIGH_START * above and average > above:
            return (
                f"In epoch {epoch} the loss of a batch went up to {peak:.4g} and the epoch's mean is {average:.4g}; "
                f"a network that knows nothing has {reference:.4g}."
            )
    return None


def _least_rise(evidence: Evidence, share: float) -> float:
    """A rise of the training loss that counts, as a share of the loss of knowing nothing.

    The shares of two classes in a mixed sample are drawn, which alone moves the loss by about as much as that.
    """
    return (1.0 if evidence.value("training.mix") else share) * evidence.reference_loss


def _unsettled(evidence: Evidence) -> str | None:
    means = evidence.history.values("train_loss")
    risen = rises(means, by=UNSTABLE_RISE, at_least=_least_rise(evidence, 0.05))
    if len(risen) < max(3, len(means) / 4):
        return None
    return (
        f"The training loss rose by half or more over its lowest value so far in {len(risen)} of {len(means)} "
        f"epochs ({listed(risen, limit=6, quoted=False)}): the steps are too long to settle."
    )


def learning_rate_too_low(evidence: Evidence) -> Finding | None:
    reason = _stands_still(evidence) or _falls_steadily(evidence)
    if reason is None:
        return None
    return Finding(
        "learning-rate-too-low",
        "The learning rate is too low",
        reason,
        "Try ten times the learning rate, and ten times again, or train for longer.",
        (evidence.scaled("optimizer.lr", 10.0),),
    )


def _stands_still(evidence: Evidence) -> str | None:
    """The losses of all epochs are nearly equal; of a model that could do better, up to noise."""
    train, reference = evidence.history.values("train_loss"), evidence.reference_loss
    missed = evidence.relation.get("related") and guessing(evidence) is not None
    still = STILL_GUESSING if missed else STILL
    if len(train) < 2 or _few_steps(evidence) or not max(train) - min(train) < still * reference:
        return None
    first = number(evidence.facts.get("first_outputs", {}).get("loss"))
    if not UNTRAINED_SHARE * reference < train[-1] < 1.1 * max(reference, first):
        return None
    return (
        f"The training loss was {train[0]:.5g} in the first epoch and {train[-1]:.5g} in the last: the steps hardly "
        "move the weights."
    )


def _falls_steadily(evidence: Evidence) -> str | None:
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
    # Running statistics of a batch norm bend the validation loss while they settle.
    if not max(_straightness(curve, rates), _straightness(train, rates)) >= STRAIGHT:
        return None
    return (
        f"Over {len(train)} epochs the training loss has come down by {1 - train[-1] / train[0]:.2%} only, from "
        f"{train[0]:.4g} to {train[-1]:.4g}, and was still falling as steadily as at the start; a network that knows "
        f"nothing has {reference:.4g}."
    )


def training_too_short(evidence: Evidence) -> Finding | None:
    """The last epoch still lowered the loss by a good part of all there is, and much of it is left."""
    history, reference = evidence.history, evidence.reference_loss
    train, val = history.values("train_loss"), history.values("val_loss")
    if not train or evidence.failure:
        return None
    curve = train if math.isnan(val[-1]) else val
    # The training loss of an epoch is that of its middle, so with one epoch the way to its end is half of it.
    before = curve[-2] if len(curve) > 1 else 2 * train[0] - curve[-1]
    gained = before - curve[-1]
    if not curve[-1] > LEFT_OVER * reference or not gained > STILL_FALLING * reference or curve[-1] > min(curve):
        return None
    return Finding(
        "training-too-short",
        "Training ended while the model was still learning",
        f"{f'The last of {len(train)} epochs' if len(train) > 1 else 'The only epoch'} lowered the "
        f"{'training' if curve is train else 'validation'} loss by "
        f"{gained:.3g} to {curve[-1]:.4g}, its lowest value; a network that knows nothing has {reference:.4g}.",
        "Train for more epochs.",
        (evidence.scaled("training.epochs", 4.0),),
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
    risen = rises(means, by=SPIKE_RISE, at_least=_least_rise(evidence, SPIKE_SHARE))
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
    names = [item["type"] for item in evidence.value("transforms") or []]
    more = "More data helps" if any(name.startswith("random_") for name in names) else "More data or augmentation helps"
    return Finding(
        "overfitting",
        "The model overfits: it knows the training samples better than it knows the task",
        " ".join(texts) + f" There are {evidence.num_samples('train'):,} training samples.",
        f"{more} most; then regularization, a smaller model, or stopping earlier.",
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
    if not changes:
        best = evidence.history.best_epoch or max(1, len(evidence.history) // 2)
        changes.append(evidence.change("training.epochs", str(best)))
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
        "A lower learning rate or a leaky activation keeps units alive; a smaller layer would do too.",
        (*dict.fromkeys(_leaky(layer.key) for layer in bad), evidence.scaled("optimizer.lr", 0.3)),
    )


def _leaky(key: str) -> Change:
    """``model.layers[3]`` is a layer by its PyTorch name, ``model.blocks[3]`` has an activation of its own."""
    if ".layers[" in key:
        return Change(key, "LeakyReLU", "ReLU")
    return Change(f"{key}.activation" if ".blocks[" in key else "model.activation", "leaky_relu", "relu")

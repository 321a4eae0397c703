"""Rules about the model: it knows its training samples too well, or has units that never fire.

Their thresholds were set on real runs of the bundled data sets, healthy ones and ones with a planted fault.
"""

from __future__ import annotations

import math

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach

OVERFIT_GAP = 0.08
"""Training accuracy less validation accuracy."""


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

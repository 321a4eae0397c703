"""Rules about a run whose inputs, labels and learning rate are in order; and where its time went.

Their thresholds were set on real runs of the bundled data sets, healthy ones and ones with a planted fault.
"""

from __future__ import annotations

import math

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach, mean, rises, warm_up
from trainkit.wording import listed

OVERFIT_GAP = 0.08
"""Training accuracy less validation accuracy."""
SPIKE_RISE = 3.0
SPIKE_SHARE = 0.15
"""Of the loss of knowing nothing: smaller jumps are seen on a logarithmic axis only."""
DEAD_SHARE = 0.5
"""Of a layer's units. Small healthy networks keep up to 40 % of theirs at rest."""
MIN_UNITS = 8
"""Of fewer units in a ReLU layer, many may be off by chance."""
SMALL_SUPPORT = 10
"""Of fewer samples of a class, none may be predicted by chance."""
COARSE_REACH = 0.1
"""Chance moves the validation accuracy by so much or more."""
DATA_BOUND_SHARE = 0.5
MIN_SECONDS = 20.0
"""Below this it is not worth saving time."""


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
    dropout = evidence.value("model.dropout")
    if isinstance(dropout, int | float) and dropout < 0.3:
        changes.append(Change("model.dropout", "0.3", f"{dropout:g}"))
    decay = evidence.value("optimizer.weight_decay")
    if isinstance(decay, int | float) and decay < 0.01:
        changes.append(Change("optimizer.weight_decay", "0.01", f"{decay:g}"))
    if evidence.value("training.early_stopping") is None:
        changes.append(Change("training.early_stopping", "{patience: 5}"))
    return tuple(changes)


def loss_spikes(evidence: Evidence) -> Finding | None:
    history = evidence.history
    means, peaks, rates = (history.values(name) for name in ("train_loss", "train_loss_max", "lr"))
    risen = rises(means, by=SPIKE_RISE, at_least=SPIKE_SHARE * evidence.reference_loss)
    spikes = [epoch for epoch in risen if epoch > warm_up(history)]
    if not spikes:
        return None
    worst = max(spikes, key=lambda epoch: means[epoch - 1])
    changes = [evidence.scaled("optimizer.lr", 0.3)]
    if evidence.value("training.clip_grad_norm") is None:
        changes.insert(0, Change("training.clip_grad_norm", "1.0"))
    return Finding(
        "loss-spikes",
        "The training loss spikes",
        f"In epoch {worst} the training loss jumped to {means[worst - 1]:.3g}, from {min(means[: worst - 1]):.3g}; "
        f"the worst batch had {peaks[worst - 1]:.3g}, the learning rate was {rates[worst - 1]:.3g}. "
        f"Spikes after warm-up: epoch {listed(spikes, limit=6, quoted=False)}.",
        "Clip the gradient, or take a lower peak of the learning rate; also look at the samples of such batches.",
        tuple(changes),
    )


def class_collapse(evidence: Evidence) -> Finding | None:
    if evidence.confusion is None:
        return None
    support = [sum(row) for row in evidence.confusion]
    said = [sum(column) for column in zip(*evidence.confusion, strict=True)]
    total = sum(support)
    never = [k for k in range(len(said)) if said[k] == 0 and support[k] >= SMALL_SUPPORT]
    favourite = max(range(len(said)), key=said.__getitem__)
    one = said[favourite] > 0.9 * total and support[favourite] < 0.75 * total
    if not never and not one:
        return None
    names, split = evidence.class_names, evidence.split
    text = (
        f"{said[favourite] / total:.0%} of the {split} samples are called {names[favourite]}, which "
        f"{support[favourite] / total:.0%} of them are."
        if one
        else f"The model never answers {', '.join(names[k] for k in never[:5])}"
        f"{f' and {len(never) - 5} more' if len(never) > 5 else ''}, although the {split} split has "
        f"{sum(support[k] for k in never)} such samples."
    )
    return Finding(
        "class-collapse",
        "Some classes are never predicted",
        text,
        "Weigh the classes by how rare they are, look at whether their samples are right, and train for longer.",
        _for_rare_classes(evidence),
    )


def _for_rare_classes(evidence: Evidence) -> tuple[Change, ...]:
    """Balanced weights; where the loss has them already, more epochs."""
    knob = {"cross_entropy": "weight", "nll": "weight", "bce_with_logits": "pos_weight"}.get(evidence.loss)
    if knob is None:  # bce takes probabilities, and has no weights
        loss = Change("loss", "{type: bce_with_logits, pos_weight: balanced}", evidence.loss)
        return loss, Change("model.output", "none", "sigmoid")
    if evidence.value("loss.type") != evidence.loss:
        return (Change("loss", f"{{type: {evidence.loss}, {knob}: balanced}}", str(evidence.value("loss.type"))),)
    was = evidence.value(f"loss.{knob}")
    if was == "balanced":
        return (evidence.scaled("training.epochs", 2.0),)
    return (Change(f"loss.{knob}", "balanced", None if was is None else str(was)),)


def dead_units(evidence: Evidence) -> Finding | None:
    bad = [layer for layer in evidence.dead_units if layer.total >= MIN_UNITS and layer.dead > DEAD_SHARE * layer.total]
    if not bad:
        return None
    told = "; ".join(f"{layer.dead} of {layer.total} in {layer.name} ({layer.key})" for layer in bad[:4])
    return Finding(
        "dead-units",
        "Many units never fire",
        f"Their output is 0 for every one of {max(layer.seen for layer in bad):,} samples: {told}. They learn nothing "
        "any more and cost time.",
        "A lower learning rate, normalisation, or a leaky activation keeps units alive; a smaller layer would do too.",
        (*dict.fromkeys(_leaky(layer.key) for layer in bad), evidence.scaled("optimizer.lr", 0.3)),
    )


def _leaky(key: str) -> Change:
    """``model.layers[3]`` is a layer by its PyTorch name, ``model.blocks[3]`` has an activation of its own."""
    if ".layers[" in key:
        return Change(key, "LeakyReLU", "ReLU")
    return Change(f"{key}.activation" if ".blocks[" in key else "model.activation", "leaky_relu", "relu")


def validation_too_small(evidence: Evidence) -> Finding | None:
    """The best epoch is chosen by an accuracy of too few samples. (The loss moves less, and is no rate.)"""
    history, samples = evidence.history, evidence.num_samples("val")
    if not evidence.monitor.startswith("val_") or "accuracy" not in evidence.monitor:
        return None
    scores = [score for _, score in history.series(evidence.monitor)]
    if not samples or len(scores) < 12:
        return None
    tail = scores[-max(6, len(scores) // 3) :]
    settled, half = mean(tail), len(tail) // 2
    spread = math.sqrt(mean([(score - settled) ** 2 for score in tail]))
    if abs(mean(tail[half:]) - mean(tail[:half])) > max(spread, 1 / samples):
        return None  # still on its way up or down
    reach, high, low = chance_reach(settled, samples), max(scores), min(tail)
    by_chance = max(high - settled, settled - low) <= reach
    if reach < COARSE_REACH or not by_chance or (high - low) * samples < 1.5:
        return None
    fraction = evidence.value("dataset.val_fraction")
    more = (evidence.scaled("dataset.val_fraction", 2.0),) if isinstance(fraction, float) and fraction <= 0.3 else ()
    return Finding(
        "validation-set-too-small",
        "The validation set is too small for the difference",
        f"The best epoch reached {high:.1%} on the validation split; the last {len(tail)} epochs lie between {low:.1%} "
        f"and {max(tail):.1%}. With {samples} samples chance alone moves an accuracy by ± {100 * reach:.1f} points, so "
        "which epoch is the best is a draw of luck.",
        "Hold out more samples, or monitor val_loss, which moves less.",
        (*more, Change("checkpoint.monitor", "val_loss", evidence.monitor)),
    )


def data_bound(evidence: Evidence) -> Finding | None:
    history = evidence.history
    seconds, waiting = history.lasting("train_seconds"), history.lasting("data_seconds")
    if seconds < MIN_SECONDS or waiting < DATA_BOUND_SHARE * seconds:
        return None
    told = f"{waiting:.0f} of {seconds:.0f} s of training ({waiting / seconds:.0%}) went by waiting for batches"
    changes: tuple[Change, ...] = ()
    if evidence.facts.get("decoded_while_training"):
        workers = evidence.value("training.num_workers") or 0
        why = "; the images are decoded in every epoch, since neither the cache nor the memory has room for them"
        suggestion = "Load with more processes, make room for the cache, or resize to smaller images first."
        changes = (Change("training.num_workers", str(max(2, 2 * workers)), str(workers)),)
    else:
        transforms = [item["type"] for item in evidence.value("transforms") or []]
        used = [name for name in transforms if name in evidence.costly_transforms]
        why = f"; {', '.join(used)} work on every batch" if used else ""
        suggestion = "Do fixed transforms first (they are done once and cached), and drop costly random ones."
        if used:
            changes = (Change("transforms", evidence.transforms(without=used)),)
    return Finding("data-bound", "Training waits for its data", f"{told}{why}.", suggestion, changes)

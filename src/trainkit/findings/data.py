"""Rules about data: inputs, labels, classes, the size of the validation split, and how fast batches come.

Their thresholds were set on real runs of the bundled data sets, healthy ones and ones with a planted fault.
"""

from __future__ import annotations

import math

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach, mean, mean_of_last_third
from trainkit.recorders import number
from trainkit.wording import listed

INPUT_SCALE = (0.02, 10.0)
"""Root mean square of an input column within which optimizers and first weights are at home."""
NO_BETTER_R2 = (0.02, 0.1)
"""R² over the last epochs, and in the best one, of a model that has learned nothing about new samples."""
SMALL_SUPPORT = 10
"""Samples of a class: of fewer, a good model may predict none by chance."""
COARSE_REACH = 0.1
"""Validation sets are small where chance moves the accuracy by this much or more."""
DATA_BOUND_SHARE = 0.5
MIN_SECONDS = 20.0
"""Of training: a shorter run has little to save."""


def inputs_out_of_scale(evidence: Evidence) -> Finding | None:
    scale = evidence.facts.get("input_scale")
    if not scale:
        return None
    low, high = INPUT_SCALE
    smallest, largest = number(scale["smallest_rms"]), number(scale["largest_rms"])
    if math.isnan(smallest) or low <= largest <= high:
        return None
    image = len(evidence.facts.get("input_shape", ())) == 3
    transform = "normalize" if image else "standardize"
    size = "large" if largest > high else "small"
    return Finding(
        "inputs-not-normalised",
        "The inputs are not normalized",
        f"The inputs of the model are {size}: {scale['largest']} has a root mean square of {largest:.4g} over the "
        f"training samples, {scale['smallest']} of {smallest:.4g}; networks are made for values around 1.",
        f"Let transforms end with {transform}: it takes mean and standard deviation from the training split.",
        (Change("transforms", evidence.transforms(add=transform)),),
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
    num_val, num_train = evidence.num_samples("val"), evidence.num_samples("train")
    if not num_val or not num_train or not val[-1] > val[0]:
        return None
    score, train_score = mean_of_last_third(scores), history.values("train_accuracy")[-1]
    if score > chance + chance_reach(chance, num_val) or train_score < chance + chance_reach(chance, num_train):
        return None
    return (
        f"Validation accuracy is {score:.1%} over the last epochs, no better than always predicting the most frequent "
        f"class ({chance:.1%}), while training accuracy went up to {train_score:.1%}"
    )


def _r2_of_chance(evidence: Evidence) -> str | None:
    """By R², since the loss may start above that of the mean, and fall to it without learning anything."""
    history = evidence.history
    scores = history.values("val_r2")
    score = mean_of_last_third(scores)
    constant = number(evidence.facts.get("constant_loss"))
    learned = history.values("train_loss")[-1] < 0.8 * constant
    if not learned or not score <= NO_BETTER_R2[0] or not max(scores) <= NO_BETTER_R2[1]:
        return None
    return f"R² on the validation split is {score:.3f} over the last epochs, no better than always predicting the mean"


def _source_of_labels(evidence: Evidence) -> Change:
    """The key of the config that decides which labels belong to which samples."""
    keys = ("dataset.target", "dataset.root", "dataset.problem.type", "dataset.type")
    key = next((key for key in keys if evidence.value(key) is not None), None)
    return Change("dataset", "...") if key is None else evidence.change(key, "...")


def class_collapse(evidence: Evidence) -> Finding | None:
    if evidence.confusion is None:
        return None
    support = [sum(row) for row in evidence.confusion]
    predicted = [sum(column) for column in zip(*evidence.confusion, strict=True)]
    total = sum(support)
    never = [k for k, count in enumerate(predicted) if count == 0 and support[k] >= SMALL_SUPPORT]
    favorite = max(range(len(predicted)), key=predicted.__getitem__)
    one = predicted[favorite] > 0.9 * total and support[favorite] < 0.75 * total
    if not never and not one:
        return None
    names, split = evidence.class_names, evidence.split
    missing = listed([names[k] for k in never], limit=5, quoted=False)
    text = (
        f"{predicted[favorite] / total:.0%} of the {split} samples are predicted as {names[favorite]}, which "
        f"{support[favorite] / total:.0%} of them are."
        if one
        else f"The model never answers {missing}, although the {split} split has {sum(support[k] for k in never)} such "
        "samples."
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
    if evidence.value(f"loss.{knob}") == "balanced":
        return (evidence.scaled("training.epochs", 2.0),)
    return (evidence.change(f"loss.{knob}", "balanced"),)


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
    text = f"{waiting:.0f} of {seconds:.0f} s of training ({waiting / seconds:.0%}) went by waiting for batches"
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
    return Finding("data-bound", "Training waits for its data", f"{text}{why}.", suggestion, changes)

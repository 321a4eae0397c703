"""Rules about data: classes, the size of the validation split, and how fast batches come.

Their thresholds were set on real runs of the bundled data sets, healthy ones and ones with a planted fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach, mean
from trainkit.findings.guessing import always_majority, guessing
from trainkit.wording import counted, listed

LOPSIDED = 1.5
"""Times the rarest class: up to this, the most frequent class is about as frequent."""
SMALL_SUPPORT = 10
"""Samples of a class: of fewer, a good model may predict none by chance."""
COARSE_REACH = 0.1
"""Validation sets are small where chance moves the accuracy by this much or more."""
DATA_BOUND_SHARE = 0.5
MIN_SECONDS = 20.0
"""Of training: a shorter run has little to save."""


def class_collapse(evidence: Evidence) -> Finding | None:
    if evidence.confusion is None:
        return None
    text = _only_majority(evidence)
    if text is None and (guessing(evidence) is None or _weights(evidence) is not None):
        text = _never_predicted(evidence, evidence.confusion)
    if text is None:
        return None
    changes = _for_rare_classes(evidence)
    balances = any("balanced" in change.value for change in changes)
    advice = "Weigh the classes by how rare they are, look" if balances else "Look"
    return Finding(
        "class-collapse",
        "Some classes are never predicted",
        text,
        f"{advice} at whether their samples are right, and train for longer.",
        changes,
    )


def _only_majority(evidence: Evidence) -> str | None:
    confusion, counts = evidence.confusion or (), evidence.facts.get("class_counts")
    if not always_majority(evidence) or guessing(evidence) is None:
        return None
    support = [sum(row) for row in confusion]
    most = max(range(len(support)), key=support.__getitem__)
    share = support[most] / sum(support)
    answers = sum(row[most] for row in confusion) / sum(support)
    rare = "" if not counts else f" The rarest class has {min(counts):,} of {sum(counts):,} training samples."
    return (
        f"{answers:.0%} of the {evidence.split} samples are predicted as {evidence.class_names[most]}, which "
        f"{share:.1%} of them are: the accuracy is that of always giving this answer.{rare}"
    )


def _never_predicted(evidence: Evidence, confusion: Sequence[Sequence[int]]) -> str | None:
    support = [sum(row) for row in confusion]
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    total = sum(support)
    never = [k for k, count in enumerate(predicted) if count == 0 and support[k] >= SMALL_SUPPORT]
    favorite = max(range(len(predicted)), key=predicted.__getitem__)
    if predicted[favorite] > 0.9 * total and support[favorite] < 0.75 * total:
        return (
            f"{predicted[favorite] / total:.0%} of the {evidence.split} samples are predicted as "
            f"{evidence.class_names[favorite]}, which {support[favorite] / total:.0%} of them are."
        )
    if not never:
        return None
    missing = listed([evidence.class_names[k] for k in never], limit=5, quoted=False)
    return (
        f"The model never answers {missing}, although the {evidence.split} split has {sum(support[k] for k in never)} "
        "such samples."
    )


def _weights(evidence: Evidence) -> Any:
    return evidence.value("loss.weight") or evidence.value("loss.pos_weight") or evidence.value("training.sampler")


def _is_lopsided(evidence: Evidence) -> bool:
    """Whether balanced weights would change anything: classes of other sizes, or weights that the config gives."""
    counts = evidence.facts.get("class_counts") or [sum(row) for row in evidence.confusion or ()]
    return _weights(evidence) is not None or max(counts) > LOPSIDED * max(1, min(counts))


def _for_rare_classes(evidence: Evidence) -> tuple[Change, ...]:
    """Balanced weights; where the loss has them already, or the classes are as frequent, more epochs."""
    if not _is_lopsided(evidence) or evidence.value("training.sampler") is not None:
        return (evidence.scaled("training.epochs", 2.0),)
    knob = {"cross_entropy": "weight", "focal": "weight", "nll": "weight", "bce_with_logits": "pos_weight"}.get(
        evidence.loss
    )
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
    if evidence.monitor not in ("val_accuracy", "val_top5_accuracy"):
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
    may_grow = isinstance(fraction, float) and fraction <= 0.3 and evidence.value("dataset.split.type") != "column"
    more = (evidence.scaled("dataset.val_fraction", 2.0),) if may_grow else ()
    return Finding(
        "validation-set-too-small",
        "The validation set is too small for the difference",
        f"The best epoch reached {high:.1%} on the validation split; the last {len(tail)} epochs lie between {low:.1%} "
        f"and {max(tail):.1%}. With {counted(samples, 'sample')} chance alone moves an accuracy by "
        f"± {100 * reach:.1f} points, so which epoch is the best is a draw of luck.",
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

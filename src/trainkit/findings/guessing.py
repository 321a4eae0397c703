"""Rules about a model that is no better than guessing, or worse than models without training, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainkit.findings.evidence import Change, Evidence, Finding, chance_reach, mean_of_last_third
from trainkit.recorders import number
from trainkit.wording import SPLITS, counted, listed

GUESS_Z = 2.5
"""A score counts as chance up to this many of its standard deviations: a test set is looked at once."""
WEAK_KAPPA, WEAK_R2 = 0.3, 0.3
"""Higher scores are no chance, however few samples gave them."""
FEW_SCORED = 20
"""Samples: fewer say less than the curves of the validation split."""
NO_BETTER_R2 = (0.02, 0.1)
"""R² over the last epochs, and in the best one, of a model that has learned nothing about new samples."""
COULD_BE_BETTER = 0.9
"""Accuracy or R² from which no other model is compared."""
FALLS_SHORT = 0.1
"""Accuracy or R² below that of models without training, beyond what chance makes of it."""
MAJORITY = 0.8
"""Share of the most frequent class from which always answering it looks good."""


def guessing(evidence: Evidence) -> str | None:
    """The score that is no better than that of constant or random answers; None for a model that knows something."""
    if evidence.confusion is not None and _num_scored(evidence) >= FEW_SCORED:
        return _guessed_classes(evidence)
    if evidence.r2 is not None and evidence.num_samples(evidence.split) >= FEW_SCORED:
        return _guessed_values(evidence)
    history = evidence.history
    if not len(history) or (evidence.confusion is not None and _beyond_chance(evidence.confusion)):
        return None
    split = "val" if history.series("val_loss") else "train"
    return _chance_in_classes(evidence, split) or _chance_in_values(evidence, split)


def _num_scored(evidence: Evidence) -> int:
    return sum(map(sum, evidence.confusion or ()))


def _guessed_classes(evidence: Evidence) -> str | None:
    """By the right answers beyond those that the same answers give in random order; Cohen's kappa is their share."""
    confusion = evidence.confusion or ()
    support, answers = [sum(row) for row in confusion], [sum(column) for column in zip(*confusion, strict=True)]
    total = sum(support)
    right = sum(row[k] for k, row in enumerate(confusion)) / total
    chance = sum(s * a for s, a in zip(support, answers, strict=True)) / total**2
    if chance > 1 - 1e-9:  # one class, and all right
        return None
    kappa = (right - chance) / (1 - chance)
    if kappa > WEAK_KAPPA or _beyond_chance(confusion):
        return None
    always = max(support) / total
    return (
        f"Accuracy on the {counted(total, 'sample')} of the {SPLITS[evidence.split]} split is {right:.1%}, no better "
        f"than guessing: always answering the most frequent class gives {always:.1%}, the same answers in random "
        f"order {chance:.1%}"
    )


def _beyond_chance(confusion: Sequence[Sequence[int]]) -> bool:
    """Whether more answers are right than the same answers in random order would be, beyond what chance makes of it."""
    support = [sum(row) for row in confusion]
    answers: list[int] = [sum(column) for column in zip(*confusion, strict=True)]
    right = sum(row[k] for k, row in enumerate(confusion))
    by_chance = sum(s * a for s, a in zip(support, answers, strict=True)) / max(1, sum(support))
    return right - by_chance > GUESS_Z * _deviation_of_matches(support, answers)


def _deviation_of_matches(support: Sequence[int], answers: Sequence[int]) -> float:
    """Of the number of right answers when the order of the answers is drawn (Hoeffding, 1951)."""
    total = sum(support)
    mean = sum(s * a for s, a in zip(support, answers, strict=True)) / total**2
    squares = sum(
        s * a * ((k == j) - answers[k] / total - support[j] / total + mean) ** 2
        for k, s in enumerate(support)
        for j, a in enumerate(answers)
    )
    return math.sqrt(squares / max(1, total - 1))


def _guessed_values(evidence: Evidence) -> str | None:
    score, samples = number(evidence.r2), evidence.num_samples(evidence.split)
    if score > min(WEAK_R2, GUESS_Z**2 / samples):
        return None
    return (
        f"R² on the {counted(samples, 'sample')} of the {SPLITS[evidence.split]} split is {score:.3g}, no better than "
        "always answering the mean, which gives 0"
    )


def _chance_in_classes(evidence: Evidence, split: str) -> str | None:
    history, chance = evidence.history, number(evidence.facts.get("majority_share"))
    scores, recalls = history.values(f"{split}_accuracy"), history.values(f"{split}_recall_macro")
    samples = evidence.num_samples(split)
    if math.isnan(scores[-1]) or math.isnan(chance) or not samples:
        return None
    score = mean_of_last_third(scores)
    if score > chance + chance_reach(chance, samples) or max(scores) > chance + 2 * chance_reach(chance, samples):
        return None
    even = 1 / max(2, evidence.num_classes)
    if mean_of_last_third(recalls) > even + 1.5 * chance_reach(even, samples):
        return None  # with weighted classes the most frequent one may be answered less than it is right
    return (
        f"Accuracy on the {counted(samples, 'sample')} of the {SPLITS[split]} split is {score:.1%} over the last "
        f"epochs; chance alone may bring always answering the most frequent class ({chance:.1%}) there"
    )


def _chance_in_values(evidence: Evidence, split: str) -> str | None:
    scores = evidence.history.values(f"{split}_r2")
    score = mean_of_last_third(scores)
    if not score <= NO_BETTER_R2[0] or not max(scores) <= NO_BETTER_R2[1]:
        return None
    return (
        f"R² on the {SPLITS[split]} split is {score:.3g} over the last epochs, no better than always answering the mean"
    )


def labels_unrelated(evidence: Evidence) -> Finding | None:
    """Nothing carries over to new samples, neither of this model nor of simpler ones that cannot fail to train."""
    text = guessing(evidence)
    if text is None or always_majority(evidence):
        return None
    related = evidence.relation.get("related")
    if related or (related is None and not _learned_by_heart(evidence)) or _above_nothing(evidence):
        return None
    train, val = evidence.history.values("train_loss"), evidence.history.values("val_loss")
    course = f"The training loss went from {train[0]:.4g} to {train[-1]:.4g}"
    course += "." if math.isnan(val[-1]) else f", the validation loss from {val[0]:.4g} to {val[-1]:.4g}."
    probed = (
        ""
        if related is None
        else f" Ridge regression and nearest neighbors on {evidence.relation['samples']:,} training samples find no "
        f"relation either (correlation on samples left out: {_strongest(evidence):.2f})."
    )
    return Finding(
        "labels-unrelated",
        "The labels have nothing to do with the inputs, as far as can be seen",
        f"{text}. {course}{probed}",
        "Look at samples beside their labels: were rows shuffled, or sorted differently from the labels? Is it the "
        "right column or folder, and do the inputs hold what decides about the label?",
        (source_of_labels(evidence),),
    )


def _above_nothing(evidence: Evidence) -> bool:
    """Training that ends above the loss of knowing nothing failed by itself, whatever the labels are."""
    return mean_of_last_third(evidence.history.values("train_loss")) > 1.2 * evidence.reference_loss


def _learned_by_heart(evidence: Evidence) -> bool:
    history = evidence.history
    train, val = history.values("train_loss"), history.values("val_loss")
    if len(val) < 2 or math.isnan(val[-1]):
        return False
    chance, scores = number(evidence.facts.get("majority_share")), history.values("train_accuracy")
    if history.series("val_accuracy"):
        reach = chance_reach(chance, max(1, evidence.num_samples("train")))
        return train[-1] < train[0] and val[-1] > val[0] and scores[-1] > chance + reach
    return train[-1] < 0.8 * number(evidence.facts.get("constant_loss"))


def _strongest(evidence: Evidence) -> float:
    return max(number(evidence.relation.get(name)) for name in ("linear", "neighbors"))


def source_of_labels(evidence: Evidence) -> Change:
    """The key of the config that decides which labels belong to which samples."""
    keys = ("dataset.target", "dataset.root", "dataset.problem.type", "dataset.type")
    key = next((key for key in keys if evidence.value(key) is not None), None)
    return Change("dataset", "...") if key is None else evidence.change(key, "...")


def always_majority(evidence: Evidence) -> bool:
    """Whether all answers are the class that most samples are of."""
    if evidence.confusion is None or number(evidence.facts.get("majority_share")) < MAJORITY:
        return False
    total = _num_scored(evidence)
    answers = [sum(column) for column in zip(*evidence.confusion, strict=True)]
    favorite = max(range(len(answers)), key=answers.__getitem__)
    return answers[favorite] >= 0.98 * total and sum(evidence.confusion[favorite]) >= MAJORITY * total


def too_much_regularization(evidence: Evidence) -> Finding | None:
    text, milder = guessing(evidence), _milder(evidence)
    if text is None or not milder:
        return None
    given = listed([f"{change.key} {change.was}" for change in milder], quoted=False)
    return Finding(
        "too-much-regularization",
        "The regularization keeps the network from learning",
        f"{text}. The config has {given}.",
        "Try less of it.",
        milder,
    )


def _milder(evidence: Evidence) -> tuple[Change, ...]:
    """Milder values, where regularization is strong enough to keep a network from learning."""
    changes = []
    for key, most, milder in (("optimizer.weight_decay", 0.05, "0.0001"), ("model.dropout", 0.6, "0.2")):
        value = evidence.value(key)
        if isinstance(value, int | float) and value > most:
            changes.append(evidence.change(key, milder))
    return tuple(changes)


def learned_nothing(evidence: Evidence) -> Finding | None:
    """What is left to say about a model that guesses, where no other rule knows why."""
    text = guessing(evidence)
    if text is None:
        return None
    train = evidence.history.values("train_loss")
    course = f" The training loss went from {train[0]:.4g} to {train[-1]:.4g}." if train else ""
    probed, advice = "", "Look at samples beside their labels; if they are right, try another learning rate."
    if evidence.relation.get("related"):
        probed = (
            " There is a relation: predictions of ridge regression or nearest neighbors correlate with the targets by "
            f"{_strongest(evidence):.2f} on training samples left out."
        )
        advice = "So the model or its training is at fault: try another learning rate, then a plainer model."
    return Finding(
        "no-better-than-guessing",
        "The model is no better than guessing",
        f"{text}.{course}{probed}",
        advice,
        (evidence.scaled("optimizer.lr", 0.1),),
    )


def may_fall_short(evidence: Evidence) -> bool:
    """Whether the model misses enough for a comparison with simpler ones to be worth it."""
    score, _ = _score(evidence)
    return score < COULD_BE_BETTER


def _score(evidence: Evidence) -> tuple[float, int]:
    """Accuracy or R² where the best checkpoint was scored, and the number of samples; NaN where it was not."""
    if evidence.confusion is not None:
        samples = sum(map(sum, evidence.confusion))
        return sum(row[k] for k, row in enumerate(evidence.confusion)) / max(1, samples), samples
    return number(evidence.r2), evidence.num_samples(evidence.split)


def underfitting(evidence: Evidence) -> Finding | None:
    """Models without training do better, and training samples are no better known than new ones."""
    (score, samples), simple = _score(evidence), number(evidence.relation.get("score"))
    if math.isnan(score) or not samples or not simple > score or not evidence.history.values("train_loss"):
        return None
    if any(evidence.value(key) is not None for key in ("loss.weight", "loss.pos_weight", "training.sampler")):
        return None  # weights cost accuracy on purpose
    if evidence.confusion is None:
        metric, known, reach = "R²", math.nan, 2 / math.sqrt(samples)
    else:
        metric, known = "accuracy", evidence.history.values("train_accuracy")[-1]
        reach = chance_reach(score, samples) + chance_reach(simple, evidence.relation["samples"])
    if simple - score < FALLS_SHORT + reach or known > simple:
        return None
    sizes = evidence.value("model.hidden_sizes")
    wider = (evidence.change("model.hidden_sizes", "[128, 128]"),)
    return Finding(
        "underfitting",
        "The model is too simple for the task, or was not trained well enough",
        f"Its {metric} on the {counted(samples, 'sample')} of the {SPLITS[evidence.split]} split is {score:.3g}; ridge "
        f"regression or nearest neighbors reach {simple:.3g} on training samples left out.",
        "Take a larger model, and train for longer.",
        (*(wider if isinstance(sizes, list) and sum(sizes) < 128 else ()), evidence.scaled("training.epochs", 2.0)),
    )

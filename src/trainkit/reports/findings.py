"""What stands out in a run, in plain words: pure functions from what was measured to findings.

A finding says what is the matter, the numbers that show it, and which lines of the config to change. A cause hides its
consequences: where the inputs are out of scale, nothing is said about the loss spikes that follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainkit.reports.history import History, number

if TYPE_CHECKING:
    from trainkit.reports.facts import DeadUnits

TOO_HIGH_START = 3.0
"""A batch loss of so many times that of a network which knows nothing: the first steps went astray."""
UNSTABLE_RISE = 1.5
"""An epoch whose training loss is so many times the lowest before it went up, not down."""
SPIKE_RISE = 3.0
INPUT_SCALE = (0.02, 10.0)
"""Root mean square of an input column within which optimizers and first weights are at home."""
DATA_BOUND_SHARE = 0.5
DEAD_SHARE = 0.4
MIN_SECONDS = 20.0
"""Below this it is not worth saving time."""


@dataclass(frozen=True)
class Change:
    """A value of the config to try instead."""

    key: str
    value: str
    was: str | None = None

    @property
    def override(self) -> str:
        return (
            f"--set '{self.key}={self.value}'" if set(self.value) & set(" {}[]") else f"--set {self.key}={self.value}"
        )


@dataclass(frozen=True)
class Finding:
    """Something that the user should know about a run."""

    name: str
    """For programs: ``overfitting``, ``learning-rate-too-high``, ..."""
    title: str
    evidence: str
    suggestion: str
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What is known about a run."""

    history: History
    config: Mapping[str, Any]
    """Every value, as plain data."""
    facts: Mapping[str, Any]
    """What was measured before the first step (``facts.facts_before_training``); {} where it is not known."""
    split: str = ""
    """Where the trained model was looked at."""
    class_names: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] | None = None
    """Rows are the true classes, columns the predicted ones."""
    dead_units: tuple[DeadUnits, ...] = ()
    failure: str | None = None

    @property
    def reference_loss(self) -> float:
        """The loss of a network that knows nothing: the higher of saying 0 and of saying the same for every sample."""
        known = [number(self.facts.get(name)) for name in ("constant_loss", "zero_loss")]
        return max((value for value in known if not math.isnan(value)), default=math.nan)

    def value(self, key: str) -> Any:
        """A value of the config by its path; None where there is none."""
        found: Any = self.config
        for piece in key.split("."):
            found = found.get(piece) if isinstance(found, Mapping) else None
        return found

    def num_samples(self, split: str) -> int:
        return int(self.facts.get("num_samples", {}).get(split, 0))


def evidence_from_records(info: Mapping[str, Any], history: History, *, status: str) -> Evidence:
    """What the files of a run tell, without its model: ``run.json`` and the log."""
    failure = status if status.startswith("failed") else None
    return Evidence(history, config=info.get("config", {}), facts=info.get("facts", {}), failure=failure)


Rule = Callable[[Evidence], Finding | None]


def find(evidence: Evidence) -> list[Finding]:
    """Everything that stands out, the gravest first; [] for a healthy run."""
    found: list[Finding] = []
    for rule in CAUSES:
        finding = rule(evidence)
        if finding is not None:
            found.append(finding)
            break
    else:
        found += [finding for rule in CONSEQUENCES if (finding := rule(evidence)) is not None]
    return found + [finding for rule in INDEPENDENT if (finding := rule(evidence)) is not None]


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
        (Change("transforms", _with_step(evidence, step), None),),
    )


def learning_rate_too_high(evidence: Evidence) -> Finding | None:
    history, reference = evidence.history, evidence.reference_loss
    reason = None
    if _non_finite(evidence.failure):
        reason = f"The run ended when the numbers overflowed ({_shortened(str(evidence.failure))})."
    means, peaks = history.values("train_loss"), history.values("train_loss_max")
    if reason is None and means and peaks[0] > TOO_HIGH_START * reference and means[0] > reference:
        reason = (
            f"In the first epoch the loss of a batch went up to {peaks[0]:.4g} and the epoch's mean is {means[0]:.4g}; "
            f"a network that knows nothing has {reference:.4g}."
        )
    rises = _rises(means, by=UNSTABLE_RISE, at_least=0.05 * reference)
    if reason is None and len(rises) >= max(3, len(means) / 4):
        reason = (
            f"The training loss rose by half or more over its lowest value so far in {len(rises)} of {len(means)} "
            f"epochs ({_listed(rises)}): the steps are too long to settle."
        )
    if reason is None:
        return None
    changes = [_scaled(evidence, "optimizer.lr", 0.1)]
    if evidence.value("training.clip_grad_norm") is None:
        changes.append(Change("training.clip_grad_norm", "1.0"))
    return Finding(
        "learning-rate-too-high",
        "The learning rate is too high",
        reason,
        "Try a tenth of it; clipping the gradient or a warm-up (scheduler.warmup) also helps.",
        tuple(changes),
    )


def labels_unrelated(evidence: Evidence) -> Finding | None:
    """The training loss falls, and nothing of it carries over: labels that do not belong to their samples."""
    history = evidence.history
    train, val = history.values("train_loss"), history.values("val_loss")
    if len(val) < 2 or not train[-1] < train[0] or not val[-1] > val[0]:
        return None
    tail = max(1, len(val) // 3)
    if history.series("val_accuracy"):
        chance = number(evidence.facts.get("majority_share"))
        score, samples = _mean(history.values("val_accuracy")[-tail:]), evidence.num_samples("val")
        learned, of = history.values("train_accuracy")[-1], evidence.num_samples("train")
        if (
            not samples
            or not of
            or score > chance + chance_reach(chance, samples)
            or learned < chance + chance_reach(chance, of)
        ):
            return None
        text = (
            f"Validation accuracy is {score:.1%} over the last epochs, no better than always naming the most frequent "
            f"class ({chance:.1%}), while training accuracy went up to {learned:.1%}"
        )
    elif history.series("val_r2"):
        score = _mean(history.values("val_r2")[-tail:])
        if score > 0.02 or not train[-1] < 0.9 * number(evidence.facts.get("constant_loss")):
            return None
        text = f"R² on the validation split is {score:.3f} over the last epochs, no better than always saying the mean"
    else:
        return None
    return Finding(
        "labels-unrelated",
        "What the model learns does not carry over: the labels may not belong to the samples",
        f"{text}. The validation loss rose from {val[0]:.4g} to {val[-1]:.4g}.",
        "Look at samples beside their labels: were rows shuffled, or sorted differently from the labels?",
    )


def learning_rate_too_low(evidence: Evidence) -> Finding | None:
    """Still on the straight part of the curve at the end: each step does as much as the first ones did."""
    history, reference = evidence.history, evidence.reference_loss
    train, val, rates = (history.values(name) for name in ("train_loss", "val_loss", "lr"))
    if len(train) < 4 or not train[-1] > 0.6 * reference or train[0] > TOO_HIGH_START * reference:
        return None
    falling = _falls_by_thirds(train) and (math.isnan(val[-1]) or _falls_by_thirds(val))
    half = len(train) // 2
    before, after = sum(rates[1 : half + 1]), sum(rates[half + 1 :])
    if not falling or before <= 0 or after <= 0:
        return None
    curve = train if math.isnan(val[-1]) else val  # no dropout and no draw of batches blurs the validation loss
    early, late = (curve[0] - curve[half]) / before, (curve[half] - curve[-1]) / after
    if late < 0.4 * early:
        return None
    return Finding(
        "learning-rate-too-low",
        "The learning rate is too low",
        f"After {len(train)} epochs the training loss has come down from {train[0]:.4g} to {train[-1]:.4g} only, and "
        f"was still falling as steadily as at the start; a network that knows nothing has {reference:.4g}.",
        "Try ten times the learning rate, or train for longer.",
        (_scaled(evidence, "optimizer.lr", 10.0),),
    )


def overfitting(evidence: Evidence) -> Finding | None:
    history = evidence.history
    train, val = history.values("train_loss"), history.values("val_loss")
    if len(val) < 3 or math.isnan(val[-1]):
        return None
    lowest = min(range(len(val)), key=lambda at: math.inf if math.isnan(val[at]) else val[at])
    texts = []
    accuracies = history.values("train_accuracy")[-1], history.values("val_accuracy")[-1]
    gap = accuracies[0] - accuracies[1]
    samples = evidence.num_samples("val")
    if samples and gap > max(0.08, chance_reach(accuracies[1], samples)) and train[-1] < 0.5 * val[-1]:
        texts.append(
            f"At the end the model is right on {accuracies[0]:.1%} of the training samples and on {accuracies[1]:.1%} "
            f"of the validation samples, a gap of {100 * gap:.1f} points."
        )
    rise = 1.5 if history.series("val_accuracy") else 1.25
    matters = val[-1] - val[lowest] > 0.1 * evidence.reference_loss
    if val[-1] > rise * val[lowest] and train[-1] < 0.8 * train[lowest] and matters:
        texts.append(
            f"The validation loss was lowest in epoch {history.epochs[lowest]['epoch']} ({val[lowest]:.4g}) and has "
            f"risen to {val[-1]:.4g} since, while the training loss went on falling "
            f"({train[lowest]:.4g} to {train[-1]:.4g})."
        )
    if not texts:
        return None
    return Finding(
        "overfitting",
        "The model overfits: it knows the training samples better than it knows the task",
        " ".join(texts) + f" There are {evidence.num_samples('train'):,} training samples.",
        "More data or augmentation helps most; then dropout, weight decay, a smaller model, or stopping earlier.",
        _against_overfitting(evidence),
    )


def loss_spikes(evidence: Evidence) -> Finding | None:
    means, peaks = evidence.history.values("train_loss"), evidence.history.values("train_loss_max")
    warm = max(2, len(means) // 10)
    reference = evidence.reference_loss
    spikes = [at for at in _rises(means, by=SPIKE_RISE, at_least=0.25 * reference) if at > warm]
    if not spikes:
        return None
    worst = max(spikes, key=lambda epoch: means[epoch - 1])
    return Finding(
        "loss-spikes",
        "The training loss spikes",
        f"In epoch {worst} the training loss jumped to {means[worst - 1]:.3g}, from {min(means[: worst - 1]):.3g}; "
        f"the worst batch had {peaks[worst - 1]:.3g}. Spikes after warm-up: epoch {_listed(spikes)}.",
        "Clip the gradient, or take a lower peak of the learning rate; also look at the samples of such batches.",
        (Change("training.clip_grad_norm", "1.0"), _scaled(evidence, "optimizer.lr", 0.3)),
    )


def class_collapse(evidence: Evidence) -> Finding | None:
    if evidence.confusion is None:
        return None
    support = [sum(row) for row in evidence.confusion]
    said = [sum(column) for column in zip(*evidence.confusion, strict=True)]
    total = sum(support)
    never = [k for k in range(len(said)) if said[k] == 0 and support[k] >= 10]
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
    weights = evidence.value("loss.type") in ("cross_entropy", "nll") and evidence.value("loss.weight") is None
    binary = evidence.value("loss.type") == "bce_with_logits" and evidence.value("loss.pos_weight") is None
    changes = [Change("loss.weight", "balanced")] if weights else []
    changes += [Change("loss.pos_weight", "balanced")] if binary else []
    return Finding(
        "class-collapse",
        "Some classes are never predicted",
        text,
        "Weigh the classes by how rare they are, look at whether their samples are right, and train for longer.",
        tuple(changes),
    )


def dead_units(evidence: Evidence) -> Finding | None:
    bad = [layer for layer in evidence.dead_units if layer.total >= 8 and layer.dead > DEAD_SHARE * layer.total]
    if not bad:
        return None
    listed = "; ".join(f"{layer.dead} of {layer.total} in {layer.name} ({layer.key})" for layer in bad[:4])
    return Finding(
        "dead-units",
        "Many units never fire",
        f"Their output is 0 for every sample of the split: {listed}. They learn nothing any more and cost time.",
        "A lower learning rate, normalisation, or leaky_relu keeps units alive; a smaller layer would do too.",
        (Change("model.activation", "leaky_relu", str(evidence.value("model.activation") or "relu")),),
    )


def data_bound(evidence: Evidence) -> Finding | None:
    history = evidence.history
    seconds, waiting = history.lasting("train_seconds"), history.lasting("data_seconds")
    if seconds < MIN_SECONDS or waiting < DATA_BOUND_SHARE * seconds:
        return None
    workers = evidence.value("training.num_workers") or 0
    return Finding(
        "data-bound",
        "Training waits for its data",
        f"{waiting:.0f} of {seconds:.0f} s of training ({waiting / seconds:.0%}) went by waiting for batches.",
        "Do fixed transforms first (resize, center_crop, grayscale are done once and cached), drop costly random ones, "
        "or load with more processes.",
        (Change("training.num_workers", str(max(2, 2 * workers)), str(workers)),),
    )


def validation_too_small(evidence: Evidence) -> Finding | None:
    """The score jumps between epochs as chance would have it: which epoch is best is a draw of luck."""
    history, samples = evidence.history, evidence.num_samples("val")
    scores = [score for _, score in history.series("val_accuracy")]
    tail = scores[-max(6, len(scores) // 3) :]
    if not samples or len(scores) < 12:
        return None
    mean, half = _mean(tail), len(tail) // 2
    spread = math.sqrt(_mean([(score - mean) ** 2 for score in tail]))
    if abs(_mean(tail[half:]) - _mean(tail[:half])) > spread:
        return None  # still on its way up or down
    reach = chance_reach(mean, samples)
    if spread < 0.02 or max(tail) - mean > reach or reach < 0.03:
        return None
    fraction = evidence.value("dataset.val_fraction")
    changes = (
        (_scaled(evidence, "dataset.val_fraction", 2.0),) if isinstance(fraction, float) and fraction <= 0.3 else ()
    )
    return Finding(
        "validation-set-too-small",
        "The validation set is too small for the difference",
        f"Validation accuracy moves between {min(tail):.1%} and {max(tail):.1%} over the last {len(tail)} epochs; with "
        f"{samples} samples chance alone moves it by ± {100 * reach:.1f} points, so the best epoch is a draw of luck.",
        "Hold out more samples, or monitor val_loss, which moves less.",
        (*changes, Change("checkpoint.monitor", "val_loss", str(evidence.value("checkpoint.monitor")))),
    )


CAUSES: tuple[Rule, ...] = (
    inputs_out_of_scale,
    learning_rate_too_high,
    labels_unrelated,
    learning_rate_too_low,
)
CONSEQUENCES: tuple[Rule, ...] = (
    overfitting,
    loss_spikes,
    class_collapse,
    dead_units,
    validation_too_small,
)
INDEPENDENT: tuple[Rule, ...] = (data_bound,)


def _rises(means: list[float], *, by: float, at_least: float) -> list[int]:
    """The epochs (from 1) whose mean is ``by`` times the lowest before, and ``at_least`` more."""
    found = []
    lowest = math.inf
    for epoch, mean in enumerate(means, start=1):
        if mean > by * lowest and mean - lowest > at_least:
            found.append(epoch)
        lowest = min(lowest, mean) if mean == mean else lowest
    return found


def _falls_by_thirds(values: list[float]) -> bool:
    third = max(1, len(values) // 3)
    first, middle, last = values[:third], values[third:-third], values[-third:]
    return _mean(first) > _mean(middle) > _mean(last)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def chance_reach(rate: float, samples: int) -> float:
    """Half the 95 % interval of a rate (Agresti and Coull, 1998), wide enough at 0 and 1."""
    centre = (rate * samples + 2) / (samples + 4)
    return 1.96 * math.sqrt(centre * (1 - centre) / (samples + 4))


def _scaled(evidence: Evidence, key: str, factor: float) -> Change:
    old = evidence.value(key)
    new = f"{float(old) * factor:.3g}" if isinstance(old, int | float) else "..."
    return Change(key, new, None if old is None else f"{old:g}")


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


def _with_step(evidence: Evidence, step: str) -> str:
    names = [item["type"] for item in evidence.value("transforms") or [] if isinstance(item, Mapping)]
    known = all(len(item) == 1 for item in evidence.value("transforms") or [])
    return f"[{', '.join([*names, step])}]" if known else f"[..., {step}]"


def _non_finite(failure: str | None) -> bool:
    return failure is not None and any(text in failure for text in ("loss is nan", "loss is inf", "not finite"))


def _shortened(text: str) -> str:
    return text.split("; ")[0].removeprefix("failed: ")


def _listed(epochs: list[int]) -> str:
    return ", ".join(map(str, epochs[:6])) + (", ..." if len(epochs) > 6 else "")

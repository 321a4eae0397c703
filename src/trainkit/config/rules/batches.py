"""Rules about what a training batch holds and what is averaged: ``mix``, ``sampler`` and ``average``."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from trainkit.config.rules.review import Review
from trainkit.config.rules.training import length_of
from trainkit.config.schema.base import parse_duration, parse_start


def check(review: Review) -> None:
    _mix(review)
    _sampler(review)
    _average(review)


def _mix(review: Review) -> None:
    training, info = review.config.training, review.dataset
    if training.mix is None:
        return
    name = training.mix.type
    if info.task == "regression":
        why = "the loss of two values in shares is not that of a value between them"
        message = f"{name} mixes classes, and {{0}} has values: {why}; remove it"
        review.add("training.mix", message, info.key("task"))
    elif info.kind == "table" and name != "mixup":
        message = f"{name} cuts boxes out of images, and {{0}} is a table; take mixup, or remove it"
        review.add("training.mix.type", message, "dataset.type")
    elif info.num_categorical:
        message = (
            f"there is no mean of two categories, got {name} with {{0}}, which has columns of categories; remove it"
        )
        review.add("training.mix.type", message, "dataset.type")
    if training.batch_size == 1:
        message = f"a batch of one sample has none to mix it with, got {name} with {{0}}; raise it, or remove mix"
        review.add("training.mix", message, "training.batch_size")
    if training.mix.off_for_last is not None:
        length = length_of(review, training.mix.off_for_last)
        if length is not None and length.epochs >= training.epochs:
            message = (
                f"no batch of the run is mixed: off for the last {length.text} of {{0}}; shorten it, or remove mix"
            )
            review.add("training.mix.off_for_last", message, "training.epochs")


def _sampler(review: Review) -> None:
    training, info = review.config.training, review.dataset
    if training.sampler is None:
        return
    if info.task == "regression":
        message = "balanced draws by classes, and {0} has values; remove it"
        review.add("training.sampler", message, info.key("task"))
    for knob in ("weight", "pos_weight"):
        if getattr(review.config.loss, knob, None) == "balanced":
            message = "rare classes would count twice, in the order and in {0}; remove one of them"
            review.add("training.sampler", message, f"loss.{knob}")
    if not training.shuffle:
        message = "the sampler draws an order for each epoch, got false with {0}; remove one of them"
        review.add("training.shuffle", message, "training.sampler.type")


def _average(review: Review) -> None:
    training = review.config.training
    if training.average is None:
        return
    if training.ema is not None:
        review.add("training.average", "one average of the weights is evaluated, and there is an ema too; remove one")
    start, every = parse_start(training.average.start), length_of(review, training.average.every)
    if isinstance(start, Fraction):
        first = start * training.epochs
        if parse_duration(training.average.every).unit == "epochs":
            first = Fraction(ceil(first))
    else:
        length = length_of(review, training.average.start)
        if length is None:
            return
        first = length.epochs
        if first > training.epochs:
            message = f"no weights are averaged: the start comes after the run, got {length.text} with {{0}}; lower it"
            review.add("training.average.start", message, "training.epochs")
    if every is None:
        return
    if first < training.epochs < first + every.epochs:
        message = (
            f"only the weights of the start would be averaged, got every {every.text} with {{0}} and {{1}}; lower it"
        )
        review.add("training.average.every", message, "training.average.start", "training.epochs")

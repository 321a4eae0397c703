"""The rules about the optimizer, the schedule, the training loop and what is monitored."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainkit.config.help.messages import shown
from trainkit.config.rules import metric_names
from trainkit.config.rules.review import Review
from trainkit.config.schema import optimization as opt
from trainkit.config.schema.base import parse_duration
from trainkit.wording import better, closest


def check(review: Review) -> None:
    """Add every rule that the config breaks."""
    _optimizer(review)
    _scheduler(review)
    _training(review)
    _monitors(review)


def _optimizer(review: Review) -> None:
    optimizer, training = review.config.optimizer, review.config.training
    if isinstance(optimizer, opt.Sgd) and optimizer.nesterov:
        if optimizer.momentum == 0:
            review.add(
                "optimizer.nesterov",
                "Nesterov momentum needs momentum above 0, got {0}; set momentum: 0.9, or nesterov: false",
                "optimizer.momentum",
            )
        if optimizer.dampening != 0:
            review.add(
                "optimizer.nesterov", "Nesterov momentum needs dampening 0, got {0}; remove one", "optimizer.dampening"
            )
    if isinstance(optimizer, opt.Lbfgs):
        why = "lbfgs evaluates the loss several times a step"
        if training.accumulation_steps > 1:
            review.add(
                "training.accumulation_steps",
                f"{why} and takes the batch as a whole, got {training.accumulation_steps} with {{0}}; "
                "set 1, or another optimizer",
                "optimizer.type",
            )
        if training.precision == "fp16":
            review.add(
                "training.precision",
                f"{why}, which the loss scaling of fp16 does not allow, got fp16 with {{0}}; set bf16 or fp32",
                "optimizer.type",
            )
        for key in ("clip_grad_norm", "clip_grad_value"):
            if getattr(training, key) is not None:
                review.add(
                    f"training.{key}",
                    f"{why}: its gradients cannot be clipped, got {{0}}; remove it, or line_search_fn: strong_wolfe",
                    "optimizer.type",
                )


def _length(review: Review, value: int | str) -> tuple[float, str] | None:
    """A duration in epochs where that is known, with how it reads."""
    duration = parse_duration(value)
    if duration.unit == "epochs":
        return duration.value, f"{duration.value} epochs" if duration.value != 1 else "1 epoch"
    steps = steps_per_epoch(review)
    if steps is None:
        return None
    return duration.value / steps, f"{duration.value} steps ({duration.value / steps:.4g} epochs)"


def steps_per_epoch(review: Review) -> int | None:
    """Optimizer steps of an epoch, where the number of samples is known."""
    training, count = review.config.training, review.dataset.num_train
    if count is None:
        return None
    steps = count // training.batch_size if training.drop_last else math.ceil(count / training.batch_size)
    return steps or None


def _scheduler(review: Review) -> None:
    scheduler, epochs = review.config.scheduler, review.config.training.epochs
    run = "training.epochs"
    warmup = _length(review, scheduler.warmup) if scheduler.warmup is not None else None
    if warmup is not None and (warmup[0] > epochs or (warmup[0] == epochs and scheduler.type != "constant")):
        review.add(
            "scheduler.warmup",
            f"the warm-up leaves nothing of the run: {warmup[1]} with {{0}}; shorten it, or train longer",
            run,
        )
        warmup = None
    if isinstance(scheduler, opt.Step):
        _within_run(review, "scheduler.step_size", scheduler.step_size, "the first step comes after the run")
    if isinstance(scheduler, opt.MultiStep):
        _milestones(review, scheduler.milestones)
    if isinstance(scheduler, opt.Cosine) and scheduler.T_max is not None:
        length = _length(review, scheduler.T_max)
        if length is not None and length[0] + (warmup[0] if warmup else 0) > epochs:
            plus = " after {1}" if warmup else ""
            review.add(
                "scheduler.T_max",
                f"the descent is longer than the run, got {length[1]}{plus} with {{0}}; "
                "leave T_max out to fill the run, or train longer",
                run,
                *(["scheduler.warmup"] if warmup else []),
            )
    if isinstance(scheduler, opt.OneCycle):
        _one_cycle(review, scheduler)


def _one_cycle(review: Review, scheduler: opt.OneCycle) -> None:
    if scheduler.cycle_momentum and isinstance(review.config.optimizer, opt.Adagrad | opt.Lbfgs):
        review.add(
            "scheduler.cycle_momentum",
            f"{review.config.optimizer.type} has no momentum to move, got true with {{0}}; set cycle_momentum: false",
            "optimizer.type",
        )
    if scheduler.base_momentum > scheduler.max_momentum:
        review.add(
            "scheduler.base_momentum",
            f"expected at most max_momentum, got {shown(scheduler.base_momentum)} with {{0}}; swap them",
            "scheduler.max_momentum",
        )


def _within_run(review: Review, key: str, value: int | str, what: str) -> None:
    length = _length(review, value)
    if length is not None and length[0] > review.config.training.epochs:
        review.add(key, f"{what}, got {length[1]} with {{0}}; lower it, or train longer", "training.epochs")


def _milestones(review: Review, milestones: Sequence[int | str]) -> None:
    lengths = [_length(review, value) for value in milestones]
    for index, length in enumerate(lengths):
        key = f"scheduler.milestones[{index}]"
        before = lengths[index - 1] if index else None
        if length is not None and before is not None and length[0] <= before[0]:
            message = f"milestones must go up, got {length[1]} after {before[1]}; sort them, each once"
            review.add(key, message)
        _within_run(review, key, milestones[index], "this milestone comes after the run")


def _training(review: Review) -> None:
    training, count = review.config.training, review.dataset.num_train
    size = training.batch_size
    if training.accumulation_steps > size:
        review.add(
            "training.accumulation_steps",
            f"a batch cannot be split into more micro-batches than it has samples, "
            f"got {training.accumulation_steps} with {{0}}; lower one or raise the other",
            "training.batch_size",
        )
    if training.drop_last and count is not None and size > count:
        review.add(
            "training.batch_size",
            f"no batch is left: the training split has {count} samples, got {size} with {{0}}; "
            "lower the batch size, or drop_last: false",
            "training.drop_last",
        )
    if training.precision == "fp16" and review.config.device == "cpu":
        review.add(
            "training.precision", "fp16 needs an accelerator, got fp16 with {0}; set bf16, fp32 or auto", "device"
        )


def _monitors(review: Review) -> None:
    config = review.config
    if config.checkpoint.monitor != "auto":
        _monitor(review, "checkpoint.monitor", config.checkpoint.monitor)
        _mode(review)
    stopping = config.training.early_stopping
    if stopping is not None and stopping.monitor is not None:
        _monitor(review, "training.early_stopping.monitor", stopping.monitor)
    if isinstance(config.scheduler, opt.ReduceOnPlateau) and config.scheduler.monitor is not None:
        _monitor(review, "scheduler.monitor", config.scheduler.monitor)


def _monitor(review: Review, key: str, name: str) -> None:
    facts, dataset = review.dataset, review.config.dataset
    without_val = dataset.val_fraction == 0 and dataset.type != "image_folder"  # a folder may bring its own val/
    known = metric_names.names(facts.task, num_classes=facts.num_classes, validation=not without_val)
    if name in known:
        return
    with_val = metric_names.names(facts.task, num_classes=facts.num_classes, validation=True)
    if name in with_val:
        review.add(
            key,
            f"there is no validation split to measure it on, got {name} with {{0}}; "
            f"hold samples out (val_fraction: 0.1), or take {' or '.join(known)}",
            "dataset.val_fraction",
        )
        return
    everything = metric_names.names(None, num_classes=None, validation=True)
    if name in everything and facts.task is not None:
        why = f"a {facts.task} run" if name != "val_top5_accuracy" else f"a run of {facts.num_classes} classes"
        review.add(key, f"{why} has no such metric, got {name} with {{0}}; it has {', '.join(known)}", "dataset.type")
        return
    near = closest(name, known) or next((other for other in known if other.endswith(f"_{name}")), None)
    if near is None and without_val and (far := closest(name, with_val)):
        near = f"{far}, which needs a val_fraction above 0"
    hint = f"did you mean {near}?" if near else "every name starts with val_ or train_"
    review.add(key, f"no metric has this name: expected one of {', '.join(known)}, got {shown(name)}; {hint}")


def _mode(review: Review) -> None:
    checkpoint = review.config.checkpoint
    everything = metric_names.names(None, num_classes=None, validation=True)
    if checkpoint.mode != "auto" and checkpoint.monitor in everything:
        right = better(checkpoint.monitor)
        if checkpoint.mode != right:
            high = "higher" if right == "max" else "lower"
            review.add(
                "checkpoint.mode",
                f"{checkpoint.monitor} is better when it is {high}, got {checkpoint.mode} with {{0}}; leave mode out",
                "checkpoint.monitor",
            )

"""The rules about the optimizer, the schedule, the training loop and what is monitored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from trainkit.config.help.messages import shown
from trainkit.config.rules.review import Review
from trainkit.config.schema import Config, losses
from trainkit.config.schema import optimization as opt
from trainkit.config.schema.base import parse_duration
from trainkit.plugins import PART
from trainkit.wording import better, closest, counted

_TRAIN_CLASSIFICATION = ("train_loss", "train_accuracy")
_TRAIN_REGRESSION = ("train_loss",)
_VAL_CLASSIFICATION = (
    "val_loss",
    "val_accuracy",
    "val_top5_accuracy",
    "val_precision_macro",
    "val_recall_macro",
    "val_f1_macro",
    "val_balanced_accuracy",
    "val_mcc",
    "val_log_loss",
    "val_roc_auc",
    "val_average_precision",
)
_VAL_REGRESSION = ("val_loss", "val_mae", "val_rmse", "val_r2", "val_quantile_loss")

_OTHER_NAMES = {
    **dict.fromkeys(("auc", "auroc", "rocauc", "roc"), "roc_auc"),
    **dict.fromkeys(("ap", "map", "auprc", "pr_auc", "aucpr"), "average_precision"),
    **dict.fromkeys(("matthews", "matthews_corrcoef"), "mcc"),
    **dict.fromkeys(("pinball", "pinball_loss", "mean_pinball_loss"), "quantile_loss"),
    **dict.fromkeys(("mse", "root_mean_squared_error"), "rmse"),
    **{"nll": "log_loss", "logloss": "log_loss", "recall": "recall_macro", "mean_absolute_error": "mae"},
}
"""What metrics are called elsewhere."""


@dataclass(frozen=True)
class EpochSizes:
    """How the training split is divided: optimizer steps see batches, the model sees their pieces."""

    num_samples: int
    batch_size: int
    accumulation_steps: int
    drop_last: bool

    @property
    def steps_per_epoch(self) -> int:
        """0 where the only batch would be dropped."""
        return self.num_samples // self.batch_size if self.drop_last else -(-self.num_samples // self.batch_size)

    @property
    def last_batch(self) -> int:
        """Samples of the last batch of an epoch."""
        rest = self.num_samples % self.batch_size
        return self.batch_size if rest == 0 or self.drop_last else rest

    @property
    def piece(self) -> int:
        """Samples that the model sees at once, at most."""
        return -(-min(self.batch_size, self.num_samples) // self.accumulation_steps)

    def smallest(self, batch: int) -> int:
        """Samples of the smallest piece that a batch of this size is cut into: the sizes differ by one at most."""
        return max(1, batch // self.accumulation_steps)


def epoch_sizes(config: Config, num_samples: int) -> EpochSizes:
    """How an epoch of this many training samples is cut."""
    spec = config.training
    drop_last = num_samples > spec.batch_size if spec.drop_last == "auto" else spec.drop_last
    return EpochSizes(num_samples, spec.batch_size, spec.accumulation_steps, drop_last)


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
    if not isinstance(optimizer, opt.Lbfgs) and optimizer.weight_decay_schedule == "flat_cos":
        decays = [group.weight_decay for group in optimizer.groups or ()]
        if not any([optimizer.weight_decay, *decays]):
            review.add(
                "optimizer.weight_decay_schedule",
                "there is no weight decay to move, got {0}; raise it, or remove the schedule",
                "optimizer.weight_decay",
            )
    for index, group in enumerate(getattr(optimizer, "groups", None) or ()):
        if group.lr_scale == 1 and group.weight_decay is None:
            review.add(
                f"optimizer.groups[{index}]", "this group changes nothing; give it an lr_scale or a weight_decay"
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


@dataclass(frozen=True)
class Length:
    """A duration whose length is known."""

    epochs: Fraction
    text: str


def length_of(review: Review, value: int | str) -> Length | None:
    """A duration in epochs; None where that takes the number of samples, and this is not known."""
    duration = parse_duration(value)
    if duration.unit == "epochs":
        return Length(Fraction(duration.value), counted(duration.value, "epoch"))
    count = review.dataset.num_train
    steps = 0 if count is None else epoch_sizes(review.config, count).steps_per_epoch
    if steps == 0:
        return None
    epochs = Fraction(duration.value, steps)
    return Length(epochs, f"{duration.value} steps ({float(epochs):.4g} epochs)")


def _scheduler(review: Review) -> None:
    scheduler = review.config.scheduler
    warmup = length_of(review, scheduler.warmup) if scheduler.warmup is not None else None
    if warmup is not None and warmup.epochs >= review.config.training.epochs:
        review.add(
            "scheduler.warmup",
            f"the warm-up leaves nothing of the run: {warmup.text} with {{0}}; shorten it, or train longer",
            "training.epochs",
        )
        warmup = None
    if isinstance(scheduler, opt.Step):
        length = length_of(review, scheduler.step_size)
        _within_run(review, "scheduler.step_size", length, warmup, "the first step comes after the run")
    if isinstance(scheduler, opt.MultiStep):
        _milestones(review, scheduler.milestones, warmup)
    if isinstance(scheduler, opt.Cosine) and scheduler.T_max is not None:
        length = length_of(review, scheduler.T_max)
        what, fix = "the descent is longer than the run", "leave T_max out to fill the run"
        _within_run(review, "scheduler.T_max", length, warmup, what, fix=fix)
    if isinstance(scheduler, opt.CosLog) and scheduler.warmup is not None:
        review.add(
            "scheduler.warmup",
            f"coslog begins at 0 by itself, where a warm-up would stay, got {shown(scheduler.warmup)}; remove it",
        )
    if isinstance(scheduler, opt.OneCycle):
        _one_cycle(review, scheduler)


def _one_cycle(review: Review, scheduler: opt.OneCycle) -> None:
    if scheduler.cycle_momentum and not review.config.optimizer.has_momentum:
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


def _within_run(
    review: Review, key: str, length: Length | None, warmup: Length | None, what: str, *, fix: str = "lower it"
) -> None:
    """The clock of the main schedule starts when the warm-up ends."""
    before = Fraction(0) if warmup is None else warmup.epochs
    if length is None or before + length.epochs <= review.config.training.epochs:
        return
    after = "" if warmup is None else " after {1}"
    others = ["training.epochs"] + ([] if warmup is None else ["scheduler.warmup"])
    review.add(key, f"{what}, got {length.text}{after} with {{0}}; {fix}, or train longer", *others)


def _milestones(review: Review, milestones: Sequence[int | str], warmup: Length | None) -> None:
    lengths = [length_of(review, value) for value in milestones]
    for index, length in enumerate(lengths):
        key = f"scheduler.milestones[{index}]"
        before = lengths[index - 1] if index else None
        if length is not None and before is not None and length.epochs <= before.epochs:
            review.add(key, f"milestones must go up, got {length.text} after {before.text}; sort them, each once")
        _within_run(review, key, length, warmup, "this milestone comes after the run")


def _training(review: Review) -> None:
    training, count = review.config.training, review.dataset.num_train
    size = training.batch_size
    if training.accumulation_steps > size:
        review.add(
            "training.accumulation_steps",
            f"a batch cannot be cut into more pieces than it has samples, "
            f"got {training.accumulation_steps} with {{0}}; lower one or raise the other",
            "training.batch_size",
        )
    if training.drop_last is True and count is not None and size > count:
        review.add(
            "training.batch_size",
            f"no batch is left: the training split has {counted(count, 'sample')}, got {size} with {{0}}; "
            "lower the batch size, or drop_last: false",
            "training.drop_last",
        )
    if training.precision == "fp16" and review.config.device in ("cpu", "mps"):
        why = "fp16 needs a CUDA device: its gradients underflow without loss scaling"
        review.add("training.precision", f"{why}, got {{0}}; use bf16, fp32 or auto", "device")


def metric_names(
    task: Literal["classification", "regression"] | None = None,
    *,
    num_classes: int | None = None,
    validation: bool = True,
    quantile: bool = True,
    own: Sequence[str] = (),
) -> tuple[str, ...]:
    """The metrics of a run, for ``monitor``; all possible ones where the task or the number of classes is unknown.

    Args:
        quantile: the loss is that of a quantile.
        own: those of plug-ins, of the validation.
    """
    names: list[str] = []
    if task != "regression":
        names += (_VAL_CLASSIFICATION if validation else ()) + _TRAIN_CLASSIFICATION
    if task != "classification":
        names += (_VAL_REGRESSION if validation else ()) + _TRAIN_REGRESSION
    if num_classes is not None and num_classes <= 5:
        names = [name for name in names if name != "val_top5_accuracy"]
    if not quantile:
        names = [name for name in names if name != "val_quantile_loss"]
    return tuple(dict.fromkeys([*names, *(own if validation else ())]))


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
    for index, name in enumerate(config.logging.metrics or ()):
        _monitor(review, f"logging.metrics[{index}]", name)


def _monitor(review: Review, key: str, name: str) -> None:
    info = review.dataset
    without_val = info.num_val == 0
    quantile = isinstance(review.config.loss, losses.QuantileLoss)
    own = [name for name, part in review.config.own_metrics.items() if info.task in (None, part.task)]  # type: ignore[attr-defined]
    known = metric_names(
        info.task, num_classes=info.num_classes, validation=not without_val, quantile=quantile, own=own
    )
    if name in known:
        if name in ("val_roc_auc", "val_average_precision") and info.val_classes == 1:
            why = "the validation split has samples of one class only, so there is nothing to rank"
            held = "dataset.split.val" if review.config.dataset.split_type == "column" else "dataset.val_fraction"
            review.add(key, f"{why}, got {name}; hold out more samples ({held}), or take val_loss")
        return
    with_val = metric_names(info.task, num_classes=info.num_classes, quantile=quantile, own=own)
    if name in with_val:
        fraction = review.config.dataset.split_type != "column"
        how = "hold samples out (val_fraction: 0.1)" if fraction else "give rows to it"
        review.add(
            key,
            f"there is no validation split to measure it on, got {name} with {{0}}; {how}, or take "
            f"{' or '.join(known)}",
            "dataset.val_fraction" if fraction else "dataset.split.column",
        )
        return
    if name == "val_quantile_loss" and info.task != "classification":
        review.add(key, f"{name} is measured with loss: quantile only, got {{0}}; take another metric", "loss.type")
        return
    if (part := PART.fullmatch(name)) and part[1] not in {plugin.name for plugin in review.config.plugins}:
        review.add(key, f"{name} comes from a plug-in that is not loaded; add --plugin {part[1]}")
        return
    if name in (*metric_names(), *review.config.own_metrics) and info.task is not None:
        top5 = name == "val_top5_accuracy" and info.task == "classification"
        why = f"a run of {info.num_classes} classes" if top5 else f"a {info.task} run"
        other = info.key("num_classes" if top5 else "task")
        review.add(key, f"{why} has no such metric, got {name} with {{0}}; it has {', '.join(known)}", other)
        return
    near = _near_metric(name, known)
    if near is None and without_val and (far := _near_metric(name, with_val)):
        near = f"{far}, which needs a val_fraction above 0"
    hint = f"did you mean {near}?" if near else "every name starts with val_ or train_"
    review.add(key, f"no metric has this name: expected one of {', '.join(known)}, got {shown(name)}; {hint}")


def _near_metric(name: str, known: Sequence[str]) -> str | None:
    """The metric that was probably meant: the only one that begins so (val_acc), the closest, one without its split."""
    bare = name.removeprefix("val_")
    elsewhere = f"val_{_OTHER_NAMES.get(bare, bare)}"
    if elsewhere in known:
        return elsewhere
    beginning = [full for full in known if full.startswith(name)]
    if len(beginning) == 1:
        return beginning[0]
    return closest(name, known) or next((full for full in known if full.endswith(f"_{name}")), None)


def _mode(review: Review) -> None:
    checkpoint = review.config.checkpoint
    right = better(checkpoint.monitor)
    if checkpoint.monitor in metric_names() and checkpoint.mode not in ("auto", right):
        high = "higher" if right == "max" else "lower"
        review.add(
            "checkpoint.mode",
            f"{checkpoint.monitor} is better when it is {high}, got {checkpoint.mode} with {{0}}; leave mode out",
            "checkpoint.monitor",
        )

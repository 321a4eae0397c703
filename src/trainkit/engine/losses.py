"""The losses of PyTorch, with their normalizers, so that they add up over batches, and the meaning of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trainkit.errors import Problem, ProblemsError, UserError
from trainkit.models import Outputs, mean_of_members

LossName = Literal[
    "cross_entropy", "focal", "nll", "bce", "bce_with_logits", "mse", "l1", "smooth_l1", "huber", "quantile"
]
Task = Literal["classification", "regression"]
Expected = Literal["logits", "log_probabilities", "probabilities", "values"]

EXPECTS: dict[LossName, Expected] = {
    "cross_entropy": "logits",
    "focal": "logits",
    "nll": "log_probabilities",
    "bce": "probabilities",
    "bce_with_logits": "logits",
    "mse": "values",
    "l1": "values",
    "smooth_l1": "values",
    "huber": "values",
    "quantile": "values",
}
"""The outputs of the model that each loss takes."""


@dataclass(frozen=True)
class Loss:
    """A loss over outputs and the targets as the data have them.

    Outputs are (N, K) for K classes, (N, 1) for bce and bce_with_logits, (N, T) for T regression targets; targets are
    int64 (N,) for classes and float32 (N, T) for regression. Non-finite values pass through as PyTorch has it.

    In training, a model of several members has outputs (N, k, ...): ``mean`` and ``sum`` are the mean over the members.
    """

    name: LossName
    expects: Expected
    compute: Callable[..., Tensor]
    """PyTorch's function: (outputs, targets as it takes them, reduction=...) to the loss."""
    class_weight: Tensor | None = None
    """float32 (K,) where PyTorch's mean divides by the sum of the targets' weights."""
    unit: float = 1.0
    """A loss of standardized targets times this is the loss in the targets' own units."""
    quantile: float | None = None
    """The share of targets that lies below the value to predict; None for other losses."""
    of_samples: bool = False
    """Whether a sample counts once in the mean, however many targets it has."""

    @property
    def is_classification(self) -> bool:
        return self.expects != "values"

    @property
    def is_binary(self) -> bool:
        """Whether one output stands for two classes: the score of the second."""
        return self.name in ("bce", "bce_with_logits")

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss (), bitwise that of ``torch.nn``'s module with ``reduction="mean"``."""
        outputs, targets, _ = _each_member(outputs, targets)
        return self.compute(outputs, self._prepare(outputs, targets), reduction="mean")

    def sum(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """The sum () that divided by ``normalizer`` is the mean: over batches, add both up and divide once.

        Args:
            weights: of the samples: float32 (N,).
        """
        count = len(targets)
        outputs, targets, members = _each_member(outputs, targets)
        if weights is None:
            total = self.compute(outputs, self._prepare(outputs, targets), reduction="sum")
        else:
            each = self.compute(outputs, self._prepare(outputs, targets), reduction="none")
            total = (each.reshape(count, -1).sum(dim=1) * weights).sum()
        return total if members == 1 else total / members

    def of_each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample (N,); together they are ``sum``."""
        return (
            self.compute(outputs, self._prepare(outputs, targets), reduction="none")
            .reshape(len(targets), -1)
            .sum(dim=1)
        )

    def weight_of_each(self, targets: Tensor) -> Tensor:
        """The share of each sample in ``normalizer``: (N,)."""
        if self.class_weight is not None:
            return self.class_weight[targets]
        count = 1 if self.of_samples else targets[:1].numel()
        return torch.full((len(targets),), count, dtype=torch.float32, device=targets.device)

    def normalizer(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | float:
        """The denominator of PyTorch's mean: elements, or the sum () of the targets' class weights, smoothed or not.

        With ``weights`` of the samples, each counts as often as its weight says. Never 0 then: samples without weight
        have the loss 0.
        """
        if weights is not None:
            return (self.weight_of_each(targets) * weights).sum().clamp(min=torch.finfo(torch.float32).tiny)
        if self.class_weight is not None:
            return self.class_weight[targets].sum()
        return float(len(targets) if self.of_samples else targets.numel())

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(N, K) probabilities of the classes; (N, 2) for a model with one output."""
        match self.name:
            case "cross_entropy" | "focal":
                return outputs.softmax(dim=1)
            case "nll":
                return outputs.exp()
            case "bce":
                return torch.cat([1 - outputs, outputs], dim=1)
            case "bce_with_logits":
                second = outputs.sigmoid()
                return torch.cat([1 - second, second], dim=1)
            case _:
                raise AssertionError(f"{self.name} has no classes")

    def predictions(self, outputs: Tensor) -> Tensor:
        """The input of metrics: a score for each class (N, K), or the values of a regression (N, T)."""
        outputs = self.of_all_members(outputs)
        return self.probabilities(outputs) if self.is_binary else outputs

    def of_all_members(self, outputs: Tensor) -> Tensor:
        """The outputs (N, ...) that stand for the mean of a model's members; those of another model as they are."""
        return outputs if outputs.dim() < 3 else mean_of_members(outputs, outputs_of(self.name))

    def probabilities_of(self, predictions: Tensor) -> Tensor:
        """(N, K) probabilities of the classes, of what ``predictions`` returns."""
        return predictions if self.is_binary else self.probabilities(predictions)

    def predicted_classes(self, outputs: Tensor) -> Tensor:
        """int64 (N,): the class of the highest score, the first of equals; of two, the second above probability 0.5."""
        return self.predictions(outputs).argmax(dim=1)

    def _prepare(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.is_binary:
            targets = targets.view(-1, 1).to(outputs.dtype)
        # PyTorch would broadcast (N, 1) against (N,) to N x N losses.
        assert not (self.is_binary or self.expects == "values") or outputs.shape == targets.shape, (
            f"outputs {tuple(outputs.shape)} for targets {tuple(targets.shape)}"
        )
        return targets


def _each_member(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, int]:
    """Outputs (N, k, ...) of k members as N * k samples with their targets, and k."""
    if outputs.dim() < 3:
        return outputs, targets, 1
    members = outputs.shape[1]
    return outputs.flatten(0, 1), targets.repeat_interleave(members, dim=0), members


def outputs_of(name: LossName) -> Outputs:
    """What a mean over the members of a model is taken of, for this loss."""
    if EXPECTS[name] == "values":
        return "values"
    return "logit" if name == "bce_with_logits" else "logits"


def auto_loss(task: Task) -> LossName:
    """The loss of a task when the user names none."""
    return "cross_entropy" if task == "classification" else "mse"


def output_size(name: LossName, *, task: Task, num_classes: int = 0, num_targets: int = 0) -> int:
    """How many outputs a sample the model must have for this loss on this data.

    Raises:
        ValueError: the loss is not for this task, or takes two classes and the data have more.
    """
    if (EXPECTS[name] != "values") != (task == "classification"):
        raise ValueError(f"{name} is not for {task}")
    if task == "regression":
        return num_targets
    if name in ("bce", "bce_with_logits"):
        if num_classes != 2:
            raise ValueError(f"{name} is for two classes, got {num_classes}")
        return 1
    return num_classes


def build_loss(
    name: LossName,
    *,
    device: torch.device | str = "cpu",
    class_counts: Sequence[int] = (),
    class_names: Sequence[str] = (),
    label_smoothing: float = 0.0,
    weight: Sequence[float] | Literal["balanced"] | None = None,
    pos_weight: float | Literal["balanced"] | None = None,
    beta: float = 1.0,
    delta: float = 1.0,
    quantile: float = 0.5,
    gamma: float = 2.0,
    target_std: Sequence[float] = (),
) -> Loss:
    """A loss by its name, with PyTorch's arguments: label_smoothing and weight for cross_entropy, weight for nll,
    pos_weight for bce_with_logits, beta for smooth_l1, delta for huber; ``pinball`` with its quantile, and ``focal``
    with gamma and the arguments of cross_entropy.

    ``class_counts`` are the training samples of each class; ``balanced`` needs them: n / (K * count) as scikit-learn's
    ``compute_class_weight``, and for pos_weight the count of the first class / count of the second.

    ``target_std`` are the standard deviations by which the targets were divided. Where all are equal, the loss has a
    unit, and beta and delta are in the targets' own units; else all of these are those of the standardized targets.

    Raises:
        ProblemsError: ``balanced``, and a class without training samples.
        ValueError: weights that do not fit the classes.
    """
    compute: Callable[..., Tensor]
    class_weight: Tensor | None = None
    std = target_std[0] if len(set(target_std)) == 1 else 1.0
    unit = 1.0
    if name in ("cross_entropy", "focal", "nll"):
        values = _class_weights(weight, class_counts, class_names)
        class_weight = None if values is None else torch.tensor(values, dtype=torch.float32, device=device)
    match name:
        case "cross_entropy":
            compute = partial(F.cross_entropy, weight=class_weight, label_smoothing=label_smoothing)
        case "focal":
            compute = partial(focal, gamma=gamma, weight=class_weight, label_smoothing=label_smoothing)
        case "nll":
            compute = partial(F.nll_loss, weight=class_weight)
        case "bce":
            compute = F.binary_cross_entropy
        case "bce_with_logits":
            value = _positive_weight(pos_weight, class_counts, class_names)
            positive = None if value is None else torch.tensor(value, dtype=torch.float32, device=device)
            compute = partial(F.binary_cross_entropy_with_logits, pos_weight=positive)
        case "mse":
            compute, unit = F.mse_loss, std**2
        case "l1":
            compute, unit = F.l1_loss, std
        case "smooth_l1":
            compute, unit = partial(F.smooth_l1_loss, beta=beta / std), std
        case "huber":
            compute, unit = partial(F.huber_loss, delta=delta / std), std**2
        case "quantile":
            compute, unit = partial(pinball, quantile=quantile), std
    return Loss(name, EXPECTS[name], compute, class_weight, unit, quantile if name == "quantile" else None)


def focal(
    outputs: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """``-(1 - p)^gamma log p`` of the target's probability p (Lin et al., 2017): cross-entropy, less of it for samples
    that are known well. ``weight`` (the paper's alpha) and ``label_smoothing`` are those of ``F.cross_entropy``, and so
    is what the mean divides by.

    Two classes have two outputs, whose difference is the output of torchvision's ``sigmoid_focal_loss``.
    """
    log_p = outputs.log_softmax(dim=1)
    rest = -torch.expm1(log_p)
    # At 0 the derivative of a power below 1 is infinite, which times the loss of 0 would be NaN.
    losses = -(rest.clamp(min=torch.finfo(rest.dtype).tiny) ** gamma) * log_p
    if weight is not None:
        losses = losses * weight
    each = losses.gather(1, targets[:, None])[:, 0]
    if label_smoothing:
        each = (1 - label_smoothing) * each + label_smoothing * losses.mean(dim=1)
    if reduction == "mean":
        return each.sum() / (len(targets) if weight is None else weight[targets].sum())
    return each.sum() if reduction == "sum" else each


def build_own_loss(function: Callable[[Tensor, Tensor], Tensor], *, outputs_as: LossName, name: str) -> Loss:
    """A loss of a plug-in.

    Args:
        function: (outputs, targets) to the loss of each sample (N,).
        outputs_as: the loss of trainkit's whose outputs and targets it takes.
        name: for messages.
    """

    def compute(outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        losses = function(outputs, targets)
        if losses.shape != targets.shape[:1]:
            shape = tuple(losses.shape)
            raise UserError(
                f"{name}: its function has to return the loss of each sample ({len(targets)},), got {shape}"
            )
        return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses

    return Loss(outputs_as, EXPECTS[outputs_as], compute, of_samples=True)


def pinball(outputs: Tensor, targets: Tensor, *, quantile: float, reduction: str = "mean") -> Tensor:
    """The loss whose least value has this share of the targets below the outputs (Koenker and Bassett, 1978).

    ``quantile`` times what a target lies above its output, or ``1 - quantile`` times what it lies below: as
    scikit-learn's ``mean_pinball_loss``.
    """
    errors = targets - outputs
    losses = torch.maximum(quantile * errors, (quantile - 1) * errors)
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def _class_weights(
    weight: Sequence[float] | Literal["balanced"] | None, counts: Sequence[int], names: Sequence[str]
) -> list[float] | None:
    if weight is None:
        return None
    if weight == "balanced":
        _need_every_class(counts, names, key="loss.weight")
        return balanced_weight(counts)
    values = [float(value) for value in weight]
    if counts and len(values) != len(counts):
        raise ValueError(f"one weight for each of the {len(counts)} classes, got {len(values)}")
    if not sum(values) > 0:
        raise ValueError(f"at least one weight above 0, got {values}")
    return values


def _positive_weight(
    pos_weight: float | Literal["balanced"] | None, counts: Sequence[int], names: Sequence[str]
) -> float | None:
    if pos_weight != "balanced":
        return pos_weight
    _need_every_class(counts, names, key="loss.pos_weight")
    return balanced_pos_weight(counts)


def balanced_weight(counts: Sequence[int]) -> list[float]:
    """One weight a class, n / (K * count): as scikit-learn's ``compute_class_weight``."""
    return [sum(counts) / (len(counts) * count) for count in counts]


def balanced_pos_weight(counts: Sequence[int]) -> float:
    """The weight of the second of two classes: the count of the first / its own."""
    return counts[0] / counts[1]


def _need_every_class(counts: Sequence[int], names: Sequence[str], *, key: str) -> None:
    empty = [names[i] if names else str(i) for i, count in enumerate(counts) if count == 0]
    if not counts or empty:
        missing = f"class {', '.join(empty)} has none" if empty else "their counts are not known"
        message = f"balanced needs training samples of every class, but {missing}; give the weights as numbers"
        raise ProblemsError([Problem(message, key)])

"""Rules between ``dataset:``, ``model:`` and ``loss:``: the loss fits the task, the output fits the loss."""

from __future__ import annotations

import math
from typing import Any

from trainkit.config.help.messages import shown
from trainkit.config.rules.review import Review
from trainkit.config.rules.training import epoch_sizes
from trainkit.config.schema import model as schema
from trainkit.config.schema.base import is_own
from trainkit.config.schema.losses import OUTPUTS_AS
from trainkit.config.schema.presets import TORCHVISION
from trainkit.config.schema.pretrained import WEIGHT_FILES, Pretrained, Torchvision, weights_file
from trainkit.wording import closest, counted, listed

_CLASSIFICATION = ("cross_entropy", "focal", "nll", "bce", "bce_with_logits")
_NEEDS = {  # loss: the output activation that it needs
    "cross_entropy": "none",
    "focal": "none",
    "bce_with_logits": "none",
    "nll": "log_softmax",
    "bce": "sigmoid",
}
_WHY = {
    "cross_entropy": "cross_entropy applies log_softmax itself",
    "focal": "focal applies log_softmax itself",
    "bce_with_logits": "bce_with_logits applies the sigmoid itself",
    "nll": "nll takes log-probabilities",
    "bce": "bce takes a probability",
}
_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_KEEPS_SHAPE = (
    "ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Sigmoid", "Tanh", "Dropout", "Softmax", "LogSoftmax",
)  # fmt: skip
NUM_PUBLISHED = 1000
"""Classes of the published weights of torchvision."""
_ON_IMAGES = ("Conv2d", "BatchNorm2d", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "Dropout2d")


def check(review: Review) -> None:
    if _loss_fits_task(review):
        _loss_fits_classes(review)
        _output_fits_loss(review)
    _dropout_schedule(review)
    _batch_norm(review)
    _group_norm(review)
    _tables(review)
    _pretrained(review)


def _loss_name(review: Review) -> str | None:
    """The loss, with ``auto`` resolved (None where that takes the data), or one that takes the same outputs."""
    loss = review.config.loss
    if is_own(loss):
        return OUTPUTS_AS[loss.outputs]  # type: ignore[union-attr]
    if loss.type != "auto":
        return loss.type
    return {"classification": "cross_entropy", "regression": "mse", None: None}[review.dataset.task]


def _loss_fits_task(review: Review) -> bool:
    name, task = review.config.loss.type, review.dataset.task
    dataset = review.dataset.key("task")
    if task == "regression" and name != "auto" and _loss_name(review) in _CLASSIFICATION:
        review.add(
            "loss.type",
            f"{name} is for classes, and {{0}} has values to predict; use mse, l1, smooth_l1, huber or quantile",
            dataset,
        )
        return False
    if task == "classification" and name != "auto" and _loss_name(review) not in _CLASSIFICATION:
        use = "cross_entropy, or bce_with_logits" if review.dataset.num_classes == 2 else "cross_entropy"
        review.add("loss.type", f"{name} is for values to predict, and {{0}} has classes; use {use}", dataset)
        return False
    return True


def _loss_fits_classes(review: Review) -> None:
    loss, classes = review.config.loss, review.dataset.num_classes
    given = getattr(loss, "weight", None)
    weight = given if isinstance(given, list) else None
    if weight is not None and not any(weight):
        review.add("loss.weight", f"at least one weight must be above 0, got {shown(weight)}")
    if classes is None:
        return
    dataset = review.dataset.key("num_classes")
    if _loss_name(review) in ("bce", "bce_with_logits") and classes != 2:
        review.add("loss.type", f"{loss.type} is for two classes, and {{0}} has {classes}; use cross_entropy", dataset)
    if weight is not None and len(weight) != classes:
        review.add(
            "loss.weight",
            f"expected one weight for each of the {classes} classes, got {len(weight)} with {{0}}; or weight: balanced",
            dataset,
        )


def _output_of(model: Any) -> tuple[str, str, str] | None:
    """The activation of the output, its key, and how the config writes it; None where a plug-in knows it."""
    if is_own(model):
        return None
    if isinstance(model, schema.TabularMlp | Pretrained):
        return "none", "loss.type", f"the raw outputs of {_kind(model)}"
    if not isinstance(model, schema.Sequential):
        return model.output, "model.output", f"output: {model.output}"
    for index in range(len(model.layers) - 1, -1, -1):
        name = model.layers[index].type
        if is_own(model.layers[index]):
            return None
        if name in _ACTIVATIONS:
            return _ACTIVATIONS[name], f"model.layers[{index}].type", name
        if name not in ("Dropout", "Flatten"):
            break
    return "none", f"model.layers[{len(model.layers) - 1}].type", model.layers[-1].type


def _dropout_schedule(review: Review) -> None:
    model = review.config.model
    match model:
        case schema.Mlp():
            shares: list[float | None] = [model.dropout]
        case schema.Cnn():
            shares = [model.dropout, model.head_dropout, *(block.dropout for block in model.blocks)]
        case schema.Sequential():
            dropouts = (schema.DropoutLayer, schema.Dropout2dLayer)
            shares = [layer.p for _, layer in model.torch_layers() if isinstance(layer, dropouts)]
        case _:
            return
    if model.dropout_schedule == "flat_cos" and not any(shares):
        review.add("model.dropout_schedule", "there is no dropout to move; add some, or remove the schedule")


def _output_fits_loss(review: Review) -> None:
    loss = _loss_name(review)
    if loss is None:
        return
    found = _output_of(review.config.model)
    if found is None:
        return
    output, key, written = found
    if loss not in _NEEDS:
        if output in ("softmax", "log_softmax"):
            review.add(key, f"{output} makes class scores, and {{0}} compares values; remove it", "loss.type")
        return
    needed = _NEEDS[loss]
    if output == needed:
        return
    sequential = isinstance(review.config.model, schema.Sequential)
    if isinstance(review.config.model, schema.TabularMlp | Pretrained):
        instead = {"nll": "cross_entropy", "bce": "bce_with_logits"}[loss]
        review.add(key, f"{_WHY[loss]}: got {written}; use loss: {instead}", "model.type")
        return
    layer = {"log_softmax": "LogSoftmax", "sigmoid": "Sigmoid"}.get(needed, "")
    raw = {"nll": "cross_entropy", "bce": "bce_with_logits"}.get(loss)
    if needed == "none":
        fix = "remove the layer" if sequential else "set output: none"
        other = {"log_softmax": "nll", "sigmoid": "bce"}.get(output)
        fix += f", or use loss: {other}" if other and not (other == "bce" and review.dataset.num_classes != 2) else ""
        review.add(key, f"{_WHY[loss]}: got {written} before {{0}}; {fix}", "loss.type")
        return
    fix = f"add a {layer} layer at the end" if sequential else f"set output: {needed}"
    if output != "none":
        fix = f"make it {layer}" if sequential else fix
    review.add(key, f"{_WHY[loss]}: got {written} before {{0}}; {fix}, or use loss: {raw}", "loss.type")


def _batch_norm(review: Review) -> None:
    model, training = review.config.model, review.config.training
    keys = []
    if isinstance(model, schema.Mlp) and model.norm == "batch" and model.hidden_sizes:
        keys.append("model.norm")
    if isinstance(model, schema.Sequential):
        keys += [f"{key}.type" for key, layer in model.torch_layers() if layer.type == "BatchNorm1d"]
    if not keys:
        return
    other = "norm: layer" if keys[0] == "model.norm" else "LayerNorm"
    count = review.dataset.num_train
    sizes = epoch_sizes(review.config, training.batch_size if count is None else count)
    others = ["training.batch_size"] + ["training.accumulation_steps"] * (training.accumulation_steps > 1)
    see = " and ".join(f"{{{i}}}" for i in range(len(others)))
    if (count is None or count >= training.batch_size) and sizes.smallest(training.batch_size) == 1:
        message = f"batch norm needs two samples or more at a time, got one with {see}; raise it, or use {other}"
        review.add(keys[0], message, *others)
    elif count is not None and sizes.smallest(sizes.last_batch) == 1:
        one = "one" if training.accumulation_steps == 1 else "a piece of one"
        review.add(
            keys[0],
            f"batch norm needs two samples or more at a time, and the last batch of an epoch would have {one}: the "
            f"training split has {counted(count, 'sample')}, with {see}; set drop_last: true, or another batch size",
            *others,
        )


def _group_norm(review: Review) -> None:
    model = review.config.model
    if not isinstance(model, schema.Cnn):
        return
    normalized = [i for i, block in enumerate(model.blocks) if (block.norm or model.norm) == "group"]
    common = math.gcd(model.norm_groups, *(model.blocks[i].channels for i in normalized))
    for i in normalized:
        if model.blocks[i].channels % model.norm_groups:
            message = f"norm: group takes channels that {{0}} divides, got {model.blocks[i].channels}; "
            message += f"set norm_groups to {common}" if common > 1 else "choose other channels"
            review.add(f"model.blocks[{i}].channels", message, "model.norm_groups")


def _tables(review: Review) -> None:
    """Layers that need images, and the number of features followed through the linear layers of a table's model."""
    model, info = review.config.model, review.dataset
    if info.kind == "table" and isinstance(model, schema.Cnn | Pretrained):
        message = f"{_kind(model)} works on images, and {{0}} is a table; use tabular_mlp, mlp or sequential"
        review.add("model.type", message, "dataset.type")
    if info.kind == "image" and isinstance(model, schema.TabularMlp):
        review.add("model.type", "tabular_mlp works on tables, and {0} has images; use cnn or mlp", "dataset.type")
    if not isinstance(model, schema.Sequential):
        return
    if info.kind == "table":
        for key, layer in model.torch_layers():
            if layer.type in _ON_IMAGES:
                review.add(
                    f"{key}.type", f"{layer.type} works on images, and {{0}} is a table; remove it", "dataset.type"
                )
                return
        _features(review, model.layers)
    _last_linear(review, model.layers)


def _kind(model: Any) -> str:
    """What messages call the model."""
    return model.name if isinstance(model, Pretrained) else str(model.type)


def _pretrained(review: Review) -> None:
    """The weights have a known name, or are a file; a head that is kept has as many outputs as the data need."""
    model, info = review.config.model, review.dataset
    if not isinstance(model, Pretrained):
        return
    if isinstance(model, Torchvision) and model.weights not in ("default", "none") and weights_file(model) is None:
        known = ["default", "none", *TORCHVISION[model.name]]
        if model.weights not in known:
            near = closest(model.weights, known)
            hint = f"did you mean {near}?" if near else f"a file ends in {listed(WEIGHT_FILES, quoted=False)}"
            expected = listed(known, quoted=False)
            message = f"expected {expected} for {model.name}, or a file, got {shown(model.weights)}; {hint}"
            review.add("model.weights", message)
    if model.head != "keep":
        return
    if info.task == "regression":
        review.add(
            "model.head",
            "the layer that is kept has classes, and {0} has values to predict; remove it",
            info.key("task"),
        )
    elif isinstance(model, Torchvision) and info.num_classes not in (None, NUM_PUBLISHED):
        message = f"the layer that is kept has {NUM_PUBLISHED} classes, and {{0}} has {info.num_classes}; remove it"
        review.add("model.head", message, info.key("num_classes"))


_TAKES = {
    "Linear": "in_features",
    "BatchNorm1d": "num_features",
    "LayerNorm": "normalized_shape",
    "GroupNorm": "num_channels",
}


def _features(review: Review, layers: list[Any]) -> None:
    """Up to the first residual part or layer of a plug-in: shapes from there on are found when the model is built."""
    known = review.dataset.num_features
    known_from = review.dataset.key("num_features")
    for index, layer in enumerate(layers):
        if layer.type == "residual" or is_own(layer):
            return
        key = f"model.layers[{index}]"
        name = _TAKES.get(layer.type)
        if name is not None:
            given = getattr(layer, name)
            if given is not None and known is not None and given != known:
                review.add(
                    f"{key}.{name}",
                    f"the layer gets {counted(known, 'feature')}, got {given} with {{0}}; leave {name} out, it is "
                    "inferred",
                    known_from,
                )
                return
        if layer.type == "Linear":
            known, known_from = layer.out_features, f"{key}.out_features"
            if known is None:
                return


def _last_linear(review: Review, layers: list[Any]) -> None:
    """The outputs of the last linear layer match the data and the loss."""
    loss, info = _loss_name(review), review.dataset
    index = len(layers) - 1
    while index >= 0 and layers[index].type in _KEEPS_SHAPE:
        index -= 1
    if loss is None or index < 0 or layers[index].type != "Linear" or layers[index].out_features is None:
        return
    others = ["loss.type"]
    if loss in ("bce", "bce_with_logits"):
        needed: int | None = 1
        why = "{0} takes one output"
    elif loss in _CLASSIFICATION:
        needed, why = info.num_classes, f"{{0}} has {info.num_classes} classes"
        others = [info.key("num_classes")]
    else:
        needed, why = info.num_targets, f"{{0}} has {info.num_targets} value{'s' * (info.num_targets != 1)} to predict"
        others = [info.key("num_targets")]
    given = layers[index].out_features
    if needed is not None and given != needed:
        key = f"model.layers[{index}].out_features"
        review.add(key, f"{why}, got {shown(given)}; set {needed}, or leave it out: it is inferred", *others)

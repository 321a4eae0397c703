"""Networks of torchvision and timm by name, with first weights, and a head for the data as their last layer."""

from __future__ import annotations

import importlib.util
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trainkit.models.backbone import head_prefixes
from trainkit.models.layer_shapes import fail
from trainkit.wording import closest


@dataclass(frozen=True)
class HeadSpec:
    """What replaces the last layer. ``dropout`` None: as much as the network itself has before its last layer."""

    dropout: float | None = None
    hidden_sizes: Sequence[int] = ()


class OutputLinear(nn.Linear):
    """``torch.nn.Linear``, in fp32 also under autocast: in bf16 the outputs would have 8 bits (see ``Network``)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, F) to (N, K)."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            pass  # a branch of its own: TorchScript would compile an `and` whole
        elif not input.is_meta and torch.is_autocast_enabled(input.device.type):
            return self._forward_in_autocast(input)
        return F.linear(input, self.weight, self.bias)

    @torch.jit.unused
    def _forward_in_autocast(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight, self.bias)


def build_torchvision(
    name: str,
    num_outputs: int,
    *,
    input_shape: Sequence[int],
    head: HeadSpec | None = None,
    side: int | None = None,
    scaled_inputs: bool = False,
) -> nn.Module:
    """A classifier of torchvision: (N, 3, H, W) to (N, num_outputs), without the auxiliary outputs that some have.

    Its attributes: ``head_prefixes``, the names of the modules that form the head; ``config_keys``, as ``Network``.

    Args:
        name: as in ``torchvision.models``.
        head: replaces the last layer; None keeps the network's own, of 1000 classes.
        side: of a vit: the length of the sides of images that its weights are for; None: any length.
        scaled_inputs: for googlenet and inception_v3: inputs are scaled as their published weights want them.

    Raises:
        ProblemsError: the network does not take inputs of this shape.
    """
    from torchvision import models

    from trainkit.models.torchvision_classes import without_extras

    if len(input_shape) != 3:
        fail(f"{name} takes images (N, 3, H, W), but a sample of this data set is {tuple(input_shape)}", "model.type")
    height, width = input_shape[1:]
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "transform_input": scaled_inputs, "init_weights": True}
    elif name.startswith("vit"):
        if height != width:
            fail(f"{name} takes square images, got {height} x {width}; resize or crop them", "transforms")
        _check_side(name, input_shape, side)
        options = {"image_size": height}
    elif name == "maxvit_t":
        options = {"input_size": (height, width)}
    with _building(name, input_shape), _TablesOnCpu():
        model = without_extras(models.get_model(name, weights=None, **options))
    last = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    return _with_head(model, last, num_outputs, head)


def build_timm(
    name: str,
    num_outputs: int,
    *,
    input_shape: Sequence[int],
    head: HeadSpec | None = None,
    side_of_weights: bool = False,
) -> nn.Module:
    """A network of timm: (N, 3, H, W) to (N, num_outputs); attributes as ``build_torchvision`` has it.

    Args:
        name: as in ``timm.list_models()``; it may end in the tag of its weights.
        head: replaces the last layer; None keeps the network's own.
        side_of_weights: a network of one size has to get images of the size that its published weights are for.

    Raises:
        ProblemsError: timm is not installed, or has no such network, or it does not take inputs of this shape.
    """
    if importlib.util.find_spec("timm") is None:
        fail("it needs the timm package, which is not installed; pip install timm", "model.type")
    import timm

    if not timm.is_model(name):
        near = closest(name, timm.list_models())
        hint = f"did you mean {near}?" if near else "timm.list_models() has them all"
        fail(f"timm {timm.__version__} has no network of this name, got {name!r}; {hint}", "model.name")
    if len(input_shape) != 3:
        fail(f"{name} takes images (N, 3, H, W), but a sample of this data set is {tuple(input_shape)}", "model.type")
    options: dict[str, Any] = {} if head is None else {"num_classes": num_outputs}
    if head is not None and head.dropout is not None:
        options["drop_rate"] = head.dropout
    about = timm.get_pretrained_cfg(name)
    if about is not None and about.fixed_input_size:
        _check_side(name, input_shape, about.input_size[1] if side_of_weights else None)
        options["img_size"] = tuple(input_shape[1:])
    with _building(name, input_shape), _TablesOnCpu():
        model: nn.Module = timm.create_model(name, pretrained=False, **options)
    classifier: Any = model.default_cfg["classifier"]  # type: ignore[index]
    prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    if head is not None and head.hidden_sizes:
        last = model.get_submodule(prefixes[0])
        if len(prefixes) > 1 or not isinstance(last, nn.Linear):
            fail(
                f"the last layer of {name} is not one linear layer, so none can stand before it",
                "model.head.hidden_sizes",
            )
        share = head.dropout or 0.0
        model.set_submodule(prefixes[0], _make_head(last.in_features, num_outputs, head.hidden_sizes, share, True))
    for prefix in prefixes:
        layer = model.get_submodule(prefix)
        if head is not None and isinstance(layer, nn.Linear):
            # As any new layer: timm draws the last one of its EfficientNets for 1000 classes, ten times larger for ten.
            layer.reset_parameters()
        _compute_in_fp32(layer)
    return _with_names(model, prefixes)


@cache
def is_timm_convolutional(name: str) -> bool:
    """Whether a network of timm is made of convolutions: with one for four linear layers or fewer."""
    import timm

    with torch.device("meta"), _TablesOnCpu():
        model = timm.create_model(name, pretrained=False)
    linear, convolutions = (sum(isinstance(m, kind) for m in model.modules()) for kind in (nn.Linear, nn.Conv2d))
    return 4 * convolutions >= linear


def _check_side(name: str, input_shape: Sequence[int], side: int | None) -> None:
    height, width = input_shape[1:]
    if side is not None and (height, width) != (side, side):
        fail(
            f"the weights of {name} are for images of {side} x {side}, got {height} x {width}; resize or crop them, as "
            "transforms: auto does",
            "transforms",
        )


@contextmanager
def _building(name: str, input_shape: Sequence[int]) -> Iterator[None]:
    """Constructors refuse sizes in their own words; the problem names the size that the images have."""
    try:
        yield
    except (ValueError, AssertionError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        height, width = input_shape[1:]
        fail(f"{name} does not take images of {height} x {width}: {reason}; resize or crop them", "transforms")


class _TablesOnCpu(TorchFunctionMode):
    """Compute on the CPU what constructors only read the values of, where modules are made on the meta device.

    The widths of a regnet's stages come out of such tensors.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.arange, torch.tensor, torch.linspace):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def head_names(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of the tensors' names that belong to the head of a network."""
    prefixes = tuple(f"{prefix}." for prefix in head_prefixes(model))
    return {name for name in names if name.startswith(prefixes)}


_OLD_NAMES = (
    (re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"^(.*\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"^(.*\.mlp)\.linear_2\."), r"\1.3."),
)
"""Names in published files of densenets and vits, and what the layers are called since."""
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def current_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights by the names that the layers have today, without those of auxiliary outputs."""
    named = {}
    for name, tensor in weights.items():
        for old, new in _OLD_NAMES:
            name = old.sub(new, name)
        if not name.startswith(_AUXILIARY):
            named[name] = tensor
    return named


def _with_head(model: nn.Module, last: str, num_outputs: int, head: HeadSpec | None) -> nn.Module:
    """The model with a head in place of its last layer, a Linear or a convolution, or the same where that is kept.

    Args:
        last: the layer's name.
    """
    holder_name, _, child = last.rpartition(".")
    holder: Any = model.get_submodule(holder_name)
    layer: Any = model.get_submodule(last)
    head_name = last
    if head is None:
        _compute_in_fp32(layer)
    elif isinstance(layer, nn.Linear):
        own = _dropout_before(model, holder, child)
        if own is not None and head.dropout is not None:
            own.p = head.dropout
        share = (head.dropout if head.dropout is not None else own.p if own is not None else 0.0) or 0.0
        setattr(holder, child, _make_head(layer.in_features, num_outputs, head.hidden_sizes, share, own is not None))
    else:  # squeezenet: a convolution, a ReLU and the mean, of which the ReLU would cut off negative outputs
        share = 0.5 if head.dropout is None else head.dropout
        layers = _make_head(layer.in_channels, num_outputs, head.hidden_sizes, share, False)
        front = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=layers)
        head_name = holder_name
        model.set_submodule(holder_name, nn.Sequential(front))
    return _with_names(model, (head_name,))


def _with_names(model: nn.Module, head_prefixes: tuple[str, ...]) -> nn.Module:
    model.head_prefixes = head_prefixes  # type: ignore[assignment]
    model.config_keys = dict.fromkeys(head_prefixes, "model.head")  # type: ignore[assignment]
    return model


def _compute_in_fp32(layer: nn.Module) -> None:
    """Let a Linear that makes the outputs compute in fp32 under autocast; others stay as they are."""
    if isinstance(layer, nn.Linear):
        layer.__class__ = OutputLinear


def _make_head(features: int, num_outputs: int, hidden: Sequence[int], dropout: float, has_dropout: bool) -> nn.Module:
    """Layers by name, or the output layer alone, whose weights then have the names that the network gives them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for position, size in enumerate([*hidden, num_outputs], start=1):
        if dropout > 0 and not (has_dropout and position == 1):
            layers[f"dropout{position}"] = nn.Dropout(dropout)
        if position > len(hidden):
            layers["output"] = OutputLinear(features, num_outputs)
        else:
            layers[f"linear{position}"] = nn.Linear(features, size)
            layers[f"activation{position}"] = nn.ReLU()
            features = size
    return layers["output"] if len(layers) == 1 else nn.Sequential(layers)


def _dropout_before(model: nn.Module, holder: nn.Module, child: str) -> nn.Dropout | None:
    """The network's own dropout directly before its last layer."""
    if isinstance(holder, nn.Sequential):
        layers = list(holder)
        before = layers[list(dict(holder.named_children())).index(child) - 1] if len(layers) > 1 else None
    else:
        before = getattr(model, "dropout", None)  # googlenet, inception_v3
    return before if isinstance(before, nn.Dropout) else None

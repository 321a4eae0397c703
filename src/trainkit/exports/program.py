"""One module from raw samples to probabilities or values: preprocessing, model, output activation.

Exports, their predictions and the comparison with the model all use this module.

- Images come as uint8 (N, C, H, W), 0 to 255, or as floats in [0, 1] in RGB order (one channel: gray).
- Tables come as numbers (N, C): quantities as in the file, NaN where one is missing, then codes of categories, of which
  any other number stands for an unknown one. float64 where float32 would lose digits of a column, else float32.
- Out come probabilities (N, K) for classes, also for two classes of which the model scores one; else values (N, T):
  float32, or float64 where the model sees the targets scaled, since those may lie far from 0.
"""

# Without postponed annotations: TorchScript reads those of the buffers, and cannot read text.
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainkit.data.tables import offsets, stored_layout
from trainkit.data.target_scale import TargetScale, stored_scale
from trainkit.data.transforms import columns, static_transforms_from_json
from trainkit.engine import EXPECTS, LossName
from trainkit.errors import UserError
from trainkit.models import Ensemble, EnsembleMember, NormalizeChannels, fold_gains

_LARGEST_HALF = 2048
"""Whole numbers above are rounded in float16."""

InputDtype = Literal["uint8", "float32", "float64"]


class ToFloat(nn.Module):
    """float32; bytes are divided by ``scale``, so that pixels lie in [0, 1]."""

    def __init__(self, *, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        """uint8 or float (N, ...) to float32 (N, ...)."""
        floats = inputs.to(torch.float32)
        if inputs.dtype == torch.uint8:
            floats = floats / self.scale
        return floats


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def expect_size(images: Tensor, channels: int, height: int, width: int) -> Tensor:
    """The images, in code that a trace keeps. Raises ValueError where they are not (N, channels, height, width)."""
    if images.dim() != 4 or images.size(1) != channels or images.size(2) != height or images.size(3) != width:
        raise ValueError(
            f"images reach the network with shape {images.size()}, "
            f"and it takes N x {channels} x {height} x {width}; resize them"
        )
    return images


class ExpectSize(nn.Module):
    """Images of the model's size only: a network with a global pool would answer for any other size too."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.height = height
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as it is."""
        return expect_size(images, self.channels, self.height, self.width)  # type: ignore[no-any-return]


class Columns(nn.Module):
    """Rows of a table as training stored them: less the columns' offsets, and unknown codes as one more category."""

    offset: Tensor
    known: Tensor

    def __init__(self, offsets: list[float], known: list[int]) -> None:
        """
        Args:
            offsets: one for each numeric column.
            known: how many categories each column with codes has.
        """
        super().__init__()
        self.numeric = len(offsets)
        dtype = torch.float64 if any(offsets) else torch.float32
        self.register_buffer("offset", torch.tensor(offsets, dtype=dtype))
        self.register_buffer("known", torch.tensor(known, dtype=dtype))

    def forward(self, rows: Tensor) -> Tensor:
        """float (N, n + c) to float32 (N, n + c)."""
        rows = rows.to(self.offset.dtype)
        codes = rows[:, self.numeric :]
        valid = (codes >= 0) & (codes < self.known) & (codes == torch.floor(codes))
        codes = torch.where(valid, codes, self.known)
        return torch.cat([rows[:, : self.numeric] - self.offset, codes], dim=1).to(torch.float32)


class Exp(nn.Module):
    """Log-probabilities to probabilities."""

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs.exp()


class BothClasses(nn.Module):
    """The probability of the second class (N, 1) to those of both (N, 2)."""

    def forward(self, second: Tensor) -> Tensor:
        return torch.cat([1 - second, second], dim=1)


class ToOwnUnits(nn.Module):
    """Standardized values to the targets' own units: ``x * std + mean`` for each target, in float64."""

    mean: Tensor
    std: Tensor

    def __init__(self, scale: TargetScale) -> None:
        super().__init__()
        mean, std = torch.tensor(scale, dtype=torch.float64).unbind(dim=1)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, outputs: Tensor) -> Tensor:
        """float32 (N, T) to float64 (N, T)."""
        return outputs.to(torch.float64) * self.std + self.mean


class HalfModel(nn.Module):
    """A model in float16 between float32 inputs and outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(inputs.to(torch.float16))
        return outputs.to(torch.float32)


class Program(nn.Module):
    """prepare -> model -> activation."""

    def __init__(self, prepare: nn.Module, model: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.prepare = prepare
        self.model = model
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        """Raw samples (N, ...) to probabilities (N, K) or values (N, T)."""
        return self.activation(self.model(self.prepare(inputs)))  # type: ignore[no-any-return]


class ProgramWithLogits(Program):
    """prepare -> model -> activation, with the model's own outputs as a second output."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Raw samples (N, ...) to probabilities (N, K) and logits (N, K); (N, 1) where one stands for two."""
        logits: Tensor = self.model(self.prepare(inputs))
        return self.activation(logits), logits


@dataclass(frozen=True)
class ProgramSpec:
    """What goes into a program and what comes out; plain values for ``signature.json``."""

    input_shape: tuple[int | None, ...]
    """Without the batch: (C, H, W) with None where the program takes any size, or (C,) of a table."""
    input_dtypes: tuple[InputDtype, ...]
    output_names: tuple[str, ...]


def build_program(
    model: nn.Module,
    preprocessing: Mapping[str, Any],
    *,
    loss: LossName,
    with_static_transforms: bool = False,
    logits: bool = False,
    half: bool = False,
    check_size: bool = False,
) -> Program:
    """A program around a copy of ``model``: on the CPU, float32, in eval mode, without gradients.

    Args:
        preprocessing: as in a checkpoint.
        loss: of the training (``checkpoint["choices"]["loss"]["value"]``): decides what the model's outputs mean.
        with_static_transforms: apply them inside the program, so that it takes decoded images of any size. Otherwise
            images have to come as ``preprocessing["input_shape"]``.
        logits: return the model's own outputs too.
        half: run the model in float16.
        check_size: raise for images that do not have the model's size, in TorchScript; other formats hold the size.

    Raises:
        UserError: logits of a model that has none; float16 for more categories than it can tell apart.
    """
    model = copy.deepcopy(model).to(device="cpu", dtype=torch.float32)
    model = model.to(memory_format=torch.contiguous_format)
    fold_gains(model)
    prepare = build_prepare(preprocessing, with_static_transforms=with_static_transforms, check_size=check_size)
    scale = stored_scale(preprocessing)
    activation = build_activation(loss) if scale is None else ToOwnUnits(scale)
    if half:
        layout = stored_layout(preprocessing.get("table_encoding"))
        most = max(layout.sizes, default=0) if layout is not None else 0
        if most > _LARGEST_HALF:
            raise UserError(f"float16 does not hold the codes of a column with {most} categories; export in float32")
        if isinstance(model, Ensemble):  # what scales its inputs stays in float32
            for member in model.members:
                assert isinstance(member, EnsembleMember)
                member.network = HalfModel(member.network)
        else:
            model = HalfModel(model)
    if logits and logits_name(loss) is None:
        raise UserError(f"a model trained with {loss} has no logits; leave --logits out")
    program = (ProgramWithLogits if logits else Program)(prepare, model, activation)
    return program.eval().requires_grad_(False)


def logits_name(loss: LossName) -> str | None:
    """The name of the model's own outputs; None where they are probabilities or values."""
    return {"logits": "logits", "log_probabilities": "log_probabilities"}.get(EXPECTS[loss])


def build_prepare(
    preprocessing: Mapping[str, Any], *, with_static_transforms: bool = False, check_size: bool = False
) -> nn.Module:
    """Raw samples to model inputs."""
    modules: list[nn.Module] = []
    if preprocessing["kind"] == "table":
        encoding = preprocessing["table_encoding"]
        layout = stored_layout(encoding)
        if layout is None:
            modules.append(ToFloat(scale=1.0))
        else:
            modules.append(Columns(offsets(encoding), [known for known, _ in layout.categories]))
        modules += [columns.column_module(one) for one in columns.from_json(preprocessing)]
        return nn.Sequential(*modules)
    if with_static_transforms:
        modules += static_transforms_from_json(preprocessing["front"])
    if check_size:
        modules.append(ExpectSize(*preprocessing["input_shape"]))
    modules.append(ToFloat(scale=float(preprocessing["scale"])))
    if statistics := preprocessing["normalize"]:
        modules.append(NormalizeChannels(statistics["mean"], statistics["std"]))
    return nn.Sequential(*modules)


def build_activation(loss: LossName) -> nn.Module:
    """The model's outputs to probabilities of all classes, or to values."""
    match loss:
        case "cross_entropy" | "focal":
            return nn.Softmax(dim=1)
        case "nll":
            return Exp()
        case "bce":
            return BothClasses()
        case "bce_with_logits":
            return nn.Sequential(nn.Sigmoid(), BothClasses())
        case _:
            return nn.Identity()


def has_static_transforms(preprocessing: Mapping[str, Any]) -> bool:
    """Whether images have to be resized, cropped or made gray before the model sees them."""
    return bool(preprocessing.get("front"))


def describe_program(
    preprocessing: Mapping[str, Any],
    *,
    loss: LossName,
    with_static_transforms: bool = False,
    logits: bool = False,
    dtypes: tuple[InputDtype, ...] = ("uint8",),
) -> ProgramSpec:
    """The inputs and outputs of a program built with the same arguments."""
    shape: tuple[int | None, ...] = tuple(preprocessing["input_shape"])
    if preprocessing["kind"] == "table":
        encoding = preprocessing["table_encoding"]
        dtypes = ("float32",)
        if (layout := stored_layout(encoding)) is not None:
            shape, dtypes = (layout.width,), ("float64",) if any(offsets(encoding)) else ("float32",)
    elif with_static_transforms and has_static_transforms(preprocessing):
        shape = (preprocessing["channels"], None, None)
    names = ["values" if EXPECTS[loss] == "values" else "probabilities"]
    if logits:
        names.append(str(logits_name(loss)))
    return ProgramSpec(shape, dtypes, tuple(names))

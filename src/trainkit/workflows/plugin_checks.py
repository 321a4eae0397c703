"""``trainkit plugin test``: whether the parts of a plug-in keep what trainkit promises of every part."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from trainkit.builders import build_module, build_part
from trainkit.config.schema.base import Section
from trainkit.config.schema.extended import config_class
from trainkit.config.schema.losses import OUTPUTS_AS
from trainkit.data.sources import load_own
from trainkit.data.splits import HeldOut
from trainkit.engine import build_own_loss
from trainkit.models import check_shapes
from trainkit.plugins import Plugin, explain, place_of, using

_SAMPLES = 8
_SHAPES = {
    "layers": ((16, 16, 16), (3, 32, 32), (16,)),
    "models": ((3, 32, 32), (1, 28, 28), (3, 224, 224), (16,)),
}
"""Of one sample: the first that a layer or a model takes is the one that it is tested with."""
_OUTPUTS = 7


@dataclass(frozen=True)
class Checked:
    """One promise of one part."""

    part: str
    """``acme.SqueezeExcite``"""
    promise: str
    failure: str | None
    """What is wrong; None: it is kept."""
    remedy: str


@dataclass
class _Trial:
    """The checks of one part, in the order in which they were made."""

    part: str
    done: list[Checked] = field(default_factory=list)

    def check(self, promise: str, remedy: str, work: Callable[[], Any]) -> bool:
        """Whether ``work`` returns: it raises where the promise is broken."""
        failure = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work()
        except Exception as error:  # noqa: BLE001  (the code of a plug-in may fail in any way)
            message = str(error).strip() or type(error).__name__
            failure = message if isinstance(error, _BrokenError) else explain(error) or message
        self.done.append(Checked(self.part, promise, failure, remedy))
        return failure is None


class _BrokenError(Exception):
    """A promise is broken."""


def check_plugin(plugin: Plugin) -> list[Checked]:
    """Every promise of every part, kept or not.

    Raises:
        UserError: a part is not a section as it has to be.
    """
    with using([plugin]):
        parts = config_class().own_parts
    with _own_generators():
        return [done for kind, sections in parts.items() for one in sections for done in _check(one, kind, plugin)]


def _check(section: type[Section], kind: str, plugin: Plugin) -> list[Checked]:
    name = str(get_args(section.model_fields["type"].annotation)[0])
    trial, made = _Trial(name), list[Section]()
    if not name.startswith(f"{plugin.name}."):  # of another plug-in that is loaded
        return []
    remedy = "give each field a default, or Field(..., examples=[VALUE])"
    if trial.check("can be made of its defaults", remedy, lambda: made.append(_example(section, name))):
        checks = {
            "layers": _check_module,
            "models": _check_module,
            "losses": _check_loss,
            "metrics": _check_metric,
            "transforms": _check_transform,
            "datasets": _check_dataset,
        }
        checks[kind](made[0], kind, trial)
    return trial.done


def _example(section: type[Section], name: str) -> Section:
    """The part with its defaults; fields without one have their first example."""
    given = {
        key: info.examples[0] for key, info in section.model_fields.items() if info.is_required() and info.examples
    }
    return section.model_validate({"type": name, **given})


# --- layers and models -------------------------------------------------------------------------------------------


def _check_module(part: Section, kind: str, trial: _Trial) -> None:
    found: list[tuple[int, ...]] = []
    sizes = (_OUTPUTS,) if kind == "models" else ()
    remedy = "take sizes from input_shape and shapes from tensors, and keep the batch as the first dimension"
    if not trial.check(
        "has a shape on the meta device", remedy, lambda: found.append(_fitting_shape(part, kind, sizes))
    ):
        return
    shape = found[0]

    def build(seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return build_module(part, shape, *sizes, key=kind)

    inputs = torch.rand(_SAMPLES, *shape, generator=torch.Generator().manual_seed(0))
    with _own_generators():
        trial.check(
            "begins with the same weights for the same seed",
            "draw weights by torch.nn.init or torch.rand, from PyTorch's default generator",
            lambda: _same_tensors(build().state_dict(), build().state_dict()),
        )
        trial.check(
            "draws from PyTorch's generator alone, and from none in evaluation",
            "use torch's functions for chance, in training only (self.training)",
            lambda: _leaves_generators(lambda: build(), lambda model: model.eval()(inputs)),
        )
        trial.check(
            "gives the same outputs twice",
            "keep nothing between calls but buffers in training",
            lambda: _same_twice(build(), inputs),
        )
        trial.check(
            "gives a sample the same output in any batch",
            "in evaluation no sample may look at another: no statistics of the batch",
            lambda: _in_pieces(build().eval(), inputs),
        )
        trial.check(
            "is whole in its state_dict",
            "register tensors as nn.Parameter or by register_buffer",
            lambda: _round_trip(build, inputs),
        )
        trial.check(
            "has a finite gradient for every parameter",
            "every parameter takes part in forward; freeze or remove the others",
            lambda: _gradients(build(), inputs),
        )
        trial.check(
            "can be exported (torch.export)",
            "no `if` on values, no numbers taken out of tensors",
            lambda: _exported(build().eval(), inputs),
        )
        trial.check(
            "can be exported (TorchScript)",
            "annotate arguments that are no tensors, or export with --method trace",
            lambda: _close(torch.jit.script(model := build().eval())(inputs), model(inputs)),
        )


def _fitting_shape(part: Section, kind: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The first of the shapes that the part takes. Raises what the first attempt raised where there is none."""
    first: Exception | None = None
    for shape in _SHAPES[kind]:
        try:
            with torch.device("meta"):
                module = build_module(part, shape, *sizes, key=kind)
            made = check_shapes(module, shape, batch_size=_SAMPLES)
        except Exception as error:  # noqa: BLE001
            first = first or error
            continue
        if len(made) < 2 or made[0] != _SAMPLES or (sizes and made[1:] != sizes):
            wanted = f"(N, {sizes[0]})" if sizes else "(N, ...)"
            raise _BrokenError(f"{made} comes out of {(_SAMPLES, *shape)}, expected {wanted}")
        return shape
    assert first is not None
    raise first


def _same_twice(model: nn.Module, inputs: Tensor) -> None:
    for mode in (False, True):
        outputs = []
        for one in (copy.deepcopy(model), copy.deepcopy(model)):
            torch.manual_seed(1)
            outputs.append(one.train(mode)(inputs.clone()))
        if not torch.equal(*outputs):
            raise _BrokenError(f"outputs differ in {'training, after the same seed' if mode else 'evaluation'}")
    model.eval()
    if not torch.equal(model(inputs.clone()), model(inputs.clone())):
        raise _BrokenError("the second call of the same module in evaluation gives something else")


def _in_pieces(function: Callable[..., Tensor], *tensors: Tensor) -> None:
    whole = function(*(tensor.clone() for tensor in tensors))
    pieces = torch.cat([function(*(t[i : i + 3].clone() for t in tensors)) for i in range(0, _SAMPLES, 3)])
    if whole.shape != pieces.shape:
        raise _BrokenError(f"the whole batch gives {tuple(whole.shape)}, its pieces together {tuple(pieces.shape)}")
    if not torch.allclose(whole, pieces, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise _BrokenError(f"outputs of a sample differ by up to {(whole - pieces).abs().max().item():.3g}")


def _round_trip(build: Callable[[int], nn.Module], inputs: Tensor) -> None:
    first, other = build(0).eval(), build(1).eval()
    other.load_state_dict(first.state_dict())
    if not torch.equal(first(inputs.clone()), other(inputs.clone())):
        raise _BrokenError("another instance with the same state_dict gives other outputs")


def _gradients(model: nn.Module, inputs: Tensor) -> None:
    outputs = model.train()(inputs.clone().requires_grad_())
    (outputs * torch.linspace(0.5, 1.5, outputs.numel()).reshape(outputs.shape)).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.isfinite().all()):
            raise _BrokenError(
                f"{name} has {'no gradient' if parameter.grad is None else 'a gradient with NaN or Inf'}"
            )


def _exported(model: nn.Module, inputs: Tensor) -> None:
    program = torch.export.export(model, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    _close(program.module()(inputs), model(inputs))


def _close(ours: Tensor, theirs: Tensor) -> None:
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
        raise _BrokenError(f"the program differs from the module by up to {(ours - theirs).abs().max().item():.3g}")


# --- losses, metrics, transforms, data sets ----------------------------------------------------------------------


def _check_loss(part: Section, kind: str, trial: _Trial) -> None:
    outputs, targets = _outputs_and_targets(part.outputs)  # type: ignore[attr-defined]

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        name = OUTPUTS_AS[part.outputs]  # type: ignore[attr-defined]
        loss = build_own_loss(build_part(part, key="loss"), outputs_as=name, name=trial.part)  # type: ignore[arg-type]
        return loss.compute(outputs, targets, reduction="none")

    def gradient() -> None:
        leaf = outputs.clone().requires_grad_()
        losses(leaf, targets).mean().backward()
        if leaf.grad is None or not leaf.grad.isfinite().all():
            raise _BrokenError("the gradient of the outputs is missing, or holds NaN or Inf")

    if not trial.check(
        "gives the loss of each sample", "return one number a sample, (N,)", lambda: losses(outputs, targets)
    ):
        return
    remedy = "a sample's loss is a function of its outputs and target alone: no mean over the batch, no chance"
    trial.check("gives a sample the same loss in any batch", remedy, lambda: _in_pieces(losses, outputs, targets))
    trial.check("leaves all generators alone", remedy, lambda: _leaves_all(lambda: losses(outputs, targets)))
    trial.check("has a finite gradient", "work on tensors; keep away from log(0) and sqrt(0)", gradient)


def _outputs_and_targets(what: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(_SAMPLES, 3, generator=generator)
    classes = torch.arange(_SAMPLES) % 3
    match what:
        case "logit":
            return logits[:, :1], (classes % 2).float()[:, None]
        case "log_probabilities":
            return logits.log_softmax(dim=1), classes
        case "values":
            return logits, torch.randn(_SAMPLES, 3, generator=generator)
        case _:
            return logits, classes


def _check_metric(part: Section, kind: str, trial: _Trial) -> None:
    classes = part.task == "classification"  # type: ignore[attr-defined]
    outputs, targets = _outputs_and_targets("logits" if classes else "values")
    predictions = outputs.softmax(dim=1) if classes else outputs

    def state(*bounds: tuple[int, int]) -> Any:
        made = build_part(part, 3, key="metrics")
        for first, last in bounds:
            made.update(predictions[first:last].clone(), targets[first:last].clone())
        return made

    def merged() -> None:
        whole, pieces = state((0, _SAMPLES)), state((0, 3))
        pieces.merge(state((3, 5), (5, _SAMPLES)))
        values = [float(one.compute()) for one in (whole, pieces)]
        if not np.isclose(values[0], values[1], rtol=1e-9, atol=1e-12, equal_nan=True):
            raise _BrokenError(
                f"one batch gives {values[0]:.9g}, the same samples in pieces and merged {values[1]:.9g}"
            )

    if trial.check("gives a number", "compute returns a float", lambda: float(state((0, _SAMPLES)).compute())):
        remedy = "add sums and counts in update, and divide once in compute; merge adds those of the other"
        trial.check("is the same in pieces and merged", remedy, merged)
        chance = "a metric takes no chance"
        trial.check("leaves all generators alone", chance, lambda: _leaves_all(lambda: state((0, _SAMPLES)).compute()))


def _check_transform(part: Section, kind: str, trial: _Trial) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_SAMPLES, 3, 16, 16, generator=generator)
    draws = torch.rand(_SAMPLES, getattr(part, "num_draws", 1), generator=generator)
    draws[0], draws[1] = 0, 1 - 2**-24

    def function(images: Tensor, draws: Tensor) -> Tensor:
        made: Tensor = build_part(part, key="transforms")(images, draws)
        return made

    def shape() -> None:
        made = function(images.clone(), draws)
        if made.shape != images.shape or made.dtype != images.dtype or not made.isfinite().all():
            raise _BrokenError(f"{made.dtype} {tuple(made.shape)} comes out of float32 {tuple(images.shape)}, or NaN")

    if trial.check("keeps the shape", "return finite float32 images of the same shape", shape):
        remedy = "what happens to an image depends on it and its own draws alone"
        trial.check("gives an image the same result in any batch", remedy, lambda: _in_pieces(function, images, draws))
        chance = "take all chance from draws, num_draws of them for each image"
        trial.check("leaves all generators alone", chance, lambda: _leaves_all(lambda: function(images.clone(), draws)))


def _check_dataset(part: Section, kind: str, trial: _Trial) -> None:
    def load() -> Any:
        about = {name: getattr(part, name) for name in ("kind", "task")}
        held = HeldOut({name: getattr(part, f"{name}_fraction") for name in ("test", "val")}, seed=0)
        return load_own(build_part(part, key="dataset"), name=trial.part, held=held, **about)

    def twice() -> None:
        if load().fingerprint != load().fingerprint:
            raise _BrokenError("two calls give other arrays")

    remedy = "see the table of data sets in docs/extending.md"
    if trial.check("gives arrays of the right kind", remedy, load):
        chance = "draw from a generator of your own with a fixed seed: numpy.random.default_rng(0)"
        trial.check("gives the same arrays each time", chance, twice)
        trial.check("leaves all generators alone", chance, lambda: _leaves_all(load))


# --- generators --------------------------------------------------------------------------------------------------


def _states() -> dict[str, Any]:
    numpy = str(np.random.get_state(legacy=False))
    return {"random": random.getstate(), "numpy.random": numpy, "torch": torch.get_rng_state().tolist()}


@contextmanager
def _own_generators() -> Iterator[None]:
    """Put the states of all generators back afterwards."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _leaves_all(work: Callable[[], Any]) -> None:
    with _own_generators():
        before = _states()
        work()
        _compare(before)


def _leaves_generators(build: Callable[[], nn.Module], forward: Callable[[nn.Module], Any]) -> None:
    before = _states()
    model = build()
    del before["torch"]
    _compare(before)
    _leaves_all(lambda: forward(model))


def _compare(before: dict[str, Any]) -> None:
    after = _states()
    for name, state in before.items():
        if state != after[name]:
            raise _BrokenError(f"the global generator of {name} has moved")


def _same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in one.items():
        if not torch.equal(tensor, other[name]):
            raise _BrokenError(f"{name} differs")


def where(plugin: Plugin, part: str) -> str | None:
    """``acme.py:12``: where the class of a part begins."""
    classes = [one for parts in plugin.parts.values() for one in parts]
    return next((place_of(one) for one in classes if f"{plugin.name}.{one.__name__}" == part), None)

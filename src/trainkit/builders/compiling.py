"""``training.compile``: what is compiled, why, and the plan of the loop with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from trainkit.builders.training import moves_momentum, weight_decay_schedule
from trainkit.config.schema import Config
from trainkit.config.schema.base import is_own
from trainkit.config.schema.run import SkipNonFinite
from trainkit.engine import WITH_CUDA_GRAPHS, CapturedStep, Plan, compiled
from trainkit.models import layer_table
from trainkit.runtime import Choice
from trainkit.wording import size_text

EAGER, GRAPH = "false", "graph"
"""Values of the choice besides the modes of ``torch.compile``: the step as it is, and all of it as a CUDA graph."""

HOST_SECONDS, HOST_SECONDS_OF_LAYER = 2e-3, 0.15e-3
"""How long the host launches a step, and each layer of it forward and back.

In loops written by hand on a machine with an H200: 2.5 ms for an MLP of 6 layers, 12.5 ms for a ResNet-20 of 64
(benchmarks/README.md). Where the host is faster, a graph still costs nothing but its memory.
"""

MULTIPLY_ADDS_PER_SECOND = 5e12
"""Multiply-adds of the forward pass for which a large GPU takes a second, the backward pass included.

The H200 did 1.8e12 of that ResNet and 5.3e12 of four convolutions on pictures of 224 px, as CUDA graphs in bf16.
"""

LARGE_MEMORY = 1_000_000_000
"""Bytes of weights, or of a batch's activations, from which a step is no graph.

A graph has its own memory for activations, and weights and state are copied twice to compare it.
"""

FUSED_ON_CUDA = ("sgd", "adam", "adamw")
"""Optimizers whose whole update is a kernel that reads the learning rate, and the guard's verdict, from memory."""


def choose_compile(
    config: Config, model: nn.Module, *, device: torch.device, precision: str, input_shape: Sequence[int]
) -> Choice:
    """What is compiled: a mode of ``torch.compile``, ``graph`` or ``false``; ``auto`` takes one of the last two."""
    asked = config.training.compile
    if asked != "auto":
        value = asked if isinstance(asked, str) else "default" if asked else EAGER
        return Choice(value, "as asked for")
    if device.type != "cuda":
        on_cpu = "on the CPU compiling takes longer than it saves"
        return Choice(EAGER, f"auto: {on_cpu if device.type == 'cpu' else 'CUDA graphs need CUDA'}")
    hindrance = why_not_captured(config, model, precision=precision)
    if hindrance is not None:
        return Choice(EAGER, f"auto: no CUDA graph, since {hindrance}")
    rows, batch_size = layer_table(model, input_shape), config.training.batch_size
    products = sum(row.multiply_adds for row in rows) * batch_size
    weights = sum(4 * row.parameters for row in rows)
    activations = sum(row.activation_bytes for row in rows) * batch_size
    amount = f"{products / 1e9:.3g} billion multiply-adds a batch"
    if products / MULTIPLY_ADDS_PER_SECOND > HOST_SECONDS + HOST_SECONDS_OF_LAYER * len(rows):
        return Choice(EAGER, f"auto: {amount} keep the GPU busy")
    for name, size in (("weights", weights), ("activations", activations)):
        if size >= LARGE_MEMORY:
            return Choice(EAGER, f"auto: no CUDA graph, since {size_text(size)} of {name} would be there twice")
    return Choice(GRAPH, f"auto: {amount}, so the GPU would wait for the host; the step is one CUDA graph")


def why_not_captured(config: Config, model: nn.Module, *, precision: str) -> str | None:
    """Why the step cannot be one CUDA graph: the host has a part in it, or it may differ from one step to the next."""
    spec = config.training
    if is_own(config.loss):
        return f"{config.loss.type} may do something else in each step"
    if spec.accumulation_steps > 1:
        return "a batch is computed in pieces"
    if config.optimizer.type not in FUSED_ON_CUDA:
        return f"{config.optimizer.type} needs the host in each step"
    if precision == "fp16":
        return "the host looks for overflows of fp16 in each step"
    if isinstance(spec.on_non_finite, SkipNonFinite):
        return "the host decides in each step whether to skip it"
    foreign = next((type(layer) for layer in model.modules() if not is_known(layer)), None)
    return None if foreign is None else f"{foreign.__name__} may do something else in each step"


def is_known(layer: nn.Module) -> bool:
    """Whether a layer is PyTorch's or trainkit's, none of which decide on the host what they do."""
    return type(layer).__module__.split(".")[:2] in (["torch", "nn"], ["trainkit", "models"])


def compiled_plan(plan: Plan, choice: Choice, *, config: Config, model: nn.Module, say: Callable[[str], None]) -> Plan:
    """The plan with the compiled model or the captured step; ``say`` gets a line where that fails."""
    spec = config.training
    match choice.value:
        case "false":
            return plan
        case "graph":
            # The kernels of the update take momentum, and decay that is not AdamW's, from the host.
            moves = moves_momentum(config) or (
                weight_decay_schedule(config) == "flat_cos" and config.optimizer.type != "adamw"
            )
            step = CapturedStep(spec.batch_size, say=say, host_updates=moves, deterministic=spec.deterministic)
            return replace(plan, step=step)
        case mode:
            # Gradients that are added up over pieces must not lie in memory that the next piece overwrites.
            keep = mode in WITH_CUDA_GRAPHS and plan.accumulation_steps > 1
            forward = compiled(plan.forward, mode, model=model, say=say, deterministic=spec.deterministic)
            return replace(plan, forward=forward, keep_gradients=keep)

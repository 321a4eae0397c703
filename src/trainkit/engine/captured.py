"""A training step as a CUDA graph: one launch in place of some forty, for models that wait for launches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trainkit.data.loading import Batch
from trainkit.engine.compile import first_line
from trainkit.engine.mixing import loss_normalizer
from trainkit.engine.nonfinite import Guard
from trainkit.engine.plan import Plan
from trainkit.engine.state import TrainState
from trainkit.engine.step import (
    StepResult,
    add_gradients,
    clip_gradients,
    seed_layer_noise,
    set_gradients,
    train_step,
    update_weights,
    zero_gradients,
)

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records work on the device, and returns what does it again on the memory as it is then. It may do it once itself."""


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record ``work`` as a CUDA graph, after doing it once on the same stream, as PyTorch's notes advise.

    Raises:
        RuntimeError: something in it cannot be recorded, such as a copy to the host.
    """
    current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*capturable=True")  # it is, in a moment
        work()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    generator = torch.cuda.default_generators[current.device_index]
    noise = generator.clone_state()
    try:
        with torch.cuda.graph(graph, stream=stream):
            work()
    except RuntimeError:
        # PyTorch leaves the generator in the recording that failed, in which no layer can draw.
        generator.graphsafe_set_state(noise)
        raise
    finally:
        torch.cuda.set_stream(current)  # nor does it go back to this one
    return graph.replay


class CapturedStep:
    """``train_step``, replayed as a CUDA graph for batches of one size. Other batches are trained on as they are.

    The first whole batch is trained on as it is, since the optimizer makes its state then. So is the second; its step
    is then captured, and replayed from the state before. Only if every bit of weights, buffers, optimizer and loss is
    that of the plain step, and nothing is updated once the guard has found NaN, are the next ones replayed: where a run
    resumes, and captures again, changes nothing.

    Args:
        batch_size: of the batches that are replayed.
        host_updates: leave the update of the weights to the host, since a schedule moves more than learning rates.
        say: gets one line where the step cannot be captured, and all are trained on as they are.
        deterministic: whether the plain step has the same bits each time; if not, about the same numbers are enough.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        say: Callable[[str], None],
        host_updates: bool = False,
        deterministic: bool = True,
        capture: Capture = cuda_graph,
    ) -> None:
        self.batch_size, self.say, self.capture = batch_size, say, capture
        self.host_updates = host_updates
        self.same = same_bits if deterministic else same_but_for_rounding
        self.has_stepped = False
        self.failed = False
        self.recorded: RecordedStep | None = None
        self.stage = 0

    def __call__(self, state: TrainState, plan: Plan, batch: Batch, *, guard: Guard, lr: float) -> StepResult:
        whole = len(batch.targets) == self.batch_size
        if self.recorded is not None and not self.recorded.has_form_of(batch):
            self.recorded = None  # the mixing of batches has ended: what follows is another graph
        if state.stage != self.stage:  # other parameters train: the optimizer makes their state at the next step
            self.stage, self.has_stepped, self.recorded = state.stage, False, None
        if whole and not self.failed and self.has_stepped:
            if self.recorded is None:
                return self.record(state, plan, batch, guard=guard, lr=lr)
            if self.recorded.fits(state, guard):
                return self.replay(self.recorded, batch, lr=lr)
            self.give_up("the optimizer or its settings were changed")
        self.has_stepped |= whole
        return train_step(state, plan, batch, guard=guard, lr=lr)

    def record(self, state: TrainState, plan: Plan, batch: Batch, *, guard: Guard, lr: float) -> StepResult:
        """Train on the batch, and capture the step; whatever comes of that, the state is that of the plain step."""
        updated = [*(parameter.detach() for parameter in state.parameters), *tensors_of(state.optimizer)]
        live = [*updated, *state.model.buffers(), guard.halted]  # the average of the weights is updated by the host
        before = copies(live)
        result = train_step(state, plan, batch, guard=guard, lr=lr)
        after = copies(live)
        recorded = RecordedStep(state, plan, batch, guard, host_updates=self.host_updates)
        try:
            put_back(live, before)
            recorded.read(batch)
            recorded.launch = self.capture(recorded.work)
            put_back(live, before)
            recorded.read(batch)
            recorded.run()
            same = self.same([*live, *recorded.results], [*after, *numbers_of(result)])
            put_back(live, before)
            guard.halted.fill_(1)
            recorded.read(batch)
            recorded.run()
            halts = same_bits(updated, before[: len(updated)])
        except (RuntimeError, TypeError, ValueError) as error:
            reason = first_line(error)
        else:
            reason = "" if same and halts else "its numbers are not those of the plain step"
        put_back(live, after)
        if reason:
            zero_gradients(state.parameters, keep=False)  # they lie in the memory of the graph
            self.give_up(reason)
        else:
            self.recorded = recorded
        return result

    def replay(self, recorded: RecordedStep, batch: Batch, *, lr: float) -> StepResult:
        """The step on another batch. What the graph wrote is copied, since the next replay overwrites it."""
        state = recorded.state
        recorded.read(batch)
        recorded.run()
        loss, *rest = copies(recorded.results)
        weight = rest.pop(0) if isinstance(recorded.weight, Tensor) else recorded.weight
        recorded.guard.read_later(loss, weight, batch=batch, progress=state.progress, lr=lr)
        if state.ema is not None:
            state.ema.update(state.model)
        return StepResult(loss, weight, rest[0] if rest else None, batch.targets, taken=True)

    def give_up(self, reason: str) -> None:
        """Train without the graph from here on."""
        self.failed, self.recorded = True, None
        self.say(f"warning: training.compile: the step runs as it is, not as a CUDA graph: {reason}")


class RecordedStep:
    """A step that reads batch and learning rates from memory of its own: forward, loss, backward, check, update."""

    launch: Callable[[], None]
    """Does the work on what was read last."""

    def __init__(self, state: TrainState, plan: Plan, batch: Batch, guard: Guard, *, host_updates: bool) -> None:
        self.state, self.plan, self.guard, self.host_updates = state, plan, guard, host_updates
        self.batch = Batch._make(None if tensor is None else torch.empty_like(tensor) for tensor in batch)
        self.rates = [torch.zeros((), device=batch.inputs.device) for _ in state.optimizer.param_groups]
        self.settings = self.held_settings()
        self.gradients: list[Tensor | None] = []
        self.results: list[Tensor] = []
        """The summed loss, the sum of weights if it has them, and the predicted classes, where there are any."""
        self.weight: Tensor | float = 0.0

    def has_form_of(self, batch: Batch) -> bool:
        """Whether a batch has the same tensors: one that is mixed has two targets for each sample."""
        return [tensor is None for tensor in self.batch] == [tensor is None for tensor in batch]

    def fits(self, state: TrainState, guard: Guard) -> bool:
        """Whether this is a step of this run, with the settings that were recorded."""
        return state is self.state and guard is self.guard and self.held_settings() == self.settings

    def held_settings(self) -> list[dict[str, Any]]:
        """The settings of the optimizer that the graph holds as numbers: all but the learning rates."""
        changing = ("params", "param_names", "lr")
        groups = [] if self.host_updates else self.state.optimizer.param_groups
        return [{k: v for k, v in group.items() if k not in changing} for group in groups]

    def run(self) -> None:
        """The step, on what was read last."""
        self.launch()
        if self.host_updates:
            set_gradients(self.state.parameters, self.gradients, keep=False)
            update_weights(self.state)

    def read(self, batch: Batch) -> None:
        """Take over a batch and the learning rates, and seed dropout for this step: a replay begins with that seed."""
        for tensor, value in zip(self.batch, batch, strict=True):
            if tensor is not None and value is not None:
                tensor.copy_(value)
        for rate, group in zip(self.rates, self.state.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        seed_layer_noise(self.plan.seed, self.state.progress.steps_completed, 0, device=batch.inputs.device)

    def work(self) -> None:
        """The part of ``train_step`` that is the device's, for a batch in one piece."""
        state, plan = self.state, self.plan
        zero_gradients(state.parameters, keep=False)
        self.weight = loss_normalizer(plan.loss, self.batch)
        loss, predicted = add_gradients(plan, self.batch, self.weight, scaler=None)
        grads = [parameter.grad for parameter in state.parameters if parameter.grad is not None]
        self.guard.halt_if_bad(loss, grads)
        clip_gradients(state, plan)
        if not self.host_updates:
            with capturable(state.optimizer, self.rates):
                update_weights(state)
        self.gradients = [parameter.grad for parameter in state.parameters]
        self.results = [value for value in (loss, self.weight, predicted) if isinstance(value, Tensor)]


@contextmanager
def capturable(optimizer: torch.optim.Optimizer, rates: Sequence[Tensor]) -> Iterator[None]:
    """Have the optimizer read its learning rates from memory, for the time of a recording: as PyTorch asks for it."""
    before = [dict(group) for group in optimizer.param_groups]
    try:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group.update({"lr": rate, **({"capturable": True} if "capturable" in group else {})})
        yield
    finally:
        for group, values in zip(optimizer.param_groups, before, strict=True):
            group.update(values)


def tensors_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The tensors of its state."""
    return [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]


def numbers_of(result: StepResult) -> list[Tensor]:
    """The tensors of a result, in the order of ``RecordedStep.results``."""
    return [value for value in (result.loss, result.weight, result.predicted) if isinstance(value, Tensor)]


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


@torch.no_grad()
def put_back(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def same_bits(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether all bits are equal: NaN equals NaN, and -0.0 is not 0.0."""
    pairs = zip(tensors, others, strict=True)
    return all(torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)) for a, b in pairs)


def same_but_for_rounding(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether all numbers are about equal, for kernels that add up in any order."""
    pairs = zip(tensors, others, strict=True)
    return all(torch.allclose(a.float(), b.float(), rtol=1e-2, atol=1e-4, equal_nan=True) for a, b in pairs)

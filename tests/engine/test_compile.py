"""A compiled model trains like the plain one; where compiling fails, at whichever pass or shape, a line says so."""

from dataclasses import replace

import pytest
import torch
from digit_runs import assert_same
from digit_runs import run as train

from trainkit.engine.compile import CompiledModel, compiled
from trainkit.engine.step import zero_gradients

FAILED = "warning: training.compile: torch.compile failed, so the model runs uncompiled: "


def run(changes, program_of, said):
    """Train with the program that ``program_of`` makes of a forward pass."""

    def plan_of(setup):
        plan = setup.plan()
        program = program_of(plan.forward)
        return replace(plan, forward=CompiledModel(plan.forward, program, model=setup.model, say=said.append))

    return train(changes, plan_of=plan_of)


class BadBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, outputs):
        return outputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("BackendCompilerFailed: the backward pass\nmore")


def fails_forward(forward):
    def program(inputs):
        forward(inputs)  # batch norm has moved when it fails
        raise RuntimeError("\n  InvalidCxxCompiler: no compiler\nmore")

    return program


def fails_backward(forward):
    return lambda inputs: BadBackward.apply(forward(inputs))


def fails_at_another_size(forward):
    def program(inputs):
        outputs = forward(inputs)
        return outputs if len(inputs) == 200 else BadBackward.apply(outputs)

    return program


@pytest.mark.parametrize(
    ("program_of", "changes", "reason"),
    [
        (fails_forward, {}, "InvalidCxxCompiler: no compiler"),
        (fails_backward, {}, "BackendCompilerFailed: the backward pass"),
        (fails_at_another_size, {}, "BackendCompilerFailed: the backward pass"),
        (fails_backward, {"accumulation_steps": 3}, "BackendCompilerFailed: the backward pass"),
        (fails_forward, {"optimizer": {"type": "lbfgs", "max_iter": 2}}, "InvalidCxxCompiler: no compiler"),
    ],
)
def test_what_fails_to_compile_trains_as_it_is(program_of, changes, reason):
    said = []
    plain, fallen = train(changes), run(changes, program_of, said)
    assert said == [FAILED + reason]
    assert_same(plain, fallen)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()]
)
def test_memory_that_runs_out_is_no_failure_of_the_compiler(error):
    def program_of(forward):
        def program(inputs):
            raise error

        return program

    said = []
    with pytest.raises(type(error)):
        run({}, program_of, said)
    assert not said


def test_an_error_after_the_first_batch_is_the_models_own():
    calls = []

    def program_of(forward):
        def program(inputs):
            calls.append(len(inputs))
            if len(calls) == 4:
                raise RuntimeError("of the model")
            return forward(inputs)

        return program

    said = []
    with pytest.raises(RuntimeError, match="of the model"):
        run({}, program_of, said)
    assert not said


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_compiled_run_learns_the_same(pieces):
    """By Inductor; dropout apart, whose masks it draws in another way."""
    changes = {
        "model": {"type": "mlp", "hidden_sizes": [16], "norm": "batch"},
        "accumulation_steps": pieces,
        "ema": {"decay": 0.9},
    }
    said = []

    def plan_of(setup):
        plan = setup.plan()
        return replace(plan, forward=compiled(plan.forward, "default", model=setup.model, say=said.append))

    plain, fast = train(changes), train(changes, plan_of=plan_of)
    assert not said
    for name, value in plain["model"].items():
        torch.testing.assert_close(fast["model"][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_every_mode_trains_on_cuda_and_resumes_bit_for_bit(mode, pieces):
    changes = {"accumulation_steps": pieces, "ema": {"decay": 0.9}, "compile": mode}
    said = []

    def plan_of(setup):
        torch.compiler.reset()  # as in a new process
        plan = setup.plan(say=said.append)
        assert plan.keep_gradients == (pieces > 1 and mode != "default")
        return plan

    whole = train(changes, device="cuda", plan_of=plan_of)
    half = train(changes, device="cuda", plan_of=plan_of, stop=5)
    assert not said
    assert_same(whole, train(changes, device="cuda", plan_of=plan_of, resume=half))


def test_kept_gradients_leave_frozen_weights_without_one():
    """A gradient of zeros would let the weight decay of an optimizer move them."""
    first, frozen = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), requires_grad=False)
    zero_gradients([first, frozen], keep=True)
    assert torch.equal(first.grad, torch.zeros(2))
    assert frozen.grad is None
    memory = first.grad.data_ptr()
    first.grad.fill_(3.0)
    zero_gradients([first, frozen], keep=True)
    assert (first.grad.data_ptr(), first.grad.tolist()) == (memory, [0.0, 0.0])

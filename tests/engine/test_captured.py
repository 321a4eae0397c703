"""The captured step is the plain step bit for bit: whatever it recorded, where a run resumes, and where it fails.

Without a GPU the recording is a function that does the work again: all but CUDA itself is what runs there too.
"""

from dataclasses import replace

import pytest
import torch
from digit_runs import STEPS, States, assert_same
from digit_runs import run as train

from trainkit.engine import CapturedStep
from trainkit.engine.captured import cuda_graph
from trainkit.engine.nonfinite import NonFiniteError

CNN = {"type": "cnn", "blocks": [{"channels": 4, "pool": 2}, {"channels": 4}], "norm": "batch", "dropout": 0.2}
CASES = {
    "mlp": {},
    "cnn": {"model": CNN, "optimizer": {"type": "adamw", "lr": 0.0625}},
    "schedule": {"scheduler": {"type": "multi_step", "milestones": ["3st", "5st", "9st"], "gamma": 0.5}},
    "average": {"ema": {"decay": 0.9}, "clip_grad_norm": 0.5, "clip_grad_value": 0.1},
    "amsgrad": {"optimizer": {"type": "adam", "lr": 0.03125, "amsgrad": True}},
    "groups": {
        "optimizer": {
            **{"type": "adamw", "lr": 0.0625, "no_decay": "norm_and_bias"},
            "groups": [{"modules": ["output"], "lr_scale": 0.5}],
        },
        "scheduler": {"type": "multi_step", "milestones": ["3st", "5st", "9st"], "gamma": 0.5},
    },
    "dropout on a schedule": {"model": CNN | {"head_dropout": 0.5, "dropout_schedule": "flat_cos"}},
    "decay on a schedule": {
        "optimizer": {
            **{"type": "adamw", "lr": 0.0625, "weight_decay": 0.5, "no_decay": "norm_and_bias"},
            "weight_decay_schedule": "flat_cos",
        }
    },
    "no momentum": {"optimizer": {"type": "sgd", "lr": 0.0625}},
    "class weights": {"loss": {"type": "cross_entropy", "weight": "balanced", "label_smoothing": 0.1}},
    "mixed, and not at the end": {"model": CNN, "mix": {"type": "mixup_cutmix", "off_for_last": "5st"}},
    "values": {"dataset": {"type": "diabetes"}, "transforms": [], "loss": "huber", "batch_size": 50},
}
HOST_UPDATES = {
    "momentum on a schedule": {"scheduler": "one_cycle", "clip_grad_norm": 0.5},
    "beta on a schedule": {
        "scheduler": "one_cycle",
        "optimizer": {"type": "adam", "lr": 0.0625},
        "ema": {"decay": 0.9},
    },
    "sgd's decay on a schedule": {
        "optimizer": {"type": "sgd", "lr": 0.0625, "weight_decay": 0.5, "weight_decay_schedule": "flat_cos"}
    },
}
ON_CUDA = (
    CASES
    | HOST_UPDATES
    | {
        "bf16": {"model": CNN, "precision": "bf16"},
        "cosine": {"scheduler": "cosine"},
        "one cycle": {"scheduler": {"type": "one_cycle", "cycle_momentum": False}, "optimizer": {"type": "adam"}},
    }
)


def again(work):
    """In the place of a CUDA graph where there is none. It does the work first, as CUDA's libraries ask for."""
    work()
    work()
    return work


def run(changes, *, capture=None, said=None, deterministic=True, host_updates=None, **options):
    """A run, captured by ``capture`` where it is given. Returns the last state, and the captured step."""
    host_updates = changes in HOST_UPDATES.values() if host_updates is None else host_updates
    step = None

    def plan_of(setup):
        nonlocal step
        say = [].append if said is None else said.append
        known = {"say": say, "capture": capture, "deterministic": deterministic, "host_updates": host_updates}
        step = CapturedStep(setup.config.training.batch_size, **known)
        return replace(setup.plan(), step=step)

    return train(changes, plan_of=None if capture is None else plan_of, **options), step


@pytest.mark.parametrize("name", CASES | HOST_UPDATES)
def test_a_captured_run_is_the_plain_run_bit_for_bit(name):
    said, changes = [], (CASES | HOST_UPDATES)[name]
    plain, _ = run(changes)
    captured, step = run(changes, capture=again, said=said)
    assert step.recorded is not None, said
    assert_same(plain, captured)


@pytest.mark.parametrize("stop", [1, 2, 5, 6, 7, 13])
def test_a_resumed_run_captures_elsewhere_and_has_the_bits_of_the_whole_one(stop):
    """In the middle of an epoch, before and after the ragged batch: the step after a resume is run as it is."""
    changes = {"ema": {"decay": 0.9}, **CASES["cnn"]}
    whole, _ = run(changes, capture=again)
    half, _ = run(changes, capture=again, stop=stop)
    assert half["progress"]["steps_completed"] == stop
    resumed, step = run(changes, capture=again, resume=half)
    assert step.recorded is not None
    assert_same(whole, resumed)


@pytest.mark.parametrize("stop", [3, 5, 6, 14])
def test_the_step_is_captured_anew_where_something_is_unfrozen(stop):
    unfreeze = [{"at": "5st", "modules": ["blocks.1"]}, {"at": 2, "modules": "all"}]
    changes = {**CASES["cnn"], "fine_tuning": {"freeze": "backbone", "unfreeze": unfreeze}}
    captures = []

    def counted(work):
        captures.append(1)
        return again(work)

    whole = run(changes)[0]
    captured, step = run(changes, capture=counted)
    assert (len(captures), step.failed) == (3, False)
    assert_same(whole, captured)
    half, _ = run(changes, capture=again, stop=stop)
    assert_same(whole, run(changes, capture=again, resume=half)[0])


def test_whole_batches_are_replayed_and_others_are_not():
    replays = []

    def counted(work):
        return lambda: (replays.append(1), work())

    _, step = run({}, capture=counted)
    # Of 21 steps 3 are ragged and 2 come before; two more replays compare the step, and try a halt.
    assert len(replays) == STEPS - 3 - 2 + 2
    assert len(step.recorded.batch.targets) == 200


def test_a_split_smaller_than_a_batch_is_never_captured():
    _, step = run({"batch_size": 5000}, capture=again)
    assert step.recorded is None
    assert not step.failed


def failing(work):
    work()
    raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be reported later")


def forgetful(work):
    """Replays leave something out."""
    return lambda: None


def drifting(work):
    """Replays add a little to what the work gives."""

    def replay():
        work()
        for weights in weights_of(work):
            weights.mul_(1 + 2e-7 * (1 - work.__self__.guard.halted))

    return replay


def unstoppable(work):
    """Replays that update the weights although the guard has found NaN."""

    def replay():
        halted = work.__self__.guard.halted
        found = halted.clone()
        halted.zero_()
        work()
        halted.copy_(torch.maximum(found, halted))

    return replay


def weights_of(work):
    return [parameter.detach() for parameter in work.__self__.state.parameters]


@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (failing, "operation not permitted when stream is capturing"),
        (forgetful, "its numbers are not those of the plain step"),
        (drifting, "its numbers are not those of the plain step"),
        (unstoppable, "its numbers are not those of the plain step"),
    ],
)
def test_a_step_that_cannot_be_captured_runs_as_it_is(capture, reason):
    said = []
    plain, _ = run({"ema": {"decay": 0.9}})
    captured, step = run({"ema": {"decay": 0.9}}, capture=capture, said=said)
    assert said == [f"warning: training.compile: the step runs as it is, not as a CUDA graph: {reason}"]
    assert step.failed
    assert_same(plain, captured)


@pytest.mark.parametrize(("capture", "taken"), [(drifting, True), (forgetful, False)])
def test_without_deterministic_kernels_about_the_same_numbers_are_enough(capture, taken):
    _, step = run({}, capture=capture, deterministic=False)
    assert step.failed is not taken


def test_a_setting_that_the_recording_holds_cannot_change_unseen():
    """The momentum of this schedule moves, and the recorded step would keep it."""
    said = []
    changes = {"scheduler": "one_cycle"}
    plain, _ = run(changes)
    captured, step = run(changes, capture=again, said=said, host_updates=False)
    assert step.failed
    assert len(said) == 1
    assert_same(plain, captured)


def test_what_the_host_updates_is_halted_too():
    """As the fused kernels of CUDA: without their mark on the optimizer, NaN in a gradient reaches the weights."""
    said = []
    with pytest.raises(NonFiniteError, match=r"^step 5: the loss is"):
        run({}, model_change=poisoned(5, "gradient"), capture=again, said=said, host_updates=True)
    assert said == []


def poisoned(step, where):
    """Puts NaN into the loss or a gradient at a step, by the number of samples seen, so that a recording holds it."""

    def poison(model):
        seen = torch.zeros((), device=next(model.parameters()).device)

        def before(module, inputs):
            if module.training:
                seen.add_(1)

        def after(module, inputs, outputs):
            if not module.training:
                return None
            bad = torch.where(seen == step, torch.nan, 1.0)
            if where == "gradient":
                outputs.register_hook(lambda gradient: gradient * bad)
                return None
            return outputs * bad

        model.register_buffer("seen", seen, persistent=False)
        model.register_forward_pre_hook(before)
        model.register_forward_hook(after)

    return poison


def check_nan_stops(where, **kind):
    """At step 5, replayed: the error names it, and the weights are those after step 4."""
    clean, _ = run({}, stop=4, **{**kind, "capture": None})
    states = States()
    weights = []

    def poison(model):
        poisoned(5, where)(model)
        weights.append(model)

    with pytest.raises(NonFiniteError, match=r"^step 5: the loss is"):
        run({}, model_change=poison, states=states, **kind)
    assert not states
    for name, value in weights[0].named_parameters():
        assert torch.equal(value.detach(), clean["model"][name]), name


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_a_captured_run_with_clean_weights(where):
    check_nan_stops(where, capture=again)


# The same with CUDA graphs.


@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_CUDA)
def test_a_cuda_graph_has_the_bits_of_the_plain_run_and_of_a_resumed_one(name):
    said = []
    plain, _ = run(ON_CUDA[name], device="cuda")
    captured, step = run(ON_CUDA[name], device="cuda", capture=cuda_graph, said=said)
    assert step.recorded is not None, said
    assert_same(plain, captured)
    half, _ = run(ON_CUDA[name], device="cuda", capture=cuda_graph, stop=5)
    assert_same(plain, run(ON_CUDA[name], device="cuda", capture=cuda_graph, resume=half)[0])


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_a_cuda_graph_with_clean_weights(where):
    check_nan_stops(where, device="cuda", capture=cuda_graph)


@pytest.mark.gpu
def test_a_forward_pass_that_asks_the_device_runs_as_it_is():
    def ask(model):
        model.register_forward_pre_hook(
            lambda module, inputs: (inputs[0] * (1.0 if inputs[0].sum().item() > 0 else 2.0),)
        )

    said = []
    plain, _ = run({}, device="cuda", model_change=ask)
    captured, step = run({}, device="cuda", model_change=ask, capture=cuda_graph, said=said)
    assert step.failed
    assert len(said) == 1
    assert_same(plain, captured)

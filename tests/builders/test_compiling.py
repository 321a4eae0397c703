"""What ``training.compile: auto`` takes, and why; the rule needs no GPU."""

import pytest
import torch
from digit_runs import config_with
from torch import nn

from trainkit.builders.compiling import choose_compile, compiled_plan, is_known
from trainkit.builders.setup import build_setup
from trainkit.engine import CapturedStep
from trainkit.runtime import Choice

CUDA = torch.device("cuda:0")


def choose(changes, *, device=CUDA, precision="fp32", model=None):
    config = config_with({"compile": "auto", **changes})
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)) if model is None else model
    return choose_compile(config, model, device=device, precision=precision, input_shape=(1, 8, 8))


def test_the_step_of_a_small_model_is_one_cuda_graph():
    # 64 x 16 + 16 x 10 products, 200 samples.
    assert choose({}) == Choice(
        "graph",
        "auto: 0.000237 billion multiply-adds a batch, so the GPU would wait for the host; the step is one CUDA graph",
    )


def test_what_keeps_a_gpu_busy_in_two_layers_does_not_in_a_hundred():
    def conv(before, after):
        return nn.Conv2d(before, after, 3, padding=1)

    two = choose({"batch_size": 280}, model=nn.Sequential(conv(1, 480), conv(480, 480)))
    hundred = choose({"batch_size": 500}, model=nn.Sequential(conv(1, 36), *[conv(36, 36) for _ in range(100)]))
    assert two == Choice("false", "auto: 37.2 billion multiply-adds a batch keep the GPU busy")
    assert hundred.value == "graph"
    assert hundred.reason.startswith("auto: 37.3 billion multiply-adds a batch")


@pytest.mark.parametrize(
    ("device", "reason"),
    [("cpu", "auto: on the CPU compiling takes longer than it saves"), ("mps", "auto: CUDA graphs need CUDA")],
)
def test_other_devices_compile_nothing(device, reason):
    assert choose({}, device=torch.device(device)) == Choice("false", reason)


class Gate(nn.Module):
    def forward(self, rows):
        return rows


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"accumulation_steps": 2}, {}, "no CUDA graph, since a batch is computed in pieces"),
        ({"optimizer": {"type": "lbfgs"}}, {}, "no CUDA graph, since lbfgs needs the host in each step"),
        ({"optimizer": {"type": "rmsprop"}}, {}, "no CUDA graph, since rmsprop needs the host in each step"),
        ({"optimizer": {"type": "nadam"}}, {}, "no CUDA graph, since nadam needs the host in each step"),
        ({"optimizer": {"type": "adagrad"}}, {}, "no CUDA graph, since adagrad needs the host in each step"),
        ({}, {"precision": "fp16"}, "the host looks for overflows of fp16 in each step"),
        ({"on_non_finite": "skip"}, {}, "the host decides in each step whether to skip it"),
        ({}, {"model": nn.Sequential(nn.Flatten(), Gate())}, "Gate may do something else in each step"),
        (
            {},
            {"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 1_000_000))},
            "auto: 12.8 billion multiply-adds a batch",
        ),
        (
            {"batch_size": 1},
            {"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 4_000_000))},
            "1.0 GB of weights would be",
        ),
        (
            {},
            {"model": nn.Sequential(*[nn.Sigmoid() for _ in range(19_600)])},
            "1.0 GB of activations would be there twice",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_steps_that_are_not_captured(changes, options, reason):
    choice = choose(changes, **options)
    assert choice.value == "false"
    assert reason in choice.reason


DECAYING = {"weight_decay": 0.1, "weight_decay_schedule": "flat_cos"}


@pytest.mark.parametrize(
    ("changes", "host_updates"),
    [
        ({"scheduler": {"type": "one_cycle", "cycle_momentum": False}}, False),
        ({"scheduler": "one_cycle", "optimizer": {"type": "sgd", "lr": 0.1}}, False),  # without momentum none is moved
        ({"scheduler": "cosine", "ema": {"decay": 0.9}, "clip_grad_norm": 1.0}, False),
        ({"optimizer": {"type": "adamw"}}, False),
        ({"optimizer": {"type": "adamw", **DECAYING}}, False),
        ({"optimizer": {"type": "adam", **DECAYING}}, True),
        ({"scheduler": "one_cycle"}, True),
    ],
)
def test_steps_that_are_captured(changes, host_updates):
    """All of them but for the update, where a schedule moves what its kernels take from the host."""
    choice = choose(changes)
    assert choice.value == "graph"
    setup = build_setup(config_with(changes))
    plan = compiled_plan(setup.plan(), choice, config=setup.config, model=setup.model, say=print)
    assert isinstance(plan.step, CapturedStep)
    assert plan.step.host_updates == host_updates
    assert plan.step.batch_size == 200


@pytest.mark.parametrize(
    ("asked", "value"), [(True, "default"), ("default", "default"), (False, "false"), ("max-autotune", "max-autotune")]
)
def test_what_is_asked_for_is_taken(asked, value):
    assert choose({"compile": asked}) == Choice(value, "as asked for")


@pytest.mark.parametrize("model", [{"type": "mlp"}, {"type": "cnn", "blocks": [{"channels": 2}]}])
def test_trainkits_own_models_are_known(model):
    config = config_with({"model": model})
    assert all(is_known(layer) for layer in build_setup(config).model.modules())


@pytest.mark.parametrize(
    ("value", "pieces", "kept"),
    [("default", 2, False), ("reduce-overhead", 1, False), ("reduce-overhead", 2, True), ("max-autotune", 3, True)],
)
def test_gradients_of_pieces_are_kept_where_cuda_graphs_own_the_memory(value, pieces, kept):
    config = config_with({"compile": value, "accumulation_steps": pieces})
    assert build_setup(config).plan(say=print).keep_gradients == kept


def test_nothing_is_captured_on_the_cpu():
    setup = build_setup(config_with({"compile": "auto"}))
    assert setup.plan(say=print).step is None

"""The estimates of memory and disk against what PyTorch really keeps and what a run really writes."""

import math
from pathlib import Path

import pytest
import torch

from trainkit.builders import Memory, estimate_memory
from trainkit.builders.memory import AUTOCAST_SHARE, kept_bytes
from trainkit.builders.model import build_model
from trainkit.builders.training import build_optimizer_for
from trainkit.config import load_config
from trainkit.errors import ProblemsError
from trainkit.models.summary import layer_table
from trainkit.workflows.check.memory import (
    check_data_memory,
    check_disk,
    check_memory,
    checkpoint_bytes,
    size_text,
)
from trainkit.workflows.check.run import check

CONFIGS = Path(__file__).parents[3] / "configs"
CPU = torch.device("cpu")
OPTIMIZERS = [
    "sgd",
    "{type: sgd, momentum: 0.9}",
    "adam",
    "{type: adamw, amsgrad: true}",
    "nadam",
    "radam",
    "rmsprop",
    "{type: rmsprop, momentum: 0.5, centered: true}",
    "adagrad",
]


def config_with(*overrides: str):
    return load_config(CONFIGS / "digits_mlp.yaml", overrides=overrides).config


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizer_keeps_as_many_numbers(optimizer: str) -> None:
    config = config_with(f"optimizer={optimizer}", "scheduler=constant")
    model = build_model(config, input_shape=(1, 8, 8), output_size=10)
    built = build_optimizer_for(config, model, device=CPU)
    model(torch.rand(4, 1, 8, 8)).sum().backward()
    built.step()
    kept = [value for values in built.state.values() for value in values.values()]
    numbers = sum(value.numel() for value in kept if isinstance(value, torch.Tensor) and value.dim() > 0)
    assert numbers == config.optimizer.states_per_weight * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", "cifar10_cnn", "cifar10_resnet18"])
def test_activations_are_what_autograd_keeps(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml").config
    shape = (3, 32, 32) if name.startswith("cifar") else (1, 8, 8)
    model = build_model(config, input_shape=shape, output_size=10)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = torch.rand(16, *shape)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(inputs).sum()
    rows = layer_table(model, shape)
    assert output.requires_grad
    inputs_and_kept = 16 * (4 * math.prod(shape) + kept_bytes(rows))
    assert inputs_and_kept == pytest.approx(sum(kept.values()), rel=0.1)


def test_a_checkpoint_has_the_size(tiny_run) -> None:
    found = check(load_config(tiny_run.run.resolved_config))
    assert 0.5 <= tiny_run.best_checkpoint.stat().st_size / found.costs.checkpoint_bytes <= 1.5


def test_the_average_of_the_weights_counts() -> None:
    plain, averaged = config_with(), config_with("training.ema={decay: 0.9}")
    model = build_model(plain, input_shape=(1, 8, 8), output_size=10)
    rows = layer_table(model, (1, 8, 8))
    sizes = [
        estimate_memory(config, model, rows, input_shape=(1, 8, 8), piece=2, device=CPU, precision="fp32").weights
        for config in (plain, averaged)
    ]
    assert sizes[1] == 2 * sizes[0]


def test_activations_of_16_bits_take_less() -> None:
    model = build_model(config_with(), input_shape=(1, 8, 8), output_size=10)
    rows = layer_table(model, (1, 8, 8))
    full, half = (
        estimate_memory(
            config_with(), model, rows, input_shape=(1, 8, 8), piece=2, device=CPU, precision=precision
        ).activations
        for precision in ("fp32", "bf16")
    )
    inputs = 2 * 64 * 4
    assert half - inputs == int(AUTOCAST_SHARE * (full - inputs) / 2) * 2


def test_a_batch_that_does_not_fit_says_what_does() -> None:
    memory = Memory(weights=100, gradients=100, optimizer=200, activations=6400, free=3600)
    with pytest.raises(ProblemsError) as caught:
        check_memory(memory, config_with("training.batch_size=64"), piece=64, device=CPU)
    (problem,) = caught.value.problems
    assert problem.key == "training.batch_size"
    assert "set batch_size to 32 at most, or accumulation_steps: 2 to keep the batch" in problem.message


def test_a_sample_that_does_not_fit() -> None:
    memory = Memory(weights=100, gradients=100, optimizer=200, activations=6400, free=410)
    with pytest.raises(ProblemsError, match="even one sample does not fit"):
        check_memory(memory, config_with(), piece=64, device=CPU)


@pytest.mark.parametrize(
    ("residency", "device", "num_bytes", "fits"),
    [("device", "cuda:0", 601, False), ("device", "cuda:0", 600, True), ("host", "cuda:0", 601, True)],
)
def test_samples_that_must_lie_on_the_device_need_room_beside_the_model(residency, device, num_bytes, fits) -> None:
    memory = Memory(weights=100, gradients=100, optimizer=100, activations=100, free=1000)
    config = config_with(f"training.residency={residency}")
    if fits:
        check_data_memory(memory, config, num_bytes=num_bytes, device=torch.device(device))
        return
    with pytest.raises(ProblemsError) as caught:
        check_data_memory(memory, config, num_bytes=num_bytes, device=torch.device(device))
    (problem,) = caught.value.problems
    assert problem.key == "training.residency"
    assert "601 bytes of samples do not fit on cuda:0 beside 400 bytes for the model" in problem.message


def test_what_fits_is_no_problem() -> None:
    check_memory(Memory(1, 1, 1, 1, free=4), config_with(), piece=64, device=CPU)


def test_checkpoints_that_do_not_fit_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=r"4 checkpoints of 1000 TB .* need 4000 TB, but .* free; make space"):
        check_disk(10**15, config_with(), runs_dir=tmp_path / "not" / "yet")
    free = check_disk(checkpoint_bytes(Memory(1, 1, 1, 1, 4)), config_with(), runs_dir=tmp_path)
    assert free is not None
    assert free > 0
    assert list(tmp_path.iterdir()) == []


def test_size_text() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 1500, 20_000_000, 3 * 10**9)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "1.5 kB",
        "20 MB",
        "3.0 GB",
    ]


def test_what_is_frozen_for_good_needs_no_backward_pass(tmp_path):
    def estimate(fine_tuning):
        config = tmp_path / "config.yaml"
        blocks = "[{channels: 8}, {channels: 8, pool: 2}, {channels: 8}]"
        config.write_text(
            f"dataset: digits\nmodel: {{type: cnn, blocks: {blocks}}}\nfine_tuning: {fine_tuning}\ndevice: cpu\n"
        )
        return check(load_config(config), runs_dir=tmp_path).costs.memory

    whole, head = estimate("{}"), estimate("{freeze: backbone}")
    assert head.gradients == 4 * (8 * 4 * 4 * 10 + 10)
    assert head.optimizer == 2 * head.gradients
    assert head.weights == whole.weights
    assert head.activations < whole.activations
    for_a_while = estimate("{freeze: backbone, unfreeze: [{at: 1ep, modules: all}]}")
    assert for_a_while.total == whole.total
    middle = estimate("{freeze: [blocks.1]}")  # what stands before it trains
    assert middle.activations == whole.activations
    assert middle.gradients == whole.gradients - 4 * (8 * 8 * 9 + 8)

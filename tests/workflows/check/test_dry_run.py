"""The dry run: in the layout of the config, on the model that is trained afterwards, which it leaves as it was."""

import pytest
import torch

from trainkit.builders.setup import build_setup
from trainkit.config import load_config
from trainkit.workflows.check.dry_run import first_batch
from trainkit.workflows.check.run import check
from trainkit.workflows.inspect import inspect_config

CNN = """
dataset: digits
transforms: [{type: grayscale, num_output_channels: 3}, normalize]
model: {type: cnn, blocks: [{channels: 4}, {channels: 4}], norm: batch, dropout: 0.5}
training: {channels_last: LAYOUT}
"""


def config(tmp_path, layout):
    path = tmp_path / "c.yaml"
    path.write_text(CNN.replace("LAYOUT", layout))
    return load_config(path)


@pytest.mark.parametrize(("layout", "channels_last"), [("auto", True), ("true", True), ("false", False)])
def test_batches_and_weights_have_the_layout_of_the_config(tmp_path, layout, channels_last):
    setup = check(config(tmp_path, layout)).setup
    inputs = first_batch(setup, size=4).inputs
    weight = next(p for p in setup.model.parameters() if p.dim() == 4 and p.shape[1] > 1)
    assert inputs.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize(("layout", "channels_last"), [("auto", True), ("false", False)])
def test_inspect_looks_at_a_batch_in_the_layout_of_the_config(tmp_path, layout, channels_last):
    seen = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0]) if inputs[0].device.type == "cpu" else None
    )
    try:
        inspect_config(config(tmp_path, layout), batch=True)
    finally:
        hook.remove()
    images = next(tensor for tensor in seen if tensor.dim() == 4)
    assert images.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_the_model_that_was_tried_is_as_if_new(tmp_path):
    """Weights, batch-norm statistics, gradients and mode: the run trains this very model."""
    loaded = config(tmp_path, "auto")
    tried, fresh = check(loaded).setup.model, build_setup(loaded.config).model
    assert tried.training == fresh.training
    assert all(parameter.grad is None for parameter in tried.parameters())
    for (name, one), other in zip(tried.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(one, other), name

"""Each format's bytes load in their own runtime and answer alike; what a format cannot hold is named."""

import io
import json
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainkit.checkpoints.loading import load_weights_file
from trainkit.errors import UserError
from trainkit.exports import formats
from trainkit.exports.formats import ExportError, onnx_bytes, pt2_bytes, safetensors_bytes, torchscript_bytes
from trainkit.exports.program import build_program
from trainkit.models.network import Network

IMAGES = {
    "kind": "image",
    "channels": 1,
    "front": [],
    "scale": 255,
    "normalize": {"mean": [0.5], "std": [0.25]},
    "input_shape": [1, 6, 6],
}


class Identity2(nn.Module):
    """A layer that every format can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


class BranchesOnValues(nn.Module):
    """A layer that a script can hold, and a trace or torch.export cannot."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return x
        return -x


class CallsNumpy(nn.Module):
    """A layer that a script cannot hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_numpy(np.zeros((1,), np.float32))


def program_with(layer):
    torch.manual_seed(0)
    layers = [("flatten", nn.Flatten()), ("first", nn.Linear(36, 8)), ("custom", layer), ("head", nn.Linear(8, 3))]
    keys = {"custom": "model.layers[2]"}
    return build_program(Network(layers, config_keys=keys), IMAGES, loss="cross_entropy")


@pytest.fixture
def rows():
    return torch.randint(0, 256, (5, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize(
    ("method", "front"),
    [("script", []), ("trace", []), ("script", [{"type": "resize", "size": 6, "interpolation": "bilinear"}])],
)
def test_torchscript_refuses_images_of_another_size(method, front, rows):
    """A global pool would answer for any size."""
    torch.manual_seed(0)
    layers = [("conv", nn.Conv2d(1, 4, 3)), ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    network = Network(layers, config_keys={})
    preprocessing = {**IMAGES, "front": front}
    program = build_program(
        network, preprocessing, loss="cross_entropy", with_static_transforms=bool(front), check_size=True
    )
    loaded = torch.jit.load(io.BytesIO(torchscript_bytes(program, rows[:2], method=method)))
    plain = build_program(network, IMAGES, loss="cross_entropy")
    torch.testing.assert_close(loaded(rows), plain(rows), rtol=0, atol=1e-7)
    expected = r"with shape \[2, 1, 6, 8\], and it takes N x 1 x 6 x 6; resize them"
    with pytest.raises(Exception, match=expected):
        loaded(torch.zeros(2, 1, 6, 8, dtype=torch.uint8))
    with pytest.raises(Exception, match=r"with shape \[2, 3, 6, 6\]"):
        loaded(torch.zeros(2, 3, 6, 6, dtype=torch.uint8))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("method", ["script", "trace"])
def test_torchscript(method, rows):
    program = program_with(Identity2())
    loaded = torch.jit.load(io.BytesIO(torchscript_bytes(program, rows[:2], method=method)))
    torch.testing.assert_close(loaded(rows), program(rows), rtol=0, atol=1e-7)
    assert not loaded.training


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_script_takes_bytes_and_floats(rows):
    program = program_with(BranchesOnValues())
    loaded = torch.jit.load(io.BytesIO(torchscript_bytes(program, rows[:2], method="script")))
    torch.testing.assert_close(loaded(rows.float() / 255), loaded(rows), rtol=0, atol=1e-7)


def test_torch_export_keeps_the_batch_free(rows):
    program = program_with(Identity2())
    loaded = torch.export.load(io.BytesIO(pt2_bytes(program, rows[:2], free_size=False))).module()
    for count in (1, 3, 5):
        torch.testing.assert_close(loaded(rows[:count]), program(rows[:count]), rtol=0, atol=1e-7)


def test_onnx_keeps_the_batch_free_and_names_its_ends(rows):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    program = program_with(Identity2())
    data = onnx_bytes(program, rows[:2], input_name="images", output_names=["probabilities"])
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["images"]
    for count in (1, 3, 5):
        (answer,) = session.run(["probabilities"], {"images": rows[:count].numpy()})
        np.testing.assert_allclose(answer, program(rows[:count]).numpy(), rtol=0, atol=1e-6)
    assert b"site-packages" not in data  # no paths of this machine


CANNOT = r"cannot hold the layer custom \({}, model\.layers\[2\]\): ."


def test_what_cannot_be_scripted_is_named(rows):
    with pytest.raises(ExportError, match=r"TorchScript \(script\) " + CANNOT.format("CallsNumpy")):
        torchscript_bytes(program_with(CallsNumpy()), rows[:2], method="script")


def test_what_cannot_be_traced_is_named(rows):
    with pytest.raises(ExportError, match=r"TorchScript \(trace\) " + CANNOT.format("BranchesOnValues")):
        torchscript_bytes(program_with(BranchesOnValues()), rows[:2], method="trace")


def test_what_cannot_be_exported_is_named(rows):
    with pytest.raises(ExportError, match=r"torch\.export " + CANNOT.format("BranchesOnValues")):
        pt2_bytes(program_with(BranchesOnValues()), rows[:2], free_size=False)


@pytest.mark.slow
def test_what_onnx_cannot_hold_is_named(rows):
    pytest.importorskip("onnxscript")
    with pytest.raises(ExportError, match="ONNX " + CANNOT.format("BranchesOnValues")):
        onnx_bytes(program_with(BranchesOnValues()), rows[:2], input_name="x", output_names=["y"])


def test_the_exporters_are_silent(rows, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torchscript_bytes(program_with(Identity2()), rows[:2], method="script")
        torchscript_bytes(program_with(Identity2()), rows[:2], method="trace")
        pt2_bytes(program_with(Identity2()), rows[:2], free_size=False)
    assert capfd.readouterr() == ("", "")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UserError, match=r"--onnx needs the packages onnxscript; install them: pip install onnxscript$"):
        formats.check_packages(["onnx"])
    formats.check_packages(["torchscript", "pt2", "safetensors"])


def test_safetensors_come_back_bit_for_bit(tmp_path):
    tensors = {
        "a.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).t(),
        "b.count": torch.tensor(7),
        "c": torch.zeros(0, 2, dtype=torch.float16),
    }
    tensors["tied"] = tensors["a.weight"]
    data = safetensors_bytes(tensors, {"trainkit": "{}"})
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["__metadata__"] == {"trainkit": "{}"}
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    found = load_weights_file(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in found)

"""``trainkit plugin test``: a part that breaks a promise fails that check, with its line and what to do."""

import json
import math
import random
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import trainkit
from trainkit.cli.app import app
from trainkit.workflows.plugin_checks import check_plugin

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


def made_by(function, *, weights=()):
    """A layer whose forward is ``function(module, inputs)``."""

    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            for name in weights:
                setattr(self, name, nn.Parameter(torch.rand(())))
            self.drawn = torch.rand(())
            self.calls = 0

        def forward(self, inputs):
            return function(self, inputs)

    return Made()


class Scaled(trainkit.Section):
    """Scales its input."""

    def build(self, input_shape):
        return nn.LayerNorm(input_shape[-1])


class Counts(trainkit.Section):
    """Counts its calls."""

    def build(self, input_shape):
        def forward(module, inputs):
            module.calls += 1
            return inputs * module.calls

        return made_by(forward)


class Noisy(trainkit.Section):
    """Adds noise in evaluation too."""

    def build(self, input_shape):
        return made_by(lambda module, inputs: inputs + torch.rand_like(inputs))


class Foreign(trainkit.Section):
    """Draws weights from NumPy."""

    def build(self, input_shape):
        module = nn.PReLU()
        nn.init.constant_(module.weight, np.random.random())
        return module


class OverBatch(trainkit.Section):
    """Looks at the other samples."""

    def build(self, input_shape):
        return made_by(lambda module, inputs: inputs - inputs.mean(dim=0, keepdim=True))


class Hidden(trainkit.Section):
    """Keeps a tensor that is no buffer."""

    def build(self, input_shape):
        return made_by(lambda module, inputs: inputs + module.drawn)


class Idle(trainkit.Section):
    """Has a parameter without a part in the output."""

    def build(self, input_shape):
        return made_by(lambda module, inputs: inputs * module.used, weights=("used", "idle"))


class Branches(trainkit.Section):
    """Decides by a value."""

    def build(self, input_shape):
        return made_by(lambda module, inputs: inputs * 2 if inputs.sum() > 0 else inputs)


class Swallows(trainkit.Section):
    """Gives one output for the whole batch."""

    def build(self, input_shape):
        return made_by(lambda module, inputs: inputs.sum())


class Needs(trainkit.Section):
    """Has a knob without a default."""

    width: int = Field(description="A width.")

    def build(self, input_shape):
        return nn.Identity()


class Exemplary(trainkit.Section):
    """Has a knob with an example."""

    width: int = Field(description="A width.", examples=[3])

    def build(self, input_shape):
        return nn.Identity()


class Net(trainkit.Section):
    """A model with as many outputs as it likes."""

    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), output_size + 1))


class Centered(trainkit.Section):
    """A loss that looks at the batch."""

    outputs: ClassVar[str] = "values"

    def build(self):
        return lambda outputs, targets: (outputs - outputs.mean() - targets).square().sum(dim=1)


class Averaged(trainkit.Section):
    """A loss that is a mean already."""

    outputs: ClassVar[str] = "logits"

    def build(self):
        return F.cross_entropy


class MeanOfMeans(trainkit.Section):
    """A metric that averages the means of batches."""

    task: ClassVar[str] = "classification"

    def build(self, num_outputs):
        return Means()


class Means:
    def __init__(self):
        self.means = []

    def update(self, predictions, targets):
        self.means.append((predictions.argmax(dim=1) == targets).double().mean().item())

    def merge(self, other):
        self.means += other.means

    def compute(self):
        return sum(self.means) / len(self.means)


class OwnChance(trainkit.Section):
    """A transform that draws by itself."""

    def build(self):
        return lambda images, draws: (images + torch.rand(())).clamp(0, 1)


class Shuffled(trainkit.Section):
    """A data set that is another one each time."""

    kind: ClassVar[str] = "table"
    task: ClassVar[str] = "regression"

    def build(self):
        random.random()
        values = np.random.normal(size=(50, 2))
        return {"train": (values, values[:, 0])}


PARTS = {
    "layers": [Scaled, Counts, Noisy, Foreign, OverBatch, Hidden, Idle, Branches, Swallows, Needs, Exemplary],
    "models": [Net],
    "losses": [Centered, Averaged],
    "metrics": [MeanOfMeans],
    "transforms": [OwnChance],
    "datasets": [Shuffled],
}
BROKEN = {
    "Scaled": None,
    "Counts": ("gives the same outputs twice", "the second call of the same module in evaluation gives something else"),
    "Noisy": ("draws from PyTorch's generator alone, and from none in evaluation", "generator of torch has moved"),
    "Foreign": ("draws from PyTorch's generator alone, and from none in evaluation", "of numpy.random has moved"),
    "OverBatch": ("gives a sample the same output in any batch", "outputs of a sample differ by up to"),
    "Hidden": ("is whole in its state_dict", "another instance with the same state_dict gives other outputs"),
    "Idle": ("has a finite gradient for every parameter", "idle has no gradient"),
    "Branches": ("can be exported (torch.export)", "test_plugin_checks.py:"),
    "Swallows": ("has a shape on the meta device", "() comes out of (8, 16, 16, 16), expected (N, ...)"),
    "Needs": ("can be made of its defaults", "Field required"),
    "Exemplary": None,
    "Net": ("has a shape on the meta device", "(8, 8) comes out of (8, 3, 32, 32), expected (N, 7)"),
    "Centered": ("gives a sample the same loss in any batch", "outputs of a sample differ by up to"),
    "Averaged": ("gives the loss of each sample", "has to return the loss of each sample (8,), got ()"),
    "MeanOfMeans": ("is the same in pieces and merged", "the same samples in pieces and merged"),
    "OwnChance": ("leaves all generators alone", "the global generator of torch has moved"),
    "Shuffled": ("gives the same arrays each time", "two calls give other arrays"),
}  # fmt: skip


@pytest.fixture(scope="module")
def checks():
    states = str([random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()])
    found = check_plugin(trainkit.Plugin("broken", **PARTS))
    after = str([random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()])
    same = states == after
    assert same
    return found


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_fails(checks, name):
    failed = {one.promise: one.failure for one in checks if one.part == f"broken.{name}" and one.failure is not None}
    scripted = failed.pop("can be exported (TorchScript)", None)  # these modules call functions that are no script
    assert scripted is None or name not in ("Scaled", "Exemplary")
    if BROKEN[name] is None:
        assert failed == {}
        return
    promise, message = BROKEN[name]
    assert message in failed[promise]
    assert all(one.remedy for one in checks)


def test_the_example_keeps_every_promise(monkeypatch):
    monkeypatch.chdir(EXAMPLE)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    done = CliRunner().invoke(app, ["plugin", "test", "acme", "--json"])
    assert done.exit_code == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["passed"]
    assert {one["part"] for one in found["checks"]} == {"acme.SqueezeExcite", "acme.Poly", "acme.Shapes"}
    assert all(one["where"].startswith("acme.py:") for one in found["checks"])
    listed = CliRunner().invoke(app, ["--plugin", "acme", "plugin", "list", "--json"])
    assert [one["name"] for one in json.loads(listed.stdout)] == ["acme"]
    __import__("sys").modules.pop("acme")


def test_the_command_says_what_failed_and_how_to_mend_it(tmp_path, monkeypatch):
    text = "import trainkit\nfrom torch import nn\n\n\nclass Flat(trainkit.Section):\n    '''Flattens all.'''\n\n"
    text += "    def build(self, input_shape):\n        return nn.Flatten(0)\n\n\n"
    (tmp_path / "flat.py").write_text(text + 'plugin = trainkit.Plugin("flat", layers=[Flat])\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    done = CliRunner().invoke(app, ["plugin", "test", "flat"])
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "flat.Flat (flat.py:5)"
    assert lines[2] == "  FAILED  has a shape on the meta device"
    assert "comes out of (8, 16, 16, 16)" in lines[3]
    assert lines[4].startswith("          to mend it: ")
    assert lines[-1] == "1 of 2 checks passed"
    __import__("sys").modules.pop("flat")

"""``trainkit export`` from a checkpoint: through the command line, in real processes, and compared with ``predict``."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainkit.api import export
from trainkit.builders.data import load_data
from trainkit.builders.trained import open_trained
from trainkit.checkpoints.loading import load_checkpoint
from trainkit.errors import UserError
from trainkit.exports.assemble import ExportRequest
from trainkit.exports.formats import ExportError
from trainkit.system.frontend import Frontend
from trainkit.workflows import export as workflow
from trainkit.workflows.predict.run import predict

ROOT = Path(__file__).parents[2]


def trainkit(*arguments):
    command = [sys.executable, "-m", "trainkit", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def run_without_trainkit(script, *arguments):
    """A script as a user runs it who has no trainkit: not even the path of this process is known."""
    command = [
        sys.executable,
        "-I",
        "-W",
        "error",
        "-W",
        "ignore::DeprecationWarning",
        str(script),
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """The bundle of the tiny run's best checkpoint, as the command line makes it."""
    target = tmp_path_factory.mktemp("exports") / "digits"
    done = trainkit("export", tiny_run.run.path, "--torchscript", "--safetensors", "--output", target)
    assert done.returncode == 0, done.stderr
    return target, done


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three digits as files."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def test_the_command_says_what_it_made(exported):
    target, done = exported
    assert done.stderr.count("deprecated") == 1
    assert done.stderr.count("note: PyTorch has deprecated TorchScript") == 1
    assert "FutureWarning" not in done.stderr
    assert str(target / "model.pt") in done.stdout
    assert (target / "SHA256SUMS").is_file()


def test_predict_py_answers_as_trainkit_predict(exported, pictures, tiny_run):
    lines = run_without_trainkit(exported[0] / "predict.py", *pictures)
    expected = list(predict(tiny_run.best_checkpoint, [str(path) for path in pictures], top_k=10, device="cpu"))
    assert [line["input"] for line in lines] == [str(path) for path in pictures]
    for line, prediction in zip(lines, expected, strict=True):
        assert line["label"] == prediction.label
        assert line["probability"] == pytest.approx(prediction.probability, abs=1e-6)


@pytest.mark.slow
def test_verify_from_the_command_line(exported, tmp_path):
    copy = shutil.copytree(exported[0], tmp_path / "copy")
    data = bytearray((copy / "model.pt").read_bytes())
    data[-1] ^= 1
    (copy / "model.pt").write_bytes(data)
    done = trainkit("export", "--verify", copy)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {copy}: model.pt has changed since the export")


@pytest.mark.parametrize(
    ("export_request", "message"),
    [
        (ExportRequest(()), "nothing to write; add --torchscript, --pt2, --onnx, --safetensors or --all"),
        (ExportRequest(("pt2",), quantize="static"), "--quantize writes ONNX programs only"),
        (ExportRequest(("onnx",), quantize="static", half=True), "--quantize and --half exclude each other"),
        (ExportRequest(("pt2",), raw=True, logits=True), "--raw gives the network's own outputs already"),
        (ExportRequest(("pt2",), raw=True, half=True), "--raw and --half exclude each other"),
        (ExportRequest(("pt2",), triton=True), "--triton takes the ONNX program; add --onnx"),
        (ExportRequest(("pt2",), "scrip"), "method: expected one of script, trace, got 'scrip'; did you mean script"),
    ],
)
def test_requests_that_cannot_be(export_request, message):
    with pytest.raises(UserError, match=message):
        workflow.check_request(export_request)


def test_the_python_function_passes_every_option_on(tmp_path):
    with pytest.raises(UserError, match="--triton takes the ONNX program"):
        export(tmp_path / "no.pth", formats="pt2", triton=True)


@pytest.mark.slow
def test_a_pointer_stands_for_the_checkpoint_that_it_names(tiny_run, tmp_path):
    best = tiny_run.best_checkpoint
    bundle = export(best.parent / "best", formats="safetensors", output=tmp_path / "bundle").bundle
    source = json.loads((bundle / "signature.json").read_text())["checkpoint"]
    assert source == {"name": best.name, "sha256": hashlib.sha256(best.read_bytes()).hexdigest()}


def test_quantize_alone_means_onnx_and_formats_get_an_order():
    pytest.importorskip("onnxruntime")
    assert workflow.check_request(ExportRequest((), quantize="dynamic")).formats == ("onnx",)
    assert workflow.check_request(ExportRequest(("safetensors", "torchscript"))).formats == (
        "torchscript",
        "safetensors",
    )


def test_a_wrong_request_costs_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there exists already"):
        export(tmp_path / "no.pth", formats=("pt2",), output=tmp_path / "there")


@pytest.fixture(scope="module")
def setup(tiny_run):
    trained = open_trained(tiny_run.best_checkpoint, device="cpu")
    return trained.setup(*load_data(trained.config))


def at_end(setup, result):
    """What the end of training does with the best checkpoint."""
    saved = load_checkpoint(result.best_checkpoint)
    folder = result.run.exports
    return workflow.export_at_end(setup, result.best_checkpoint, saved, folder=folder, frontend=Frontend())


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
def test_at_the_end_of_training(setup, tiny_run):
    asked = dataclasses.replace(setup, config=with_export(setup.config, torchscript=True))
    programs, skipped = at_end(asked, tiny_run)
    assert skipped == []
    (program,) = programs
    assert program.name == "model.pt"
    assert program.parent == tiny_run.run.exports / f"{tiny_run.best_checkpoint.stem}_torchscript"
    loaded = torch.jit.load(program)
    golden = np.load(program.parent / "golden.npz")
    answer = loaded(torch.from_numpy(golden["inputs"]))
    np.testing.assert_allclose(answer.numpy(), golden["probabilities"], rtol=0, atol=1e-6)


def test_a_format_that_fails_at_the_end_is_skipped_with_the_reason(setup, tiny_run, monkeypatch):
    def fail(*arguments, **named):
        raise ExportError("TorchScript (script) cannot hold the layer x")

    monkeypatch.setattr(workflow, "make_files", fail)
    asked = dataclasses.replace(setup, config=with_export(setup.config, torchscript=True))
    found = at_end(asked, tiny_run)
    assert found == ([], ["torchscript: TorchScript (script) cannot hold the layer x"])


def test_nothing_asked_for_nothing_done(setup, tiny_run):
    asked = dataclasses.replace(setup, config=with_export(setup.config, torchscript=False))
    assert at_end(asked, tiny_run) == ([], [])


def with_export(config, **changes):
    return config.model_copy(update={"export": config.export.model_copy(update=changes)})


def test_samples_come_from_all_over_the_split(setup):
    samples = workflow.pick_samples(setup, "val", preprocessing=setup.preprocessing)
    indices = setup.data.splits["val"].indices
    part = setup.data.parts[setup.data.splits["val"].part]
    assert len(samples.inputs) == min(256, len(indices))
    np.testing.assert_array_equal(samples.inputs[0], part.inputs[indices[0]])
    np.testing.assert_array_equal(samples.inputs[-1], part.inputs[indices[-1]])
    few = workflow.pick_samples(setup, "val", preprocessing=setup.preprocessing, count=2 * len(indices))
    np.testing.assert_array_equal(few.targets[: len(indices)], few.targets[len(indices) :])

"""Slow: every shipped config in every format, int8 of mnist_cnn, and the examples, each in processes of their own."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainkit.api import export
from trainkit.builders.setup import build_setup
from trainkit.config import load_config
from trainkit.data.tables import encode_table, raw_rows
from trainkit.exports.assemble import ExportRequest, Source, make_files
from trainkit.exports.bundle import write_bundle
from trainkit.exports.formats import ExportError
from trainkit.exports.program import build_program
from trainkit.workflows import export as workflow
from trainkit.workflows.train.run import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_checks")]
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
CONFIGS = [*sorted((ROOT / "configs").glob("*.yaml")), Path(__file__).parent / "sequential_residual.yaml"]


def replaced(config, folder):
    """Data of the same shape for data that are not in this repository: noise, as the tests of training use it."""
    spec = importlib.util.spec_from_file_location("shipped", ROOT / "tests" / "test_shipped_configs_train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.replaced(config, folder)


def run_without_trainkit(*arguments):
    """In an interpreter that has the packages and not trainkit."""
    command = [sys.executable, "-I", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_predict_py(script, inputs, programs):
    """What a bundle's predict.py prints for each program in turn; one process saves three imports of torch."""
    code = (
        "import runpy, sys; script, given = sys.argv[1], sys.argv[2:]\n"
        f"for name in {programs!r}:\n"
        "    sys.argv = [script, *given, '--program', name]\n"
        "    runpy.run_path(script, run_name='__main__')"
    )
    return [json.loads(line) for line in run_without_trainkit("-c", code, script, *inputs).splitlines()]


def source_of(setup):
    """As from a checkpoint; the weights are the first ones, which is all the same to an export."""
    torch.manual_seed(0)
    for module in setup.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):  # as after training: not 0 and 1
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return Source(
        name="net",
        model=setup.model,
        preprocessing=setup.preprocessing,
        loss=setup.loss.name,
        task=setup.data.task,
        class_names=setup.data.class_names,
        target_names=setup.data.target_names,
        details={"classes": list(setup.data.class_names)},
    )


def raw_inputs(setup, folder):
    """A few raw samples as files, and as the batch that a program takes which does no resizing."""
    samples = workflow.pick_samples(setup, "train", preprocessing=setup.preprocessing, count=3)
    if setup.data.kind == "table":
        path = folder / "rows.csv"
        if (encoding := setup.preprocessing["table_encoding"]) is not None:  # a file of its own: its first rows
            path.write_text("\n".join(Path(setup.config.dataset.path).read_text().splitlines()[:4]) + "\n")
            [rows] = encode_table(str(path), encoding)
            return [path], raw_rows(rows.inputs, encoding)
        lines = [
            ",".join(setup.data.feature_names),
            *(",".join(map(repr, row)) for row in samples.inputs.tolist()),
        ]
        path.write_text("\n".join(lines) + "\n")
        return [path], samples.inputs
    paths = []
    for number, image in enumerate(samples.inputs if samples.images is None else samples.images):
        pixels = image.transpose(1, 2, 0)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(paths[-1])
    if samples.images is None:
        return paths, samples.inputs
    from trainkit.data.transforms.static import apply_static_transforms, static_transforms_from_json

    transforms = static_transforms_from_json(setup.preprocessing["front"])
    return paths, np.stack([apply_static_transforms(image, transforms) for image in samples.images])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_format_answers_as_the_model_without_trainkit(path, tmp_path):
    overrides = replaced(load_config(path).config, tmp_path / "data")
    setup = build_setup(load_config(path, overrides=[*overrides, "device=cpu"]).config)
    source = source_of(setup)
    samples = workflow.pick_samples(
        setup, "val" if "val" in setup.data.splits else "train", preprocessing=setup.preprocessing
    )
    # The trace goes in beside the script under a name of its own, so that one process checks all.
    files = make_files(source, ExportRequest(("torchscript", "pt2", "onnx", "safetensors")), samples)
    traced = make_files(source, ExportRequest(("torchscript",), "trace"), samples)
    signature = json.loads(files["signature.json"])
    signature["programs"]["trace.pt"] = json.loads(traced["signature.json"])["programs"]["model.pt"]
    files |= {"trace.pt": traced["model.pt"], "signature.json": json.dumps(signature).encode()}
    if "front.py" in traced:
        files["front.py"] = traced["front.py"]
    report = write_bundle(tmp_path / "bundle", files)
    assert report["programs"].keys() == {"model.pt", "model.pt2", "model.onnx", "model.safetensors", "trace.pt"}
    given, batch = raw_inputs(setup, tmp_path)
    expected = build_program(source.model, source.preprocessing, loss=source.loss)(torch.from_numpy(batch))
    names = ("model.pt", "model.pt2", "model.onnx", "trace.pt")
    lines = run_predict_py(tmp_path / "bundle" / "predict.py", given, names)
    for number, name in enumerate(names):
        answers = [
            list(line.get("probabilities", line.get("values")).values()) for line in lines[number * 3 : number * 3 + 3]
        ]
        np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def mnist_run(real_data, tmp_path_factory):
    """A short run of mnist_cnn on real MNIST."""
    overrides = [f"dataset.root={real_data}", "training.epochs=1", "export.torchscript=false"]
    loaded = load_config(ROOT / "configs" / "mnist_cnn.yaml", overrides=overrides)
    return train(loaded, runs_dir=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def mnist_bundle(mnist_run):
    """The path of a bundle with a TorchScript and an ONNX program."""
    return export(mnist_run.best_checkpoint, formats=("torchscript", "onnx")).bundle


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_int8_of_mnist_cnn(kind, mnist_run):
    report = export(mnist_run.best_checkpoint, formats=(), quantize=kind).report
    row = report["shrunk"]["model.int8.onnx"]
    assert report["scored_on"] == "test"
    assert row["size_ratio"] < 0.3
    assert row["drop"] <= 0.003
    assert all(row[f"p50_ms_{size}"] > 0 and report["shrunk"]["PyTorch"][f"p50_ms_{size}"] > 0 for size in (1, 64))


def test_what_loses_more_than_max_drop_is_not_written(mnist_run, tmp_path, monkeypatch):
    def broken(setup, source):
        return np.zeros((64, 1, 28, 28), np.uint8)  # ranges of inner values measured on black images

    monkeypatch.setattr(workflow, "calibration_inputs", broken)
    with pytest.raises(
        ExportError, match=r"model.int8.onnx \(static\) takes the accuracy on test from 0\.\d+ to 0\.\d+, "
    ):
        export(mnist_run.best_checkpoint, formats=("onnx",), quantize="static", output=tmp_path / "b" / "x")
    assert list((tmp_path / "b").iterdir()) == []


def test_half_of_mnist_cnn(mnist_run):
    result = export(mnist_run.best_checkpoint, formats=("torchscript", "onnx"), half=True)
    assert {path.name for path in result.programs} == {"model.fp16.pt", "model.fp16.onnx"}
    for name in ("model.fp16.pt", "model.fp16.onnx"):
        assert result.report["shrunk"][name]["size_ratio"] < 0.7
        assert abs(result.report["shrunk"][name]["drop"]) < 0.002


def test_the_benchmark_measures_every_format(mnist_run):
    rows = {row["format"]: row for row in workflow.benchmark(mnist_run.best_checkpoint)}
    assert rows.keys() == {"eager", "script", "trace", "pt2", "onnx", "int8 dynamic", "int8 static", "script float16"}
    for name, row in rows.items():
        assert row["p99_ms_1"] >= row["p50_ms_1"] > 0
        assert row["throughput"] > 0
        assert name == "eager" or row["load_ms"] > 0


@pytest.fixture
def digit(real_data, tmp_path):
    """A real test image of MNIST as .png and .pgm, and what it shows."""
    raw = real_data / "MNIST" / "raw"
    pixels = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes()[16 : 16 + 784], np.uint8).reshape(28, 28)
    for suffix in ("png", "pgm"):
        Image.fromarray(pixels).save(tmp_path / f"digit.{suffix}")
    return tmp_path / "digit.png", str((raw / "t10k-labels-idx1-ubyte").read_bytes()[8])


@pytest.mark.skipif(shutil.which("g++") is None or shutil.which("make") is None, reason="needs g++ and make")
def test_the_cpp_example_prints_class_and_probability(mnist_bundle, digit, tmp_path):
    folder = shutil.copytree(ROOT / "examples" / "cpp", tmp_path / "cpp")
    subprocess.run(["make", "-C", folder, f"PYTHON={sys.executable}", "CXXFLAGS=-O0"], check=True, capture_output=True)
    image, label = digit
    command = [folder / "classify", mnist_bundle, image.with_suffix(".pgm")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, probability = done.stdout.split()
    (expected,) = map(json.loads, run_without_trainkit(mnist_bundle / "predict.py", image).splitlines())
    assert found == expected["label"] == label
    assert float(probability) == pytest.approx(expected["probability"], abs=1e-6)
    picture = Image.open(image)
    picture.convert("RGB").save(tmp_path / "color.ppm")
    picture.resize((20, 31)).save(tmp_path / "other.pgm")
    command[-1] = tmp_path / "color.ppm"
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == done.stdout
    command[-1] = tmp_path / "other.pgm"
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "images reach the network with shape [1, 1, 31, 20], and it takes N x 1 x 28 x 28; resize them"
    assert (wrong.returncode, wrong.stderr) == (1, f"error: {said}\n")
    wrong = subprocess.run([folder / "classify", mnist_bundle, folder / "Makefile"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (1, f"error: {folder}/Makefile is not a binary PGM or PPM image\n")


def test_the_onnxruntime_example_needs_no_torch(mnist_bundle, digit):
    image, label = digit
    script = ROOT / "examples" / "onnxruntime" / "classify.py"
    code = f"import sys, runpy; sys.modules['torch'] = None; sys.argv = [{str(script)!r}, *sys.argv[1:]]; "
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    (line,) = run_without_trainkit("-c", code, mnist_bundle, image).splitlines()
    (expected,) = map(json.loads, run_without_trainkit(mnist_bundle / "predict.py", image).splitlines())
    path, found, probability = line.split()
    assert (path, found) == (str(image), label)
    assert float(probability) == pytest.approx(expected["probability"], abs=1e-5)

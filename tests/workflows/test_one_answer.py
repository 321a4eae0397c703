"""A picture gets the same probabilities from predict, eval, report and bundle, whatever the training computed in."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch_forks import run_script
from typer.testing import CliRunner

from trainkit.api import evaluate
from trainkit.builders import open_trained
from trainkit.cli.app import app
from trainkit.config import load_config
from trainkit.errors import UserError
from trainkit.system import Frontend
from trainkit.workflows.evaluate.run import setup_on_data
from trainkit.workflows.predict import predict
from trainkit.workflows.report import make_report, probe_model
from trainkit.workflows.train import train

pytestmark = pytest.mark.usefixtures("forked_checks")
CONFIG = """
dataset: digits
transforms: [normalize]
model: {type: cnn, blocks: [{channels: 8, pool: 2}], norm: batch}
training: {epochs: 2, precision: bf16}
export: {torchscript: true}
"""
NAMES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run in bf16, and the pictures of its test split as files."""
    folder = tmp_path_factory.mktemp("bf16")
    (folder / "config.yaml").write_text(CONFIG)
    result = train(load_config(folder / "config.yaml"), runs_dir=folder / "runs")
    setup = setup_on_data(open_trained(result.best_checkpoint), frontend=Frontend())
    split = setup.data.splits["test"]
    pictures = folder / "pictures"
    pictures.mkdir()
    files = []
    for index in split.indices:
        files.append(pictures / f"{index:05d}.png")
        Image.fromarray(setup.data.parts[split.part].inputs[index][0]).save(files[-1])
    return SimpleNamespace(result=result, setup=setup, files=files, targets=setup.data.split_targets("test"))


def answers(model: Path, files: list[Path], **options: Any) -> np.ndarray:
    found = predict(model, files, top_k=10, **options)
    return np.array([[dict(one.top)[name] for name in NAMES] for one in found])


def test_predict_bundle_and_scores_agree(trained: SimpleNamespace) -> None:
    result, files = trained.result, trained.files
    expected = answers(result.best_checkpoint, files)
    [program] = result.exports
    np.testing.assert_allclose(answers(program.parent, files), expected, rtol=0, atol=1e-5)
    lines = run_script(program.parent / "predict.py", *files[:40]).stdout.splitlines()
    alone = [[json.loads(line)["probabilities"][name] for name in NAMES] for line in lines]
    np.testing.assert_allclose(alone, expected[:40], rtol=0, atol=1e-5)

    true = expected[np.arange(len(files)), trained.targets]
    assert result.metrics["test"]["loss"] == pytest.approx(-np.log(true).mean(), abs=1e-5)
    scored = evaluate(result.best_checkpoint)
    assert {name: scored.metrics[name] for name in result.metrics["test"]} == result.metrics["test"]
    for report in (scored.report, probe_model(trained.setup, frontend=Frontend()).evaluated.report):
        assert report.mistakes
        for mistake in report.mistakes:
            assert mistake.probability == pytest.approx(expected[mistake.position].max(), abs=1e-5)


def test_another_precision_is_asked_for(trained: SimpleNamespace) -> None:
    path, files = trained.result.best_checkpoint, trained.files
    exact, rounded = answers(path, files), answers(path, files, precision="bf16")
    assert 1e-4 < np.abs(exact - rounded).max() < 0.1
    assert evaluate(path, precision="bf16").metrics["loss"] != evaluate(path).metrics["loss"]
    assert evaluate(path).as_json()["computed_in"] == "fp32"
    assert evaluate(path, precision="bf16").as_json()["computed_in"] == "bf16"
    with pytest.raises(UserError, match="precision fp16 needs a CUDA device, got device cpu; take bf16 or fp32"):
        evaluate(path, precision="fp16", device="cpu")
    with pytest.raises(UserError, match="precision 'half' is not known; take fp32, tf32, bf16, fp16"):
        evaluate(path, precision="half")
    with pytest.raises(UserError, match="is an exported program and computes as it was exported"):
        predict(trained.result.exports[0].parent, files, precision="bf16")


def test_what_the_scores_were_computed_in_is_said(trained: SimpleNamespace) -> None:
    run, result = trained.result.run, trained.result
    said = "computed in fp32; the validation during training, which chose the checkpoint, in bf16"
    assert (result.precision, result.trained_in) == ("fp32", "bf16")
    assert run.read_info()["computed_in"] == "fp32"
    assert said in (run.path / "report.html").read_text()
    assert said in make_report(run.path).path.read_text()
    done = CliRunner().invoke(app, ["eval", str(run.path), "--precision", "bf16", "--no-plots"])
    assert done.exit_code == 0, done.output
    assert "samples, computed in bf16" in " ".join(done.stdout.split())


@pytest.fixture(
    scope="module", params=["[normalize]", "[{type: resize, size: 12}, normalize]"], ids=["plain", "resizing"]
)
def fixed_size(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of a model for square pictures, and its bundle; the global pool takes any size."""
    folder = tmp_path_factory.mktemp("fixed")
    model = "{type: cnn, blocks: [{channels: 8}], global_pool: avg}"
    (folder / "config.yaml").write_text(
        f"dataset: digits\ntransforms: {request.param}\nmodel: {model}\n"
        "training: {epochs: 1}\nexport: {torchscript: true}\n"
    )
    result = train(load_config(folder / "config.yaml"), runs_dir=folder / "runs")
    return result.best_checkpoint, result.exports[0].parent


def test_pictures_of_another_size_or_kind(fixed_size: tuple[Path, Path], tmp_path: Path) -> None:
    """Colors become gray; another size is refused, or resized where that is asked for: alike in all three places."""
    checkpoint, bundle = fixed_size
    rng = np.random.default_rng(0)
    forms = {"wide": (20, 31), "tall": (31, 7), "small": (3, 4), "color": (8, 8, 3), "clear": (9, 8, 4), "fits": (8, 8)}
    for name, shape in forms.items():
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no image")
    files = sorted(tmp_path.iterdir())
    script = [bundle / "predict.py", *files]

    strict = [{Path(one.source).stem: one for one in predict(model, files)} for model in (checkpoint, bundle)]
    for found in strict:
        assert {name for name, one in found.items() if one.error is None} == {"color", "fits"}
        assert "31 x 7 pixels" in found["tall"].error or "53 x 12 pixels after" in found["tall"].error
        assert found["tall"].error.endswith("(height x width); resize it, or add --resize")
    done = run_script(*script)
    assert done.returncode == 1
    assert {Path(json.loads(line)["input"]).stem for line in done.stdout.splitlines()} == {"color", "fits"}
    assert done.stderr.count("\n") == 5
    assert f"error: {tmp_path / 'tall.png'}: {strict[0]['tall'].error}\n" in done.stderr

    good = [file for file in files if file.stem != "text"]
    expected = answers(checkpoint, good, resize=True)
    assert len(expected) == len(forms)
    np.testing.assert_allclose(answers(bundle, good, resize=True), expected, rtol=0, atol=1e-5)
    done = run_script(*script, "--resize")
    alone = [[json.loads(line)["probabilities"][name] for name in NAMES] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-5)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    np.save(tmp_path / "wide.npy", np.asarray(Image.open(tmp_path / "wide.png")))
    wide = [file.stem for file in good].index("wide")
    np.testing.assert_allclose(answers(checkpoint, [tmp_path / "wide.npy"], resize=True)[0], expected[wide], atol=1e-6)
    np.testing.assert_allclose(answers(bundle, [tmp_path / "wide.npy"], resize=True)[0], expected[wide], atol=1e-5)

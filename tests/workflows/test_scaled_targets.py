"""A target far from 0, from the config to the exported program: the model sees it scaled, people in its own units."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_runs import Said, differences, frontend, load, train_with_stops
from torch_forks import run_script

from trainkit.api import evaluate, export
from trainkit.checkpoints import CheckpointFolder, load_checkpoint
from trainkit.errors import ConfigError, UserError
from trainkit.recorders import read_json_lines
from trainkit.system.frontend import Frontend
from trainkit.workflows.predict.run import predict
from trainkit.workflows.report import make_report
from trainkit.workflows.train.run import resume, train

pytestmark = pytest.mark.usefixtures("forked_checks")
CONFIG = """
name: far
dataset: {{type: table, path: {path}, target: {target}}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: [32]}}
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 8, batch_size: 32}}
logging: {{every: 1, plots: false}}
"""


def far_rows(*, factor=1.0, shift=0.0, size=1000):
    """Two inputs, and a target around 200,000 with a deviation of 58,000, in other units on request."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, size)).round(4)
    return np.stack([a, b, (factor * (200_000.5 + 50_000 * a - 30_000 * b) + shift)], axis=1)


def config_of(folder: Path, *overrides: str, text: str = CONFIG, **units):
    folder.mkdir(exist_ok=True)
    path = folder / "t.csv"
    rows = [f"{a!r},{b!r},{y!r}" for a, b, y in far_rows(**units).tolist()]
    path.write_text("\n".join(["a,b,y", *rows]) + "\n")
    return load(folder, text.format(path=path, target="y"), *overrides)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    said = Said()
    folder = tmp_path_factory.mktemp("far")
    result = train(config_of(folder), runs_dir=folder / "runs", frontend=Frontend(say=said.append))
    return result, said, folder


def test_it_is_learned_and_every_number_is_in_its_units(far):
    result, said, _ = far
    test = result.metrics["test"]
    assert test["r2"] > 0.99
    assert 100 < test["rmse"] < 5800, "in units of the target"
    assert test["loss"] == pytest.approx(test["rmse"] ** 2)
    [choice] = [line for line in said if line.startswith("scale_target: ")]
    assert choice.startswith("scale_target: true (auto: in the training split y has mean ")
    records = read_json_lines(result.run.metrics)
    first = next(record for record in records if record["type"] == "step")
    assert 5e8 < first["loss"] < 1e10, "the first batch is off by about a deviation"
    epoch = [record for record in records if record["type"] == "epoch"][-1]
    assert epoch["val_loss"] == pytest.approx(epoch["val_rmse"] ** 2)
    assert 0.2 < epoch["train_loss"] / epoch["val_loss"] < 5
    assert not result.report.findings
    saved = load_checkpoint(result.best_checkpoint)
    assert saved["choices"]["scale_target"]["value"] == "true"
    [[mean, std]] = saved["preprocessing"]["target_scale"]
    assert mean == pytest.approx(200_000, rel=0.02)
    assert std == pytest.approx(58_000, rel=0.1)
    facts = result.run.read_info()["facts"]
    assert facts["zero_loss"] == pytest.approx(std**2, rel=1e-3)


def test_scores_of_eval_and_report_are_those_of_training(far, tmp_path):
    result, _, folder = far
    again = evaluate(result.best_checkpoint)
    assert {name: again.metrics[name] for name in result.metrics["test"]} == result.metrics["test"]
    rows = far_rows()
    worst = again.as_json()["largest_errors"][0]
    index = int(worst["sample"].removeprefix("all[").removesuffix("]"))
    assert worst["true"] == rows[index, 2], "as it stands in the file"
    assert abs(worst["predicted"] - worst["true"]) < 20_000
    for name in ("loss", "mae", "rmse", "r2"):
        interval = again.report.intervals[name]
        assert interval.low < again.metrics[name] < interval.high
    other = tmp_path / "few.csv"
    other.write_text("".join((folder / "t.csv").read_text().splitlines(keepends=True)[:50]))
    assert evaluate(result.best_checkpoint, data=other).metrics["r2"] > 0.99, "by the scale of the training"
    assert make_report(result.run.path).findings == []


@pytest.mark.parametrize(
    "formats",
    [
        {"torchscript": "model.pt"},
        pytest.param({"pt2": "model.pt2", "onnx": "model.onnx"}, marks=pytest.mark.slow),
    ],
)
def test_predictions_and_programs_answer_in_its_units(far, tmp_path, formats):
    result, _, _ = far
    (tmp_path / "new.csv").write_text("a,b\n0,0\n1,-1\n")
    values = [one.values["y"] for one in predict(result.best_checkpoint, [tmp_path / "new.csv"])]
    np.testing.assert_allclose(values, [200_000, 280_000], atol=12_000)
    bundle = export(result.best_checkpoint, formats=tuple(formats), output=tmp_path / "bundle").bundle
    signature = json.loads((bundle / "signature.json").read_text())
    for program in formats.values():
        assert signature["programs"][program]["outputs"][0]["dtypes"] == ["float64"]
        lines = run_script(bundle / "predict.py", tmp_path / "new.csv", "--program", program).stdout.splitlines()
        np.testing.assert_allclose([json.loads(line)["values"]["y"] for line in lines], values, rtol=1e-6)
    again = [one.values["y"] for one in predict(bundle, [tmp_path / "new.csv"])]
    np.testing.assert_allclose(again, values, rtol=1e-9)
    parity = json.loads((bundle / "parity.json").read_text())["programs"][program]
    assert parity["metric"] == "rmse"
    assert 100 < parity["model"] < 60_000, "in units of the target; some of these rows have gaps"


def test_a_bare_network_comes_with_the_scale(tmp_path, fast_runs):
    text = """
dataset: {type: diabetes}
model: {type: mlp, hidden_sizes: [8]}
optimizer: {type: adam, lr: 0.01}
training: {epochs: 3, batch_size: 32}
"""
    best = train(load(tmp_path, text), runs_dir=tmp_path / "runs").best_checkpoint
    raw = export(best, formats=("torchscript",), raw=True, output=tmp_path / "raw")
    assert 20 < raw.report["programs"]["model.pt"]["model"] < 100, "the RMSE in units of the target"
    outside = json.loads((raw.bundle / "signature.json").read_text())["programs"]["model.pt"]["outside"]
    assert outside["target_scale"] == load_checkpoint(best)["preprocessing"]["target_scale"]


def test_digits_of_a_target_that_is_farther_than_float32_reaches(tmp_path, fast_runs):
    """Around 1e9 float32 has steps of 64; the target has a deviation of 6."""
    loaded = config_of(tmp_path, "export.torchscript=false", factor=1e-4, shift=1e9)
    result = train(loaded, runs_dir=tmp_path / "runs")
    assert result.metrics["test"]["r2"] > 0.99
    assert result.metrics["test"]["rmse"] < 1
    (tmp_path / "new.csv").write_text("a,b\n0,0\n1,-1\n")
    values = np.array([one.values["y"] for one in predict(result.best_checkpoint, [tmp_path / "new.csv"])])
    np.testing.assert_allclose(values - 1e9, [20, 28], atol=1.2)
    bundle = export(result.best_checkpoint, formats=("torchscript",), output=tmp_path / "bundle").bundle
    program = torch.jit.load(bundle / "model.pt")
    answers = program(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    np.testing.assert_allclose(answers[:, 0].numpy(), values, rtol=0, atol=1e-4)


def test_a_run_resumes_bitwise(tmp_path, fast_runs):
    loaded = config_of(tmp_path, "training.epochs=2", "loss={type: huber, delta: 20000.0}")
    whole = train_with_stops(loaded, tmp_path / "whole")
    assert differences(whole, train_with_stops(loaded, tmp_path / "cut", [3, 30])) == []


@pytest.mark.parametrize("scaled", [True, False])
def test_a_resumed_run_keeps_the_scale_of_its_checkpoint(tmp_path, fast_runs, scaled):
    loaded = config_of(tmp_path, "training.epochs=1", f"dataset.scale_target={str(scaled).lower()}")
    run = train(loaded, runs_dir=tmp_path / "runs").run
    more = ["training.epochs=2", f"dataset.scale_target={str(not scaled).lower()}"]
    with pytest.raises(UserError, match=r"dataset\.scale_target: (True|False) in the checkpoint"):
        resume(run.path, overrides=more)
    with pytest.raises(ConfigError, match=r"the checkpoint was trained with(out)? scaling of the target"):
        resume(run.path, overrides=more, allow_change=["dataset.scale_target"])
    said = Said()
    more = ["training.epochs=2", "dataset.scale_target=auto"]
    resume(run.path, overrides=more, allow_change=["dataset.scale_target"], frontend=frontend(say=said.append))
    assert f"scale_target: {str(scaled).lower()} (as asked for" in said


def test_checkpoints_of_earlier_versions_are_not_scaled(tmp_path, fast_runs):
    """Their config has no ``scale_target``, and their preprocessing no scale."""
    loaded = config_of(tmp_path, "training.epochs=1", "dataset.scale_target=false", "export.torchscript=false")
    run = train(loaded, runs_dir=tmp_path / "runs").run
    folder = CheckpointFolder(run.checkpoints)
    path, _ = folder.newest_good()
    saved = load_checkpoint(path)
    known = saved.pop("saved")
    del saved["preprocessing"]["target_scale"], saved["choices"]["scale_target"]
    del saved["config"]["dataset"]["scale_target"]
    state = {name: value for name, value in saved.items() if name not in ("format", "kind")}
    folder.save(state, name=known["name"], step=known["step"], epoch=1, score=1.0, best=True, keep_last=1)
    text = run.resolved_config.read_text()
    run.resolved_config.write_text(text.replace("  scale_target: false\n", ""))
    said = Said()
    result = resume(run.path, overrides=["training.epochs=2"], frontend=frontend(say=said.append))
    assert "scale_target: false (as in the checkpoint)" in said
    assert result.metrics["test"]["r2"] < 0, "as before: outputs begin around 0"
    assert load_checkpoint(result.best_checkpoint)["preprocessing"]["target_scale"] is None


def test_other_units_give_the_same_training(tmp_path, fast_runs):
    """A factor that float64 has no rounding for, and a shift that takes few digits."""
    scores = {}
    for name, units in {"one": {}, "other": {"factor": 0.25, "shift": 1024.0}}.items():
        loaded = config_of(tmp_path / name, "training.epochs=3", "export.torchscript=false", **units)
        scores[name] = train(loaded, runs_dir=tmp_path / name / "runs").metrics["test"]
    assert scores["other"]["r2"] == pytest.approx(scores["one"]["r2"], abs=1e-5)
    assert scores["other"]["mae"] == pytest.approx(0.25 * scores["one"]["mae"], rel=1e-3)
    assert scores["other"]["loss"] == pytest.approx(0.25**2 * scores["one"]["loss"], rel=1e-3)


def test_early_stopping_counts_in_the_units_of_the_target(tmp_path, fast_runs):
    text = CONFIG.replace("batch_size: 32", "batch_size: 32, early_stopping: {{patience: 1, min_delta: 1.0e+12}}")
    loaded = config_of(tmp_path, "export.torchscript=false", text=text)
    result = train(loaded, runs_dir=tmp_path / "runs")
    assert (result.outcome, result.epochs_completed) == ("early stopping", 2), "no loss falls by 1e12"


def test_several_targets_have_the_loss_of_the_scaled_ones(tmp_path, fast_runs):
    text = """
dataset: {type: synthetic, num_samples: 300, problem: {type: linear_regression, num_targets: 3}}
model: {type: mlp, hidden_sizes: [16]}
optimizer: {type: adam, lr: 0.01}
training: {epochs: 10, batch_size: 32}
"""
    said = Said()
    result = train(load(tmp_path, text), runs_dir=tmp_path / "runs", frontend=frontend(say=said.append))
    assert "the loss is that of the scaled targets" in said
    again = evaluate(result.best_checkpoint)
    assert again.metrics["loss"] == result.metrics["test"]["loss"] < 0.2
    scale = load_checkpoint(result.best_checkpoint)["preprocessing"]["target_scale"]
    assert len({std for _, std in scale}) == 3
    maes = np.abs(again.report.predictions - again.report.targets).mean(axis=0)
    np.testing.assert_allclose([row.mae for row in again.report.per_target], maes, rtol=1e-5)


def test_two_columns_with_units_of_their_own(tmp_path, fast_runs):
    a, b, price = far_rows().T
    when = 1_700_000_000.5 + 3600 * a
    lines = [",".join(map(repr, row)) for row in np.stack([a, b, price, when], axis=1).tolist()]
    (tmp_path / "two.csv").write_text("\n".join(["a,b,price,when", *lines]) + "\n")
    said = Said()
    loaded = load(tmp_path, CONFIG.format(path=tmp_path / "two.csv", target="[price, when]"))
    result = train(loaded, runs_dir=tmp_path / "runs", frontend=frontend(say=said.append))
    assert "price has mean 2" in said
    assert "when has mean 1.7e+09 and standard deviation 3" in said
    rows = {row.name: row for row in evaluate(result.best_checkpoint).report.per_target}
    assert min(row.r2 for row in rows.values()) > 0.99
    assert (rows["price"].mae < 6000, rows["when"].mae < 400) == (True, True)
    (tmp_path / "new.csv").write_text("a,b\n0,0\n")
    [answer] = predict(result.best_checkpoint, [tmp_path / "new.csv"])
    assert answer.values["price"] == pytest.approx(200_000, abs=12_000)
    assert answer.values["when"] - 1_700_000_000 == pytest.approx(0, abs=800)


def test_a_constant_target_is_refused(tmp_path, fast_runs):
    loaded = config_of(tmp_path, "export.torchscript=false", factor=0.0, shift=7.5)
    with pytest.raises(ConfigError, match=r"the target 'y' is 7.5 in all rows; nothing can be learned"):
        train(loaded, runs_dir=tmp_path / "runs")


def test_targets_that_are_standard_already_stay_as_they_are(tmp_path, fast_runs):
    loaded = config_of(tmp_path, "training.epochs=1", "export.torchscript=false", factor=1e-5, shift=-2.0)
    said = Said()
    result = train(loaded, runs_dir=tmp_path / "runs", frontend=frontend(say=said.append))
    assert "scale_target: false (auto: " in said
    assert load_checkpoint(result.best_checkpoint)["preprocessing"]["target_scale"] is None

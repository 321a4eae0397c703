"""What ``trainkit eval`` prints and leaves behind."""

import json

import pytest

from trainkit.api import evaluate
from trainkit.cli import evaluate as command
from trainkit.system.durable import WriteError


def test_the_tables(tiny_run, capsys):
    command.evaluate(tiny_run.best_checkpoint, plots=False)
    out, err = capsys.readouterr()
    metrics = tiny_run.metrics["test"]
    for line in (
        "accuracy",
        "roc_auc",
        "expected_calibration_error",
        "confusion: true classes down",
        "most confidently",
    ):
        assert line in out
    assert f"{metrics['accuracy']:.4f}" in out
    assert "eval.json" in out.splitlines()[-1]
    assert "Traceback" not in err


def test_json_has_the_numbers_of_the_python_function(tiny_run, capsys, tmp_path):
    command.evaluate(tiny_run.best_checkpoint, split="val", output=tmp_path / "out", plots=False, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"] == evaluate(tiny_run.best_checkpoint, split="val").metrics
    assert printed["folder"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "eval.json").is_file()


def test_the_result_is_printed_before_a_disk_fails(tiny_run, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        command.evaluate(tiny_run.best_checkpoint, output=tmp_path / "file", plots=False)
    assert "accuracy" in capsys.readouterr().out


def test_many_classes_are_cut_down_to_the_worst(capsys):
    import numpy as np
    import torch

    from trainkit.engine.losses import build_loss
    from trainkit.evaluation.report import build_report

    rng = np.random.default_rng(0)
    targets = rng.integers(40, size=400)
    outputs = torch.from_numpy(rng.normal(size=(400, 40)).astype(np.float32))
    names = [f"class {k}" for k in range(40)]
    report = build_report(
        outputs, targets, loss=build_loss("cross_entropy"), class_names=names, target_names=(), metrics={}, seed=0
    )
    command.show_classes(report)
    command.show_confusion(report)
    out = capsys.readouterr().out
    assert "the 30 of 40 classes with the lowest F1" in out
    assert "most frequent mistakes" in out

"""The ensemble of a cross-validation answers with the mean of its networks, each with its own statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trainkit
from trainkit.config import load_config
from trainkit.errors import UserError
from trainkit.system import Frontend
from trainkit.workflows.cross_validation import CvResult
from trainkit.workflows.find import find_checkpoint
from trainkit.workflows.predict import predict
from trainkit.workflows.train import train


def answers(model: Path, inputs: object) -> np.ndarray:
    """Probabilities in the order of the classes' names (N, K), or values (N, T)."""
    found = list(predict(model, inputs, top_k=100))
    assert not any(one.error for one in found)
    rows = [[share for _, share in sorted(one.top)] if one.top else list(one.values.values()) for one in found]
    return np.array(rows)


def mean_of_runs(result: CvResult, inputs: object) -> np.ndarray:
    return np.mean([answers(one.checkpoint, inputs) for one in result.folds], axis=0)


def test_the_ensemble_answers_with_the_mean_of_probabilities(finished):
    table = str(finished.folder.parent.parent / "rows.csv")
    alone = [answers(one.checkpoint, table) for one in finished.folds]
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    assert answers(finished.ensemble, table) == pytest.approx(np.mean(alone, axis=0), abs=1e-6)


def test_the_folder_stands_for_its_ensemble(finished):
    assert find_checkpoint(finished.folder, runs_dir=Path("runs"), frontend=Frontend()) == finished.ensemble


def test_scores_on_samples_that_it_was_trained_on_are_refused(finished):
    with pytest.raises(UserError, match="the networks of the ensemble have trained on its data; "):
        trainkit.evaluate(finished.ensemble)
    table = finished.folder.parent.parent / "rows.csv"
    assert trainkit.evaluate(finished.ensemble, data=table).num_samples == 89


def test_an_ensemble_is_not_trained_any_further(finished):
    loaded = load_config(finished.folder.parent.parent / "c.yaml")
    with pytest.raises(UserError, match="an ensemble is not trained any further"):
        train(loaded, resume=finished.ensemble)
    with pytest.raises(UserError, match="an ensemble, the weights of several networks"):
        train(loaded, init_from=finished.ensemble, runs_dir=finished.folder.parent / "other")


def write_samples(folder: Path) -> None:
    """Values far from 0, with gaps; pictures of two sizes; a test set for each."""
    rng = np.random.default_rng(1)
    for name, count in (("rows.csv", 60), ("test.csv", 20)):
        lines = ["when,size,price"]
        for _ in range(count):
            size = rng.normal(3)
            lines.append(f"{1.7e9 + rng.integers(1000)},{'' if rng.random() < 0.1 else size},{5e8 + 2 * size}")
        (folder / name).write_text("\n".join(lines) + "\n")
    for split, count in (("train", 12), ("test", 4)):
        for shade, name in ((40, "cat"), (150, "dog")):
            (folder / "pictures" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 100, (10 + index % 2, 12, 3)) + shade
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "pictures" / split / name / f"{index}.png")


SAMPLES = {
    "values": (
        {
            "dataset": {"type": "table", "path": "rows.csv", "test_path": "test.csv", "target": "price"},
            "transforms": ["robust_scale"],
            "model": {"type": "mlp", "hidden_sizes": [8]},
        },
        "test.csv",
        20,
    ),
    "pictures": (
        {
            "dataset": {"type": "image_folder", "root": "pictures"},
            "transforms": [{"type": "resize", "size": [8, 8]}, "random_horizontal_flip", "normalize"],
            "model": {"type": "cnn", "blocks": [{"channels": 4}]},
        },
        "pictures/test",
        8,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLES)
def test_programs_answer_with_the_mean_and_a_test_set_of_the_datas_own_is_scored(
    kind, tmp_path, fast_runs, forked_checks
):
    write_samples(tmp_path)
    config, inputs, count = SAMPLES[kind]
    result = trainkit.cross_validate(
        {**config, "name": kind, "training": {"epochs": 2, "batch_size": 16}, "export": {"torchscript": False}},
        folds=3,
        config_dir=tmp_path,
        cv_dir=tmp_path / "cv",
    )
    given = str(tmp_path / inputs)
    expected = mean_of_runs(result, given)
    size = np.abs(expected - expected.mean(axis=0)).max()
    assert np.abs(answers(result.ensemble, given) - expected).max() < 1e-5 * size
    bundle = trainkit.export(result.ensemble, formats=["torchscript", "onnx"]).bundle
    for program in ("model.pt", "model.onnx"):
        assert np.abs(answers(bundle / program, given) - expected).max() < 1e-4 * size
    half = trainkit.export(result.ensemble, formats="onnx", half=True).programs[0]
    assert np.abs(answers(half, given) - expected).max() < 0.02 * size
    scores = trainkit.evaluate(result.ensemble)
    assert (scores.split, scores.num_samples, scores.data_changes) == ("test", count, [])
    with pytest.raises(UserError, match="have trained on its val split"):
        trainkit.evaluate(result.ensemble, split="val")

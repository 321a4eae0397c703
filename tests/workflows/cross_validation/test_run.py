"""A cross-validation of a table with groups, gaps and rows without a target, against scikit-learn's bookkeeping."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from cross_validations import CONFIG, write_data
from real_processes import ForkServer
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict, cross_val_score

from trainkit.api import cross_validate
from trainkit.config import load_config
from trainkit.errors import UserError
from trainkit.system import list_runs
from trainkit.workflows.cross_validation import CvResult


def rows_of(result: CvResult) -> list[dict[str, str]]:
    with result.out_of_fold.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Remembered(ClassifierMixin, BaseEstimator):
    """Says of each row, which is its number, what the file says."""

    def __init__(self, labels=()):
        self.labels = labels

    def fit(self, rows, targets):
        self.classes_ = np.unique(targets)
        return self

    def predict(self, rows):
        return np.array(self.labels)[rows[:, 0]]


def test_the_scores_are_those_of_scikit_learns_cross_validation(finished):
    rows = rows_of(finished)
    true, label = ([row[name] for row in rows] for name in ("true", "label"))
    folds = PredefinedSplit([int(row["fold"]) for row in rows])
    numbers = np.arange(len(rows))[:, None]
    model = Remembered(label)
    assert cross_val_predict(model, numbers, true, cv=folds).tolist() == label
    accuracies = cross_val_score(model, numbers, true, cv=folds, scoring="accuracy")
    assert [one.metrics["accuracy"] for one in finished.folds] == pytest.approx(accuracies)
    mean = finished.means["accuracy"]
    low, high = stats.t.interval(0.95, 2, loc=accuracies.mean(), scale=stats.sem(accuracies))
    assert (mean.mean, mean.low, mean.high) == pytest.approx((accuracies.mean(), low, high))
    chances = np.array([[float(row[f"p_{name}"]) for name in "abc"] for row in rows])
    pooled = finished.pooled.metrics
    assert pooled["accuracy"] == pytest.approx(accuracy_score(true, label))
    assert pooled["f1_macro"] == pytest.approx(f1_score(true, label, average="macro"))
    assert pooled["roc_auc"] == pytest.approx(roc_auc_score(true, chances, multi_class="ovr"))
    assert finished.pooled.intervals["accuracy"].low < pooled["accuracy"] < finished.pooled.intervals["accuracy"].high


def test_each_row_with_a_target_is_there_once_under_its_line_and_no_patient_is_in_two_folds(finished):
    lines = (finished.folder.parent.parent / "rows.csv").read_text().splitlines()
    rows = rows_of(finished)
    assert len(rows) == 89
    fold_of: dict[str, set[str]] = {}
    for row in rows:
        path, _, line = row["source"].rpartition(":")
        assert Path(path).name == "rows.csv"
        patient, _, _, kind = lines[int(line) - 1].split(",")
        assert kind == row["true"]
        fold_of.setdefault(patient, set()).add(row["fold"])
    assert len({row["source"] for row in rows}) == 89
    assert all(len(folds) == 1 for folds in fold_of.values())


def test_each_run_is_an_ordinary_one_of_its_fold(finished):
    for one in finished.folds:
        config = load_config(one.run.resolved_config).config
        assert (config.dataset.folds.count, config.dataset.folds.fold) == (3, one.fold)
        info = one.run.read_info()
        assert info["status"] == "finished"
        assert info["metrics"]["test"] == pytest.approx(one.metrics)
    assert json.loads((finished.folder / "results.json").read_text())["status"] == "finished"
    assert (finished.folder / "config.yaml").read_text().startswith(CONFIG)


def test_the_same_command_trains_nothing_again_and_another_one_is_refused(finished):
    folder = finished.folder.parent.parent
    before = {path: path.read_bytes() for path in (finished.out_of_fold, finished.folder / "results.json")}
    again = cross_validate(folder / "c.yaml", folds=3, group="patient", cv_dir=folder / "cv")
    assert [one.run for one in again.folds] == [one.run for one in finished.folds]
    assert len(list_runs(finished.folder / "runs")) == 3
    assert before == {path: path.read_bytes() for path in before}
    with pytest.raises(UserError, match="holds a cross-validation with 3 folds, not 4; take another name"):
        cross_validate(folder / "c.yaml", folds=4, group="patient", cv_dir=folder / "cv")
    with pytest.raises(UserError, match=r"of another config; .*\n  optimizer.lr: 0.03 there, 0.01 now"):
        cross_validate(
            folder / "c.yaml", folds=3, group="patient", cv_dir=folder / "cv", overrides=["optimizer.lr=0.01"]
        )


CHANGES = [
    (("red", "blue"), "part 'all': input values changed"),
    (("\np", "\np1,1.5,red,a\np"), r"part 'all': 89 samples then, 90 now \(a"),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_other_data_than_those_of_the_first_folds_are_refused_before_any_training(finished, tmp_path, change, expected):
    folder = shutil.copytree(finished.folder.parent.parent, tmp_path / "copy")
    for run in (folder / "cv" / "c" / "runs").glob("*_fold[12]"):
        shutil.rmtree(run)
    rows = folder / "rows.csv"
    rows.write_text(rows.read_text().replace(*change, 1))
    with pytest.raises(
        UserError, match=rf"c: the data \(table rows.csv\) are not those .* fold 0 .*: {expected}.*put "
    ):
        cross_validate(folder / "c.yaml", folds=3, group="patient", cv_dir=folder / "cv")
    assert len(list_runs(folder / "cv" / "c" / "runs")) == 1


BAD = [
    ({"folds": 1}, "--folds 1: dataset.folds.count: expected a whole number of at least 2, got 1"),
    ({"folds": 2.5}, "folds: expected a whole number of at least 2, got 2.5"),
    ({"folds": 90}, "--folds 90: dataset.folds.count: 90 folds need 90 samples, got 89; take fewer folds"),
    ({"folds": 31}, "dataset.folds.count: 31 folds need 31 samples of each class, got fewer of a (30), b (29), c (30)"),
    ({"folds": 18, "group": "patient"}, "17 groups are too few for 18 folds, which take one each"),
    ({"group": "pateint"}, "has no column 'pateint'; did you mean 'patient'?"),
    ({"group": "kind"}, "--group kind: dataset.split.column: the rows cannot be split by the target"),
    (
        {"overrides": ["dataset=mnist", "transforms=[]"]},
        "mnist has a test set of its own, which its scores are compared on",
    ),
    ({"overrides": ["dataset=digits"], "group": "age"}, "--group age: dataset.split: digits has no such knob; table"),
    ({"overrides": ["dataset.split={type: time, column: age}"]}, "a fold would be predicted by a model that has seen"),
    (
        {"overrides": ["dataset={split: {type: column, column: color}, type: table, path: rows.csv, target: kind}"]},
        "folds are made here, and `dataset.split.type",
    ),
    ({"overrides": ["training.drop_last=true", "training.batch_size=80"]}, "the training split has"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_what_cannot_be_in_folds_is_said_before_anything_is_written(given, message, tmp_path):
    write_data(tmp_path)
    with pytest.raises(UserError) as caught:
        cross_validate(tmp_path / "c.yaml", cv_dir=tmp_path / "cv", **given)
    assert message in str(caught.value)
    assert not (tmp_path / "cv").exists()


def test_a_mistake_in_the_file_points_to_the_config_and_not_to_an_option(tmp_path):
    write_data(tmp_path)
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("p1,2.0,red,a,more\n")
    with pytest.raises(UserError) as caught:
        cross_validate(tmp_path / "c.yaml", group="patient", cv_dir=tmp_path / "cv")
    assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}:1:1: dataset: {tmp_path / 'rows.csv'}:92: 5 cells")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    write_data(tmp_path)
    (tmp_path / "cv" / "c").mkdir(parents=True)
    (tmp_path / "cv" / "c" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="is there, and is no cross-validation; take another name"):
        cross_validate(tmp_path / "c.yaml", cv_dir=tmp_path / "cv")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
def test_a_killed_and_interrupted_one_ends_like_the_one_that_was_left_alone(tmp_path):
    server = ForkServer()
    whole, other = tmp_path / "whole", tmp_path / "other"
    words = ["cv", "c.yaml", "--folds", "3", "--set", "checkpoint.every=2st"]
    for folder in (whole, other):
        folder.mkdir()
        write_data(folder)
    ended = server.trainkit(*words, cwd=whole)
    assert ended.code == 0, ended.output
    for crash in ("before-replace-results.json", "after-replace-run.json", "before-replace-out_of_fold.csv"):
        assert server.trainkit(*words, cwd=other, crash=crash).code == -signal.SIGKILL, crash
    ended = server.trainkit(*words, "--set", "name=d", cwd=other, signal=signal.SIGINT, phase="training", at=17)
    assert ended.code == 130, ended.output
    assert "stopped by SIGINT: the same command goes on with fold 1 (2 of 3)" in ended.output
    for name in ("c", "d"):
        ended = server.trainkit(*words, *(["--set", "name=d"] if name == "d" else []), cwd=other)
        assert ended.code == 0, ended.output
        assert len(list_runs(other / "cv" / name / "runs")) == 3
        ours, theirs = ((one / "out_of_fold.csv").read_text() for one in (other / "cv" / name, whole / "cv" / "c"))
        assert ours.replace(str(other), str(whole)) == theirs
    server.close()

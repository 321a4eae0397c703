"""Tables as people have them: trained on and predicted from, to the right answer."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sklearn.datasets
import torch

from trainkit.checkpoints import load_checkpoint
from trainkit.config import load_config
from trainkit.errors import ProblemsError
from trainkit.system import Frontend
from trainkit.workflows.check import check
from trainkit.workflows.predict import predict
from trainkit.workflows.train.run import TrainResult, train

pytestmark = pytest.mark.usefixtures("fast_runs")
CONFIG = """
dataset: {{type: table, path: {path}, target: {target}}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: [32]}}
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 60, batch_size: 32, precision: fp32}}
logging: {{plots: false}}
export: {{torchscript: false}}
device: cpu
"""


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def config_of(path: Path, *overrides: str, target: str = "y", text: str = CONFIG) -> Any:
    file = path.with_name("config.yaml")
    file.write_text(text.format(path=path, target=target))
    return load_config(file, overrides=overrides)


def run(path: Path, *overrides: str, target: str = "y", text: str = CONFIG) -> tuple[TrainResult, dict[str, float]]:
    """The run, and its scores on the test split."""
    result = train(config_of(path, *overrides, target=target, text=text), runs_dir=path.with_name("runs"))
    return result, result.metrics["test"]


def notes_of(path: Path, *overrides: str, target: str = "y") -> tuple[dict[str, tuple[str, str]], str]:
    """What ``check`` says: kind and reason by column, and the notes."""
    said: list[str] = []
    setup = check(config_of(path, *overrides, target=target), frontend=Frontend(say=said.append)).setup
    columns = {one["name"]: (one["kind"], one["reason"]) for one in setup.data.columns}
    return columns, "\n".join([*setup.data.notes, *said])


def values_of(result: TrainResult, path: Path) -> list[float]:
    return [one.values["y"] for one in predict(result.best_checkpoint, [path])]


@pytest.mark.parametrize("rows", [200, 900, 20_000])
def test_counts_are_never_classes_whatever_the_number_of_rows(tmp_path: Path, rows: int) -> None:
    x = np.random.default_rng(0).random(rows).round(6)
    path = write(tmp_path / "t.csv", ["x", "y"], zip(x, (100 * x).round().astype(int), strict=True))
    if rows < 20_000:  # not all whole numbers up to the largest are there
        assert "y is taken for regression: it holds more than 20 different whole numbers" in notes_of(path)[1]
        return
    with pytest.raises(ProblemsError, match=r"all whole numbers from 0 to 100; say whether .*task: regression"):
        notes_of(path)


@pytest.mark.slow
def test_counts_are_learned_as_values(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random(900).round(6)
    path = write(tmp_path / "t.csv", ["x", "y"], zip(x, (100 * x).round().astype(int), strict=True))
    _, test = run(path, "dataset.task=regression")
    assert test["rmse"] == pytest.approx(12**-0.5, abs=0.15), "rounding to whole numbers is all that is left"


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    x = np.repeat(np.arange(51), 6) / 10
    commas = [[f"{value:.1f}".replace(".", ",") for value in (v, 2 * v + 1)] for v in x]
    path = write(tmp_path / "t.csv", ["x", "y"], commas, ";")
    assert "decimal comma" in notes_of(path)[1]
    assert run(path)[1]["r2"] > 0.9995


def test_unix_times_keep_their_digits(tmp_path: Path) -> None:
    """float32 has steps of 128 s at 1.7e9, and all the times lie within a minute."""
    path = write(tmp_path / "t.csv", ["t", "y"], [(f"{1_700_000_000 + k / 10:.1f}", k / 600) for k in range(600)])
    assert run(path)[1]["r2"] > 0.999


def test_the_index_that_pandas_writes_is_left_out(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=60).round(3)
    path = write(tmp_path / "t.csv", ["", "x", "y"], [(i, v, round(3 * v, 3)) for i, v in enumerate(x)])
    columns, notes = notes_of(path)
    assert columns["x"][0] == "numeric"
    assert columns["Unnamed: 0"][0] == "ignore"
    assert "left out: Unnamed: 0" in notes
    result, test = run(path, "training.batch_size=8")
    assert load_checkpoint(result.best_checkpoint)["preprocessing"]["feature_names"] == ["x"]
    assert test["r2"] > 0.99


def test_spellings_of_a_label_are_one_class(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=200).round(3)
    rows = [(v, int(v > 0) if i < 100 else float(v > 0)) for i, v in enumerate(x)]
    result, test = run(write(tmp_path / "t.csv", ["x", "y"], rows))
    assert load_checkpoint(result.best_checkpoint)["class_names"] == ["0", "1"]
    assert test["accuracy"] > 0.95


def test_a_target_far_from_0_is_learned(tmp_path: Path) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 400)).round(4)
    rows = zip(a, b, (200_000.5 + 50_000 * a - 30_000 * b).round(2), strict=True)
    assert run(write(tmp_path / "t.csv", ["a", "b", "y"], rows))[1]["r2"] > 0.99


@pytest.mark.parametrize("gap", [False, True])
def test_a_column_that_never_varied_has_no_influence(tmp_path: Path, gap: bool) -> None:
    """With a gap it is numeric, has a flag, and its one value is 0 to the model, whatever it holds later."""
    a = np.random.default_rng(0).normal(size=200).round(3)
    rows = [(v, "" if gap and i % 9 == 0 else 5, round(3 * v + 0.5, 4)) for i, v in enumerate(a)]
    path = write(tmp_path / "t.csv", ["a", "k", "y"], rows)
    columns, notes = notes_of(path)
    assert columns["k"][0] == ("numeric" if gap else "ignore")
    assert ("k (constant: 5)" in notes) is not gap
    result, _ = run(path)
    new = write(tmp_path / "new.csv", ["a", "k"], [(1, 5), (1, 1000)])
    one, other = values_of(result, new)
    assert one == other
    assert one == pytest.approx(3.5, abs=0.1)


def passengers(rows: int) -> list[tuple[Any, ...]]:
    """Sex, age (missing in a fifth), fare, port (missing twice), and whether they survived."""
    rng = np.random.default_rng(0)
    found: list[tuple[Any, ...]] = []
    for row in range(rows):
        age = "" if row % 5 == 0 else int(rng.integers(1, 80))
        sex, port = rng.choice(["male", "female"]), "" if row in (61, rows - 1) else rng.choice(["S", "C", "Q"])
        survived = int(rng.random() < (0.75 if sex == "female" else 0.2))
        found.append((sex, age, round(float(rng.exponential(30)), 2), port, survived))
    return found


def test_a_table_with_gaps_is_learned_and_every_row_has_an_answer(tmp_path: Path) -> None:
    rows = passengers(891)
    names = ["Sex", "Age", "Fare", "Embarked"]
    path = write(tmp_path / "t.csv", [*names, "Survived"], rows)
    _, notes = notes_of(path, target="Survived")
    assert "missing cells are filled in: Age 179, Embarked 2" in notes
    result, test = run(path, "training.epochs=5", target="Survived")
    assert test["accuracy"] > 0.7
    new = write(tmp_path / "new.csv", names, [*(row[:4] for row in rows[:417]), ("male", "", "", "Z")])
    said: list[str] = []
    answers = list(predict(result.best_checkpoint, [new], frontend=Frontend(say=said.append)))
    assert len(answers) == 418
    assert all(one.error is None and one.label in ("0", "1") for one in answers)
    assert "Z" in "\n".join(said)


def test_the_first_line_of_excel_gives_the_delimiter(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=60).round(3)
    path = tmp_path / "t.csv"
    path.write_text("sep=;\nx;y\n" + "".join(f"{v};{round(3 * v, 3)}\n" for v in x))
    columns, notes = notes_of(path)
    assert list(columns) == ["x"]
    assert "semicolon" in notes
    assert run(path, "training.batch_size=8")[1]["r2"] > 0.99


def test_a_parquet_twin_gives_the_same_bits(tmp_path: Path) -> None:
    names = ["Sex", "Age", "Fare", "Embarked", "Survived"]
    table = write(tmp_path / "t.csv", names, passengers(200))
    twin = tmp_path / "twin" / "t.parquet"
    twin.parent.mkdir()
    pl.read_csv(table).write_parquet(twin)
    results = [run(path, "training.epochs=2", target="Survived")[0] for path in (table, twin)]
    one, other = (load_checkpoint(result.best_checkpoint)["model"] for result in results)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_bundled_sets_of_scikit_learn_written_by_pandas_train(tmp_path: Path, name: str) -> None:
    """With an index column, names of classes, and no setting but path and target."""
    data = getattr(sklearn.datasets, f"load_{name}")()
    labels = data.target if name == "diabetes" else [data.target_names[label] for label in data.target]
    rows = [(i, *map(float, row), y) for i, (row, y) in enumerate(zip(data.data, labels, strict=True))]
    path = write(tmp_path / "t.csv", ["", *data.feature_names, "y"], rows)
    _, test = run(path)
    if name == "diabetes":
        assert test["r2"] > 0.3
    else:
        assert test["accuracy"] >= 0.9


@pytest.mark.slow
def test_penguins_with_nothing_but_path_and_target(tmp_path: Path) -> None:
    folder = os.environ.get("TRAINKIT_TEST_DATA")
    if not folder:
        pytest.skip("TRAINKIT_TEST_DATA is not set")
    text = "dataset: {{type: table, path: {path}, target: {target}}}\nmodel: tabular_mlp\n"
    path = tmp_path / "penguins.csv"
    shutil.copy(Path(folder) / "tables" / "penguins.csv", path)
    assert run(path, "training.epochs=64", target="species", text=text)[1]["accuracy"] >= 0.97


def test_numbers_are_mixed_and_categories_are_not(tmp_path: Path) -> None:
    """Also with weights of the rows and several members of a model."""
    draws = np.random.default_rng(0)
    xs = draws.normal(size=300)
    rows = [(f"{x:.4f}", "ab"[int(x * 7) % 2], f"{draws.random():.3f}", "no" if x < 0 else "yes") for x in xs]
    path = write(tmp_path / "t.csv", ["x", "kind", "w", "y"], rows)
    mixed = ("training.mix={type: mixup, off_for_last: 2ep}", "training.epochs=20", "dataset.weight=w")
    with pytest.raises(ProblemsError, match="there is no mean of two categories, got mixup with"):
        check(config_of(path, *mixed))
    _, scores = run(path, *mixed, "dataset.features=[x]")
    assert scores["accuracy"] > 0.9
    log = next(tmp_path.glob("runs/*/train.log")).read_text()
    assert "training accuracy is against the class with the larger share" in log

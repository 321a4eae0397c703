"""Tables: tabular_mlp with its defaults, with 32 members, the plain mlp, and scikit-learn's trees, on the same splits.

    TRAINKIT_TEST_DATA=... python benchmarks/tables.py [--seeds 5] [--sets friedman1 wine ...] [--contenders ...]
        [--flights flights.csv] [--results results.jsonl]

Each seed splits a set: 75 % of the rows for training and 25 % for the test; trainkit validates on a fifth of the first,
and reads both as CSV files. Trees have the scikit-learn defaults and see categories as such (HistGradientBoosting) or
one-hot (RandomForest). The score is accuracy for classes (balanced accuracy for ``imbalanced``) and R2 for values, in
percent. With ``--results`` finished runs are kept, and a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn import datasets

ROWS = 2000


def _frame(inputs: Any, target: Any, names: Any = None) -> pl.DataFrame:
    names = names or [f"x{column}" for column in range(inputs.shape[1])]
    return pl.DataFrame({name: inputs[:, column] for column, name in enumerate(names)}).with_columns(
        pl.Series("target", target)
    )


def _bundled(name: str) -> pl.DataFrame:
    bunch = getattr(datasets, f"load_{name}")()
    target = bunch.target if name == "diabetes" else [f"c{label}" for label in bunch.target]
    return _frame(bunch.data, target)


def _houses(rows: int = 4000) -> pl.DataFrame:
    """As california housing: skewed incomes, coordinates with a coast, interactions, a capped price."""
    rng = np.random.default_rng(0)
    income, age, rooms = rng.lognormal(1.2, 0.5, rows), rng.integers(1, 53, rows), rng.lognormal(1.6, 0.3, rows)
    people, longitude, latitude = (
        rng.lognormal(1.0, 0.4, rows),
        rng.uniform(-124, -114, rows),
        rng.uniform(32, 42, rows),
    )
    coast = np.abs(latitude - 37 - 1.2 * np.sin(longitude))
    price = 0.45 * income * (1 + rooms / people / 8) + 1.5 * np.exp(-coast) + 0.01 * age * (income > 4)
    price = np.minimum(price + rng.normal(0, 0.25, rows), 5)
    columns = {"income": income, "age": age, "rooms": rooms, "people": people, "lon": longitude, "lat": latitude}
    return pl.DataFrame(columns).with_columns(pl.Series("target", np.round(price, 4)))


def _imbalanced(rows: int = 4000) -> pl.DataFrame:
    """As covertype: seven classes, of which two hold most rows, quantities and two categories."""
    weights = [0.37, 0.48, 0.06, 0.01, 0.02, 0.03]
    shape = {"n_informative": 8, "n_classes": 7, "n_clusters_per_class": 2}
    inputs, target = datasets.make_classification(rows, 12, weights=weights, random_state=0, **shape)
    frame = _frame(inputs[:, :10], [f"c{label}" for label in target])
    area = np.digitize(inputs[:, 10], [-2, 0, 2])
    soil = np.digitize(inputs[:, 11], np.linspace(-4, 4, 29))
    area, soil = ([f"{letter}{one}" for one in codes] for letter, codes in (("a", area), ("s", soil)))
    return frame.with_columns(pl.Series("area", area), pl.Series("soil", soil))


def _penguins() -> pl.DataFrame:
    path = Path(os.environ["TRAINKIT_TEST_DATA"]) / "tables" / "penguins.csv"
    return pl.read_csv(path, null_values="NA").rename({"species": "target"})


def _flights(path: Path, rows: int = 5000) -> pl.DataFrame:
    """A sample of nycflights13: arrival delays from the schedule, carrier, tail number and the departure's delay."""
    frame = pl.read_csv(path, null_values="NA").drop_nulls("arr_delay").sample(rows, seed=0)
    return frame.rename({"arr_delay": "target"}).drop("year", "air_time", "arr_time", "time_hour")


SETS: dict[str, Callable[[], pl.DataFrame]] = {
    "friedman1": lambda: _frame(*datasets.make_friedman1(ROWS, noise=1.0, random_state=0)),
    "friedman2": lambda: _frame(*datasets.make_friedman2(ROWS, noise=125.0, random_state=0)),
    "friedman3": lambda: _frame(*datasets.make_friedman3(ROWS, noise=0.1, random_state=0)),
    "diabetes": lambda: _bundled("diabetes"),
    "houses": _houses,
    "wine": lambda: _bundled("wine"),
    "breast_cancer": lambda: _bundled("breast_cancer"),
    "digits": lambda: _bundled("digits"),
    "penguins": _penguins,
    "imbalanced": _imbalanced,
}
TRAINKIT: dict[str, Any] = {
    "tabular_mlp": {"type": "tabular_mlp"},
    "members 32": {"type": "tabular_mlp", "members": 32},
    "mlp": {"type": "mlp"},
}
CONTENDERS = (*TRAINKIT, "HistGradientBoosting", "RandomForest")


def split(frame: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    order = np.random.default_rng(seed).permutation(len(frame))
    train, val = int(0.6 * len(frame)), int(0.75 * len(frame))
    return frame[order[:train]], frame[order[train:val]], frame[order[val:]]


def score(predicted: Any, target: Any, *, balanced: bool) -> float:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, r2_score

    if isinstance(target[0], str):
        return float((balanced_accuracy_score if balanced else accuracy_score)(target, predicted))
    return float(r2_score(target, predicted))


def run_trees(name: str, parts: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame], seed: int) -> list[Any]:
    from sklearn import ensemble

    train, test = pl.concat(parts[:2]), parts[2]
    texts = [column for column in train.columns if train[column].dtype == pl.String and column != "target"]
    numbers = [column for column in train.columns if column not in (*texts, "target")]
    both = pl.concat([train, test])
    known = {column: both[column].unique().drop_nulls().sort().to_list() for column in texts}
    is_class = train["target"].dtype == pl.String

    def inputs(frame: pl.DataFrame, *, one_hot: bool) -> Any:
        columns = [frame[column] for column in numbers]
        for column in texts:
            values = known[column]
            codes = frame[column].replace_strict(values, list(range(len(values))), default=None).cast(pl.Float64)
            columns += [(codes == code).fill_null(False) for code in range(len(values))] if one_hot else [codes]
        return np.stack([column.cast(pl.Float64).to_numpy() for column in columns], axis=1)

    if name == "RandomForest":
        kind = ensemble.RandomForestClassifier if is_class else ensemble.RandomForestRegressor
        model, one_hot = kind(random_state=seed), True
    else:
        kind = ensemble.HistGradientBoostingClassifier if is_class else ensemble.HistGradientBoostingRegressor
        few = [len(numbers) + place for place, column in enumerate(texts) if len(known[column]) <= 255]
        model, one_hot = kind(random_state=seed, categorical_features=few or None), False
    model.fit(inputs(train, one_hot=one_hot), train["target"].to_numpy())
    return list(model.predict(inputs(test, one_hot=one_hot)))


def run_trainkit(name: str, parts: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame], seed: int) -> list[Any]:
    import trainkit

    with tempfile.TemporaryDirectory() as folder:
        pl.concat(parts[:2]).write_csv(Path(folder) / "train.csv")
        parts[2].drop("target").write_csv(Path(folder) / "test.csv")
        task = "classification" if parts[0]["target"].dtype == pl.String else "regression"
        data = {"type": "table", "path": "train.csv", "target": "target", "task": task}
        config = {
            "seed": seed,
            "dataset": {**data, "val_fraction": 0.2, "test_fraction": 0.0},
            "model": TRAINKIT[name],
            "logging": {"plots": False},
            "export": {"torchscript": False},
        }
        if name == "mlp":
            config |= {"transforms": ["standardize"], "optimizer": {"type": "adam", "lr": 0.001}}
            config["training"] = {"epochs": 100, "batch_size": 64}
        result = trainkit.train(config, config_dir=folder, runs_dir=Path(folder) / "runs")
        found = trainkit.predict(result, Path(folder) / "test.csv")
    return [one.label if task == "classification" else one.values["target"] for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=None)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--flights", type=Path)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    sets = dict(SETS)
    if options.flights:
        sets["flights"] = lambda: _flights(options.flights)
    results: list[dict[str, Any]] = []
    if options.results and options.results.exists():
        results = [json.loads(line) for line in options.results.read_text().splitlines()]
    done = {(one["set"], one["contender"], one["seed"]) for one in results}
    for seed in range(options.seeds):
        for name in options.sets or sets:
            frame = sets[name]()
            for contender in options.contenders:
                if (name, contender, seed) in done:
                    continue
                parts = split(frame, seed)
                started = time.perf_counter()
                run = run_trainkit if contender in TRAINKIT else run_trees
                predicted = run(contender, parts, seed)
                seconds = time.perf_counter() - started
                value = score(predicted, parts[2]["target"].to_list(), balanced=name == "imbalanced")
                one = {"set": name, "contender": contender, "seed": seed, "score": value, "seconds": seconds}
                results.append(one)
                if options.results:
                    with options.results.open("a") as file:
                        file.write(json.dumps(one) + "\n")
    report(results, options.contenders)


def report(results: list[dict[str, Any]], contenders: list[str]) -> None:
    """Mean, standard error and median seconds by set."""
    print("| set | n | " + " | ".join(contenders) + " |")
    print("|---|---|" + "---|" * len(contenders))
    for name in dict.fromkeys(one["set"] for one in results):
        cells, most = [], 0
        for contender in contenders:
            own = [one for one in results if (one["set"], one["contender"]) == (name, contender)]
            values = [100 * one["score"] for one in own]
            most = max(most, len(values))
            if not values:
                cells.append("")
                continue
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            seconds = statistics.median(one["seconds"] for one in own)
            cells.append(f"{statistics.mean(values):.1f} ± {error:.1f} ({seconds:.1f} s)")
        print(f"| {name} | {most} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

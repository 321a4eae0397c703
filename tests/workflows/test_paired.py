"""``trainkit runs compare``, sample by sample: real runs, whose answers are counted again by hand."""

import json
import shutil

import numpy as np
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

import trainkit
from trainkit.cli.app import app
from trainkit.system import Frontend, RunDir
from trainkit.workflows.paired import compare_paired, find_sides, sentences

DIGITS = {
    "dataset": {"type": "digits", "val_fraction": 0.1, "test_fraction": 0.2},
    "model": {"type": "mlp", "hidden_sizes": [16]},
    "training": {"epochs": 1, "batch_size": 64},
    "logging": {"plots": False},
}


def train(folder, name, *overrides, config=DIGITS):
    return trainkit.train(config, overrides=[f"name={name}", *overrides], runs_dir=folder).run


def compared(*runs, **options):
    """The result, and the sentences with A, B, C for the sides and for the runs."""
    found = compare_paired(runs, [run.read_info() for run in runs], **options, frontend=Frontend())
    letters = "ABCDEFGH"
    return found, sentences(found, sides=letters, runs=letters)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def good(folder):
    return train(folder, "good", "optimizer.lr=0.01")


@pytest.fixture(scope="module")
def bad(folder):
    return train(folder, "bad", "optimizer.lr=0.0005")


def right(run):
    """Which test samples the best checkpoint has right: as ``predict`` answers them."""
    from trainkit.builders import load_source

    data = load_source(trainkit.load_config(DIGITS).config)
    answers = trainkit.predict(run.path, data.parts["all"].inputs[data.splits["test"].indices])
    return np.array([one.label for one in answers]) == data.split_targets("test").astype(str)


def test_two_runs_are_compared_by_mcnemars_test_on_their_answers(good, bad, folder):
    command = ["runs", "compare", "good", "bad", "--run-dir", str(folder)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout)["paired"]["differences"]
    first, second = right(good), right(bad)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    assert found["discordant"] == [gained, lost]
    assert found["p_value"] == pytest.approx(binomtest(gained, gained + lost).pvalue)
    assert found["first"] == pytest.approx(good.read_info()["metrics"]["test"]["accuracy"])
    assert found["difference"] == pytest.approx(second.mean() - first.mean())
    assert found["verdict"] == "worse"
    shown = CliRunner().invoke(app, command).stdout
    assert "B (lr 0.0005) is worse than A (lr 0.01) on 359 test samples: accuracy " in shown
    assert f"{gained} samples that B alone has right, {lost} samples that A alone has" in shown
    assert "two or more runs of each config show" in shown
    assert "B (lr 0.0005) is worse" in (folder / "compare.html").read_text()


def test_a_run_equals_itself_and_quick_asks_no_checkpoint(good, folder, tmp_path):
    shutil.copytree(good.path, folder / "20261101-120000_twin")
    twin = RunDir(folder / "20261101-120000_twin")
    twin.update_info(status="interrupted")
    found, said = compared(good, twin)
    assert len(found.sides) == 1
    assert said[0].startswith("All are one config, with different seeds: test accuracy from ")
    assert said[1] == "B is not finished: its best checkpoint so far answers."
    command = ["runs", "compare", "good", "twin", "--run-dir", str(folder), "--output", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--quick", "--json"])
    assert json.loads(done.stdout)["paired"] is None


def test_sides_are_runs_that_differ_in_name_seed_and_fold():
    def info(lr, **changes):
        return {"config": {"optimizer": {"lr": lr}, "name": f"{lr}{changes}", **changes}}

    infos = [
        info(1),
        info(2, seed=1),
        info(1, seed=3),
        info(2, seed=4),
        info(1, dataset={"folds": {"fold": 2}}),
        {},
        {},
    ]
    assert [list(side.runs) for side in find_sides(infos)] == [[0, 2, 4], [1, 3], [5], [6]]


@pytest.mark.slow
def test_seeds_are_pooled_and_paired_where_their_test_samples_are_the_same(good, bad, folder):
    more = [
        train(folder, f"{name}_{seed}", f"optimizer.lr={lr}", f"seed={seed}")
        for name, lr in (("more", 0.01), ("less", 0.0005))
        for seed in (1, 2)
    ]
    found, said = compared(good, *more[:2], bad, *more[2:])
    assert [list(side.runs) for side in found.sides] == [[0, 1, 2], [3, 4, 5]]
    one = found.differences[1]
    scores = [run.read_info()["metrics"]["test"]["accuracy"] for run in (good, *more[:2], bad, *more[2:])]
    assert list(found.scores.values()) == pytest.approx(scores)
    assert one.difference == pytest.approx(np.mean(scores[3:]) - np.mean(scores[:3]))
    assert one.with_seeds
    assert said[0].startswith("B is worse than A on ")
    assert "paired bootstrap with the spread of the runs" in said[0]
    _, said = compared(good, more[-1])
    assert said == [
        "B and A are not compared sample by sample: their test splits hold different samples of the same data (another "
        "seed, fraction or way to split); runs with the same seeds can be compared."
    ]


@pytest.mark.slow
def test_what_cannot_be_paired_says_why(good, bad, folder):
    other = train(folder, "iris", config=DIGITS | {"dataset": "iris"})
    no_test = train(folder, "no_test", "dataset.test_fraction=0")
    empty = RunDir(folder / "20261101-120001_empty")
    empty.path.mkdir()
    damaged = train(folder, "damaged", "optimizer.lr=0.02")
    for file in damaged.checkpoints.glob("*.pth"):
        file.write_bytes(file.read_bytes()[:-100])
    found, said = compared(good, other, no_test, empty, damaged, bad)
    text = "\n".join(said)
    assert "B and A are not compared sample by sample: they answer different questions: '0', '1'" in text
    assert "C is not compared sample by sample: the run has no test split." in text
    assert "D is not compared sample by sample: the run has no checkpoint." in text
    assert "E is not compared sample by sample: " in text
    assert "F is worse than A on 359 test samples" in text
    assert found.confidence == pytest.approx(1 - 0.05 / 5), "all intervals hold at once"


@pytest.mark.slow
def test_validation_samples_stand_in_for_a_test_split_that_nobody_has(folder):
    runs = [train(folder, f"val{lr}", "dataset.test_fraction=0", f"optimizer.lr={lr}") for lr in (0.01, 0.0005)]
    found, said = compared(*runs)
    assert found.split == "val"
    assert "validation samples: accuracy" in said[0]
    assert said[-1] == (
        "The validation split chose the checkpoints too, so that all of them look better than they are."
    )


@pytest.mark.slow
def test_a_regression_on_a_table_whose_columns_differ(folder, tmp_path):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(400, 3))
    rows = [f"{a:.4f},{b:.4f},{a + b + 0.1 * c:.4f}" for a, b, c in table]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    config = DIGITS | {
        "dataset": {"type": "table", "path": str(tmp_path / "t.csv"), "target": "y", "test_fraction": 0.3},
        "transforms": ["standardize"],
        "optimizer": {"type": "adam", "lr": 0.02},
        "training": {"epochs": 15, "batch_size": 32},
    }
    both = train(folder, "both", config=config)
    one = train(folder, "one", config=config | {"dataset": config["dataset"] | {"features": ["a"]}})
    for metric in ("rmse", "mae"):
        found, said = compared(both, one, metric=metric)
        expected = [run.read_info()["metrics"]["test"][metric] for run in (both, one)]
        assert [found.differences[1].first, found.differences[1].second] == pytest.approx(expected, rel=1e-5)
        assert said[0].startswith(f"B is worse than A on 120 test samples: {metric} ")
    (tmp_path / "moved").mkdir()
    (tmp_path / "t.csv").rename(tmp_path / "moved" / "t.csv")
    assert "A is not compared sample by sample: dataset.path: " in compared(both, one)[1][0]
    assert "B is worse than A on " in compared(both, one, data_root=tmp_path / "moved")[1][0]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows[::-1]]))
    _, said = compared(both, one)
    assert "A is not compared sample by sample: the data are not those of the training any more" in said[0]

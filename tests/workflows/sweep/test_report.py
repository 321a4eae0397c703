"""What the page of a sweep gets from the study."""

from pathlib import Path

from trainkit.config import Choice, Range
from trainkit.workflows.sweep import texts_of
from trainkit.workflows.sweep.confirm import Confirmed
from trainkit.workflows.sweep.report import importance_of, write_report
from trainkit.workflows.sweep.samplers import labels
from trainkit.workflows.sweep.study import Trial

OPTIMIZERS = Choice(({"type": "sgd", "momentum": 0.9}, {"type": "adamw"}, "rmsprop"))
SPACE = {"optimizer": OPTIMIZERS, "optimizer.lr": Range(0.001, 0.1, log=True)}
STORED = list(labels(OPTIMIZERS))


def trial(number: int, optimizer: int, lr: float, score: float | None, **more: object) -> Trial:
    values = {"optimizer": STORED[optimizer], "optimizer.lr": lr}
    state = "failed" if score is None else "complete"
    return Trial(number, **{"state": state, "values": values, "curve": {1: score or 0.0}, "score": score, **more})


def test_short_names_of_choices() -> None:
    assert OPTIMIZERS.names == ["sgd", "adamw", "rmsprop"]
    two = Choice(
        ({"type": "sgd", "momentum": 0.9}, {"type": "sgd", "momentum": 0.5, "nesterov": True}, {"type": "adam"})
    )
    assert two.names == ["sgd momentum 0.9", "sgd momentum 0.5 nesterov true", "adam"]
    assert Choice(("sgd", {"type": "sgd", "lr": 1})).names == ["sgd", "sgd lr 1"]
    assert Choice(([64], [128, 64], {"epochs": 3})).names == ["[64]", "[128, 64]", "{epochs: 3}"]
    stored = {"optimizer": STORED[0], "optimizer.lr": 0.0123456}
    assert texts_of(SPACE, stored) == {"optimizer": "sgd", "optimizer.lr": "0.01235"}


def test_importance_says_which_value_matters() -> None:
    trials = [trial(number, number % 3, 0.001 * (1 + number), 0.5 + 0.1 * (number % 3)) for number in range(12)]
    found = importance_of(SPACE, trials, maximize=True)
    assert found["optimizer"] > 0.8
    assert found == importance_of(SPACE, trials, maximize=True)
    assert importance_of(SPACE, trials[:4], maximize=True) == {}, "too few to say"
    assert importance_of(SPACE, [trial(number, 0, 0.1, 0.5) for number in range(9)], maximize=True) == {}


def test_the_page_links_to_the_runs_that_have_one(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "report.html").write_text("")
    trials = [
        trial(0, 1, 0.01, 0.75, run="a"),
        trial(1, 0, 0.02, 0.5, run="b"),
        trial(2, 2, 0.03, None, reason="out of memory"),
        Trial(3, "running"),
    ]
    confirmed = [Confirmed(0, {1: 0.7}, 0.7, 0.6, 0.8), Confirmed(1, {1: 0.5}, 0.5, 0.4, 0.6, (-0.3, -0.1))]
    path = write_report(
        tmp_path,
        objective="val_accuracy",
        maximize=True,
        space=SPACE,
        trials=trials,
        confirmed=confirmed,
        best=trials[0],
        epochs=1,
        seconds=12.0,
    )
    text = path.read_text(encoding="utf-8")
    assert "Trial 0 is the best: accuracy 75.00 % with optimizer adamw and optimizer.lr 0.01." in text
    assert '<a href="runs/a/report.html">0</a>' in text
    assert "runs/b" not in text
    assert "out of memory" in text
    assert "worse" in text

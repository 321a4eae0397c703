"""The page of a sweep says what the trials were, whatever they were."""

import math
import re

import pytest

from trainkit.reports import Confirmed, Searched, SweepData, SweptTrial, build_sweep_page

SEARCHED = [Searched("optimizer", names=["sgd", "<b>$adam"]), Searched("optimizer.lr", logarithmic=True)]


def trial(number: int, score: float | None, state: str = "complete", **more: object) -> SweptTrial:
    values = {"optimizer": number % 2, "optimizer.lr": 10.0 ** -(1 + number % 4)}
    curve = {} if score is None else {1: score / 2, 2: score}
    return SweptTrial(number, state, values, score, **{"curve": curve, "seconds": 2.0, **more})


def page(trials: list[SweptTrial], *, best: int = 0, **more: object) -> str:
    given = {"objective": "val_accuracy", "maximize": True, "searched": SEARCHED, "seconds": 60.0, "epochs": 2}
    return build_sweep_page(
        SweepData(name="mine", trials=trials, best=best, best_config="sweeps/mine/best.yaml", **{**given, **more})
    )


def charts_of(text: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", text)


def test_what_is_on_the_page() -> None:
    trials = [trial(number, 0.9 + number / 1000) for number in range(6)]
    trials[5] = trial(5, 0.2, page="runs/x/report.html")
    trials += [trial(6, None, "failed", reason="the loss is nan & gone"), trial(7, None, "pruned", curve={1: 0.5})]
    confirmed = [
        Confirmed(4, [0.9, 0.91], 0.905, 0.89, 0.92, "best"),
        Confirmed(3, [0.89, 0.9], 0.895, 0.88, 0.91, "not to be told apart"),
        Confirmed(2, [0.8, 0.81], 0.805, 0.79, 0.82, "worse"),
    ]
    importance = {"optimizer": 0.25, "optimizer.lr": 0.75}
    text = page(trials, best=4, confirmed=confirmed, importance=importance)
    assert "Trial 4 is the best: accuracy 90.40 % with optimizer sgd and optimizer.lr 0.1." in text
    assert "With other seeds, trial 4 is ahead with 90.50 %; trial 3 cannot be told apart from it." in text
    assert "optimizer.lr explains 75 % of the differences between trials." in text
    assert "outside of these scales: trials 5 and 7." in text
    assert '<a href="runs/x/report.html">5</a>' in text
    assert "the loss is nan &amp; gone" in text
    assert "<b>$adam" not in text
    assert "&lt;b&gt;$adam" in text
    assert "81 % of all trials to their ends" in text
    assert "13" in re.search(r"<dt>epochs</dt><dd>(\d+)", text)[1]
    assert charts_of(text) == [
        "Accuracy by trial",
        "Confirmed with other seeds",
        "Importance (fANOVA)",
        "Accuracy by epoch (thick: the best)",
        "optimizer",
        "optimizer.lr",
        "Values of each trial (orange: the best; blue: the best fifth; dotted: not to the end)",
    ]
    rows = re.findall(r'<th scope="row">(?:<a[^>]*>)?(\d)', text.split('id="trials"')[1].split("</table>")[0])
    assert rows == list("43210567")


@pytest.mark.parametrize(
    ("trials", "more"),
    [
        ([trial(0, 0.5)], {}),
        ([trial(0, 0.5), trial(1, 0.5)], {}),
        ([trial(0, 0.0), trial(1, 0.0)], {"objective": "val_loss", "maximize": False}),
        ([trial(0, 0.1), trial(1, 1e6)], {"objective": "val_rmse", "maximize": False}),
        ([trial(0, 0.5, curve={1: math.nan, 2: 0.5}), trial(1, None, "failed", curve={1: math.inf})], {}),
        ([trial(0, 0.5), SweptTrial(1, "running")], {}),
        ([trial(0, 0.5, curve={})], {"searched": SEARCHED[:1]}),
    ],
    ids=["one", "equal", "zero", "far", "nan", "without values", "without curves"],
)
def test_odd_sweeps_have_a_page(trials: list[SweptTrial], more: dict) -> None:
    text = page(trials, **more)
    assert "Trial 0 is the best" in text
    assert "by trial" in charts_of(text)[0]


def test_a_curve_of_one_epoch_can_be_seen() -> None:
    def markers(curve: dict[int, float]) -> int:
        text = page([trial(0, 0.5), SweptTrial(1, "paused", {"optimizer": 0, "optimizer.lr": 0.1}, None, curve=curve)])
        chart = next(one for one in text.split("<figure") if "by epoch" in one)
        return chart.count("<use")

    assert markers({1: 0.4}) > markers({1: 0.4, 2: 0.4})

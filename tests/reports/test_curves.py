import pytest
from PIL import Image

from trainkit.recorders.history import history_of
from trainkit.reports.curves import write_learning_curves, write_overlay
from trainkit.reports.sparkline import sparkline


def record(epoch, **values):
    return {"type": "epoch", "step": 10 * epoch, "epoch": epoch, "lr": 0.1, "best": epoch == 2, **values}


RECORDS = [record(epoch, train_loss=2 / epoch, val_loss=2.1 / epoch, val_accuracy=0.3 * epoch) for epoch in (1, 2, 3)]


def test_curves_have_three_panels_with_a_metric_and_two_without(tmp_path):
    assert write_learning_curves(tmp_path / "plots" / "a.png", RECORDS, title="run")
    plain = [{name: value for name, value in one.items() if name != "val_accuracy"} for one in RECORDS]
    assert write_learning_curves(tmp_path / "b.png", plain, title="run")
    widths = [Image.open(tmp_path / name).size[0] for name in ("plots/a.png", "b.png")]
    assert widths[0] > widths[1] > 900


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert not write_learning_curves(tmp_path / "a.png", [], title="run")
    assert not write_overlay(tmp_path / "a.png", {"A": history_of([])}, metric="val_loss")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("losses", [[None, None, None], [0.0, 0.0, 0.0], [1e30, 1.0, None]])
def test_strange_losses_are_drawn_too(tmp_path, losses):
    records = [record(at, train_loss=loss, val_loss=None) for at, loss in enumerate(losses, start=1)]
    assert write_learning_curves(tmp_path / "a.png", records, title="$x_1$ run")


def test_an_overlay_of_more_runs_than_styles(tmp_path):
    assert write_overlay(tmp_path / "a.png", {str(n): history_of(RECORDS) for n in range(9)}, metric="val_accuracy")
    assert Image.open(tmp_path / "a.png").size[0] > 900


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, float("nan"), 2]) == "▁ █"
    assert sparkline([3, 3]) == "▁▁"
    assert sparkline([]) == ""
    assert sparkline([float("nan")]) == ""
    assert len(sparkline(list(range(1000)), width=20)) == 20

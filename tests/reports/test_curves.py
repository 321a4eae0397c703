import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainkit.recorders.history import history_of
from trainkit.reports.curves import _apart, draw_learning_curves, draw_overlay, sparkline
from trainkit.reports.figures import save_figure


def record(epoch, **values):
    return {"type": "epoch", "step": 10 * epoch, "epoch": epoch, "lr": 0.1, "best": epoch == 2, **values}


RECORDS = [record(epoch, train_loss=2 / epoch, val_loss=2.1 / epoch, val_accuracy=0.3 * epoch) for epoch in (1, 2, 3)]


def size_of(drawing, path):
    return Image.open(save_figure(drawing.figure, path)).size


def test_curves_have_three_panels_with_a_metric_and_two_without(tmp_path):
    with_metric = draw_learning_curves(history_of(RECORDS), title="run")
    plain = [{name: value for name, value in one.items() if name != "val_accuracy"} for one in RECORDS]
    without = draw_learning_curves(history_of(plain), title="run")
    assert [chart.title for chart in with_metric.charts] == [
        "Loss (loss, mean over samples)",
        "Accuracy (share of samples)",
        "Learning rate",
    ]
    assert len(without.charts) == 2
    widths = [size_of(one, tmp_path / "plots" / "a.png")[0] for one in (with_metric, without)]
    assert widths[0] > widths[1] > 900


def test_a_constant_learning_rate_is_written_on_its_line():
    constant = draw_learning_curves(history_of(RECORDS), title="run").charts[-1].svg
    assert ">0.1, constant<" in constant
    assert "0.1 throughout." in constant
    single = draw_learning_curves(history_of(RECORDS[:1]), title="run").charts[-1].svg
    assert ">0.1<" in single
    falling = [one | {"lr": 0.1 / one["epoch"]} for one in RECORDS]
    assert "constant" not in draw_learning_curves(history_of(falling), title="run").charts[-1].svg


def test_nothing_is_drawn_of_nothing():
    assert draw_learning_curves(history_of([]), title="run") is None
    assert draw_overlay({"A": history_of([])}, metric="val_loss") is None


@pytest.mark.parametrize("losses", [[None, None, None], [0.0, 0.0, 0.0], [1e30, 1.0, None]])
def test_strange_losses_are_drawn_too(tmp_path, losses):
    records = [record(at, train_loss=loss, val_loss=None) for at, loss in enumerate(losses, start=1)]
    drawing = draw_learning_curves(history_of(records), title="$x_1$ run")
    assert min(size_of(drawing, tmp_path / "a.png")) > 300


def test_a_run_of_one_epoch_and_one_of_many_steps_are_drawn():
    steps = [{"type": "step", "step": at, "loss": 1 + at % 7, "lr": 0.1} for at in range(1, 3000)]
    drawing = draw_learning_curves(history_of([*RECORDS[:1], *steps]), title="run")
    assert all(len(chart.svg) < 200_000 for chart in drawing.charts)
    assert ">batches</text>" in drawing.charts[0].svg


def test_an_overlay_of_more_runs_than_styles(tmp_path):
    drawing = draw_overlay({f"{n} (sgd)": history_of(RECORDS) for n in range(9)}, metric="val_accuracy")
    assert size_of(drawing, tmp_path / "a.png")[0] > 900
    assert ">8 (sgd)</text>" in drawing.charts[0].svg
    assert "8 (sgd): 90.00 % at the end" in drawing.charts[0].svg, "for those who cannot see it"


def test_names_at_the_ends_of_lines_do_not_meet():
    drawing = draw_overlay({f"{n} x": history_of(RECORDS) for n in "ABCD"}, metric="val_accuracy")
    for axes in drawing.figure.axes:
        assert axes.get_legend() is None
        names = {text.get_text(): text.get_position()[1] for text in axes.texts}
        assert list(names) == ["A x", "B x", "C x", "D x"]
        heights = sorted(names.values())
        assert all(above - below >= 0.05 for below, above in pairwise(heights))
        assert heights[-1] <= 1


def test_a_name_has_the_color_of_its_line_though_another_run_has_no_epoch():
    drawing = draw_overlay({"A": history_of([]), "B": history_of(RECORDS)}, metric="val_accuracy")
    axes = drawing.figure.axes[0]
    (text,) = axes.texts
    assert text.get_text() == "B"
    assert text.get_color() == axes.get_lines()[0].get_color()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=16))
def test_heights_that_are_moved_apart_keep_their_order(heights):
    moved = _apart(heights, gap=1 / 16)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    assert all(moved[above] - moved[below] >= 1 / 16 - 1e-9 for below, above in pairwise(order))
    assert max(moved) <= 1


def test_losses_side_by_side_have_one_scale():
    records = [one | {"train_loss": one["train_loss"] / 100} for one in RECORDS]
    drawing = draw_overlay({"A": history_of(RECORDS), "B": history_of(records)}, metric="val_accuracy")
    accuracy, validation, training = drawing.figure.axes
    assert validation.get_ylim() == training.get_ylim() != accuracy.get_ylim()
    assert validation.get_yscale() == training.get_yscale() == "log"


def test_a_chart_for_a_page_takes_its_colors_from_the_page():
    svg = draw_learning_curves(history_of(RECORDS), title="run").charts[0].svg
    assert svg.startswith('<svg viewBox="0 0 ')
    assert 'role="img" aria-label="Loss (loss, mean over samples). training: 2 after the first epoch' in svg
    assert {"currentColor", "var(--c0)", "var(--c1)", "var(--rule)"} <= set(re.findall(r": ([^;\"#]+)[;\"]", svg))
    assert not re.search(r"#[0-9a-f]{6}(?![0-9a-f])", svg), "a color of its own would be wrong in the dark"
    assert "<style" not in svg
    assert ">validation</text>" in svg, "letters stay letters"


def test_charts_of_a_page_have_ids_of_their_own():
    charts = [
        *draw_learning_curves(history_of(RECORDS), title="run").charts,
        *draw_overlay({"A": history_of(RECORDS)}, metric="val_accuracy").charts,
    ]
    ids = [found for chart in charts for found in re.findall(r' id="([^"]+)"', chart.svg)]
    assert len(ids) == len(set(ids))
    used = {found for chart in charts for found in re.findall(r'(?:href="|url\()#([^")]+)', chart.svg)}
    assert used == set(ids)


def test_the_same_run_gives_the_same_bytes(tmp_path):
    first, second = (draw_learning_curves(history_of(RECORDS), title="run") for _ in range(2))
    assert [chart.svg for chart in first.charts] == [chart.svg for chart in second.charts]
    files = [save_figure(one.figure, tmp_path / name) for one, name in ((first, "1.png"), (second, "2.png"))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_label_cannot_become_markup():
    evil = "<script>alert('&\"')</script>"
    drawing = draw_overlay({evil: history_of(RECORDS)}, metric="val_loss")
    assert all("<script" not in chart.svg and "alert" in chart.svg for chart in drawing.charts)


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, float("nan"), 2]) == "▁ █"
    assert sparkline([3, 3]) == "▁▁"
    assert sparkline([]) == ""
    assert sparkline([float("nan")]) == ""
    assert len(sparkline(list(range(1000)), width=20)) == 20

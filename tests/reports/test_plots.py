"""The pictures: each is drawn for ordinary and for odd numbers, with the words that it needs."""

import numpy as np
import pytest
from PIL import Image

from trainkit.evaluation import Mistake, RegressionReport, Reliability
from trainkit.reports import figures, plots
from trainkit.reports.plots import plot_confusion, plot_reliability, plot_residuals, plot_wrong_samples


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    save = plots.save_figure
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure) or save(figure, path))
    return figures


def texts(figure):
    from matplotlib.text import Text

    return [found.get_text() for found in figure.findobj(Text)]


def check_picture(path):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 200
    assert path.stat().st_size < 1_000_000


def test_a_confusion_matrix_says_its_counts(tmp_path, drawn):
    counts = np.array([[97, 3, 0], [1, 49, 0], [0, 0, 0]])
    path = plot_confusion(tmp_path / "new folder" / "confusion.png", counts, ["cat", "do$g", "a" * 50])
    check_picture(path)
    words = texts(drawn[0])
    assert {"97", "3", "49", "predicted class", "true class"} <= set(words)
    assert "Confusion matrix\n146 of 150 right (97.33%)" in words


@pytest.mark.parametrize("num_classes", [2, 21, 100])
def test_confusion_matrices_of_any_size(tmp_path, num_classes):
    counts = np.random.default_rng(0).integers(9, size=(num_classes, num_classes))
    check_picture(plot_confusion(tmp_path / "c.png", counts, [f"class {k}" for k in range(num_classes)]))


def test_a_perfect_model_of_many_classes(tmp_path):
    check_picture(plot_confusion(tmp_path / "c.png", np.eye(30, dtype=np.int64), [str(k) for k in range(30)]))


def test_reliability_with_empty_bins(tmp_path, drawn):
    counts = np.array([0, 1, 0, 4000, 900])
    confidence = np.array([np.nan, 0.3, np.nan, 0.75, 0.95])
    accuracy = np.array([np.nan, 1.0, np.nan, 0.6, 0.9])
    check_picture(plot_reliability(tmp_path / "r.png", Reliability(confidence, accuracy, counts), error=0.1234))
    words = texts(drawn[0])
    assert "Reliability\nexpected calibration error 12.34%" in words
    assert {"probability of the predicted class", "share that is right", "samples (log)"} <= set(words)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 40), (3, 200, 200)])
def test_wrong_samples_name_both_classes(tmp_path, drawn, shape):
    image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    mistakes = [Mistake(index, "cat", "dog", 0.99999) for index in range(30)]
    names = [f"test[{index}]" for index in range(30)]
    check_picture(plot_wrong_samples(tmp_path / "w.png", mistakes, [image] * 30, names, num_wrong=1234))
    words = texts(drawn[0])
    assert "Most confidently wrong: 25 of 1,234 mistakes" in words
    assert "true: cat\ntaken for: dog\n> 99.9 % sure, test[0]" in words


def test_no_mistakes_at_all(tmp_path, drawn):
    check_picture(plot_wrong_samples(tmp_path / "w.png", [], [], [], num_wrong=0))
    assert "Most confidently wrong: no mistakes" in texts(drawn[0])


@pytest.mark.parametrize(("num_samples", "num_targets"), [(1, 1), (6000, 1), (50, 8)])
def test_residuals(tmp_path, drawn, num_samples, num_targets):
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(num_samples, num_targets))
    names = tuple(f"y{k}" for k in range(num_targets))
    report = RegressionReport(num_samples, {}, {}, names, [], targets + 0.5, targets)
    check_picture(plot_residuals(tmp_path / "r.png", report))
    words = texts(drawn[0])
    assert {"true y0", "predicted y0", "predicted - true", "mean 0.5"} <= set(words)
    assert ("y7" in " ".join(words)) is False


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    counts = np.array([[5, 1], [2, 8]])
    first, second = (plot_confusion(tmp_path / name, counts, ["a", "b"]) for name in ("1.png", "2.png"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("width", [2.3, 6.0])
def test_a_long_heading_stays_within_the_figure(width):
    figure = figures.new_figure(width, 3.0)
    figures.add_heading(figure, "pictures: random_resized_crop, random_horizontal_flip, WWWWW $1$, random_erasing")
    figure.subplots()
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert figure.get_size_inches()[1] > 3.0

"""Names in figures: in fonts that have their letters, else numbered and escaped below; matplotlib never warns."""

import warnings

import numpy as np
import pytest
from matplotlib import cbook
from matplotlib.text import Text
from PIL import Image

from trainkit.evaluation import Mistake
from trainkit.recorders import History
from trainkit.reports.curves import draw_learning_curves, draw_overlay
from trainkit.reports.figures import add_heading, new_figure, plain, save_figure, short_name
from trainkit.reports.lettering import letter
from trainkit.reports.plots import plot_confusion, plot_preview, plot_wrong_samples

NOWHERE = "\U00102345"
"""For private use: no font has it."""
NAMES = [
    *("猫", "東京\u3000タワー", "한국어", "Кошка", "Γάτα", "مرحبا", "שלום", "हिन्दी", "ภาษาไทย", "سیب\u200cزمینی"),
    *("😀 smile", "👩🏽\u200d🚀", "𝟷", "e\u0301", NOWHERE, f"a {NOWHERE} b", "no\xa0break", "tab\tbed"),
    *("$x_1$", "$", "5$ and 6$", r"\$x$", r"\frac{1", "^_{}", "_private", "__", "under_score", "two\nlines\x0bthree"),
    *("a_very_long_name_of_which_only_the_end_is_another_A", "a_very_long_name_of_which_only_the_end_is_another_B", ""),
]


@pytest.fixture(autouse=True)
def no_warnings(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert caplog.records == []


def epoch(number: int) -> dict:
    losses = {"train_loss": 1 / number, "val_loss": 1.1 / number}
    return {"type": "epoch", "epoch": number, "step": number, **losses, "lr": 0.1, "best": number == 2}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_character_that_another_font_has_is_drawn_in_it():
    """matplotlib brings a font for formulas along, which has characters that DejaVu Sans lacks."""
    figure = new_figure(3, 3)
    add_heading(figure, "class 𝟷")
    axes = figure.subplots()
    axes.set_yticks([0, 1], ["𝟸", "b"])
    assert letter(figure) == ""
    assert "class 𝟷" in texts(figure)
    heading = next(text for text in figure.findobj(Text) if text.get_text() == "class 𝟷")
    assert len(heading.get_fontfamily()) > 1


def test_what_no_font_has_is_numbered_and_explained():
    figure = new_figure(3, 3)
    add_heading(figure, f"b {NOWHERE}{NOWHERE} c")
    axes = figure.subplots()
    axes.set_xticks([0, 1, 2], [NOWHERE, "b", f"{NOWHERE}\u200d{NOWHERE}"])
    axes.set_title(f"true: {NOWHERE}\nother: {NOWHERE} {NOWHERE}")
    meanings = letter(figure)
    escaped = r"\U00102345"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["[1]", "b", "[2]"]
    assert {"true: [1]\nother: [3]", "b [4] c"} <= set(texts(figure))
    listed = f"[1]={escaped}, [2]={escaped}\\u200d{escaped}, [3]={escaped} {escaped}, [4]={escaped}{escaped}"
    assert meanings == f"No font of this machine has these characters: {listed}"


def test_the_explanation_stands_below_the_picture(tmp_path):
    heights = {}
    for name in ("b", NOWHERE):
        path = plot_confusion(tmp_path / "c.png", np.eye(2, dtype=np.int64), ["a", name])
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
            heights[name] = image.height
    assert heights[NOWHERE] > heights["b"]
    assert (pixels[heights["b"] :] < 128).any(), "it is written there"


def test_plain_texts_are_left_alone():
    figure = new_figure(3, 3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, -1])
    axes.set_title("a – b … é")
    figure.canvas.draw()
    before = texts(figure)
    assert letter(figure) == ""
    assert texts(figure) == before


def test_a_name_is_never_a_formula():
    figure = new_figure(3, 3)
    for name in NAMES:
        figure.text(0, 0, plain(name))
        figure.text(0, 0, short_name(name))
    for text in figure.findobj(Text):
        assert cbook.is_math_text(text.get_text()) is not True, text.get_text()
    letter(figure)
    figure.canvas.draw()


def test_long_names_stay_different():
    assert short_name(NAMES[-3]) != short_name(NAMES[-2])
    assert len(short_name(NAMES[-3])) == 18
    assert short_name("x" * 18) == "x" * 18


@pytest.mark.parametrize("name", ["_private", "__", "_猫", "$x$", "_$x$"])
def test_every_run_is_named_at_the_end_of_its_line(name):
    history = History([epoch(number) for number in (1, 2, 3)], [])
    drawn = draw_overlay({name: history, "b": history}, metric="val_loss")
    assert [text.get_text().replace("\\$", "$") for text in drawn.figure.axes[0].texts] == [name, "b"]


def test_pictures_with_all_kinds_of_names(tmp_path):
    count = len(NAMES)
    plot_confusion(tmp_path / "confusion.png", np.eye(count, dtype=np.int64), NAMES, title="Confusion on 猫/_$x$")
    mistakes = [Mistake(position, name, NAMES[position - 1], 0.9) for position, name in enumerate(NAMES)]
    images = [np.zeros((3, 8, 8), dtype=np.uint8)] * count
    plot_wrong_samples(tmp_path / "wrong.png", mistakes, images, NAMES, num_wrong=count)
    pictures = np.zeros((8, 1, 8, 8), dtype=np.float32)
    plot_preview(tmp_path / "preview.png", pictures, [pictures], NAMES[7:15], title="データ: flip")
    history = History([epoch(number) for number in (1, 2, 3)], [])
    drawn = draw_learning_curves(history, title="20260101_猫_𝟷_$run$")
    save_figure(drawn.figure, tmp_path / "curves.png")
    assert len(list(tmp_path.iterdir())) == 4

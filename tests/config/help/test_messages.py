"""The text that a terminal shows, and the suggestions."""

from pathlib import Path

import pytest

from trainkit.config import load_config
from trainkit.config.help.messages import render, shown
from trainkit.errors import ConfigError, Place, Problem
from trainkit.wording import closest, edit_distance


def rendered(tmp_path: Path, text: str, *overrides: str, color: bool = False) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides=overrides)
    return render(caught.value, color=color).replace(str(path), "run.yaml")


def test_a_line_an_error_with_the_offending_line_and_a_caret(tmp_path: Path) -> None:
    assert rendered(tmp_path, "dataset: digits\nmodel: mlp\ntraining:\n  epochs: 1.5\n", "seed=-1") == (
        "error: run.yaml:4:11: training.epochs: expected a whole number of at least 1, got 1.5; the default is 10\n"
        "    4 |   epochs: 1.5\n"
        "                  ^\n"
        "error: --set seed=-1: seed: expected a whole number of at least 0 and below 2^63, got -1; the default is 0\n"
        "      --set seed=-1\n"
        "                 ^"
    )


def test_ten_errors_and_then_their_number(tmp_path: Path) -> None:
    text = rendered(
        tmp_path, "dataset: digits\nmodel: mlp\nlogging:\n" + "".join(f"  wrong{i}: 1\n" for i in range(13))
    )
    assert text.count("error:") == 10
    assert text.splitlines()[-1] == "and 3 more"


def test_color_only_where_asked(tmp_path: Path) -> None:
    assert "\x1b" not in rendered(tmp_path, "dataset: digits\nmodel: mlp\nseed: x\n")
    colored = rendered(tmp_path, "dataset: digits\nmodel: mlp\nseed: x\n", color=True)
    assert colored.startswith("\x1b[1;31merror:\x1b[0m run.yaml:3:7: seed: ")


def test_no_control_characters_reach_the_terminal() -> None:
    place = Place("a\x1b[31m.yaml", 1, 3, "a:\t\x1b[2J\x85x")
    text = render(ConfigError([Problem("bad\nvalue \x07", "k\x1bey", place)]))
    assert text.splitlines()[0] == "error: a\\x1b[31m.yaml:1:3: k\\x1bey: bad"
    assert text.splitlines()[1] == "       value \\x07"  # further lines cannot be taken for an error of their own
    assert text.isprintable() or set(c for c in text if not c.isprintable()) == {"\n"}


def test_a_long_line_is_cut_around_the_column() -> None:
    line = "x" * 5000 + "HERE" + "y" * 5000
    excerpt = render(ConfigError([Problem("bad", None, Place("a.yaml", 7, 5001, line))])).splitlines()
    assert len(excerpt[1]) < 120
    assert excerpt[1][excerpt[2].index("^") :].startswith("HERE")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.5, "0.5"),
        (float("nan"), ".nan"),
        (float("-inf"), "-.inf"),
        ("a'b", '"a\'b"'),
        (10**50, "a number of 51 digits"),
        ([1, [2.5, "x y"], None], "[1, [2.5, x y], null]"),
        ({"a": {"b": 1}}, "{a: {b: 1}}"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
    ],
)
def test_values_are_shown_on_one_short_line(value: object, text: str) -> None:
    assert shown(value) == text


def test_large_values_are_cut() -> None:
    for value in (
        "x" * 10_000,
        ["x" * 10_000] * 1000,
        {"k" * 500: "x" * 10_000},
        [10**5000],
        [[[[["deep" * 9]] * 9] * 9] * 9],
    ):
        assert len(shown(value)) <= 120


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("epoch", ["epochs", "every"], "epochs"),
        ("bacth_size", ["batch_size", "epochs"], "batch_size"),
        ("batchsize", ["batch_size"], "batch_size"),
        ("ADAM", ["adam", "adamw"], "adam"),
        ("adm", ["sgd", "adam"], "adam"),
        ("l", ["lr", "limit"], "lr"),
        ("optim", ["optimizer"], "optimizer"),
        ("frobnicate", ["factor"], None),
        ("", ["a"], None),
        ("x", ["y", "z"], None),
        ("ab", ["cd"], None),
        ("x" * 1000, ["x"], None),
    ],
)
def test_did_you_mean(word: str, known: list[str], meant: str | None) -> None:
    assert closest(word, known) == meant


def test_edit_distance_counts_a_swap_as_one() -> None:
    assert [edit_distance("ab", "ba"), edit_distance("", "abc"), edit_distance("kitten", "sitting")] == [1, 3, 3]

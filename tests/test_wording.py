"""How numbers and names are written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.wording import (
    better,
    by_key,
    counted,
    duration,
    enumerated,
    listed,
    percent,
    size_text,
    stage_times,
    told_apart,
)


def test_lists():
    assert enumerated(["a"]) == "a"
    assert enumerated(["a", "b", "c"]) == "a, b and c"
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(range(5), limit=2, quoted=False) == "0, 1 and 3 more"


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "sample", "0 samples"),
        (1, "epoch", "1 epoch"),
        (2, "epoch", "2 epochs"),
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
        (3, "class", "3 classes"),
        (4, "batch", "4 batches"),
        (1200, "step", "1,200 steps"),
    ],
)
def test_counts(number, noun, text):
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (3_120, "3.1 kB"), (20_000_000, "20 MB"), (1.5e12, "1.5 TB")],
)
def test_sizes(num_bytes, text):
    assert size_text(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.00035, "0.35 ms"),
        (0.35, "350 ms"),
        (1.54, "1.5 s"),
        (185, "3 min 5 s"),
        (7_830, "2 h 10 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "decimals", "text"),
    [(0.9734, 1, "97.3 %"), (1.0, 1, "100.0 %"), (0.99996, 1, "> 99.9 %"), (0.99996, 2, "> 99.99 %"), (None, 1, "–")],
)
def test_shares(share, decimals, text):
    assert percent(share, decimals=decimals) == text


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 4))
def test_only_certainty_is_100_percent(share, decimals):
    text = percent(share, decimals=decimals)
    assert text.startswith("> ") or float(text.removesuffix(" %")) < 100


@pytest.mark.parametrize("metric", ["val_loss", "rmse", "train_mae"])
def test_less_is_better(metric):
    assert better(metric) == "min"


@pytest.mark.parametrize("metric", ["val_accuracy", "val_top5_accuracy", "r2", "val_f1_macro"])
def test_more_is_better(metric):
    assert better(metric) == "max"


def test_leaves_by_key_path():
    config = {"a": {"b": [1, 2], "c": {}}, "d": [{"e": 1}, {"e": None}]}
    assert by_key(config) == {"a.b": [1, 2], "a.c": {}, "d[0].e": 1, "d[1].e": None}
    assert by_key({}) == {}


@pytest.mark.parametrize(
    ("value", "other", "texts"),
    [
        (1.0, 2.5, ("1", "2.5")),
        (200_000.5, 200_013.0, ("200000.5", "200013")),
        (1e9, 1e9 + 1.25, ("1000000000", "1000000001.25")),
        (0.001234567, 0.5, ("0.0012346", "0.5")),
        (7.0, 7.0, ("7", "7")),
        (-3.0, math.inf, ("-3", "inf")),
    ],
)
def test_numbers_that_are_told_apart(value, other, texts):
    assert told_apart(value, other) == texts


@given(value=st.floats(-1e12, 1e12), other=st.floats(-1e12, 1e12))
def test_their_difference_is_kept(value, other):
    one, two = map(float, told_apart(value, other))
    assert one - two == pytest.approx(value - other, rel=2e-2, abs=1e-300)


def test_stages_that_took_no_time_are_left_out():
    seconds = {"scores": 3.14, "export": 0.05, "report": 0.25, "broken": float("nan"), "forever": float("inf")}
    assert stage_times(seconds) == "scores 3.1 s, report 250 ms"
    assert stage_times({}) == ""

"""The layout of a table's columns, from its encoding."""

import numpy as np

from trainkit.data.tables import TableLayout, flagged, model_layout, numeric_names, offsets, stored_layout, with_gaps

ENCODING = {
    "inputs": [
        {"name": "age", "offset": 0.0, "missing": False},
        {"name": "seen", "offset": 1.7e9, "missing": True},
        {"name": "city", "categories": 12, "own": True},
        {"name": "sex", "categories": 2, "own": False},
    ]
}


def test_the_layout_of_an_encoding() -> None:
    assert stored_layout(ENCODING) == TableLayout(2, ((12, True), (2, False)))
    assert model_layout(ENCODING) == TableLayout(3, ((12, True), (2, False)))
    assert numeric_names(ENCODING) == ["age", "seen"]
    assert offsets(ENCODING) == [0.0, 1.7e9]
    assert flagged(ENCODING) == [1]
    layout = model_layout(ENCODING)
    assert layout is not None
    assert (layout.width, layout.sizes, layout.one_hot_width) == (5, (13, 2), 18)


def test_a_table_of_plain_numbers_has_none() -> None:
    for encoding in (None, {"columns": []}):
        assert stored_layout(encoding) is model_layout(encoding) is None


def test_gaps_are_those_of_the_rows_that_are_asked_for() -> None:
    rows = np.zeros((4, 4), np.float32)
    rows[3, 0] = rows[1, 1] = np.nan
    found = with_gaps(ENCODING, rows, np.array([0, 1, 2]))
    assert [each.get("missing") for each in found["inputs"]] == [False, True, None, None]
    assert flagged(with_gaps(ENCODING, rows, np.array([3]))) == [0]

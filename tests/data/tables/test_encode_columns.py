"""Values of Python by column: each row is read as it is alone, whatever stands in the others."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.tables import NumberStyle, encode_columns

ENCODING = {
    "columns": [
        {"name": "price", "kind": "numeric", "style": NumberStyle(decimal=",", thousands=".").to_json()},
        {"name": "day", "kind": "datetime", "format": "%d.%m.%Y"},
        {"name": "shop", "kind": "categorical", "categories": ["1", "north"]},
    ],
    "inputs": [
        {"name": "price", "column": "price", "offset": 0.0},
        {"name": "day.year", "column": "day", "part": "year", "offset": 0.0},
        {"name": "shop", "column": "shop", "categories": 2, "own": False},
    ],
    "missing": "impute",
    "unseen": "own",
    "missing_values": [""],
}
PRICES = st.sampled_from([1.5, 2, "1.000,5", "1,5", "1.5x", None, "", float("nan")])
ROWS = st.tuples(PRICES, st.sampled_from([None, "05.01.2024"]), st.sampled_from([1, "1", "north", None, "south"]))


@settings(deadline=None, max_examples=50)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_a_row_is_read_as_it_is_alone(rows):
    def encode(some):
        return encode_columns(
            {
                name: list(column)
                for name, column in zip(("price", "day", "shop"), zip(*some, strict=True), strict=True)
            },
            ENCODING,
        )

    together = encode(rows)
    assert together.names == [f"[{row}]" for row in range(len(rows))]
    for row, cells in enumerate(rows):
        alone = encode([cells])
        assert np.array_equal(together.inputs[row], alone.inputs[0], equal_nan=True)
        assert together.bad.get(row) == alone.bad.get(0)
    assert sum(together.filled.missing.values()) == sum(
        cell is None or cell == "" or cell != cell for row in rows for cell in row
    )


@pytest.mark.parametrize("form", ["%d.%m.%Y", ""])
def test_a_day_at_midnight_is_that_day_and_another_time_of_day_is_refused(form):
    """Databases and pandas write a time behind each date; the dates of a training without one are the same days."""
    column, time = {"name": "day", "kind": "datetime", "format": form}, {"column": "day", "offset": 0.0}
    inputs = [{"name": f"day.{part}", "part": part, **time} for part in ("time", "hour")]
    day = "05.01.2024" if form else "2024-01-05"
    same = [day, f"{day} 00:00:00", f"{day}T00:00:00", f"{day} 00:00:00.000", f"{day}T00:00:00Z", f"{day} 12:00 AM"]
    other = [f"{day} 10:30:00", f"{day} 00:00:01", f"{day}T00:00:00+02:00", f"{day} 12:00 PM"]
    read = encode_columns({"day": [*same, *other]}, {**ENCODING, "columns": [column], "inputs": inputs})
    stamp = datetime(2024, 1, 5, tzinfo=UTC).timestamp()
    assert read.inputs[: len(same)].tolist() == [[stamp, 0]] * len(same)
    refused = other if form else other[2:]  # dates of Parquet files have times
    assert [[*same, *other][row] for row in sorted(read.bad)] == refused
    known = form or "%Y-%m-%d %H:%M:%S"
    assert all(reason.endswith(f"had dates as {known}; write it so") for reason in read.bad.values())


def test_times_of_day_are_told_where_the_dates_of_the_training_had_none():
    column, time = {"name": "day", "kind": "datetime", "format": ""}, {"column": "day", "offset": 0.0}
    parts = [{"name": f"day.{part}", "part": part, **time} for part in ("time", "hour")]
    cells = [datetime(2024, 1, day, hour) for day, hour in ((5, 0), (5, 7), (6, 18))] + [None]
    for inputs, expected in ((parts[:1], {"times of day": 2}), (parts, {})):
        read = encode_columns({"day": cells}, {**ENCODING, "columns": [column], "inputs": inputs})
        assert read.filled.unseen.get("day", {}) == expected
    read = encode_columns({"day": cells[1:2] * 3}, {**ENCODING, "columns": [column], "inputs": parts[:1]})
    assert not read.filled.unseen  # all at one hour, as those of the training may have been


def test_days_alone_are_told_where_the_dates_of_the_training_had_a_time():
    column, time = {"name": "day", "kind": "datetime", "format": ""}, {"column": "day", "offset": 0.0}
    encoding = {**ENCODING, "columns": [column], "inputs": [{"name": "day.hour", "part": "hour", **time}]}
    days = [datetime(2024, 1, day) for day in range(1, 12)]
    said = ["column 'day': all dates are without a time of day, and those of the training had one"]
    for cells, expected in ((days, said), (days[:3], []), ([*days, days[0].replace(hour=7)], [])):
        assert encode_columns({"day": cells}, encoding).filled.describe() == expected
    filled = encode_columns({"day": [days[0].replace(hour=7)]}, encoding).filled
    filled.add(encode_columns({"day": days}, encoding).filled)  # the next block
    assert filled.describe() == []

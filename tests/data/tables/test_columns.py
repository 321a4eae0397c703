"""The kinds of columns, from the cells alone."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.data.tables.columns import Column, decide, find_offset
from trainkit.data.tables.dates import date_parts
from trainkit.data.tables.evidence import MISSING_VALUES, Evidence, add_evidence, as_cells
from trainkit.data.tables.labels import labels_of, sort_labels
from trainkit.data.tables.target import decide_target
from trainkit.errors import Problem, ProblemsError


def gather(values: list[Any], name: str = "x", wanted: str | None = None, blocks: int = 1) -> Evidence:
    evidence = Evidence(name, wanted)
    size = -(-len(values) // blocks)
    for start in range(0, len(values), size):
        frame = as_cells(pl.DataFrame({name: values[start : start + size]}, strict=False), MISSING_VALUES)
        add_evidence(evidence, frame[name], start)
    return evidence


def look(values: list[Any], name: str = "x", wanted: str | None = None, blocks: int = 1) -> Column | Problem:
    return decide(gather(values, name, wanted, blocks))


KINDS = [
    (["1.5", "2", "NA", "-3e2"], "numeric", "numbers"),
    (["1", "2", "3", "1"], "numeric", "whole numbers"),
    (["0", "1", "1", "0"], "numeric", "whole numbers"),
    ([f"2024{m:02}{d}" for m in range(1, 13) for d in ("01", "28")], "numeric", "dates: columns: {x: '%Y%m%d'}"),
    ([*(f"2024{m:02}01" for m in range(1, 13)), "20241301"], "numeric", "whole numbers"),
    (["02134", "10001", "94105", "02134"], "numeric", "some with leading zeros (codes are better categorical)"),
    ([1, 2, None, 2], "numeric", "whole numbers"),
    ([1.5, float("nan"), 2.0], "numeric", "numbers"),
    (["1,5", "2,0", "2,25"], "numeric", "numbers"),
    (["red", "blue", "red", "?"], "categorical", "text"),
    (["yes", "no", "No", "YES"], "boolean", "two values: no and yes"),
    ([True, False, True], "boolean", "two values"),
    (["t", "f", ""], "boolean", "two values"),
    (["1", "True", "0", "FALSE"], "boolean", "two values: false and true"),
    (["y", "No", "yes", "N"], "boolean", "two values: no and yes"),
    (["T", "F", "1", "0"], "boolean", "two values: F and T"),
    (["0", "1", "0"], "numeric", "whole numbers"),
    (["A", "T", "F", "C"], "categorical", "text"),
    (["5 kg", "7.5 kg", "6 kg", None, "5 kg"], "categorical", "text; numbers with the unit kg; write them without it"),
    (["1.5K", "2M", "3K"], "categorical", "text; numbers in multiples (K, M); write them out"),
    (["$5", "£6.50", "7 €"] * 2, "categorical", "text; numbers in several currencies ($, £, €); write them in one"),
    (["A$5", "B$6", "C$7"], "categorical", "text"),
    (["2024Q1", "2024Q2"], "categorical", "text; quarters; write them as months, such as 2024-04 for 2024Q2"),
    (["Q1 2024", "Q2 2024"], "categorical", "text; quarters; write them as months, such as 2024-04 for 2024Q2"),
    (["3 rd", "4 th", "x1"], "categorical", "text"),
    (
        ["12%", "0.5", "13%", "0.25", "14 %"],
        "categorical",
        "60.0 % of the cells have a percent sign, and others have none, such as '0.5'",
    ),
    (["25:10", "3:59", "-1:00"], "categorical", "text; durations; write them as numbers, such as seconds"),
    (["٣٫٥", "٤"], "categorical", "text; numbers in other digits than 0 to 9; write them in these"),
    (["2024-01-31", "01.02.2024", ""], "categorical", "text; dates in several forms; write them in one"),
    (
        ["1.5", "<0.1", "2", "3", "<0.2", "<0.3", "<0.4", "5", "6", "7"],
        "categorical",
        "60.0 % of the cells are numbers, and others are not, such as '<0.1'",
    ),
    (["yes", "no", "off"], "categorical", "text"),
    (["2024-01-31", "2024-02-01"], "datetime", "%Y-%m-%d"),
    (["2013-01-01T05:00:00Z", "2013-01-01T06:00:00Z"], "datetime", "Z"),
    (["31/01/2024 10:15", "01/02/2024 00:00"], "datetime", "%d/%m/%Y %H:%M"),
    ([dt.date(2024, 1, 31), dt.date(2024, 2, 1)], "datetime", "dates in the file"),
    ([dt.datetime(2024, 1, 31, 5), None], "datetime", "dates in the file"),
    (["05:30", "17:00", ""], "datetime", "dates as %H:%M"),
    (["5:30:01 PM", "12:00:00 AM"], "datetime", "dates as %I:%M:%S %p"),
    (["2024-01", "2024-12"], "datetime", "dates as %Y-%m"),
    (["01/2024", "12/2024"], "datetime", "dates as %m/%Y"),
    (["16:9", "4:3"] * 2, "categorical", "text"),
    (["2024-13", "2024-01"] * 2, "categorical", "text"),
    ([dt.time(5, 30), dt.time(17, 0), None], "datetime", "dates in the file"),
    ([[1.0, 2.0], [3.0], None], "ignore", "cells of type List(Float64)"),
    ([{"a": 1}, {"a": 2}], "ignore", "cells of type Struct"),
    ([b"one", b"two"], "ignore", "cells of type Binary"),
    ([None, None], "ignore", "all cells are missing"),
    (["NA", "", "null"], "ignore", "all cells are missing"),
    (["5", "5", "5"], "ignore", "constant: 5"),
    (["5", "", "5"], "numeric", "whole"),
    (["a", "", "a"], "categorical", "text"),
    ([f"N{number}AA" for number in range(60)], "ignore", "id-like"),
    (["a/1.JPG", "a/2.jpeg", "b/1.png", "a/2.jpeg"], "ignore", "names of pictures"),
    (["a.jpg", "b.jpg", "blue"], "categorical", "text"),
    ([f"the cat number {number} sat on it" for number in range(60)], "ignore", "free text"),
    ([f"A{number % 12}" for number in range(60)], "categorical", "text"),
    (["12", "A7", "B2", "C1"] * 5, "categorical", "text"),
]


@pytest.mark.parametrize(
    "values",
    [["1.2.3", "10.0.12"], ["5 kg", "3 m"], ["10A", "10B"], ["5 kg", "kg"], ["12", "x1", "y2"], ["2024-01-31", "x"]],
)
def test_other_texts_get_no_advice(values: list[Any]) -> None:
    found = look(values)
    assert isinstance(found, Column)
    assert (found.kind, found.reason, found.hint) == ("categorical", "text", "")


@pytest.mark.parametrize(("values", "kind", "reason"), KINDS)
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_kind_and_its_reason(values: list[Any], kind: str, reason: str, blocks: int) -> None:
    found = look(values, blocks=blocks)
    assert isinstance(found, Column), found
    assert found.kind == kind
    assert reason in found.reason


@pytest.mark.parametrize("name", ["Unnamed: 0", "__index_level_0__", "PassengerId", "id", "customer_id", "index", "ID"])
def test_a_counter_of_rows_by_its_name_is_left_out(name: str) -> None:
    found = look([str(number) for number in range(1, 50)], name)
    assert isinstance(found, Column)
    assert found.kind == "ignore"
    assert "id-like" in found.reason


@pytest.mark.parametrize("name", ["x", "time", "paid", "width", "grid"])
def test_a_column_that_counts_is_kept_where_its_name_says_nothing(name: str) -> None:
    found = look([str(number) for number in range(1, 50)], name)
    assert isinstance(found, Column)
    assert found.kind == "numeric"


def test_an_id_that_repeats_is_no_id() -> None:
    found = look(["1", "2", "2", "3"] * 9, "store_id")
    assert isinstance(found, Column)
    assert found.kind == "numeric"


PROBLEMS = [
    (["1", "2", "x"] * 1 + [str(n) for n in range(60)], None, "1 cell of a column of numbers is no number"),
    ([str(n) for n in range(60)] + ["unknown"] * 30, None, "dataset.missing_values"),
    ([str(n) for n in range(60)] + ["inf"], None, "1 cell of a column of numbers is no finite number"),
    (["1e35", "2", "3"], None, "its numbers reach 1e+35, too large for 32-bit floating point"),
    (["1e-35", "-2e-35"], None, "its numbers are 2e-35 or less, too small for 32-bit floating point"),
    ([[1.0], [2.0]], "numeric", "are of type List(Float64); set it to ignore"),
    (["01/02/2024", "03/04/2024"], None, "can be read as"),
    (["a", "b"], "numeric", "no numbers"),
    (["a", "b", "c"], "boolean", "boolean takes two"),
    ([2**62 + n for n in range(9)], None, "differ in digits that 64-bit floating point does not hold"),
    (["a", "b"], "datetime", "no known form of dates"),
    (["", ""], "numeric", "all cells"),
]


@pytest.mark.parametrize(("values", "wanted", "message"), PROBLEMS)
def test_what_cannot_be_told_is_a_problem(values: list[str], wanted: str | None, message: str) -> None:
    found = look(values, wanted=wanted)
    assert isinstance(found, Problem), found
    assert message in found.message


WANTED = [
    (["1", "2", "3"], "categorical", ("1", "2", "3")),
    (["10", "9", "1.0"], "categorical", ("1", "9", "10")),
    (["male", "female"], "boolean", ("female", "male")),
]


@pytest.mark.parametrize(("values", "wanted", "categories"), WANTED)
def test_a_kind_that_is_asked_for(values: list[str], wanted: str, categories: tuple[str, ...]) -> None:
    found = look(values, wanted=wanted)
    assert isinstance(found, Column)
    assert (found.kind, found.categories) == (wanted, categories)


def test_a_format_of_dates_that_is_asked_for() -> None:
    found = look(["01/02/2024", "13/04/2024"], wanted="%d/%m/%Y")
    assert isinstance(found, Column)
    assert found.kind == "datetime"
    assert [part for part, _ in found.parts] == ["time", "month", "day", "weekday"], "the parts that vary"


def test_a_time_of_day_is_its_seconds() -> None:
    parts = date_parts(pl.Series([dt.time(1, 2, 3, 500_000), None]), "")
    assert parts["time"].to_list() == [3723.5, None]
    assert parts["hour"].to_list() == [1, None]


TARGETS = [
    (["5.5", "5.5", ""], "auto", "the target 'x' is 5.5 in all rows; nothing can be learned"),
    (["1e300", "2e300", "2.5"], "regression", "reach 2e+300, too large for 32-bit floating point"),
    ([[1.0], [2.0]], "auto", "the cells of the target 'x' are of type List(Float64)"),
    (["5", "5"], "auto", "one class, '5'; at least 2 are needed"),
    ([f"{i}.5 kg" for i in range(30)], "auto", "numbers with the unit kg; write them without it; or set dataset.task"),
]


@pytest.mark.parametrize(("values", "task", "message"), TARGETS)
def test_a_target_that_cannot_be_learned_is_a_problem(values: list[Any], task: str, message: str) -> None:
    with pytest.raises(ProblemsError, match=re.escape(message)):
        decide_target([gather(values)], task)


def test_a_few_sizes_with_a_unit_are_classes() -> None:
    assert decide_target([gather(["5 kg", "10 kg", "5 kg"])], "auto").class_names == ("5 kg", "10 kg")


def test_labels_are_one_in_all_their_spellings() -> None:
    assert labels_of(["1", "1.0", "01", "2", "10"]) == ("1", "2", "10")
    assert labels_of(["True", "TRUE", "FALSE", "False"]) == ("False", "True"), "both in one case"
    assert labels_of(["True", "false"]) == ("false", "true")
    assert labels_of(["1", "True", "0", "0.0"]) == ("false", "true")
    assert labels_of(["y", "N", "1"]) == ("n", "y")
    assert labels_of(["a2", "a10", "A1", "b"]) == ("A1", "a2", "a10", "b")
    assert labels_of(["1", "01", "x"]) == ("01", "1", "x"), "text among them: each is its own"


@given(st.lists(st.text(max_size=6), min_size=1))
def test_sorting_labels_depends_on_the_labels_alone(labels: list[str]) -> None:
    assert sort_labels(labels) == sort_labels(reversed(labels))
    assert set(sort_labels(labels)) == set(labels)


@given(
    st.floats(-1e12, 1e12),
    st.floats(1e-3, 1e6),
    st.lists(st.floats(0, 1), min_size=2, max_size=50),
)
def test_the_offset_keeps_the_digits(low: float, span: float, shares: list[float]) -> None:
    values = np.array([low, low + span, *(low + span * share for share in shares)])
    offset = find_offset(float(values.min()), float(values.max()), exact=False)
    kept = (values - offset).astype(np.float32).astype(np.float64) + offset
    rounding = np.spacing(np.abs(values).max())  # of float64 itself
    assert np.abs(kept - values).max() <= np.ptp(values) * 2.0**-21 + 2 * rounding

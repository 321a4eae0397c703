"""Numbers as people write them."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.tables import NumberStyle, find_number_style, parse_numbers


@pytest.mark.parametrize(
    ("cells", "numbers", "style"),
    [
        (["1", "-2.5", "1e5", ".5", None], [1, -2.5, 1e5, 0.5, None], ""),
        (["1,5", "2,25", "-3"], [1.5, 2.25, -3], "decimal comma"),
        (["1,234", "5", "1,234,567.5"], [1234, 5, 1234567.5], "thousands marked by ','"),
        (["1.234,50", "2"], [1234.5, 2], "decimal comma, thousands marked by '.'"),
        (["1 234,5", "1\u00a0000", "1\u202f000"], [1234.5, 1000, 1000], "decimal comma, thousands marked by a space"),
        (["1'200.50", "1’000"], [1200.5, 1000], 'thousands marked by "\'"'),
        (["12,34,567", "1"], [1234567, 1], "thousands marked by ','"),
        (["$1,200.50", "-$3", "$-4", "7"], [1200.5, -3, -4, 7], "thousands marked by ',', in $"),
        (["3,50 €", "-4 €"], [3.5, -4], "decimal comma, in €"),
        (["USD 5", "USD 7.5"], [5, 7.5], "in USD"),
        (["12%", "3.5 %", "0"], [12, 3.5, 0], "in percent"),
        (["(5)", "7", "5-", "−2"], [-5, 7, -5, -2], "negatives as (1), 1- or − 1"),
        (["($1,000)", "$5"], [-1000, 5], "thousands marked by ',', in $, negatives as (1), 1- or − 1"),
        (["0,123", "1,234"], [0.123, 1.234], "decimal comma"),
    ],
)
def test_a_style_is_found_and_read(cells, numbers, style):
    values = pl.Series(cells, dtype=pl.String)
    found = find_number_style(values)
    assert found is not None
    assert (found.describe(), found.share) == (style, 1.0)
    parsed, odd = parse_numbers(values, NumberStyle.from_json(found.to_json()))
    assert parsed.to_list() == numbers
    assert not odd.any()


def test_the_mark_of_the_file_decides_what_the_column_does_not():
    values = pl.Series(["1,234", "5"])
    assert parse_numbers(values, find_number_style(values, decimal=","))[0].to_list() == [1.234, 5]
    values = pl.Series(["1.234", "12.500"])
    assert parse_numbers(values, find_number_style(values, decimal=","))[0].to_list() == [1234, 12500]
    values = pl.Series(["48.1371", "1.2"])
    assert find_number_style(values, decimal=",").plain


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "nan", "1e999", "0x10", "1_000", "1,23", "12,34", "5€50", "12 a"])
def test_what_is_no_number_is_reported(cell):
    values = pl.Series(["1,000.5", "$5", cell, None])
    style = find_number_style(values)
    assert style.share == 2 / 3
    numbers, odd = parse_numbers(values, style)
    assert numbers.to_list() == [1000.5, 5, None, None]
    assert odd.to_list() == [False, False, True, False]


def test_a_number_in_another_currency_or_without_the_percent_sign_is_odd():
    values = pl.Series(["$5", "€5", "$6"])
    assert parse_numbers(values, find_number_style(values))[1].to_list() == [False, True, False]
    values = pl.Series(["5%", "0.05", "6%"])
    assert parse_numbers(values, find_number_style(values))[1].to_list() == [False, True, False]


def test_text_has_no_style():
    assert find_number_style(pl.Series(["a", "b", "1_0"])) is None
    assert find_number_style(pl.Series([None, None], dtype=pl.String)) is None


def test_a_rare_way_of_writing_is_found():
    values = pl.Series(["1,234.5"] * 60_000 + ["(2)"] + ["3"] * 10)
    style = find_number_style(values)
    assert style.share == 1.0
    assert parse_numbers(values, style)[0].sort()[0] == -2


@settings(max_examples=200, deadline=None)
@given(
    numbers=st.lists(st.integers(-(10**12), 10**12).map(lambda number: number / 100), min_size=3, max_size=20),
    marks=st.sampled_from([(".", ""), (".", ","), (",", "."), (",", ""), (",", " "), (".", "'"), (",", "\u202f")]),
    sign=st.sampled_from(["{}", "${}", "{} €", "{} %", "CHF {}"]),
    negative=st.sampled_from(["-{}", "({})", "{}-", "−{}"]),
)
def test_numbers_come_back_in_any_style(numbers, marks, sign, negative):
    decimal, thousands = marks

    def write(number):
        digits = f"{abs(number):,.2f}".replace(",", "_").replace(".", decimal).replace("_", thousands)
        text = sign.format(digits)
        return negative.format(text) if number < 0 else text

    values = pl.Series([write(number) for number in numbers])
    style = find_number_style(values)
    assert style.share == 1.0
    assert parse_numbers(values, style)[0].to_list() == numbers

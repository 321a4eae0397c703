"""Numbers as people write them: decimal commas, thousands marks, currency and percent signs, negatives in parentheses.

What is read is what is written: ``12 %`` is 12. ``inf``, ``nan``, ``0x10`` and ``1_000`` are no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import polars as pl

Decimal = Literal[".", ","]
Thousands = Literal["", ",", ".", " ", "'"]
_SAMPLE = 20_000
"""A style is found on so many different odd cells; every cell is counted afterwards."""
_MARKS = {"": "", ",": ",", ".": ".", " ": " \u00a0\u202f\u2009", "'": "'\u2019"}
"""What each thousands mark is written as: spaces of several widths, two apostrophes."""
_MINUS = "\u2212"
_CODES = (
    "USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|BRL|MXN|ZAR|KRW|TRY|RUB|US\\$|R\\$|A\\$|C\\$|kr|zł|Fr\\."
)
CURRENCY = rf"(?:\p{{Sc}}|{_CODES})"


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers of one column are written."""

    decimal: Decimal = "."
    thousands: Thousands = ""
    currency: str = ""
    """The sign as it is written, before or behind the number; numbers without one are read too."""
    percent: bool = False
    """Every number has a percent sign."""
    signs: bool = False
    """Some negatives are ``(1)``, ``1-``, ``- 1``, or have the minus sign of print (U+2212)."""
    share: float = 1.0
    """How many of the cells that are not missing are numbers in this style, from 0 to 1."""

    @property
    def plain(self) -> bool:
        """Written as a program writes numbers."""
        return self.decimal == "." and not (self.thousands or self.currency or self.percent or self.signs)

    def describe(self) -> str:
        """``decimal comma, thousands marked by '.', in €``; empty for plain numbers."""
        parts = ["decimal comma"] if self.decimal == "," else []
        if self.thousands:
            parts.append("thousands marked by " + ("a space" if self.thousands == " " else repr(self.thousands)))
        if self.currency:
            parts.append(f"in {self.currency}")
        if self.percent:
            parts.append("in percent")
        if self.signs:
            parts.append("negatives as (1), 1- or − 1")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @staticmethod
    def from_json(data: dict[str, Any]) -> NumberStyle:
        return NumberStyle(**data)


def find_number_style(values: pl.Series, *, decimal: Decimal | None = None) -> NumberStyle | None:
    """The style in which the most cells of a text column are numbers, or None where none is a number.

    ``decimal`` is the decimal mark of the rest of the file: it decides what ``1,234`` is where the column does not.
    """
    present = len(values) - values.null_count()
    if not present:
        return None
    plain = _finite(values)
    num_plain = len(values) - plain.null_count()
    has_points = decimal == "," and bool(values.str.contains(".", literal=True).any())
    if num_plain == present and not has_points:
        return NumberStyle()
    odd = values.drop_nulls() if has_points else values.filter(plain.is_null() & values.is_not_null())
    sample = odd.gather_every(max(1, len(odd) // _SAMPLE)).unique(maintain_order=True)
    best, count = NumberStyle(), num_plain
    for _ in range(2):
        scores = {
            style: int(parse_numbers(sample, style)[0].is_not_null().sum()) for style in _candidates(sample, decimal)
        }
        found = max(scores, key=lambda style: scores[style])
        if not scores[found] or found == best:
            break
        numbers, rest = parse_numbers(values, found)
        if (parsed := len(values) - numbers.null_count()) > count or has_points:
            best, count = found, parsed
        if not rest.any():
            break
        # What is rare, such as a negative number in parentheses, the sample may not have.
        sample = sample.append(values.filter(rest).unique(maintain_order=True).head(_SAMPLE))
    return replace(best, share=count / present) if count else None


def parse_numbers(values: pl.Series, style: NumberStyle) -> tuple[pl.Series, pl.Series]:
    """Float64 with null where a cell is missing or no finite number, and a Boolean: there is text, but no number."""
    import polars as pl

    numbers = _finite(values if replace(style, signs=False).plain else _plain_text(values, replace(style, signs=False)))
    if numbers.null_count() == values.null_count():  # the usual case, without an expression
        return numbers, pl.Series(np.zeros(len(values), dtype=bool))
    rest = numbers.is_null() & values.is_not_null()
    if style.signs and rest.any():
        where = rest.arg_true()
        numbers = numbers.scatter(where, _finite(_plain_text(values.gather(where), style)))
        rest = numbers.is_null() & values.is_not_null()
    return numbers, rest


def _finite(values: pl.Series) -> pl.Series:
    """Numbers of plain text; null for everything else, ``inf`` and ``nan`` too."""
    import polars as pl

    numbers = values.cast(pl.Float64, strict=False)
    if isfinite(numbers.sum()):  # of wide tables each expression costs more than the cells
        return numbers
    finite = numbers.is_finite()
    return numbers if finite.all() else numbers.set(~finite, None)


def _plain_text(values: pl.Series, style: NumberStyle) -> pl.Series:
    """The cells as a program writes numbers; null, or no number, where a cell is not in this style."""
    import polars as pl

    frame = pl.DataFrame({"cell": values}).select(_stripped(style))
    text = pl.col("cell")
    if style.thousands or style.signs:
        text = pl.when(text.str.contains(_pattern(style))).then(text)
    elif style.decimal == ",":
        text = pl.when(~text.str.contains(".", literal=True)).then(text)
    for mark in _MARKS[style.thousands]:
        text = text.str.replace_all(mark, "", literal=True)
    if style.decimal == ",":
        text = text.str.replace(",", ".", literal=True)
    if style.signs:
        text = text.str.replace(r"^\((.*)\)$", "-${1}").str.replace(r"^(.*)-$", "-${1}")
    return frame.select(text).to_series()


def _stripped(style: NumberStyle) -> pl.Expr:
    """Without the signs around the digits; null where a percent sign is missing."""
    import polars as pl

    text = pl.col("cell")
    if style.signs:
        text = text.str.replace(_MINUS, "-", literal=True).str.replace(r"^([-+])\s+", "${1}")
    if style.percent:
        text = pl.when(text.str.contains("%", literal=True) | (text == "0")).then(text)
        text = text.str.replace(r"\s*%", "")
    if style.currency:
        sign = _escaped(style.currency)
        inner = text.str.replace(rf"^([-+(]?){sign}\s*", "${1}").str.replace(rf"\s*{sign}(\)?-?)$", "${1}")
        outer = text.str.strip_prefix(style.currency).str.strip_suffix(style.currency).str.strip_chars()
        text = pl.when(text.str.contains("^[-+(]|[-)]$")).then(inner).otherwise(outer)
    return text


def _pattern(style: NumberStyle) -> str:
    """A regular expression of the numbers, whose thousands are groups of three (or, in India, of two and three)."""
    whole = "[0-9]*"
    if style.thousands:
        indian = "|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}" if style.thousands == "," else ""
        whole = f"(?:[0-9]*|[1-9][0-9]{{0,2}}(?:[{_MARKS[style.thousands]}][0-9]{{3}})+{indian})"
    number = f"{whole}(?:[{style.decimal}][0-9]*)?(?:[eE][-+]?[0-9]+)?"
    return rf"^(?:[-+]?{number}|\({number}\)|{number}-)$" if style.signs else f"^[-+]?{number}$"


def _escaped(text: str) -> str:
    return "".join("\\" + letter if letter in ".$^()[]*+?|\\'" and letter != "'" else letter for letter in text)


def _candidates(odd: pl.Series, decimal: Decimal | None) -> list[NumberStyle]:
    """Styles that these cells may be in, the likeliest first."""
    found = odd.str.extract(rf"({CURRENCY})").drop_nulls()
    currency = str(found.mode().sort()[0]) if len(found) else ""
    percent = bool(odd.str.contains(r"\d\s*%\)?-?$").any())
    signs = bool(odd.str.contains(rf"^\(.*\d.*\)$|\d.{{0,5}}-$|{_MINUS}|^- ").any())
    pairs: list[tuple[Decimal, Thousands]] = [(".", ""), (".", ","), (",", ""), (",", ".")]
    if decimal == ",":
        pairs = [(",", "."), (",", ""), (".", ""), (".", ",")]
    pairs += [(".", " "), (",", " "), (".", "'"), (",", "'")]
    return [
        NumberStyle(point, mark, currency, percent, signs)
        for point, mark in pairs
        if not mark or odd.str.contains(f"[{_MARKS[mark]}]").any()
    ]

"""Dates in tables: their form, and the numbers that a model learns from."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

DATE_PARTS = ("time", "year", "month", "day", "weekday", "hour")
"""The numbers of a date: seconds since 1970 in UTC; the year; 1 to 12; 1 to 31; Monday is 1; 0 to 23."""

_DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"),
)
_TIMES = ("%H:%M", "%H:%M:%S", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p")
_MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y")
_ZONES = ("", "Z", "%z", " %z", " UTC")
_MIDNIGHT = r"[ T](0?0:00(:00(\.0+)?)?(Z| UTC|\+00:00)?|12:00(:00)? ?[Aa][Mm])$"
"""Behind a day it leaves the same date."""
DAY = re.compile(r"\d{1,4}[-/. ](\d{1,2}|[A-Za-z]{3,9})[-/. ]\d{1,4}(?!\d)|[A-Za-z]{3,9} \d{1,2}, \d{4}(?!\d)")

_MONTH_OR_TIME = re.compile(r"\d{4}[-/]\d{2}|\d{1,2}/\d{4}|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( [AaPp][Mm])?")


def find_date_format(sample: pl.Series) -> tuple[str | None, tuple[str, ...]]:
    """The format that all texts of a column have, and the formats between which they do not decide.

    Args:
        sample: different cells, without missing ones.

    Returns:
        (format, ()); (None, formats) where day and month can be told apart by none of them; (None, ()) for no dates.
    """
    forms = []
    if len(sample) and (day := DAY.match(sample[0])):
        forms = _forms(day[0], sample[0][day.end() :])
    elif len(sample) and _MONTH_OR_TIME.fullmatch(sample[0]):
        forms = [form for form in (*_MONTHS, *_TIMES) if _is_date(sample[0], form)]
    fits = [form for form in forms if parse_dates(sample, form).null_count() == 0]
    if len(fits) > 1:  # "%f" takes whole seconds too
        fits = [form for form in fits if form.replace("%.f", "") not in fits or "%.f" not in form]
    orders = {re.sub(r"[^dm]", "", form.replace("%b", "m").replace("%B", "m")[:8]) for form in fits}
    if len(orders) > 1:
        return None, tuple(fits[:2])
    return (fits[0], ()) if fits else (None, ())


def _forms(day: str, rest: str) -> list[str]:
    """The formats of a text: a day, and a time behind a blank or a T."""
    days = [form for form in _DAYS if _is_date(day, form)]
    if not rest or not days:
        return days
    times = [time + zone for time, zone in product(_TIMES, _ZONES) if _is_date(rest[1:], time + zone)]
    return [day + rest[0] + time for day, time in product(days, times)] if rest[0] in " T" else []


def _is_date(text: str, form: str) -> bool:
    """One text, faster than a column of one."""
    try:
        datetime.strptime(text, form.replace("%.f", ".%f"))
    except ValueError:
        return False
    return True


def parse_dates(cells: pl.Series, form: str) -> pl.Series:
    """Texts to times in UTC; null where a text has another form, or a year before 1000.

    A time of day is one of the first day of 1970, a month is its first day.
    """
    import polars as pl

    literal = form.endswith("Z")
    if literal:
        ends = cells.str.ends_with("Z")
        cells = pl.select(pl.when(ends).then(cells.str.strip_suffix("Z")).otherwise(None)).to_series()
        form = form[:-1]
    if not re.search("%[dejDF]", form):  # Polars reads whole dates
        lacks_year = not re.search("%[YyCG]", form)
        cells = "1970-01-01 " + cells if lacks_year else cells + " 01"
        form = f"%Y-%m-%d {form}" if lacks_year else f"{form} %d"
    parsed = cells.str.to_datetime(form, time_unit="us", strict=False, exact=True)
    if "%z" in form:
        parsed = parsed.dt.replace_time_zone(None)
    early = parsed.dt.year() < 1000  # "%Y" takes two digits
    return pl.select(pl.when(early).then(None).otherwise(parsed)).to_series()


def date_parts(cells: pl.Series, form: str) -> dict[str, pl.Series]:
    """The numbers of each date by their names in DATE_PARTS: float64, null where there is none.

    Args:
        form: of the texts; "" where the file of the training has dates: texts are as ISO 8601 writes them.
    """
    import polars as pl

    if cells.dtype == pl.String:
        times = parse_dates(cells if form else cells.str.replace("T", " "), form or "%Y-%m-%d %H:%M:%S%.f")
        if times.null_count() > cells.null_count():
            times = times.fill_null(parse_dates(cells.str.replace(_MIDNIGHT, ""), form or "%Y-%m-%d"))
    elif cells.dtype == pl.Time:
        times = cells.cast(pl.Duration("us")).to_physical().cast(pl.Datetime("us"))
    else:
        times = cells.cast(pl.Datetime("us")) if cells.dtype == pl.Date else cells
        if getattr(times.dtype, "time_zone", None):
            times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    days = times.dt
    parts = {
        "time": days.epoch("us").cast(pl.Float64) / 1e6,
        "year": days.year(),
        "month": days.month(),
        "day": days.day(),
        "weekday": days.weekday(),
        "hour": days.hour(),
    }
    return {name: values.cast(pl.Float64) for name, values in parts.items()}

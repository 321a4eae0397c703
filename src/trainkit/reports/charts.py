"""Charts as inline SVG that take their colours from the page, so that they are at home in light and in dark.

Lines differ in dash and marker as well as in colour, and carry their names at their ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainkit.recorders.history import Points
from trainkit.reports.markup import Markup, tag

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 84, 24, 44
DASHES = ("", "7 4", "2 3", "10 3 2 3", "12 5", "4 2 1 2")
MAX_POINTS = 400
LOG_FROM_RATIO = 30.0
Format = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """A series to draw; ``style`` picks colour, dash and marker."""

    name: str
    points: Points
    style: int = 0
    label: str | None = None
    """Stands at the line's end; its name where left out."""
    best: float | None = None
    """The x of the point with a star."""
    faint: bool = False


@dataclass(frozen=True)
class Scale:
    """From values to pixels, straight or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    describe: str,
    x_label: str = "epoch",
    form: Format = lambda value: f"{value:.4g}",
    log: bool = False,
    zero: bool = False,
    mark: tuple[float, str] | None = None,
) -> Markup:
    """A figure with one chart.

    Args:
        describe: what a reader who cannot see it should know.
        form: how values are written at the axis and in the tooltips.
        log: logarithmic y where the values span much.
        zero: let y start at 0.
        mark: a vertical line at this x, with a word.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return Markup("")
    x, y = _scales(drawn, log=log, zero=zero)
    parts = [_grid(x, y, form, x_label)]
    if mark is not None:
        at = x(mark[0])
        parts.append(tag("line", x1=_r(at), x2=_r(at), y1=TOP, y2=HEIGHT - BOTTOM, class_="mark"))
        inside = min(max(at, LEFT + 46), WIDTH - RIGHT - 30)
        parts.append(tag("text", mark[1], x=_r(inside), y=TOP - 9, text_anchor="middle", class_="small"))
    parts += [_draw(line, x, y, form, x_label) for line in drawn]
    parts.append(_end_labels(drawn, y))
    picture = tag(
        "svg", *parts, viewbox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title}. {describe}", focusable="false"
    )
    return tag("figure", tag("figcaption", title), picture, class_="chart")


def bars(parts: Sequence[tuple[str, float]], *, describe: str) -> Markup:
    """Shares of a whole as one bar; the names and numbers stand in a table beside it."""
    total = sum(value for _, value in parts) or 1.0
    shares = [(index, name, value / total) for index, (name, value) in enumerate(parts)]
    pieces = [
        tag("span", name if share > 0.2 else "", class_=f"key{index}", style=f"width:{100 * share:.2f}%")
        for index, name, share in shares
    ]
    return tag("div", pieces, role="img", aria_label=describe, class_="bar")


def scatter(title: str, points: Points, *, describe: str, x_label: str, y_label: str) -> Markup:
    """Points around the diagonal, where x and y would be the same."""
    values = [value for point in points for value in point]
    low, high = min(values), max(values)
    pad = (high - low) * 0.04 or 1.0
    x = Scale(low - pad, high + pad, LEFT, WIDTH - 20)
    y = Scale(low - pad, high + pad, HEIGHT - BOTTOM, TOP)
    ends = {"x1": _r(x(low)), "y1": _r(y(low)), "x2": _r(x(high)), "y2": _r(y(high))}
    every = max(1, len(points) // 1000)
    dots = [tag("circle", cx=_r(x(a)), cy=_r(y(b)), r=2.4, class_="dot") for a, b in points[::every]]
    picture = tag(
        "svg",
        _grid(x, y, lambda value: f"{value:.4g}", x_label, right=20),
        tag("line", **ends, class_="mark"),
        dots,
        tag("text", y_label, x=LEFT, y=TOP - 9, class_="small"),
        viewbox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}. {describe}",
        focusable="false",
    )
    return tag("figure", tag("figcaption", title), picture, class_="chart")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) within [low, high], about ``count`` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high]; with 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 2.5 else (1, 2, 5)
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


def _scales(lines: Sequence[Line], *, log: bool, zero: bool) -> tuple[Scale, Scale]:
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = min(ys), max(ys)
    log = log and low > 0 and high / low > LOG_FROM_RATIO
    if log:
        low, high = low / 1.15, high * 1.15
    else:
        low = 0.0 if zero else low
        pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        low, high = (low if zero else low - pad), high + pad
    first, last = min(0.0, min(xs)), max(xs)
    return Scale(first, last if last > first else first + 1, LEFT, WIDTH - RIGHT), Scale(
        low, high, HEIGHT - BOTTOM, TOP, log
    )


def _grid(x: Scale, y: Scale, form: Format, x_label: str, right: int = RIGHT) -> Markup:
    parts = []
    for value in log_ticks(y.low, y.high) if y.log else ticks(y.low, y.high):
        at = _r(y(value))
        parts.append(tag("line", x1=LEFT, x2=WIDTH - right, y1=at, y2=at, class_="grid"))
        parts.append(tag("text", form(value), x=LEFT - 7, y=_r(y(value) + 4), text_anchor="end"))
    for value in ticks(x.low, x.high, 6):
        if value != int(value) and x.high > 3:
            continue
        parts.append(tag("text", f"{value:g}", x=_r(x(value)), y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
    parts.append(tag("line", x1=LEFT, x2=WIDTH - right, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="axis"))
    middle = (LEFT + WIDTH - right) / 2
    parts.append(tag("text", x_label, x=_r(middle), y=HEIGHT - 8, text_anchor="middle"))
    return tag("g", *parts, aria_hidden="true")


def _draw(line: Line, x: Scale, y: Scale, form: Format, x_label: str) -> Markup:
    points = thinned(line.points)
    path = "M" + "L".join(f"{_r(x(a))} {_r(y(b))}" for a, b in points)
    style = line.style % len(DASHES)
    if line.faint:
        return tag("path", d=path, class_="faint")
    parts = [tag("path", d=path, class_=f"line stroke{style}", stroke_dasharray=DASHES[style] or None)]
    every = max(1, len(points) // 10)
    for index, (a, b) in enumerate(points):
        # A point of each epoch answers to the mouse; some of them are drawn.
        if len(points) <= 120:
            note = tag("title", f"{line.name}, {x_label} {a:g}: {form(b)}")
            parts.append(tag("g", tag("circle", cx=_r(x(a)), cy=_r(y(b)), r=7, class_="hit"), note))
        if index % every == 0:
            parts.append(_marker(style, x(a), y(b)))
    star = next(((a, b) for a, b in line.points if a == line.best), None)
    if star is not None:
        parts.append(tag("path", d=_star(x(star[0]), y(star[1])), class_=f"star fill{style}"))
    return tag("g", *parts, aria_hidden="true")


def thinned(points: Points, limit: int = MAX_POINTS) -> Points:
    """At most about ``limit`` points: of each stretch its lowest and its highest, so that no spike is lost."""
    if len(points) <= limit:
        return points
    size = -(-len(points) * 2 // limit)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept


def _end_labels(lines: Sequence[Line], y: Scale) -> Markup:
    """The names at the ends of the lines, pushed apart where they would lie on each other."""
    named = [line for line in lines if not line.faint and line.label != ""]
    wanted = sorted(((y(line.points[-1][1]), line) for line in named), key=lambda pair: pair[0])
    at = [place for place, _ in wanted]
    for _ in range(20):
        for index in range(1, len(at)):
            overlap = 17 - (at[index] - at[index - 1])
            if overlap > 0:
                at[index - 1] -= overlap / 2
                at[index] += overlap / 2
    parts = []
    for place, (_, line) in zip(at, wanted, strict=True):
        style = line.style % len(DASHES)
        parts.append(_marker(style, WIDTH - RIGHT + 12, place))
        parts.append(tag("text", line.label or line.name, x=WIDTH - RIGHT + 20, y=_r(place + 4), class_="end"))
    return tag("g", *parts, aria_hidden="true")


def _marker(style: int, x: float, y: float) -> Markup:
    class_ = f"fill{style}"
    match style:
        case 0:
            return tag("circle", cx=_r(x), cy=_r(y), r=3.4, class_=class_)
        case 1:
            return tag("rect", x=_r(x - 3.2), y=_r(y - 3.2), width=6.4, height=6.4, class_=class_)
        case 2:
            d = f"M{_r(x)} {_r(y - 4.4)}L{_r(x + 4.2)} {_r(y + 3.2)}L{_r(x - 4.2)} {_r(y + 3.2)}Z"
        case 3:
            d = f"M{_r(x)} {_r(y - 4.6)}L{_r(x + 4.6)} {_r(y)}L{_r(x)} {_r(y + 4.6)}L{_r(x - 4.6)} {_r(y)}Z"
        case 4:
            d = f"M{_r(x)} {_r(y + 4.4)}L{_r(x + 4.2)} {_r(y - 3.2)}L{_r(x - 4.2)} {_r(y - 3.2)}Z"
        case _:
            d = f"M{_r(x - 4)} {_r(y - 1.4)}h8v2.8h-8ZM{_r(x - 1.4)} {_r(y - 4)}h2.8v8h-2.8Z"
    return tag("path", d=d, class_=class_)


def _star(x: float, y: float) -> str:
    corners = []
    for index in range(10):
        radius = 9.5 if index % 2 == 0 else 4.0
        angle = math.pi * index / 5 - math.pi / 2
        corners.append(f"{_r(x + radius * math.cos(angle))} {_r(y + radius * math.sin(angle))}")
    return "M" + "L".join(corners) + "Z"


def _r(value: float) -> str:
    """A pixel to a tenth, without a trailing zero."""
    return f"{value:.1f}".removesuffix(".0")

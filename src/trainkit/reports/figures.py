"""Figures by matplotlib: PNG files for the disk, SVG for the pages; readable without color, the same bytes each time.

matplotlib is imported when the first figure is drawn: it takes half a second.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.reports.lettering import add_below, letter, quiet_fonts
from trainkit.system import durable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("#0068b0", "#c04a00", "#00795a", "#9c3f80", "#7a5c00", "#4b4bb0")
"""Colors of lines, which color-blind people tell apart; on a page they are its --c0 to --c5."""
INK, SOFT, GRID = "#222222", "#59616b", "#d9d9d9"
BLUE, ORANGE, RED = SERIES[0], "#d9822b", "#b23a48"
"""Blue and orange differ in lightness too, so that they stay apart in gray."""
DPI = 130
PANEL = (4.5, 3.55)
"""Width and height in inches of one of several panels."""
_AROUND = (0.75, 0.2, 0.5, 0.37)
"""Inches of a panel left, right, below and above its axes."""
_HEADING = 0.35
_ON_PAGE = {INK: "currentColor", SOFT: "var(--soft)", GRID: "var(--rule)"} | {
    color: f"var(--c{index})" for index, color in enumerate(SERIES)
}
_SIZE = 10
"""Points of a letter: on a phone, where a chart is 4.5 inches wide, as well as on a large screen."""


@dataclass(frozen=True)
class Chart:
    """A chart for a page."""

    title: str
    svg: str
    """An svg element that takes its colors from the page, with a label for screen readers."""


@dataclass(frozen=True)
class Drawing:
    """Charts side by side in one figure."""

    figure: Figure
    charts: Sequence[Chart]
    """The same ones for a page, where they stand below each other on a narrow screen."""


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """An empty white figure of this size in inches. No pyplot: it keeps every figure and wants a display.

    Args:
        constrained: make room for all labels, which takes as long as to draw; else axes stand where they are put.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08) if constrained else None
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_panels(count: int, *, title: str = "") -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side, with a title above them all."""
    width, height = PANEL[0] * count, PANEL[1] + (_HEADING if title else 0)
    left, right, below, above = _AROUND
    size = (PANEL[0] - left - right) / width, (PANEL[1] - below - above) / height
    figure = new_figure(width, height, constrained=False)
    if title:
        figure.suptitle(plain(title), x=0.1 / width, y=1 - 0.1 / height, ha="left", va="top", weight="bold", color=INK)
    starts = [(PANEL[0] * index + left) / width for index in range(count)]
    return figure, [figure.add_axes((start, below / height, *size), facecolor="none") for start in starts]


def style_axes(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "", grid: str | None = "both") -> None:
    """Labels and quiet lines, alike in every figure."""
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_xlabel(xlabel, fontsize=_SIZE, color=INK)
    axes.set_ylabel(ylabel, fontsize=_SIZE, color=INK)
    axes.tick_params(labelsize=_SIZE, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    if grid is not None:
        axis: Any = grid
        axes.grid(axis=axis, color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)


def add_heading(figure: Figure, text: str) -> None:
    """A title above all axes of a figure, which gets higher by the lines that it takes."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, max(20, int(10 * width)))  # letters of this size in an inch
    figure.set_size_inches(width, height + 0.18 * (len(lines) - 1))
    figure.suptitle("\n".join(map(plain, lines)), fontsize=11, color=INK, x=0.02, ha="left")


def add_legend(axes: Axes, **where: Any) -> None:
    """Names of the lines, in the ink of the figure."""
    axes.legend(frameon=False, fontsize=_SIZE - 1, labelcolor=INK, **where)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG; its folder is made where it is missing.

    Raises:
        WriteError: the disk is full or not writable.
    """
    with durable.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with quiet_fonts():
        meanings = letter(figure)
        box = add_below(figure, meanings) if meanings else None
        # Without its version in the file, the same numbers give the same bytes.
        figure.savefig(buffer, format="png", metadata={"Software": None}, bbox_inches=box)
    durable.write_bytes(path, buffer.getvalue())
    return path


def chart_of(
    figure: Figure,
    axes: Axes,
    *,
    title: str,
    description: str,
    around: tuple[float, float, float, float] = _AROUND,
) -> Chart:
    """One panel of a figure as a chart for a page, which writes the title itself.

    Args:
        title: differs from those of the other charts of the page.
        description: what a reader who cannot see the chart should know.
        around: inches left, right, below and above the axes that belong to the chart.
    """
    from matplotlib import rc_context
    from matplotlib.transforms import Bbox

    left, right, below, above = around
    box = axes.get_position().transformed(figure.transFigure - figure.dpi_scale_trans)
    panel = Bbox.from_extents(box.x0 - left, box.y0 - below, box.x1 + right, box.y1 + min(above, 0.12))
    others = [one for one in (*figure.axes, *figure.texts) if one is not axes]
    heading = axes.get_title(loc="left")
    buffer = io.StringIO()
    # The salt gives ids that are the same for the same chart, and differ between the charts of a page.
    # Text stays text, in the font of the page.
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.sans-serif": ["DejaVu Sans"]}
    with rc_context(options), quiet_fonts(as_text=True):
        axes.set_title("", loc="left")
        for one in others:
            one.set_visible(False)
        unnamed = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", facecolor="none", bbox_inches=panel, metadata=unnamed)
        for one in others:
            one.set_visible(True)
        axes.set_title(heading, loc="left")
    return Chart(title, _for_page(buffer.getvalue(), label=f"{title}. {description}"))


def _for_page(svg: str, *, label: str) -> str:
    """The drawing alone, in the colors of the page: no prolog, no style for all elements, no ids but those in use."""
    size = re.search(r'viewBox="([\d. ]+)"', svg)
    assert size is not None
    drawn = svg[svg.index("</defs>") + len("</defs>") :]
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: _ON_PAGE.get(found[0], found[0]), drawn)
    _, _, width, height = size[1].split()
    box = f'viewBox="{size[1]}" width="{width}" height="{height}"'
    start = f'<svg {box} role="img" aria-label="{html.escape(label)}" focusable="false">'
    return start + drawn.rstrip()


def plain(text: str) -> str:
    """On one line; ``$`` would start a formula in matplotlib."""
    return " ".join(text.splitlines()).replace("$", r"\$")


def legend_name(text: str) -> str:
    """A name in a legend, which would leave out one that begins with an underscore."""
    return f" {plain(text)}" if text.startswith("_") else plain(text)


def short_name(name: str, length: int = 18) -> str:
    """A name that fits beside an axis: the start and the end of a long one, in which names differ."""
    end = length // 3
    return plain(name if len(name) <= length else f"{name[: length - end - 1]}…{name[-end:]}")

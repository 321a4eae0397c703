"""Figures as PNG files: drawn without a display, readable without colour, whole or absent on the disk.

matplotlib is imported when the first figure is drawn: it takes half a second.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.system import durable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, BLUE, ORANGE, RED = "#222222", "#d9d9d9", "#3b6fb6", "#d9822b", "#b23a48"
"""Blue and orange differ in lightness too, so that they stay apart in grey and for most colour-blind eyes."""
DPI = 130


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of this size in inches. No pyplot: it keeps every figure and wants a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "", grid: str | None = "both") -> None:
    """Labels and quiet lines, alike in every figure."""
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.set_ylabel(ylabel, fontsize=10, color=INK)
    axes.tick_params(labelsize=9, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if grid is not None:
        axis: Any = grid
        axes.grid(axis=axis, color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG; its folder is made where it is missing.

    Raises:
        WriteError: the disk is full or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise durable.WriteError(path, error) from error
    buffer = io.BytesIO()
    # Without its version in the file, the same numbers give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    durable.write_bytes(path, buffer.getvalue())
    return path


def short_name(name: str, length: int = 18) -> str:
    """A name that fits beside an axis; ``$`` would start a formula in matplotlib."""
    cut = name if len(name) <= length else name[: length - 1] + "…"
    return cut.replace("$", r"\$")

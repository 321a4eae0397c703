"""HTML from plain functions: everything that is put in is escaped unless it is markup already."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | Markup | None
_VOID = {"img", "meta"}
_CLOSED = {"path", "line", "rect"}
"""Of SVG: without the slash, what follows would lie inside."""


def tag(name: str, /, *content: Content | Iterable[Content], **attributes: object) -> Markup:
    """An element. ``class_`` is class, ``aria_label`` is aria-label; an attribute of None or False is left out."""
    start = f"<{name}{_attributes(attributes)}"
    if name in _VOID:
        return Markup(f"{start}>")
    return Markup(f"{start}/>" if name in _CLOSED else f"{start}>{join(*content)}</{name}>")


def join(*content: Content | Iterable[Content], separator: str = "") -> Markup:
    """One after the other; plain text is escaped, None is nothing."""
    pieces = []
    for item in content:
        if isinstance(item, Markup):
            pieces.append(str(item))
        elif isinstance(item, str | int | float):
            pieces.append(html.escape(str(item), quote=False))
        elif item is not None:
            pieces.append(str(join(*item)))
    return Markup(separator.join(pieces))


def table(
    caption: Content,
    header: Sequence[Content],
    rows: Sequence[Sequence[Content]],
    *,
    class_: str | None = None,
    label: str | None = None,
) -> Markup:
    """A table in a box that scrolls on a narrow screen; the first cell of a row is its header.

    ``label`` names the box for a screen reader where the caption is not plain text.
    """
    head = tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in header])) if header else None
    body = [tag("tr", tag("th", first, scope="row"), [_cell(cell) for cell in rest]) for first, *rest in rows]
    grid = tag("table", tag("caption", caption), head, tag("tbody", body), class_=class_)
    name = label or (caption if isinstance(caption, str) else None)
    return tag("div", grid, class_="scroll", tabindex=0, role="region", aria_label=name)


def _cell(content: Content) -> Markup:
    """Ready-made cells stay as they are."""
    if isinstance(content, Markup) and content.startswith("<td"):
        return content
    return tag("td", content)


def section(title: str, *content: Content | Iterable[Content], id: str) -> Markup:
    return tag("section", tag("h2", title, id=f"{id}-title"), *content, id=id, aria_labelledby=f"{id}-title")


def fold(summary: Content, *content: Content | Iterable[Content], open: bool = False) -> Markup:
    """Something that opens at a click or with the space bar."""
    return tag("details", tag("summary", summary), *content, open="" if open else None)


def _attributes(attributes: dict[str, object]) -> str:
    pieces = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        key = "viewBox" if key == "viewbox" else key
        pieces.append(f' {key}="{html.escape(str(value))}"')
    return "".join(pieces)

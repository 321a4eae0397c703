"""What a request brings: parameters, and the inputs in its body as rows of the model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from serve_batches import Refused, Row
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1", b"ARROW1")


class Model(Protocol):
    """What is served. What it refuses it says with a ValueError."""

    kind: str
    """``image`` or ``table``."""
    labels: list[str]
    """The classes; empty for a regression."""
    targets: list[str]
    inputs: list[dict[str, Any]]
    """Of a table: the column of each number of a row, and of a category how many there are; empty for images."""
    about: Mapping[str, Any]
    """For ``/info``: plain values."""

    def read_image(self, data: bytes, *, resize: bool, max_pixels: int) -> Row: ...
    def read_csv(self, data: bytes, name: str) -> list[tuple[str, Row | str]]: ...
    def read_rows(self, rows: list[dict[str, Any]]) -> list[tuple[str, Row | str]]: ...
    def run(self, batch: Row) -> Row: ...
    def example(self) -> Row: ...


def read_parameters(request: Request) -> tuple[int, bool]:
    """``top`` and ``resize`` of the address."""
    given = dict(request.query_params)
    top, resize = given.pop("top", "3"), given.pop("resize", "0")
    if given:
        raise Refused(422, f"unknown parameter {next(iter(given))!r}; there are top and resize")
    if not (top.isascii() and top.isdigit() and int(top[:9]) > 0):
        raise Refused(422, f"top: a whole number from 1 is expected, got {top!r}")
    if resize not in ("0", "1", "true", "false"):
        raise Refused(422, f"resize: 0 or 1 is expected, got {resize!r}")
    return int(top[:9]), resize in ("1", "true")


async def split_parts(headers: Mapping[str, str], body: bytes, max_body: int) -> list[tuple[str, bytes]]:
    """(name, bytes) of each file; a body that is no form is one file."""
    kind = headers.get("content-type", "").lower()
    if not kind.startswith("multipart/form-data"):
        is_json = body.lstrip()[:1] in (b"[", b"{")
        if kind.startswith("application/x-www-form") and not is_json and not any(end in body for end in b"\r\n\0"):
            raise Refused(422, "no line ends in the body: curl -d drops those of a file, so take --data-binary @FILE")
        is_csv = kind.startswith(("text/csv", "text/tab-separated-values"))
        return [("rows.csv" if is_csv else "body", body)]

    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(headers, stream())  # type: ignore[arg-type]
    parser.spool_max_size = max_body + 1  # nothing is written to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeDecodeError) as error:
        raise Refused(400, f"not a form that can be read ({getattr(error, 'message', error)})") from None
    parts = []
    for name, part in form.multi_items():
        if isinstance(part, str):
            raise Refused(422, f"the field {name!r} is no file; with curl: -F {name}=@FILE")
        parts.append((plain_name(part.filename or name), await part.read()))
    if not parts:
        raise Refused(422, "a form without files; with curl: -F file=@FILE")
    return parts


def plain_name(name: str) -> str:
    """The name of a file without folders and without what is no text."""
    name = name.replace("\\", "/").rpartition("/")[2][:200]
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in name) or "file"


def as_row(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in a row")
    return row


def read_table(model: Model, name: str, data: bytes) -> list[tuple[str, Row | str]]:
    """The rows of a CSV file or of JSON."""
    if data.startswith(PACKED):
        raise ValueError("packed or binary; send the text of the CSV file, or rows as JSON")
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start not in (b"[", b"{") or name.lower().endswith((".csv", ".tsv", ".txt")):
        return model.read_csv(data, "rows.csv" if name == "body" else name)
    try:
        rows = json.loads(data.decode("utf-8-sig"), object_pairs_hook=as_row)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON that can be read ({error})") from None
    rows = [rows] if isinstance(rows, dict) else rows
    if not rows or not all(isinstance(row, dict) and row for row in rows):
        raise ValueError('a list of rows is expected, each {"column": value, ...}')
    for row in rows:
        for column, cell in row.items():
            if isinstance(cell, list | dict):
                raise ValueError(f"column {column!r}: a number or a text is expected, got {json.dumps(cell)[:40]}")
    return model.read_rows(rows)

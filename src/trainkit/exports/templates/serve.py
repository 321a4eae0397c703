"""Answers requests over HTTP with the model of this bundle: python serve.py [--port 8000]; --help names the options.

Needs what requirements.txt names, and not trainkit:

curl --data-binary @image.png http://127.0.0.1:8000/predict
curl --data-binary @rows.csv http://127.0.0.1:8000/predict
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from serve_batches import Row
from serve_http import Options
from serve_process import run_server, say

PACKAGES = ("trainkit", "onnxruntime", "torch", "starlette", "uvicorn")


class Bundle:
    """The model in the folder of an export, read by the ``predict.py`` in it."""

    def __init__(self, folder: Path, predict: Any, program: str | None = None) -> None:
        """Load the ONNX program where there is one, else the first; ``program`` names another.

        Raises:
            ValueError: it cannot be served.
        """
        signature = predict.SIGNATURE
        known = sorted(predict.PROGRAMS, key=lambda name: not name.endswith(".onnx"))
        if not known or (program or known[0]) not in known:
            raise ValueError(f"{folder}: there is no program {program or ''}to serve; export one, for instance --onnx")
        name, self.run = load_first([program] if program else known, predict, folder)
        self.entry: dict[str, Any] = predict.PROGRAMS[name]
        if self.entry["outputs"][0]["name"] not in ("probabilities", "values"):
            raise ValueError(f"{folder / name} puts out the bare network's outputs; give a bundle made without --raw")
        self.predict = predict
        self.kind: str = signature["kind"]
        self.labels: list[str] = predict.LABELS
        self.targets: list[str] = signature["target_names"]
        self.dtype = np.dtype(self.entry["input"]["dtypes"][0])
        table = signature["table"] if self.kind == "table" else {"columns": [], "inputs": []}
        columns, self.inputs = table["columns"], table["inputs"]
        self.about: Mapping[str, Any] = {
            "name": signature["name"],
            "kind": self.kind,
            "task": signature["task"],
            "labels": self.labels,
            "targets": self.targets,
            "columns": columns,
            "input": {"shape": signature["preprocessing"]["input_shape"]},
            "program": name,
            "sha256": sha256(folder / name),
            "signature": self.entry,
            "versions": versions(signature["versions"]),
        }

    def read_image(self, data: bytes, *, resize: bool, max_pixels: int) -> Row:
        image: Row = self.predict.decode(data, self.entry, resize, max_pixels)
        return image

    def read_csv(self, data: bytes, name: str) -> list[tuple[str, Row | str]]:
        lines = self.predict.cells_of(data)
        return self.encode([(f"{name}:{line}", cells) for line, cells in lines])

    def read_rows(self, rows: list[dict[str, Any]]) -> list[tuple[str, Row | str]]:
        columns = self.predict.TABLE["columns"]
        given = dict.fromkeys(name for row in rows for name in row)
        missing = [column["name"] for column in columns if column["name"] not in given]
        if missing:
            listed = self.predict.listed
            raise ValueError(f"no column {listed(missing)}, which the model takes; there are {listed(list(given))}")
        names = {column["name"]: column["kind"] for column in columns}
        cells = [{name: as_cell(row.get(name), kind) for name, kind in names.items()} for row in rows]
        return self.encode([(f"[{place}]", row) for place, row in enumerate(cells)])

    def encode(self, rows: list[tuple[str, Any]]) -> list[tuple[str, Row | str]]:
        values, bad = self.predict.read_rows([cells for _, cells in rows])
        values = values.astype(self.dtype)
        return [(name, bad[place] if place in bad else values[place]) for place, (name, _) in enumerate(rows)]

    def example(self) -> Row:
        """A row to warm up with."""
        if self.kind == "table":
            return np.zeros(len(self.predict.TABLE["inputs"]), self.dtype)
        return np.zeros(self.predict.SIGNATURE["preprocessing"]["input_shape"], self.dtype)


def load_first(names: Sequence[str], predict: Any, folder: Path) -> tuple[str, Callable[[Row], Row]]:
    """The first program whose runtime is installed. Raises ValueError."""
    for name in names:
        try:
            return name, predict.load(name)
        except ImportError as error:
            missing = str(error.name)
            if name != names[-1]:
                say(f"note: {missing} is not installed, so {name} is not served but {names[names.index(name) + 1]}")
        except Exception as error:  # noqa: BLE001  (each runtime raises its own errors)
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{folder / name}: cannot be loaded ({reason})") from None
    raise ValueError(f"{folder / names[-1]}: cannot be run without {missing}; install it: pip install {missing}")


def as_cell(cell: Any, kind: str) -> Any:
    """A value of JSON as a cell of a file: NaN is missing, dates are texts, true is 1 where the column holds true or
    false and a word where it holds numbers, and a number is one that a float holds.
    """
    if cell is None or cell != cell:
        return None
    if isinstance(cell, bool) and kind == "boolean":
        return str(int(cell))
    if isinstance(cell, int) and abs(cell) > 1 << 1000:
        return "inf"
    return str(cell) if kind == "datetime" or (kind == "numeric" and isinstance(cell, bool)) else cell


def versions(stored: Mapping[str, str]) -> dict[str, str]:
    """Of the packages that serve, and of the trainkit and the torch that trained the model."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return {
        **found,
        "trained_with": ", ".join(f"{name} {stored[name]}" for name in ("trainkit", "torch") if name in stored),
    }


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sums(folder: Path) -> None:
    """Raise ValueError where a file of the bundle is not as it was exported."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise ValueError(f"{folder}: SHA256SUMS is missing; export the bundle again")
    lines = [line.split("  ", 1) for line in sums.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines or any(len(line) != 2 or line[1].startswith("/") or ".." in Path(line[1]).parts for line in lines):
        raise ValueError(f"{sums} is damaged; export the bundle again")
    for digest, name in lines:
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: {name} is missing; export the bundle again")
        if sha256(folder / name) != digest:
            raise ValueError(f"{folder}: {name} has changed since the export; nothing was loaded")


def read_token(path: Path) -> str:
    """The first line of a file."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--token-file {path}: cannot be read ({getattr(error, 'strerror', error)})") from None
    if not token or len(token.split()) != 1:
        raise ValueError(f"--token-file {path}: one word is expected, for instance of: openssl rand -hex 32")
    return token


def number_of_bytes(text: str) -> int:
    """``10MB``, ``512kB`` or a number of bytes. Raises ValueError."""
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
    digits = text.rstrip("bBkKmMgGiI ")
    size = float(digits) * units[text[len(digits) :].strip().lower()] if digits else 0
    if not 1 <= size < 1 << 40:
        raise ValueError
    return int(size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all interfaces")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-batch", type=int, default=32, help="rows that are computed at once")
    parser.add_argument("--max-wait-ms", type=float, default=0, help="how long an idle server waits for a fuller batch")
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait; above it 429")
    parser.add_argument("--max-body", type=number_of_bytes, default="10MB", help="of a request; above it 413")
    parser.add_argument("--timeout", type=float, default=30, help="seconds until 504")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--token-file", type=Path, help="who asks has to send Authorization: Bearer TOKEN")
    given = vars(parser.parse_args())
    token_file, folder = given.pop("token_file"), Path(__file__).parent
    if (
        min(given["max_batch"], given["queue"], given["workers"]) < 1
        or given["timeout"] <= 0
        or given["max_wait_ms"] < 0
    ):
        parser.error("--max-batch, --queue, --workers and --timeout are above 0, --max-wait-ms is not below it")
    try:
        check_sums(folder)
        options = Options(**given, token=read_token(token_file) if token_file else None)
        import predict  # type: ignore[import-not-found]

        return run_server(lambda: Bundle(folder, predict), options, (folder / "serve.html").read_text(encoding="utf-8"))
    except ValueError as error:
        say(f"error: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())

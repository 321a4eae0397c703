# mypy: ignore-errors
"""The answers for the rows of a table, one line of JSON each: python predict.py ROWS.csv [--program model.onnx]

Needs numpy, and torch or (for .onnx) onnxruntime; not trainkit. Parquet and Arrow files need polars.
"""

import argparse
import csv
import datetime
import gzip
import io
import json
import math
import re
import sys
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SIGNATURE = json.loads((FOLDER / "signature.json").read_text(encoding="utf-8"))
LABELS = json.loads((FOLDER / "labels.json").read_text(encoding="utf-8"))
TABLE = SIGNATURE["table"]
PROGRAMS = {name: entry for name, entry in SIGNATURE["programs"].items() if entry["format"] != "safetensors"}
MARKS = {"": "", ",": ",", ".": ".", " ": " \u00a0\u202f\u2009", "'": "'\u2019"}
PAIRS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"on", "off"})
WHOLE = re.compile(r"([+-]?)([0-9]+)(\.0*)?")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
FILLED = Counter()


def load(name):
    """A function from rows (N, C) to probabilities (N, K) or values (N, T)."""
    if name.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(FOLDER / name), providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, {session.get_inputs()[0].name: inputs})[0]
    import torch

    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.jit.load is deprecated, and works
    path = str(FOLDER / name)
    program = torch.export.load(path).module() if name.endswith(".pt2") else torch.jit.load(path, map_location="cpu")

    def run(inputs):
        with torch.no_grad():
            outputs = program(torch.from_numpy(inputs))
        return (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()

    return run


def read_cells(path, delimiter, encoding):
    """A dictionary of cells by column name for each row."""
    if path.suffix in (".parquet", ".arrow", ".feather", ".ipc"):
        import polars

        reader = polars.read_parquet if path.suffix == ".parquet" else polars.read_ipc
        return reader(path).to_dicts()
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding).removeprefix("\ufeff")
    form = TABLE.get("format", {})
    lines = io.StringIO(text, newline="")
    for _ in range(form.get("skip_lines", 0)):
        lines.readline()
    rows = csv.reader(lines, delimiter=delimiter, quotechar=form.get("quote") or '"', skipinitialspace=True)
    rows = [[cell.strip() for cell in row] for row in rows if row]
    if form.get("header", True):
        names = [name or f"Unnamed: {place}" for place, name in enumerate(rows.pop(0))]
    else:
        names = [f"column_{place}" for place in range(1, 1 + len(rows[0]))]
    return [dict(zip(names, row, strict=False)) for row in rows]


def number(cell, style):
    """A number as people write it, or NaN."""
    if not isinstance(cell, str):
        return float(cell)
    style = style or {}
    text = cell.replace("\u2212", "-")
    if style.get("accounting"):
        text = re.sub(r"^\((.*)\)$", r"-\1", text)
        text = re.sub(r"^(.*)-$", r"-\1", text)
    if sign := style.get("currency"):
        text = text.replace(sign, "")
    if style.get("percent"):
        text = text.replace("%", "")
    for mark in MARKS[style.get("thousands", "")]:
        text = text.replace(mark, "")
    if style.get("decimal") == ",":
        text = text.replace(",", ".")
    text = text.strip()
    return float(text) if NUMBER.fullmatch(text) else math.nan


def label_style(labels):
    """Which spellings of a label are the same."""
    if all(WHOLE.fullmatch(label) for label in labels):
        return "numbers"
    return "boolean" if {label.lower() for label in labels} in PAIRS and len(labels) == 2 else "text"


def label_key(text, style):
    """The same for all spellings of a label."""
    if style == "numbers" and (match := WHOLE.fullmatch(text)):
        digits = match[2].lstrip("0") or "0"
        return f"-{digits}" if match[1] == "-" and digits != "0" else digits
    return text.lower() if style == "boolean" else unicodedata.normalize("NFC", text)


def code(cell, labels, places):
    """The position of a label, or NaN."""
    return places.get(label_key(str(cell), label_style(labels)), math.nan)


def date(cell, form):
    """The numbers of a date by name; NaN where it is none."""
    nothing = dict.fromkeys(("time", "year", "month", "day", "weekday", "hour"), math.nan)
    if isinstance(cell, str):
        try:
            cell = datetime.datetime.strptime(cell, form.replace("%.f", ".%f"))
        except ValueError:
            return nothing
    elif not isinstance(cell, datetime.datetime):
        cell = datetime.datetime(cell.year, cell.month, cell.day)
    if cell.tzinfo is not None:
        cell = cell.astimezone(datetime.UTC).replace(tzinfo=None)
    seconds = (cell - datetime.datetime(1970, 1, 1)) / datetime.timedelta(seconds=1)
    return {
        "time": seconds,
        "year": cell.year,
        "month": cell.month,
        "day": cell.day,
        "weekday": cell.isoweekday(),
        "hour": cell.hour,
    }


def read_rows(rows):
    """Raw numbers (N, C), one column for each input: NaN where there is none, codes for categories."""
    inputs = TABLE["inputs"]
    places = {(one["column"], one.get("part")): place for place, one in enumerate(inputs)}
    values = np.full((len(rows), len(inputs)), math.nan)
    for column in TABLE["columns"]:
        name, kind, labels = column["name"], column["kind"], column.get("categories", [])
        codes = {label_key(label, label_style(labels)): place for place, label in enumerate(labels)} if labels else {}
        own = len(labels) if kind == "categorical" else math.nan
        for row, cells in enumerate(rows):
            cell = cells[name]
            if cell is None or cell in TABLE["missing_values"] or cell != cell:
                found = {None: own}
            elif kind == "datetime":
                found = date(cell, column["format"] or "%Y-%m-%d %H:%M:%S")
            elif kind == "numeric":
                found = {None: number(cell, column["style"])}
            else:
                found = {None: code(cell, labels, codes)}
            if math.isnan(next(iter(found.values()))) or found == {None: own}:
                FILLED[name] += 1
                if "refuse" in (TABLE["missing"], TABLE["unseen"]):
                    raise SystemExit(f"row {row + 1}: column {name}: {cell!r} cannot be used")
            for part, value in found.items():
                if (name, part) in places:
                    values[row, places[name, part]] = own if math.isnan(value) and kind == "categorical" else value
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--program", choices=PROGRAMS, default=next(iter(PROGRAMS)))
    parser.add_argument("--delimiter", default=TABLE.get("format", {}).get("delimiter", ","))
    parser.add_argument("--encoding", default=TABLE.get("format", {}).get("encoding", "utf-8"))
    options = parser.parse_args()
    rows = read_rows(read_cells(options.table, options.delimiter, options.encoding))
    outputs = load(options.program)(rows.astype(PROGRAMS[options.program]["input"]["dtypes"][0]))
    for number, values in enumerate(outputs.tolist(), start=1):
        if LABELS:
            best = int(np.argmax(values))
            chances = dict(zip(LABELS, values, strict=True))
            answer = {"label": LABELS[best], "probability": values[best], "probabilities": chances}
        else:
            answer = {"values": dict(zip(SIGNATURE["target_names"], values, strict=True))}
        print(json.dumps({"row": number, **answer}))
    if FILLED:
        print(f"filled in: {dict(FILLED)}", file=sys.stderr)


if __name__ == "__main__":
    main()

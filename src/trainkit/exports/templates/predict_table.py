# mypy: ignore-errors
"""The answers for the rows of a table, one line of JSON each: python predict.py ROWS.csv [--program model.onnx]

Needs numpy, and torch or (for .onnx) onnxruntime; not trainkit. Parquet and Arrow files need polars, and files packed
with zstd need zstandard.
"""

import argparse
import bz2
import codecs
import csv
import datetime
import gzip
import io
import json
import lzma
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
PAIRS = {"true/false": ("true", "false", "t", "f"), "yes/no": ("yes", "no", "y", "n"), "on/off": ("on", "off")}
DIGITS = {"1": 0, "1.0": 0, "0": 1, "0.0": 1}
WHOLE = re.compile(r"([+-]?)([0-9]+)(\.0*)?")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MIDNIGHT = r"[ T](0?0:00(:00(\.0+)?)?(Z| UTC|\+00:00)?|12:00(:00)? ?[Aa][Mm])$"
MISSING, UNSEEN = Counter(), Counter()
BATCH = 8192


def load(name):
    """A function from rows (N, C) to probabilities (N, K) or values (N, T)."""
    if name.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait leave the cores
        session = onnxruntime.InferenceSession(str(FOLDER / name), options, providers=["CPUExecutionProvider"])
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


def decoded(data, encoding):
    """The text of a file: in this encoding, or as its mark, its zeros or its bytes say, or as in training."""
    marks = {codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le"}
    marks[codecs.BOM_UTF16_BE] = "utf-16-be"
    zeros = [data[place : 1 << 20 : 2].count(0) / max(1, len(data[: 1 << 20]) // 2) for place in (0, 1)]
    if encoding is None:
        encoding = next((name for mark, name in marks.items() if data.startswith(mark)), None)
    if encoding is None and max(zeros) > 0.25 and min(zeros) < 0.05:
        encoding = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    trained = TABLE.get("format", {}).get("encoding", "utf-8")
    for name in [encoding] if encoding else ["utf-8", "cp1252" if trained.startswith("utf") else trained, "latin-1"]:
        try:
            return data.decode(name).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            failed = error
    raise ValueError(f"{failed}; give another --encoding")


def unpacked(data):
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"BZh"):
        return bz2.decompress(data)
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def split_rows(text, delimiter):
    """The line and the trimmed cells of each row that is not empty."""
    form = TABLE.get("format", {})
    if delimiter == " ":  # any number of blanks and tabs
        text = re.sub(r"[ \t]+$", "", text.replace("\t", " "), flags=re.MULTILINE)
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quotechar=form.get("quote") or '"',
        escapechar=form.get("escape") or None,
        skipinitialspace=True,
    )
    found, line = [], 1
    for row in rows:
        if row:
            found.append((line, [cell.strip() for cell in row]))
        line = rows.line_num + 1
    return found


def name_columns(cells, rows):
    """The names of the columns, from the cells of a header and the rows below it."""
    names, width = list(cells), len(rows[0]) if rows else len(cells)
    if len(names) == width - 1:  # every row ends with a delimiter, or begins with a name of its own
        names = ["", *names] if any(row[-1] for row in rows if len(row) == width) else [*names, ""]
    while len(names) > width and not names[-1]:
        names.pop()
    return [name or f"Unnamed: {place}" for place, name in enumerate(names)]


def read_cells(path, delimiter, encoding):
    """A dictionary of cells by column name for each row, or what is wrong with its number of cells."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SystemExit(f"error: {path}: {error.strerror}") from None
    if data.startswith((b"PAR1", b"ARROW1")):
        return typed_cells(path, is_parquet=data.startswith(b"PAR1"))
    try:
        return [row for _, row in cells_of(unpacked(data), delimiter, encoding)]
    except (ValueError, LookupError) as error:  # a LookupError is of the encoding
        raise SystemExit(f"error: {path}: {error}") from None


def typed_cells(path, is_parquet):
    try:
        import polars
    except ImportError:
        raise SystemExit(f"error: {path}: Parquet and Arrow files need polars; pip install polars") from None
    frame = (polars.read_parquet if is_parquet else polars.read_ipc)(path)
    if lacks := [column["name"] for column in TABLE["columns"] if column["name"] not in frame.columns]:
        has = listed(frame.columns)
        raise SystemExit(f"error: {path}: no column {listed(lacks)}, which the model takes; the file has {has}")
    return frame.to_dicts()


def cells_of(data, delimiter=None, encoding=None):
    """The line of each row of a text, and a dictionary of its cells, or what is wrong with their number.

    Raises ValueError where a column is missing, or there twice.
    """
    text, form = decoded(data, encoding), TABLE.get("format", {})
    needed = {column["name"]: None for column in TABLE["columns"]}.keys()
    likely = [form.get("delimiter", ","), ",", ";", "\t", "|"]
    missing, has = None, []
    for sign in [delimiter] if delimiter else dict.fromkeys(likely):
        lines = split_rows(text, sign)
        rows = [row for _, row in lines]
        if not form.get("header", True):
            skipped = form.get("skip_lines", 0)
            headers = [(skipped, [f"column_{place + 1}" for place in range(max(map(len, rows[skipped:]), default=0))])]
        else:  # below titles or Excel's "sep=;", if there are any
            headers = [(start, name_columns(rows[start - 1], rows[start:])) for start in range(1, 1 + len(rows[:31]))]
        for start, names in headers:
            lacks = [name for name in needed if name not in names]
            if not lacks:
                if twice := [name for name in needed if names.count(name) > 1]:
                    raise ValueError(f"columns with one name: {listed(twice)}; give each column a name of its own")
                return [(line, named(names, row)) for line, row in lines[start:]]
            if missing is None or len(lacks) < len(missing):
                missing, has = lacks, names
    raise ValueError(f"no column {listed(missing or needed)}, which the model takes; the file has {listed(has)}")


def listed(names):
    shown = ", ".join(map(repr, list(names)[:10]))
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def named(names, row):
    if len(row) != len(names):
        return f"{len(row)} cell{'s' * (len(row) != 1)}, but the header has {len(names)}"
    return dict(zip(names, row, strict=True))


def number_reader(style):
    """A function from a cell to the number that people have written so, or NaN."""
    style = style or {}
    decimal, marks, currency = style.get("decimal", "."), MARKS[style.get("thousands", "")], style.get("currency", "")
    whole = "[0-9]*"
    if marks:
        indian = "|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}" if "," in marks else ""
        whole = f"(?:[0-9]*|[1-9][0-9]{{0,2}}(?:[{marks}][0-9]{{3}})+{indian})"
    written = f"{whole}(?:[{decimal}][0-9]*)?(?:[eE][-+]?[0-9]+)?"
    sign = re.escape(currency)

    def read(text, signs):
        if signs:
            text = re.sub(r"^([-+])\s+", r"\1", text.replace("\u2212", "-", 1))
        if style.get("percent"):
            if "%" not in text and text != "0":
                return math.nan
            text = re.sub(r"\s*%", "", text, count=1)
        if currency and re.search("^[-+(]|[-)]$", text):
            text = re.sub(rf"^([-+(]?){sign}\s*", r"\1", text, count=1)
            text = re.sub(rf"\s*{sign}(\)?-?)$", r"\1", text, count=1)
        elif currency:
            text = text.removeprefix(currency).removesuffix(currency).strip()
        pattern = rf"[-+]?{written}|\({written}\)|{written}-" if signs else f"[-+]?{written}"
        if not re.fullmatch(pattern, text):
            return math.nan
        for mark in marks:
            text = text.replace(mark, "")
        text = text.replace(decimal, ".")
        text = re.sub(r"^(.*)-$", r"-\1", re.sub(r"^\((.*)\)$", r"-\1", text))
        return float(text) if NUMBER.fullmatch(text) else math.nan

    def number(cell):
        if isinstance(cell, datetime.timedelta):
            return cell / datetime.timedelta(seconds=1)
        if not isinstance(cell, str):
            found = float(cell)
        else:
            found = read(cell, False)
            if style.get("signs") and math.isnan(found):
                found = read(cell, True)
        return found if abs(found) < 3.4e38 else math.nan

    return lambda cell: {None: number(cell)}


def label_style(labels):
    """Which spellings of a label are the same."""
    if all(WHOLE.fullmatch(label) for label in labels):
        return "numbers"
    folded = {label.lower() for label in labels}
    words = folded - DIGITS.keys()
    for style, known in PAIRS.items():
        certain = words & set(known[:2]) or (words and words == set(known[2:]))
        if certain and words <= set(known) and len({truth(label, style) for label in folded}) == 2:
            return style
    return "text"


def truth(text, style):
    folded = text.lower()
    return PAIRS[style].index(folded) % 2 if folded in PAIRS[style] else DIGITS.get(folded)


def label_key(text, style):
    """The same for all spellings of a label."""
    if style == "numbers" and (match := WHOLE.fullmatch(text)):
        digits = match[2].lstrip("0") or "0"
        return f"-{digits}" if match[1] == "-" and digits != "0" else digits
    if style in PAIRS and truth(text, style) is not None:
        return PAIRS[style][truth(text, style)]
    return unicodedata.normalize("NFC", text)


def label_reader(labels):
    """A function from a cell to the position of its label, or NaN."""
    style = label_style(labels)
    places = {label_key(label, style): place for place, label in enumerate(labels)}
    return lambda cell: {None: places.get(label_key(str(cell), style), math.nan)}


def date_reader(form):
    """A function from a cell to the numbers of a date by name; NaN where it is none."""
    nothing = dict.fromkeys(("time", "year", "month", "day", "weekday", "hour"), math.nan)

    def parse(text, form):
        fraction = re.search(r"(?<=:[0-9]{2})\.([0-9]+)", text) if "%.f" in form else None
        if fraction:
            text = text[: fraction.start()] + text[fraction.end() :]
        time = datetime.datetime.strptime(text, form.replace("%.f", ""))
        if not re.search("%[YyCGDF]", form):  # a time of day
            time = time.replace(year=1970)
        return time.replace(microsecond=int(fraction[1][:6].ljust(6, "0"))) if fraction else time

    def read(cell):
        if isinstance(cell, str):
            try:
                cell = parse(cell if form else cell.replace("T", " ", 1), form or "%Y-%m-%d %H:%M:%S%.f")
            except ValueError:
                try:
                    cell = parse(re.sub(MIDNIGHT, "", cell), form or "%Y-%m-%d")
                except ValueError:
                    return nothing
        elif isinstance(cell, datetime.time):
            cell = datetime.datetime.combine(datetime.date(1970, 1, 1), cell)
        elif not isinstance(cell, datetime.datetime):
            cell = datetime.datetime(cell.year, cell.month, cell.day)
        if cell.tzinfo is not None:
            cell = cell.astimezone(datetime.UTC).replace(tzinfo=None)
        if cell.year < 1000:
            return nothing
        time = (cell - datetime.datetime(1970, 1, 1)) / datetime.timedelta(seconds=1)
        parts = (time, cell.year, cell.month, cell.day, cell.isoweekday(), cell.hour)
        return dict(zip(nothing, parts, strict=True))

    return read


def reader_of(column):
    match column["kind"]:
        case "numeric":
            return number_reader(column["style"])
        case "datetime":
            return date_reader(column["format"])
        case _:
            return label_reader(column["categories"])


def known(column):
    """What the training had in a column, for messages."""
    match column["kind"]:
        case "numeric":
            return f"numbers ({describe_style(column['style'] or {})})" if column["style"] else "numbers"
        case "datetime":
            return f"dates as {column['format'] or '%Y-%m-%d %H:%M:%S'}"
        case _:
            return listed(column["categories"])


def describe_style(style):
    marks = style.get("thousands")
    parts = {
        "decimal comma": style.get("decimal") == ",",
        f"thousands marked by {'a space' if marks == ' ' else repr(marks)}": marks,
        f"in {style.get('currency')}": style.get("currency"),
        "in percent": style.get("percent"),
        "negatives as (1), 1- or \u2212 1": style.get("signs"),
    }
    return ", ".join(text for text, holds in parts.items() if holds) or "decimal point"


def read_rows(rows):
    """Raw numbers (N, C), one column for each input, and why a row cannot be used, by its position.

    NaN where there is no value, codes for categories: K, the number of categories, for a missing or unknown one.
    """
    inputs = TABLE["inputs"]
    places = {(one["column"], one.get("part")): place for place, one in enumerate(inputs)}
    values = np.full((len(rows), len(inputs)), math.nan)
    spelled = set(TABLE["missing_values"])
    spelled |= {float(text) for text in spelled if NUMBER.fullmatch(text)}
    bad = {row: cells for row, cells in enumerate(rows) if isinstance(cells, str)}
    whole = [(row, cells) for row, cells in enumerate(rows) if row not in bad]
    for column in TABLE["columns"]:
        name, read = column["name"], reader_of(column)
        for row, cells in whole:
            cell = cells[name]
            if cell is None or cell != cell or (not isinstance(cell, (bool, list, dict)) and cell in spelled):
                MISSING[name] += 1
                if TABLE["missing"] == "refuse":
                    bad.setdefault(
                        row, f"column {name!r}: the cell is missing; fill it in, or set dataset.missing to impute"
                    )
                continue
            found = read(cell)
            if math.isnan(next(iter(found.values()))):
                written = column["kind"] in ("numeric", "datetime") and isinstance(cell, str)
                if TABLE["unseen"] == "refuse":
                    bad.setdefault(row, f"column {name!r}: {str(cell)!r} is new; the training had {known(column)}")
                elif written and re.search("[0-9]", cell):  # a number in another form, not a word for a missing one
                    why = f"is not written as in the training, which had {known(column)}; write it so"
                    bad.setdefault(row, f"column {name!r}: {cell!r} {why}")
                else:
                    UNSEEN[name] += 1
            for part, value in found.items():
                if (name, part) in places:
                    values[row, places[name, part]] = value
    for place, one in enumerate(inputs):
        if "categories" in one:
            values[np.isnan(values[:, place]), place] = one["categories"]
    return values, bad


def first_of(names):
    """The first program whose runtime is installed, and a function as of ``load``."""
    for name in names:
        try:
            return name, load(name)
        except ImportError as error:
            missing = error.name
            if name != names[-1]:
                print(f"note: {missing} is not installed, so not {name} is taken", file=sys.stderr)
    sys.exit(f"error: {names[-1]} needs {missing}, which is not installed; pip install {missing}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--program", choices=PROGRAMS, help="the first one whose runtime is installed, if not given")
    parser.add_argument("--delimiter", help="one character; found where it is not given")
    parser.add_argument("--encoding", help="utf-8, cp1252 ...; found where it is not given")
    options = parser.parse_args()
    if len(options.delimiter or ",") != 1:
        parser.error(f"--delimiter takes one character, got {options.delimiter!r}")
    rows, bad = read_rows(read_cells(options.table, options.delimiter, options.encoding))
    name, run = first_of([options.program] if options.program else list(PROGRAMS))
    dtype = PROGRAMS[name]["input"]["dtypes"][0]
    for start in range(0, len(rows), BATCH):
        outputs = run(rows[start : start + BATCH].astype(dtype)).tolist()
        for place, values in enumerate(outputs, start=start):
            if place in bad:
                print(f"error: row {place + 1}: {bad[place]}", file=sys.stderr)
            else:
                print(json.dumps({"row": place + 1, **answer(values)}))
    for what, counts in (("missing cells", MISSING), ("cells with values that the training did not have", UNSEEN)):
        if counts:
            print(f"{what}, by column: {dict(counts)}", file=sys.stderr)
    if bad:
        sys.exit(1)


def answer(values):
    """What the program says of a row, by name."""
    if not LABELS:
        return {"values": dict(zip(SIGNATURE["target_names"], values, strict=True))}
    best = int(np.argmax(values))
    chances = dict(zip(LABELS, values, strict=True))
    return {"label": LABELS[best], "probability": values[best], "probabilities": chances}


if __name__ == "__main__":
    main()

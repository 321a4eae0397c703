"""The ``predict.py`` of a bundle reads a table as trainkit does, to the same numbers, however it is written."""

from __future__ import annotations

import datetime as dt
import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_forks import run_script

import trainkit.exports
from trainkit.api import export
from trainkit.config import load_config
from trainkit.data.tables import Encoding, NumberStyle, encode_table, parse_numbers, raw_rows
from trainkit.data.tables.dates import date_parts
from trainkit.data.tables.encoding import label_codes
from trainkit.data.tables.labels import labels_of
from trainkit.workflows.predict import predict
from trainkit.workflows.train.run import train

TEMPLATE = Path(trainkit.exports.__file__).parent / "templates" / "predict_table.py"


def bundled(folder: Path, encoding: Encoding, template: Path = TEMPLATE) -> ModuleType:
    """The script as a module, beside the files that it reads."""
    folder.mkdir(exist_ok=True)
    (folder / "predict.py").write_bytes(template.read_bytes())
    (folder / "signature.json").write_text(json.dumps({"table": encoding, "programs": {}}))
    (folder / "labels.json").write_text("[]")
    spec = importlib.util.spec_from_file_location("bundled_predict_table", folder / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    encoding = {"columns": [], "inputs": [], "missing": "impute", "unseen": "own", "missing_values": [""]}
    return bundled(tmp_path_factory.mktemp("script"), encoding)


styles = st.builds(
    NumberStyle,
    decimal=st.sampled_from([".", ","]),
    thousands=st.sampled_from(["", ",", ".", " ", "'"]),
    currency=st.sampled_from(["", "$", "€", "EUR", "R$"]),
    percent=st.booleans(),
    signs=st.booleans(),
).filter(lambda style: style.decimal != style.thousands)
digits = st.from_regex(
    r"\A[-+(\u2212]?[$€]? ?[0-9]{0,4}([., '\u00a0][0-9]{0,3}){0,3}(e[+-]?[0-9]{1,3})? ?[%€$)-]{0,2}\Z"
)
odd = st.sampled_from(
    ["inf", "nan", "-Infinity", "1_000", "0x10", "٣", "1e400", "1e39", "-0", "+.5", "5.", ".", "-", "12,34,567"]
)


@given(styles, st.lists(digits.map(str.strip) | odd, min_size=1, max_size=20))
def test_numbers_are_read_alike(script: ModuleType, style: NumberStyle, texts: list[str]) -> None:
    texts = [text for text in texts if text] or ["1"]
    expected = parse_numbers(pl.Series(texts), style)[0]
    read = script.number_reader(style.to_json())
    for text, number in zip(texts, expected.to_list(), strict=True):
        found = read(text)[None]
        if number is None or abs(number) >= 3.4e38:
            assert np.isnan(found), (text, style)
        else:
            assert found == number, (text, style)


FORMS = [
    ("%Y-%m-%d", ["2024-02-29", "2023-02-29", "2024-2-9", "24-02-09", "2024-02-29 ", "x"]),
    ("%Y-%m-%d", ["2024-02-29 00:00:00", "2024-02-29T00:00:00.0Z", "2024-02-29 0:00", "2024-02-29T00:00:01"]),
    ("%Y-%m-%d %H:%M:%S", ["2024-02-29T00:00:00", "2024-02-29", "2024-02-29 00:00"]),
    ("%m/%d/%Y", ["1/2/2024 12:00:00 AM", "1/2/2024 12:00:00 PM", "1/2/2024 00:00:00+02:00"]),
    ("", ["2024-02-29", "2024-02-29T05:06:07", "2024-02-29 05:06:07.5", "2024-02-29T00:00:00Z", "29.02.2024", "x"]),
    ("%d.%m.%Y %H:%M", ["31.12.2023 23:59", "1.2.2024 5:07", "31.12.2023", "31.12.2023 24:00"]),
    ("%Y-%m-%dT%H:%M:%S%.fZ", ["2024-01-02T03:04:05.123456Z", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05.5"]),
    ("%Y-%m-%d %H:%M:%S%.f", ["2024-01-02 03:04:05.123456789", "2024-01-02 03:04:05", "2024-01-02 03:04"]),
    ("%Y-%m-%dT%H:%M:%S%z", ["2024-01-02T03:04:05+02:00", "2024-01-02T03:04:05-0530", "2024-01-02T03:04:05"]),
    ("%m/%d/%Y %I:%M %p", ["12/31/2023 12:05 AM", "1/2/2024 11:59 pm", "13/01/2024 01:00 AM"]),
    ("%d %b %Y", ["02 Jan 2024", "2 Mar 1970", "31 Jun 2024"]),
    ("%B %d, %Y", ["January 2, 2024", "May 31, 1999", "Mai 31, 1999"]),
    ("%d/%m/%y", ["31/12/99", "01/01/20", "1/1/2024"]),
    ("%H:%M", ["05:17", "5:17", "24:00", "05:17:00"]),
    ("%I:%M:%S %p", ["12:00:01 AM", "1:02:03 pm"]),
    ("%Y-%m", ["2024-02", "2024-13", "2024-02-01"]),
    ("%Y/%m/%d", ["0999/01/01", "1000/01/01", "9999/12/31"]),
]


@pytest.mark.parametrize(("form", "texts"), FORMS)
def test_dates_are_read_alike(script: ModuleType, form: str, texts: list[str]) -> None:
    expected = date_parts(pl.Series(texts), form)
    read = script.date_reader(form)
    for row, text in enumerate(texts):
        for part, found in read(text).items():
            number = expected[part][row]
            assert found == number or (number is None and np.isnan(found)), (text, part, found, number)


def test_dates_of_typed_files_are_read_alike(script: ModuleType) -> None:
    berlin = dt.timezone(dt.timedelta(hours=2))
    for cell in (dt.date(2024, 2, 29), dt.time(5, 6, 7), dt.datetime(2024, 1, 2, 3, 4, 5, 678)):
        expected = date_parts(pl.Series([cell]), "")
        assert script.date_reader("")(cell) == pytest.approx(
            {part: one[0] for part, one in expected.items()}, rel=1e-15
        )
    assert script.date_reader("")(dt.datetime(2024, 1, 1, 1, tzinfo=berlin))["hour"] == 23


LABELS = [
    ["1", "2", "10"],
    ["True", "False"],
    ["True", "FALSE", "1", "0.0"],
    ["T", "F", "0"],
    ["y", "N"],
    ["N", "1", "0"],
    ["no", "yes"],
    ["a", "B", "é"],
    ["1", "x"],
    ["None", "Brick"],
]
SPELLED = [
    "1",
    "1.0",
    "01",
    "+1",
    "-1",
    "10.",
    "TRUE",
    "true",
    "Yes",
    "NO",
    "y",
    "a",
    "b",
    "e\u0301",
    "é",
    "x",
    "None",
    "1.5",
]


@pytest.mark.parametrize("labels", LABELS)
def test_labels_are_read_alike(script: ModuleType, labels: list[str]) -> None:
    labels = list(labels_of(labels))
    for cells in (SPELLED, [True, False], [1, 2, 3], [1.0, 2.5, 10.0]):
        expected = label_codes(pl.Series(cells), labels).to_list()
        read = script.label_reader(labels)
        found = [read(cell)[None] for cell in cells]
        assert [None if np.isnan(code) else code for code in found] == expected, cells


ROWS = """größe;wann;ort;preis;ja
1,5;31.12.2023;Köln;1.234,50 €;ja
2,25;01.02.2024;München;(5,00) €;nein
;;;;
3;unbekannt;Ulm;keiner;vielleicht
NA;02.02.2024;"Köln";-7,25 €;JA
"""
ENCODING: Encoding = {
    "columns": [
        {"name": "größe", "kind": "numeric", "style": {"decimal": ","}},
        {"name": "wann", "kind": "datetime", "format": "%d.%m.%Y"},
        {"name": "ort", "kind": "categorical", "categories": ["Köln", "München"]},
        {
            "name": "preis",
            "kind": "numeric",
            "style": {"decimal": ",", "thousands": ".", "currency": "€", "signs": True},
        },
        {"name": "ja", "kind": "boolean", "categories": ["ja", "nein"]},
    ],
    "inputs": [
        {"name": "größe", "column": "größe", "offset": 0.0},
        {"name": "wann.time", "column": "wann", "part": "time", "offset": 1.7e9},
        {"name": "wann.weekday", "column": "wann", "part": "weekday", "offset": 0.0},
        {"name": "preis", "column": "preis", "offset": 0.0},
        {"name": "ja", "column": "ja", "offset": 0.0},
        {"name": "ort", "column": "ort", "categories": 2, "own": True},
    ],
    "missing": "impute",
    "unseen": "own",
    "missing_values": ["", "NA"],
    "format": {"kind": "text", "delimiter": ";", "encoding": "cp1252", "decimal": ","},
}
WRITTEN: dict[str, bytes] = {
    "cp1252.csv": ROWS.encode("cp1252", "replace"),
    "utf8.csv": ROWS.encode(),
    "mark.csv": ROWS.encode("utf-8-sig"),
    "utf16.csv": ROWS.encode("utf-16"),
    "utf16_bare.csv": ROWS.encode("utf-16-le"),
    "packed.csv.gz": gzip.compress(ROWS.encode()),
    "tabs.tsv": ROWS.replace(";", "\t").encode(),
    "excel.csv": ("sep=;\n" + ROWS).encode(),
    "crlf.csv": ROWS.replace("\n", "\r\n").encode(),
    "titles.csv": ("Bericht\n\n" + ROWS).encode(),
    "index.csv": "\n".join(f"{row - 1 if row else ''};{line}" for row, line in enumerate(ROWS.splitlines())).encode(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_files_are_read_alike(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITTEN[name])
    [block] = encode_table(str(tmp_path / name), ENCODING)
    script = bundled(tmp_path / "bundle", ENCODING)
    rows, bad = script.read_rows(script.read_cells(tmp_path / name, None, None))
    np.testing.assert_allclose(rows, raw_rows(block.inputs, ENCODING), rtol=1e-6)
    assert not bad
    assert dict(script.MISSING) == dict(block.filled.missing)
    assert dict(script.UNSEEN) == {column: found.total() for column, found in block.filled.unseen.items()}


def test_a_parquet_file_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns: dict[str, Any] = {
        "größe": [1.5, None, float("nan")],
        "wann": [dt.date(2024, 1, 2), None, dt.date(1999, 1, 1)],
        "ort": ["Köln", None, "Bonn"],
        "preis": [1, -999, None],
        "ja": ["ja", "nein", None],
    }
    pl.DataFrame(columns).write_parquet(path)
    encoding = ENCODING | {"missing_values": ["", "-999"]}
    [block] = encode_table(str(path), encoding)
    script = bundled(tmp_path / "bundle", encoding)
    rows, _ = script.read_rows(script.read_cells(path, None, None))
    np.testing.assert_allclose(rows, raw_rows(block.inputs, encoding), rtol=1e-6)
    assert script.MISSING["preis"] == block.filled.missing["preis"] == 2


REFUSED = [("refuse", "own", [2, 4]), ("impute", "refuse", [3, 4]), ("refuse", "refuse", [2, 3, 4])]


@pytest.mark.parametrize(("missing", "unseen", "refused"), REFUSED)
def test_rows_that_are_refused_are_those_that_trainkit_refuses(
    tmp_path: Path, missing: str, unseen: str, refused: list[int]
) -> None:
    encoding = ENCODING | {"missing": missing, "unseen": unseen}
    (tmp_path / "t.csv").write_text(ROWS)
    [block] = encode_table(str(tmp_path / "t.csv"), encoding)
    script = bundled(tmp_path / "bundle", encoding)
    _, bad = script.read_rows(script.read_cells(tmp_path / "t.csv", None, None))
    assert sorted(bad) == sorted(block.bad) == refused
    assert all(reason.startswith(bad[row].split(";")[0][:15]) for row, reason in block.bad.items())


def test_numbers_and_dates_in_another_form_are_refused_and_never_filled_in(tmp_path: Path) -> None:
    """A file with the other decimal mark would have answers for the medians of the training."""
    (tmp_path / "t.csv").write_text("größe;wann;ort;preis;ja\n1.5x;31.12.2023;Ulm;1;ja\n1,5;2023-12-31;Ulm;?;ja\n")
    [block] = encode_table(str(tmp_path / "t.csv"), ENCODING)
    script = bundled(tmp_path / "bundle", ENCODING)
    _, bad = script.read_rows(script.read_cells(tmp_path / "t.csv", None, None))
    assert sorted(bad) == sorted(block.bad) == [0, 1]
    assert block.bad[0].startswith(
        "column 'größe': '1.5x' is not written as in the training, which had numbers (decimal"
    )
    assert block.bad[1].startswith("column 'wann': '2023-12-31' is not written as in the training, which had dates as")
    assert not block.filled.unseen.keys() & {"größe", "wann"}


@pytest.mark.parametrize("text", ["größe;wann;ort;preis\n1;2;3;4\n", "a\n1\n", ""])
def test_a_column_that_is_not_there_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SystemExit, match=r"t\.csv: no column .*'ja', which the model takes"):
        bundled(tmp_path / "bundle", ENCODING).read_cells(tmp_path / "t.csv", None, None)


def test_a_parquet_file_without_a_column(tmp_path: Path) -> None:
    pl.DataFrame({"wann": [dt.date(2024, 1, 2)], "preis": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(
        SystemExit, match=r"t\.parquet: no column 'größe', 'ort', 'ja', which the model takes; the file has"
    ):
        bundled(tmp_path / "bundle", ENCODING).read_cells(tmp_path / "t.parquet", None, None)


@pytest.mark.parametrize(("name", "encoding"), [("nope.csv", None), (".", None), ("t.csv", "utf-9")])
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, encoding: str | None) -> None:
    (tmp_path / "t.csv").write_text(ROWS)
    with pytest.raises(SystemExit, match=r"^error: .*: (No such file|Is a directory|unknown encoding: utf-9)"):
        bundled(tmp_path / "bundle", ENCODING).read_cells(tmp_path / name, None, encoding)


@pytest.mark.parametrize("template", ["predict_table.py", "predict_image.py"])
def test_the_first_program_is_taken_whose_runtime_is_here(
    tmp_path: Path, template: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what requirements.txt of a bundle names, there is no torch for the program that comes first."""
    script = bundled(tmp_path / "bundle", ENCODING, TEMPLATE.with_name(template))

    def load(name: str) -> str:
        if not name.endswith(".onnx"):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return "run"

    monkeypatch.setattr(script, "load", load)
    assert script.first_of(["model.pt", "model.onnx"]) == ("model.onnx", "run")
    assert capsys.readouterr().err == "note: torch is not installed, so not model.pt is taken\n"
    with pytest.raises(SystemExit, match=r"^error: model\.pt needs torch, which is not installed; pip install torch$"):
        script.first_of(["model.pt"])


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("größe;wann;ort;preis;ja;preis\n1,5;31.12.2023;Ulm;1;ja;2\n")
    with pytest.raises(SystemExit, match=r"t\.csv: columns with one name: 'preis'; give each"):
        bundled(tmp_path / "bundle", ENCODING).read_cells(tmp_path / "t.csv", None, None)
    (tmp_path / "t.csv").write_text("größe;wann;ort;preis;ja;note;note\n1,5;31.12.2023;Ulm;1;ja;2;3\n")
    assert len(bundled(tmp_path / "bundle2", ENCODING).read_cells(tmp_path / "t.csv", None, None)) == 1


CONFIG = """
dataset: {{type: table, path: {path}, target: y, unseen: refuse}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: [4]}}
training: {{epochs: 1, batch_size: 32}}
logging: {{plots: false}}
"""


@pytest.mark.usefixtures("forked_checks")
def test_answers_are_those_of_predict_and_refused_rows_have_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"$ {1000 + n:,},{rng.choice(['yes', 'no', ''])},2024-01-{1 + n % 28:02},{n}.5" for n in range(100)]
    table = ["price,vip,day,y", *(f'"{line[:7]}"{line[7:]}' for line in lines)]
    (tmp_path / "t.csv").write_text("\n".join(table))
    (tmp_path / "new.csv").write_text('day,vip,price\n2024-01-05,YES,"$ 1,005"\n,,\n2024-02-01,maybe,7\n')
    (tmp_path / "c.yaml").write_text(CONFIG.format(path=tmp_path / "t.csv"))
    best = train(load_config(tmp_path / "c.yaml"), runs_dir=tmp_path / "runs").best_checkpoint
    bundle = export(best, formats=("torchscript",), output=tmp_path / "bundle").bundle
    done = run_script(bundle / "predict.py", tmp_path / "new.csv")
    assert done.returncode == 1
    expected = list(predict(best, [tmp_path / "new.csv"]))
    assert [one.error is None for one in expected] == [True, True, False]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["row"] for one in answers] == [1, 2]
    for one, other in zip(answers, expected, strict=False):
        assert one["values"]["y"] == pytest.approx(other.values["y"], rel=1e-5)
    assert "error: row 3: column 'vip': 'maybe' is new; the training had 'no', 'yes'" in done.stderr
    assert "missing cells, by column: {'price': 1, 'vip': 1, 'day': 1}" in done.stderr


def test_a_row_with_too_few_or_too_many_cells_is_its_own_error(tmp_path: Path) -> None:
    encoding = {
        "columns": [{"name": "a", "kind": "numeric", "style": None}],
        "inputs": [{"name": "a", "column": "a", "offset": 0.0}],
        "missing": "impute",
        "unseen": "own",
        "missing_values": [""],
    }
    script = bundled(tmp_path / "bundle", encoding)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n4,5,6\n,7\n")
    values, bad = script.read_rows(script.read_cells(tmp_path / "t.csv", None, None))
    np.testing.assert_array_equal(values[[0, 3], 0], [1, np.nan])
    assert bad == {1: "1 cell, but the header has 2", 2: "3 cells, but the header has 2"}
    assert script.MISSING == {"a": 1}

"""Samples in memory give the same rows as their files, and what does not fit is named."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

import trainkit
from trainkit.data.transforms.static import Resize
from trainkit.errors import UserError
from trainkit.workflows.predict.inputs import count_samples, find_inputs, read_chunks
from trainkit.workflows.predict.memory import find_in_memory
from trainkit.workflows.predict.samples import InputSpec

GRAY = InputSpec("image", (1, 8, 8), channels=1, chunk_size=4)
COLOR = InputSpec("image", (3, 8, 8), channels=3, chunk_size=4)
ENCODING = {
    "columns": [
        {"name": "weight", "kind": "numeric", "style": None},
        {"name": "zone", "kind": "categorical", "categories": ["1", "2"]},
        {"name": "old", "kind": "numeric", "style": None},
    ],
    "inputs": [
        {"name": "weight", "column": "weight", "offset": 0.0},
        {"name": "old", "column": "old", "offset": 0.0},
        {"name": "zone", "column": "zone", "categories": 2, "own": False},
    ],
    "missing": "refuse",
    "unseen": "refuse",
    "missing_values": [""],
}
TABLE = InputSpec("table", (3,), encoding=ENCODING, chunk_size=4)
PIXELS = np.random.default_rng(0).integers(256, size=(6, 8, 8, 3), dtype=np.uint8)


def read(given, spec):
    items = find_in_memory(given, spec)
    assert items is not None
    chunks = list(read_chunks(items, spec))
    names = [name for chunk in chunks for name in chunk.names]
    bad = {chunk.names[at]: reason for chunk in chunks for at, reason in chunk.bad.items()}
    assert count_samples(items) == len(names)
    return names, [row for chunk in chunks for row in chunk.rows], bad


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (PIXELS, 6),
        (PIXELS.transpose(0, 3, 1, 2), 6),
        (torch.from_numpy(PIXELS), 6),
        (list(PIXELS), 6),
        ([torch.from_numpy(one).permute(2, 0, 1) for one in PIXELS], 6),
        ([Image.fromarray(one) for one in PIXELS], 6),
        (Image.fromarray(PIXELS[0]), 1),
        (PIXELS[0], 1),
        ([PIXELS[:1], PIXELS[1]], 2),
    ],
)
def test_images_in_any_form(given, count):
    names, rows, bad = read(given, COLOR)
    assert names == [f"[{index}]" for index in range(count)]
    assert not bad
    assert np.array_equal(np.stack(rows), PIXELS[:count].transpose(0, 3, 1, 2))


def test_pictures_are_decoded_as_their_files(tmp_path):
    turned = Image.fromarray(PIXELS[0, :, :5])
    turned.getexif()[0x0112] = 6
    pictures = [turned, Image.fromarray(PIXELS[1]).convert("P"), Image.fromarray(PIXELS[2]).convert("RGBA")]
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path, exif=picture.getexif())
    spec = InputSpec("image", (3, 8, 8), channels=3, static_transforms=(Resize((8, 8)),), chunk_size=4)
    from_files = [row for chunk in read_chunks(find_inputs(paths, kind="image"), spec) for row in chunk.rows]
    assert np.array_equal(read(pictures, spec)[1], from_files)


def test_images_of_several_sizes():
    spec = InputSpec("image", (1, 8, 8), channels=1, static_transforms=(Resize((8, 8)),), chunk_size=4)
    gray = PIXELS[0, :, :, 0]
    names, rows, bad = read([gray, gray[:5, :7], np.zeros((4, 4, 4), np.uint8)[..., None]], spec)
    assert (names, len(rows), bad) == (["[0]", "[1]", *(f"[2][{at}]" for at in range(4))], 6, {})
    _, rows, bad = read([gray, gray[:5, :7]], GRAY)
    assert len(rows) == 1
    assert bad == {"[1]": "5 x 7 pixels, and the model takes 8 x 8 (height x width); resize it, or add --resize"}


class Frame:
    """As a DataFrame."""

    def __init__(self, columns):
        self.columns, self.data = list(columns), columns

    def __getitem__(self, name):
        return self.data[name]


COLUMNS = {"zone": [1, 2, 2], " weight": np.float32([0.1, 2, 3]), "more": ["a", "b", "c"], "old": [True, False, True]}
ROWS = [[np.float32(0.1), 1, 0], [2, 0, 1], [3, 1, 1]]


@pytest.mark.parametrize(
    "given",
    [
        COLUMNS,
        Frame(COLUMNS),
        {**COLUMNS, "zone": [1.0, 2.0, 2.0]},
        {**COLUMNS, "zone": ["1", "2", "2"], "old": torch.tensor([1, 0, 1])},
        [{name: column[row] for name, column in COLUMNS.items()} for row in range(3)],
        np.array([(1, 0.1, 1), (2, 2, 0), (2, 3, 1)], dtype=[("zone", "i8"), ("weight", "f4"), ("old", "?")]),
        ROWS,
        np.array(ROWS),
        torch.tensor(ROWS),
    ],
)
def test_tables_in_any_form(given):
    names, rows, bad = read(given, TABLE)
    assert (names, bad) == (["[0]", "[1]", "[2]"], {})
    assert np.array_equal(np.stack(rows), np.float32(ROWS))


def test_bad_cells_are_named_and_the_other_rows_go_on():
    columns = {
        "weight": [1, None, float("nan"), "heavy", 5] * 2,
        "zone": [1.0, 2.0, 2.0, 1.0, 7.0] * 2,
        "old": [0] * 10,
    }
    names, rows, bad = read(columns, TABLE)
    assert (len(names), len(rows)) == (10, 2)
    assert {name: bad[name] for name in ("[1]", "[2]", "[3]", "[9]")} == {
        "[1]": "column 'weight': the cell is missing; fill it in, or set dataset.missing to impute",
        "[2]": "column 'weight': the cell is missing; fill it in, or set dataset.missing to impute",
        "[3]": "column 'weight': 'heavy' is new; the training had numbers",
        "[9]": "column 'zone': '7.0' is new; the training had '1', '2'",
    }


@pytest.mark.parametrize(
    ("given", "spec", "reason"),
    [
        (PIXELS / 255, COLOR, "holds float64; images come as uint8, 0 to 255; of values from 0 to 1"),
        (PIXELS[:0], COLOR, "no samples"),
        (3, COLOR, "holds int64; images come as uint8"),
        ({"a": [1]}, COLOR, "columns by name, and the model is for images"),
        ({"weight": [1]}, TABLE, "no column 'zone', 'old', which the model takes; there are 'weight'"),
        ({**COLUMNS, "old": [1]}, TABLE, "columns of one length are expected, got {'weight': 3, 'zone': 3, 'old': 1}"),
        ({name: [] for name in COLUMNS}, TABLE, "no samples"),
        ([[1, 2], [1]], TABLE, "inhomogeneous"),
    ],
)
def test_what_does_not_fit(given, spec, reason):
    [item] = find_in_memory(given, spec) or []
    assert item.kind == "broken"
    assert reason in item.reason


def test_paths_are_no_arrays(tmp_path):
    assert find_in_memory(["a.png", tmp_path], COLOR) is None
    with pytest.raises(UserError, match="paths and arrays in one list"):
        find_in_memory(["a.png", PIXELS[0]], COLOR)


def test_predictions_are_those_of_files(tmp_path, tiny_run):
    digits = PIXELS[..., 0]
    np.save(tmp_path / "x.npy", digits)
    from_file = trainkit.predict(tiny_run, tmp_path / "x.npy")
    for given in (digits, torch.from_numpy(digits), list(digits)):
        found = trainkit.predict(tiny_run, given)
        assert [(one.source, one.top) for one in found] == [(f"[{at}]", one.top) for at, one in enumerate(from_file)]
    assert len(trainkit.predict(tiny_run, tmp_path.glob("*.npy"))) == 6
    with pytest.raises(UserError, match=r"\[0\]: 5 x 5 pixels, and the model takes 8 x 8"):
        trainkit.predict(tiny_run, digits[:, :5, :5])
    assert len(trainkit.predict(trainkit.load_model(tiny_run), digits[:, :5, :5], resize=True)) == 6


def test_a_table_by_its_columns(tmp_path):
    rows = [{"size": f"{n % 7}.5", "kind": "ab"[n % 2], "y": "yes" if n % 7 > 3 else "no"} for n in range(60)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    config = {
        "dataset": {"type": "table", "path": "t.csv", "target": "y"},
        "model": {"type": "mlp", "hidden_sizes": [4]},
        "export": {"torchscript": False},
        "logging": {"plots": False},
    }
    result = trainkit.train(config, config_dir=tmp_path, runs_dir=tmp_path / "runs")
    expected = [one.top for one in trainkit.predict(result, tmp_path / "t.csv")]
    columns = {"kind": [row["kind"] for row in rows], "size": [float(row["size"]) for row in rows]}
    for given in (rows, columns):
        assert [one.top for one in trainkit.predict(result, given)] == expected

"""Reading what is to be predicted: every kind of input, in order, with a reason for what is broken."""

import os

import numpy as np
import pytest
from PIL import Image

from trainkit.data.images.decode import decode_image
from trainkit.data.transforms.static import CenterCrop, Resize, apply_static_transforms
from trainkit.workflows.predict import inputs
from trainkit.workflows.predict.inputs import InputSpec, Item, count_samples, find_inputs, read_chunks

GRAY = InputSpec("image", (1, 8, 8), channels=1, chunk_size=4)
ENCODING = {
    "columns": [
        {"name": "weight", "kind": "numeric", "style": None},
        {"name": "shop", "kind": "categorical", "categories": ["east", "west"]},
    ],
    "inputs": [
        {"name": "weight", "column": "weight", "offset": 0.0},
        {"name": "shop", "column": "shop", "categories": 2, "own": False},
    ],
    "missing": "impute",
    "unseen": "own",
    "missing_values": ["", "NA"],
}
TABLE = InputSpec("table", (2,), encoding=ENCODING, chunk_size=4)
STRICT = InputSpec("table", (2,), encoding={**ENCODING, "missing": "refuse", "unseen": "refuse"}, chunk_size=4)


@pytest.fixture
def images(tmp_path):
    """Nine images of 8 x 8 in two folders; the pixels are the number of the image."""
    for index in range(9):
        folder = tmp_path / ("a" if index < 5 else "b")
        folder.mkdir(exist_ok=True)
        Image.new("L", (8, 8), index).save(folder / f"{index}.png")
    return tmp_path


def read(inputs, reading):
    chunks = list(read_chunks(find_inputs(inputs, kind=reading.kind), reading))
    names = [name for chunk in chunks for name in chunk.names]
    bad = {chunk.names[at]: reason for chunk in chunks for at, reason in chunk.bad.items()}
    rows = [row for chunk in chunks for row in chunk.rows]
    assert len(rows) + len(bad) == len(names)
    return names, rows, bad


def test_folders_are_walked_in_order_and_junk_is_left_out(images):
    for junk in (".hidden.png", "note.txt", ".git/0.png", "__MACOSX/0.png"):
        path = images / "a" / junk
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((images / "a" / "0.png").read_bytes())
    names, rows, bad = read([images], GRAY)
    assert [os.path.basename(name) for name in names] == [f"{index}.png" for index in range(9)]
    assert [int(row[0, 0, 0]) for row in rows] == list(range(9))
    assert not bad


def test_linked_folders_are_read_once(images, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("L", (8, 8), 9).save(elsewhere / "9.png")
    (images / "b" / "more").symlink_to(elsewhere)
    (images / "b" / "again").symlink_to(images / "a")
    (images / "b" / "up").symlink_to(images)
    (images / "b" / "far_up").symlink_to(images.parent)
    _, rows, bad = read([images], GRAY)
    assert [int(row[0, 0, 0]) for row in rows] == list(range(10))
    assert not bad


def test_an_unreadable_folder_is_named(images):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (images / "b").chmod(0)
    try:
        _, rows, bad = read([images], GRAY)
    finally:
        (images / "b").chmod(0o700)
    assert len(rows) == 5
    assert bad == {str(images / "b"): "cannot be read (Permission denied)"}


def test_files_globs_and_folders_keep_the_order_in_which_they_were_given(images):
    names, rows, _ = read([images / "b" / "7.png", str(images / "a" / "[13].png"), images / "b"], GRAY)
    assert [int(row[0, 0, 0]) for row in rows] == [7, 1, 3, 5, 6, 7, 8]
    assert names[0] == str(images / "b" / "7.png")


def test_a_file_whose_name_looks_like_a_glob_is_that_file(images):
    (images / "a" / "0.png").rename(images / "a" / "[0].png")
    assert [item.kind for item in find_inputs([images / "a" / "[0].png"], kind="image")] == ["image"]


def test_broken_files_do_not_stop_the_others(images):
    (images / "a" / "1.png").write_bytes(b"")
    (images / "a" / "2.png").write_bytes(b"no image")
    (images / "b" / "7.png").write_bytes((images / "b" / "7.png").read_bytes()[:50])
    Image.new("L", (9, 8)).save(images / "b" / "8.png")
    (images / "b" / "gone.png").symlink_to(images / "nowhere")
    inputs = [images, images / "missing.png", images / "*.jpg"]
    _, rows, bad = read(inputs, GRAY)
    assert [int(row[0, 0, 0]) for row in rows] == [0, 3, 4, 5, 6]
    reasons = {os.path.basename(name): reason for name, reason in bad.items()}
    assert reasons["1.png"] == "empty file (0 bytes)"
    assert "not an image" in reasons["2.png"]
    assert "damaged PNG" in reasons["7.png"]
    assert reasons["8.png"] == "8 x 9 pixels, and the model takes 8 x 8 (height x width); resize it, or add --resize"
    assert reasons["gone.png"] == "dangling link"
    assert reasons["missing.png"] == "no such file or folder"
    assert reasons["*.jpg"] == "no file matches this pattern"


def test_static_transforms_are_applied(images):
    static_transforms = (Resize((6, 6)), CenterCrop((4, 4)))
    reading = InputSpec("image", (3, 4, 4), channels=3, static_transforms=static_transforms)
    _, rows, _ = read([images / "a" / "3.png"], reading)
    expected = apply_static_transforms(decode_image(images / "a" / "3.png", channels=3), static_transforms)
    assert np.array_equal(rows[0], expected)


def test_images_of_any_size_are_left_as_they_are(tmp_path):
    for index, size in enumerate([(5, 6), (7, 8)]):
        Image.new("RGB", size, index).save(tmp_path / f"{index}.png")
    _, rows, _ = read(
        [tmp_path], InputSpec("image", (3, 4, 4), channels=3, static_transforms=(Resize((4, 4)),), any_size=True)
    )
    assert [row.shape for row in rows] == [(3, 6, 5), (3, 8, 7)]


@pytest.mark.parametrize(
    ("shape", "channels", "count"),
    [
        ((5, 8, 8), 1, 5),
        ((5, 1, 8, 8), 1, 5),
        ((8, 8), 1, 1),
        ((8, 8, 1), 1, 1),
        ((1, 8, 8), 1, 1),
        ((5, 8, 8, 1), 1, 5),
        ((5, 3, 8, 8), 3, 5),
        ((5, 8, 8, 3), 3, 5),
        ((8, 8, 3), 3, 1),
    ],
)
def test_arrays_of_images_in_any_layout(tmp_path, shape, channels, count):
    array = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    names, rows, bad = read([tmp_path / "x.npy"], InputSpec("image", (channels, 8, 8), channels=channels, chunk_size=2))
    assert (len(rows), not bad) == (count, True)
    assert names[-1] == f"{tmp_path / 'x.npy'}[{count - 1}]"
    assert sorted(np.stack(rows).ravel()) == sorted(array.ravel())
    assert rows[0].shape == (channels, 8, 8)


@pytest.mark.parametrize(
    ("array", "reading", "reason"),
    [
        (
            np.zeros((2, 8, 8)),
            GRAY,
            "holds float64; images come as uint8, 0 to 255; of values from 0 to 1: (255 * x).round().astype('uint8')",
        ),
        (np.zeros((2, 8, 8), np.int64), GRAY, "holds int64; images come as uint8, 0 to 255"),
        (
            np.zeros((2, 4, 8, 8), np.uint8),
            GRAY,
            "has shape 2 x 4 x 8 x 8; the model takes images as N x H x W or N x 1 x H x W or N x H x W x 1",
        ),
        (
            np.zeros((2, 9, 9), np.uint8),
            GRAY,
            "9 x 9 pixels, and the model takes 8 x 8 (height x width); resize it, or add --resize",
        ),
        (
            np.zeros((2, 4)),
            TABLE,
            "has shape 2 x 4; the model takes rows of 2 features (codes of categories), or columns by name: a "
            "table; in Python a dict or a DataFrame",
        ),
        (np.array(["a"]), TABLE, "holds <U1, not numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, array, reading, reason):
    np.save(tmp_path / "x.npy", array)
    _, rows, bad = read([tmp_path / "x.npy"], reading)
    assert not rows
    assert set(bad.values()) == {reason}


def test_a_file_that_is_no_array(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"no array")
    (tmp_path / "y.npy").write_bytes(b"")
    np.save(tmp_path / "z.npy", np.array([{}], dtype=object), allow_pickle=True)
    _, _, bad = read([tmp_path], TABLE)
    assert len(bad) == 3
    assert all(bad.values())


def test_rows_of_arrays_with_nan_and_unknown_codes(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1, 0], [np.nan, 1], [4, 7], [5, 0.5], [np.inf, 0]]))
    _, rows, bad = read([tmp_path / "x.npy"], TABLE)
    np.testing.assert_array_equal(rows, [[1, 0], [np.nan, 1], [4, 2], [5, 2]])
    assert bad == {f"{tmp_path / 'x.npy'}[4]": "holds NaN or infinity"}
    assert len(read([tmp_path / "x.npy"], STRICT)[2]) == 2, "the missing value too"


ROWS = (
    '\ufeffshop,fruit,weight\nwest,apple, 1.5 \n\neast,"two\nlines",2\n'
    "north,pear,3\nNA,pear,4\neast,pear,heavy\neast,,\n"
)


def test_every_row_of_a_table_has_an_answer_and_what_was_filled_is_counted(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(ROWS)
    chunks = list(read_chunks(find_inputs([path], kind="table"), TABLE))
    rows = np.concatenate([chunk.rows for chunk in chunks])
    nan = np.nan
    np.testing.assert_array_equal(rows, [[1.5, 1], [2, 0], [3, 2], [4, 2], [nan, 0], [nan, 0]])
    assert [name for chunk in chunks for name in chunk.names] == [f"{path}:{line}" for line in (2, 4, 6, 7, 8, 9)]
    assert chunks[0].filled.describe() == [
        "missing cells are filled in: weight 1, shop 1",
        "column 'weight': 1 cell with values that the training did not have: 'heavy'",
        "column 'shop': 1 cell with values that the training did not have: 'north'",
    ]


@pytest.mark.parametrize("places", [(2,), (1, 2, 5), (3, 4, 6), (1, 2, 3, 4, 5, 6)])
def test_a_row_with_too_few_or_too_many_cells_has_a_reason_and_the_others_have_answers(tmp_path, places):
    path = tmp_path / "x.csv"
    lines = ['west, "a ""b""" ,1.5', 'east,"two\nlines",2', "north,pear,3", ",pear,4", "east,pear,heavy", "east,,6"]
    numbers = [2, 3, 5, 6, 7, 8]
    expected = np.array([[1.5, 1], [2, 0], [3, 2], [4, 2], [np.nan, 0], [6, 0]])
    for place in places:
        lines[place - 1] += ",more" if place % 2 else ""
        lines[place - 1] = lines[place - 1] if place % 2 else "lonely"
    numbers = [number - (2 in places and number > 3) for number in numbers]
    path.write_text("\n".join(["shop,fruit,weight", *lines]))
    names, rows, bad = read([path], TABLE)
    assert names == [f"{path}:{number}" for number in numbers]
    good = [place for place in range(6) if place + 1 not in places]
    np.testing.assert_array_equal(rows if len(rows) else np.zeros((0, 2)), expected[good])
    assert bad == {
        f"{path}:{numbers[place - 1]}": f"{'4 cells' if place % 2 else '1 cell'}, but the header has 3"
        for place in places
    }


def test_cells_that_the_config_refuses_have_a_reason(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(ROWS)
    _, rows, bad = read([path], STRICT)
    assert [row.tolist() for row in rows] == [[1.5, 1], [2, 0]]
    assert bad == {
        f"{path}:6": "column 'shop': 'north' is new; the training had 'east', 'west'",
        f"{path}:7": "column 'shop': the cell is missing; fill it in, or set dataset.missing to impute",
        f"{path}:8": "column 'weight': 'heavy' is new; the training had numbers",
        f"{path}:9": "column 'weight': the cell is missing; fill it in, or set dataset.missing to impute",
    }


@pytest.mark.parametrize(
    ("data", "where", "reason"),
    [
        (b"", "", "is empty; "),
        (b"weight,shop\n", "", "has columns ('weight', 'shop') but no rows"),
        (b"weight,store\n1,east\n", "", "no column 'shop', which the model takes; the file has 'weight', 'store'"),
        (b'weight,shop\n1,"east\n', ":2", "the quote that opens here is not closed"),
        (b"weight,weight,shop\n1,2,east\n", ":1", "columns with one name: 'weight'"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, data, where, reason):
    """The place stands before the reason, once."""
    (tmp_path / "x.csv").write_bytes(data)
    _, _, bad = read([f"{tmp_path}/./x.csv"], TABLE)
    assert list(bad) == [f"{tmp_path}/./x.csv{where}"]
    assert bad.popitem()[1].startswith(reason)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("x.csv", "image", "a table, and the model is for images"),
        ("x.parquet", "image", "a table, and the model is for images"),
    ],
)
def test_inputs_of_the_other_kind(tmp_path, name, kind, reason):
    (tmp_path / name).write_text("")
    assert list(find_inputs([tmp_path / name], kind=kind)) == [Item(str(tmp_path / name), "broken", reason)]


def test_a_folder_without_inputs(tmp_path):
    (tmp_path / "x.txt").write_text("")
    assert list(find_inputs([tmp_path], kind="image")) == [
        Item(str(tmp_path), "broken", "no images in this folder, only x.txt")
    ]


def test_samples_are_counted_without_reading_them(images):
    np.save(images / "x.npy", np.zeros((12, 8, 8), np.uint8))
    (images / "y.csv").write_text("a\n1\n2\n3\n")
    items = [
        *find_inputs([images], kind="image"),
        Item(str(images / "x.npy"), "npy"),
        Item(str(images / "y.csv"), "table"),
    ]
    assert count_samples(items) == 9 + 12 + 3


def test_no_more_is_read_than_is_needed(images):
    taken = []

    def items():
        for index in range(10_000):
            taken.append(index)
            yield Item(str(images / "a" / "1.png"), "image")

    chunks = read_chunks(items(), GRAY)
    next(chunks)
    assert len(taken) < 1000
    chunks.close()


def test_the_order_stays_where_decoding_moves_between_one_thread_and_several(tmp_path, monkeypatch):
    """Small files are decoded in this thread, large ones in others; here they take turns, 40 at a time."""
    monkeypatch.setattr(inputs.time, "perf_counter", lambda: 0.0)  # a disk that answers at once, however busy
    noise = np.random.default_rng(0).integers(0, 256, (200, 64, 64), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        large = index // 40 % 2 == 1
        pixels = pixels if large else np.full((64, 64), index, dtype=np.uint8)
        pixels[0, 0] = index
        Image.fromarray(pixels).save(tmp_path / f"{index:03d}.png")
    chunks = list(read_chunks(find_inputs([tmp_path], kind="image"), InputSpec("image", (1, 64, 64), 1, chunk_size=10)))
    assert [chunk.one_thread for chunk in chunks] == ([True] * 4 + [False] * 4) * 2 + [True] * 4
    assert [int(row[0, 0, 0]) for chunk in chunks for row in chunk.rows] == list(range(200))

"""``trainkit init``: what it writes passes check, says what was seen, and is the same for the same data."""

import csv
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import trainkit
from trainkit.config import load_config
from trainkit.errors import TrainkitError, UserError
from trainkit.workflows.check import check, mirrored
from trainkit.workflows.init import init
from trainkit.workflows.init.draft import CPU, Line, choose_epochs, render
from trainkit.workflows.init.pictures import measure, recipe


def make_pictures(root: Path, counts: dict[str, int], *, size: tuple[int, int] = (12, 12)) -> Path:
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(root / name / f"{index}.png")
    return root


def make_table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class TestFromPython:
    def test_what_it_saw_and_wrote(self, tmp_path):
        make_table(tmp_path / "t.csv", [{"a": i % 7, "b": (i * 5) % 3, "target": i % 2} for i in range(60)])
        made = trainkit.init("t.csv", target="target", minutes=1, output=tmp_path / "mine.yaml")
        assert made.path.read_text() == made.text
        assert made.seen.source.num_classes == 2
        assert trainkit.load_config(made.path).config.dataset.target == "target"

    def test_a_copy_and_the_starter(self):
        assert trainkit.init(source="iris_mlp").path == Path("iris_mlp.yaml")
        made = trainkit.init()
        assert (made.path, made.seen, made.text) == (Path("config.yaml"), None, Path("config.yaml").read_text())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"data": "x", "source": "iris_mlp"}, "--from copies a config as it is"),
            ({"target": "y"}, "DATA is missing"),
            ({"data": "x", "task": "regresion"}, "task: expected one of classification, regression, got 'regresion'"),
            ({"data": "x", "minutes": 0}, "minutes: expected 0.1 or more, got 0"),
            ({"data": "x"}, "x"),
        ],
    )
    def test_wrong_arguments_write_nothing(self, tmp_path, arguments, message):
        with pytest.raises(UserError, match=message):
            trainkit.init(**arguments)
        assert list(tmp_path.iterdir()) == []


class TestPictures:
    def test_every_line_has_its_reason_and_the_bytes_are_the_same(self, tmp_path):
        make_pictures(tmp_path / "pets", {"cat": 30, "dog": 30})
        written = init("pets")
        assert written.path == Path("pets.yaml")
        lines = written.text.splitlines()
        for before, line in itertools.pairwise(lines):
            assert not line or "# " in line or before.lstrip().startswith("# "), line
        config = load_config("pets.yaml").config
        assert config.dataset.root == str(tmp_path / "pets")
        assert config.model.type == "cnn"
        assert init("pets", output="again.yaml").text.replace("again.yaml", "pets.yaml") == written.text
        check(load_config("pets.yaml"))

    def test_rare_classes_are_drawn_as_often(self, tmp_path):
        make_pictures(tmp_path / "rare", {"cat": 70, "dog": 12})
        config = load_config(init("rare").path).config
        assert config.training.sampler.type == "balanced"
        assert config.checkpoint.monitor == "val_balanced_accuracy"

    def test_unreadable_pictures_are_counted(self, tmp_path):
        make_pictures(tmp_path / "some", {"cat": 30, "dog": 30})
        (tmp_path / "some" / "cat" / "7.png").write_bytes(b"no picture")
        written = init("some")
        assert load_config(written.path).config.dataset.max_bad_files == 1
        assert any("7.png" in note for note in written.seen.notes)

    def test_splits_of_the_data_are_left_alone(self, tmp_path):
        make_pictures(tmp_path / "own" / "train", {"cat": 30, "dog": 30})
        make_pictures(tmp_path / "own" / "test", {"cat": 5, "dog": 5})
        text = init("own").text
        given = yaml.safe_load(text)["dataset"]
        assert "held out of 60 samples: chooses" in text
        assert "1 step an epoch" in text
        assert "val_fraction" in given
        assert "test_fraction" not in given

    def test_large_pictures_are_cropped_from_their_own_sizes(self, tmp_path):
        make_pictures(tmp_path / "large", {"cat": 12, "dog": 12}, size=(130, 170))
        config = load_config(init("large", pretrained=False).path).config
        assert config.transforms[0].type == "random_resized_crop"

    def test_the_transforms_of_weights_mirror_no_directions(self, tmp_path):
        data = init(make_pictures(tmp_path / "ways", {"left": 10, "right": 10}, size=(70, 70)), pretrained=False).seen
        lines, _ = recipe(data.source, measure(data.source), has_gpu=False, pretrained=True)
        head = yaml.safe_load(render([], lines))
        head |= {"dataset": {"type": "image_folder", "root": "."}}
        auto = load_config(head | {"transforms": "auto"}).config.transforms
        expected = [one for one in auto if one.type != "random_horizontal_flip"]
        assert load_config(head).config.transforms == expected

    def test_a_link_that_leads_back_ends_the_search(self, tmp_path):
        make_pictures(tmp_path / "real" / "deep", {"cat": 12, "dog": 12})
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "again").symlink_to(tmp_path / "linked")
        with pytest.raises(TrainkitError, match="linked"):
            init("linked", target="x")
        for name in ("cat", "dog"):
            (tmp_path / "linked" / name).symlink_to(tmp_path / "real" / "deep" / name)
        (tmp_path / "linked" / "again").unlink()
        assert load_config(init("linked").path).config.dataset.type == "image_folder"

    def test_of_two_sizes_one_is_made(self, tmp_path):
        make_pictures(tmp_path / "both" / "a", {"cat": 12}, size=(20, 30))
        make_pictures(tmp_path / "mixed", {"cat": 12, "dog": 12}, size=(20, 30))
        Image.new("RGB", (40, 26)).save(tmp_path / "mixed" / "cat" / "other.png")
        config = load_config(init("mixed").path).config
        assert [transform.type for transform in config.transforms[:2]] == ["resize", "center_crop"]


@pytest.mark.parametrize(
    ("names", "sided"),
    [
        (("0", "1", "17"), True),
        (("a", "b"), True),
        (("turn_left", "turn-right"), True),
        (("Left arrow", "up"), True),
        (("TurnLeft", "straight"), True),
        (("seven", "eight"), True),
        (("cat", "dog"), False),
        (("leftover", "brightness"), False),
    ],
)
def test_what_a_mirror_would_change(names, sided):
    assert (mirrored(names) is not None) is sided


class TestTables:
    def rows(self, count: int = 60) -> list[dict[str, object]]:
        generator = np.random.default_rng(0)
        return [
            {"id": index, "size": float(size), "kind": "big" if size + noise > 0 else "small", "price": float(size * 3)}
            for index, (size, noise) in enumerate(generator.normal(size=(count, 2)))
        ]

    def test_classes_and_values(self, tmp_path):
        make_table(tmp_path / "t.csv", self.rows())
        written = init("t.csv", target="kind", output="kind.yaml")
        assert load_config("kind.yaml").config.dataset.task == "classification"
        assert not written.warnings
        make_table(tmp_path / "t.csv", self.rows(360))
        written = init("t.csv", target="price", output="price.yaml")
        assert load_config("price.yaml").config.dataset.task == "regression"
        # 231 of 360 train with these fractions, and 260 would with the defaults, which need two steps of 256.
        assert "held out of what the test split leaves" in written.text
        assert "epochs: 256 " in written.text
        assert "# 256 steps;" in written.text

    def test_several_targets(self, tmp_path):
        make_table(tmp_path / "t.csv", [{**row, "tax": float(row["price"]) / 7} for row in self.rows()])
        assert trainkit.init("t.csv", target=("price", "tax")).seen.source.target_names == ("price", "tax")
        assert load_config("t.yaml").config.dataset.target == ["price", "tax"]
        with pytest.raises(TrainkitError, match=r"^t\.csv has no column 'price,tax'"):
            trainkit.init("t.csv", target="price,tax", output="other.yaml")

    def test_a_column_that_tells_the_target_is_named(self, tmp_path):
        rows = [{**row, "code": 7 if row["kind"] == "big" else 3} for row in self.rows(200)]
        make_table(tmp_path / "t.csv", rows)
        written = init("t.csv", target="kind")
        assert [line.split()[0] for line in written.warnings] == ["code"]
        assert "# columns: {code: ignore}" in written.text

    def test_a_usual_name_is_the_target(self, tmp_path):
        make_table(tmp_path / "t.csv", [{"x": index % 7, "Label": "ab"[index % 2]} for index in range(60)])
        assert load_config(init("t.csv").path).config.dataset.target == "Label"

    def test_a_telling_column_with_an_odd_name_can_be_uncommented(self, tmp_path):
        make_table(tmp_path / "t.csv", [{"x": i % 13, "a: b, #c": i % 2, "label": "ab"[i % 2]} for i in range(90)])
        text = init("t.csv").text.replace("  # columns:", "  columns:")
        assert yaml.safe_load(text)["dataset"]["columns"] == {"a: b, #c": "ignore"}

    def test_what_only_the_user_knows_is_asked(self, tmp_path):
        make_table(tmp_path / "t.csv", [{"x": index % 7, "y": index % 50} for index in range(200)])
        with pytest.raises(TrainkitError, match=r"^t\.csv: .*whole numbers from 0 to 49.*--task"):
            init("t.csv")
        assert load_config(init("t.csv", task="regression").path).config.dataset.task == "regression"

    @pytest.mark.slow
    def test_a_pattern_of_tables(self, tmp_path):
        for part in "ab":
            make_table(tmp_path / f"part-{part}.csv", self.rows(40))
        assert "A table: 3 columns, 80 rows." in init("part-*.csv", target="kind", output="c.yaml").text

    def test_questions_of_the_table_are_answered_by_set(self, tmp_path):
        lines = [f"{i},{'' if i % 9 == 0 else i % 7},{'ab'[i % 2]}" for i in range(60)]
        (tmp_path / "t.csv").write_text("\n".join([*lines[::-1], "60,n.d.,a"]))
        with pytest.raises(TrainkitError, match=r"^t\.csv:1: .*may be data.*; here by --set dataset\.header=\.\.\.$"):
            init("t.csv", target="y")
        answers = ["dataset.header=false", "dataset.val_fraction=0.3"]
        with pytest.raises(
            TrainkitError, match=r"^t\.csv:61: column .*'n\.d\.'; .*missing_values.*; here by --set dataset\.KEY=VALUE$"
        ):
            init("t.csv", target="column_3", overrides=[*answers, "dataset.columns.column_2=numeric"])
        answers += ["dataset.missing_values=[n.d.]", "dataset.columns.column_1=ignore"]
        written = init("t.csv", target="column_3", overrides=answers)
        dataset = load_config(written.path).config.dataset
        assert (dataset.header, dataset.missing_values, dataset.val_fraction) == (False, ["n.d."], 0.3)
        assert dataset.columns == {"column_1": "ignore"}
        assert written.text.count("val_fraction") == 1

    def test_a_column_that_says_the_splits_leaves_no_fractions(self, tmp_path):
        rows = [{"x": i % 7, "y": "ab"[i % 2], "part": ("train", "train", "val", "test")[i % 4]} for i in range(60)]
        make_table(tmp_path / "t.csv", rows)
        written = init("t.csv", target="y", overrides=["dataset.split={type: column, column: part}"])
        assert load_config(written.path).config.dataset.split.column == "part"
        assert "fraction" not in written.text

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("training.epochs=3", "--set takes keys of dataset here, got training.epochs=3"),
            ("dataset.target=x", "--set dataset.target: --target says that here"),
            ("dataset.haeder=1", "did you mean header?"),
            ("dataset.header", "the `=` is missing"),
        ],
    )
    def test_other_overrides_are_told(self, tmp_path, override, message):
        make_table(tmp_path / "t.csv", self.rows())
        with pytest.raises(UserError, match=re.escape(message)):
            init("t.csv", target="kind", overrides=[override])
        assert list(tmp_path.iterdir()) == [tmp_path / "t.csv"]

    @pytest.mark.parametrize("names", [("x", "zone"), ("x", "label", "class")])
    def test_without_one_the_columns_are_listed(self, tmp_path, names):
        make_table(tmp_path / "t.csv", [dict.fromkeys(names, index) for index in range(60)])
        with pytest.raises(UserError, match=f"--target.*{names[-1]}"):
            init("t.csv")
        assert list(tmp_path.iterdir()) == [tmp_path / "t.csv"]


class TestWrongInput:
    def test_an_existing_file_is_left_as_it_is(self, tmp_path):
        make_pictures(tmp_path / "pets", {"cat": 12, "dog": 12})
        (tmp_path / "pets.yaml").write_text("mine")
        with pytest.raises(UserError, match="left as it is"):
            init("pets")
        assert (tmp_path / "pets.yaml").read_text() == "mine"

    @pytest.mark.parametrize(
        ("data", "options", "says"),
        [
            ("nowhere", {}, "nowhere: there is no such file or folder; give a folder of pictures"),
            ("empty", {}, "empty"),
            ("words.txt", {"target": "x"}, "words.txt"),
            ("pets", {"target": "x"}, "--target, --task and --set are for tables"),
            ("t.csv", {"target": "kid"}, "kid"),
            ("t.csv", {"target": "kind", "pretrained": True}, "--pretrained is for pictures"),
            ("t.csv", {"target": "kind", "output": "no/t.yaml"}, "there is no folder"),
        ],
    )
    def test_says_what_and_writes_nothing(self, tmp_path, data, options, says):
        (tmp_path / "empty").mkdir()
        (tmp_path / "words.txt").write_text("a few words\n")
        make_pictures(tmp_path / "pets", {"cat": 12, "dog": 12})
        make_table(tmp_path / "t.csv", TestTables().rows())
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(TrainkitError, match=says):
            init(data, **options)
        assert sorted(tmp_path.rglob("*")) == before


def test_epochs_follow_the_budget():
    fast = choose_epochs(1000, batch_size=50, multiply_adds=10**6, minutes=10, speed=CPU, steps=3000, most=200)
    slow = choose_epochs(1000, batch_size=50, multiply_adds=10**9, minutes=10, speed=CPU, steps=3000, most=200)
    assert fast[0] == 150
    assert slow[0] == 3
    assert "150 would be better" in slow[1]


def test_long_reasons_stand_above_their_line():
    text = render(["T"], [Line("a:", "short"), Line("  b: 2", "word " * 30)])
    assert yaml.safe_load(text) == {"a": {"b": 2}}
    assert all(len(line) <= 120 for line in text.splitlines())
    assert text.splitlines()[-1] == "  b: 2"

"""Where relative paths in ``dataset:`` lead."""

from pathlib import Path

import pytest

from trainkit.config import load_config
from trainkit.config.help.shipped import folder, write_starter
from trainkit.config.text.writer import to_yaml

PICTURES = "dataset: {{type: image_folder, root: {root}}}\nmodel: mlp\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a project in it."""
    (tmp_path / "project" / "configs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def root_of(path: Path | str, *overrides: str) -> str:
    return load_config(path, overrides=overrides).config.dataset.root


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("pictures", "project/configs/pictures"),
        ("../data/pictures", "project/data/pictures"),
        ("./a/../b/", "project/configs/b"),
        (".", "project/configs"),
        ("/abs/pictures", "/abs/pictures"),
        ("ñ 猫", "project/configs/ñ 猫"),
    ],
)
def test_relative_to_the_config_wherever_the_command_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: str
) -> None:
    file = here / "project" / "configs" / "c.yaml"
    file.write_text(PICTURES.format(root=written))
    assert root_of("project/configs/c.yaml") == str(here / expected)
    monkeypatch.chdir(here / "project")
    assert root_of("configs/c.yaml") == root_of(file) == str(here / expected)


def test_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "me"))
    (here / "c.yaml").write_text(PICTURES.format(root="~/pictures"))
    assert root_of("c.yaml") == str(here / "me" / "pictures")


def test_a_path_from_a_base_is_relative_to_the_base(here: Path) -> None:
    (here / "project" / "base.yaml").write_text(PICTURES.format(root="data"))
    (here / "project" / "configs" / "c.yaml").write_text("extends: ../base.yaml\nseed: 1\n")
    assert root_of("project/configs/c.yaml") == str(here / "project" / "data")
    (here / "project" / "configs" / "c.yaml").write_text("extends: ../base.yaml\ndataset: {root: own}\n")
    assert root_of("project/configs/c.yaml") == str(here / "project" / "configs" / "own")


def test_what_is_typed_is_relative_to_the_current_folder(here: Path) -> None:
    (here / "project" / "c.yaml").write_text(PICTURES.format(root="data"))
    assert root_of("project/c.yaml", "dataset.root=typed") == str(here / "typed")


def test_a_default_is_beside_the_config(here: Path) -> None:
    (here / "project" / "c.yaml").write_text("dataset: mnist\nmodel: mlp\n")
    assert root_of("project/c.yaml") == str(here / "project" / "data")


def test_both_files_of_a_table(here: Path) -> None:
    (here / "project" / "c.yaml").write_text(
        "dataset: {type: table, path: a.csv, test_path: ../b.csv, target: y}\nmodel: mlp\n"
    )
    dataset = load_config("project/c.yaml").config.dataset
    assert (dataset.path, dataset.test_path) == (str(here / "project" / "a.csv"), str(here / "b.csv"))


def test_shipped_configs_use_the_current_folder(here: Path) -> None:
    assert root_of("mnist_cnn") == root_of(folder() / "mnist_cnn.yaml") == str(here / "data")
    (here / "project" / "c.yaml").write_text(f"extends: {folder() / 'mnist_cnn.yaml'}\n")
    assert root_of("project/c.yaml") == str(here / "project" / "data")
    write_starter(here / "project" / "mine.yaml", source="mnist_cnn")
    assert root_of("project/mine.yaml") == str(here / "project" / "data")


def test_the_resolved_config_leads_to_the_same_place_from_anywhere(here: Path) -> None:
    (here / "project" / "c.yaml").write_text(PICTURES.format(root="data"))
    loaded = load_config("project/c.yaml")
    (here / "moved.yaml").write_text(to_yaml(loaded.resolved()))
    assert load_config("moved.yaml").config == loaded.config
    assert loaded.origins["dataset.root"].kind == "file"


def test_configs_of_earlier_runs_are_relative_to_the_current_folder(here: Path) -> None:
    run = here / "runs" / "20260101-120000_x"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "config.resolved.yaml").write_text(PICTURES.format(root="data"))
    assert root_of(run / "config.resolved.yaml") == str(here / "data")


def test_a_path_that_was_meant_from_the_current_folder_is_pointed_out(here: Path) -> None:
    (here / "data").mkdir()
    (here / "project" / "c.yaml").write_text(PICTURES.format(root="data"))
    (note,) = load_config("project/c.yaml").notes
    assert note == (
        f"dataset.root: data is relative to the folder of the config, and is not there: {here}/project/data; "
        "it is in the current folder: for that, write ../data"
    )
    (here / "project" / "data").mkdir()
    assert load_config("project/c.yaml").notes == ()

"""The configs that come with trainkit: found, described, valid; and each misspelled key in them is corrected."""

from pathlib import Path

import pytest

from trainkit.config import load_config
from trainkit.config.help.shipped import (
    SCHEMA_LINE,
    SCHEMA_NAME,
    find,
    folder,
    hint_for_missing,
    list_shipped,
    list_sweeps,
)
from trainkit.config.sweeps import load_sweep
from trainkit.config.text.nodes import Node
from trainkit.config.text.reader import read_file
from trainkit.errors import ConfigError

CONFIGS = list_shipped()


def test_they_are_there() -> None:
    assert len(CONFIGS) >= 10
    assert {config.path for config in CONFIGS} == set(folder().glob("*.yaml"))
    assert (folder() / SCHEMA_NAME).is_file()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_each_loads_and_says_what_it_is(config) -> None:
    loaded = load_config(config.path)
    assert loaded.name == config.name
    assert loaded.text.startswith(f"{SCHEMA_LINE}{SCHEMA_NAME}\n")
    assert 10 <= len(config.description) <= 110
    assert config.description.endswith(".")
    assert f"trainkit train configs/{config.path.name}" in loaded.text


@pytest.mark.parametrize("sweep", list_sweeps(), ids=lambda sweep: sweep.name)
def test_each_sweep_loads_and_says_what_it_is(sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_sweep(sweep.name)
    assert (loaded.path, loaded.name) == (sweep.path, sweep.name)
    assert loaded.notes[0].startswith(f"{sweep.name} is the shipped sweep ")
    assert loaded.text.startswith(f"{SCHEMA_LINE}../sweep.schema.json\n")
    assert (sweep.path.parent / "../sweep.schema.json").is_file()
    assert 10 <= len(sweep.description) <= 110
    assert f"trainkit sweep configs/sweeps/{sweep.path.name}" in loaded.text


def test_they_are_found_by_name() -> None:
    assert find("digits_cnn").path == folder() / "digits_cnn.yaml"
    assert find("digits_cnn.yaml") == find("digits_cnn")
    assert find("nothing") is None


def test_a_missing_file_gets_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    hint = "digits_cnn is a shipped config: give its name alone, digits_cnn"
    assert hint_for_missing(Path("configs/digits_cnn.yaml")) == hint
    assert hint_for_missing(Path("min.yaml")) == "did you mean mine.yaml?"
    assert hint_for_missing(Path("digit_cnn.yaml")) == "did you mean the shipped digits_cnn?"
    assert hint_for_missing(Path("no/folder/frobnicate.yaml")).startswith("`trainkit config list` shows")
    with pytest.raises(ConfigError, match=r"^min\.yaml: there is no such file; did you mean mine\.yaml\?$"):
        load_config("min.yaml")


def test_a_shipped_config_is_named_without_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = folder() / "digits_cnn.yaml"
    (tmp_path / "digits_cnn").mkdir()  # a folder is no config
    for name in ("digits_cnn", "digits_cnn.yaml"):
        loaded = load_config(name, overrides=["training.epochs=2"])
        assert (loaded.path, loaded.name, loaded.config.training.epochs) == (shipped, "digits_cnn", 2)
        assert loaded.notes == (f"{name} is the shipped config {shipped}: there is no file of this name here",)
    assert load_config(shipped).notes == ()
    (tmp_path / "digits_cnn.yaml").write_text("name: mine\ndataset: iris\nmodel: mlp\n")
    own = load_config("digits_cnn.yaml")
    assert (own.name, own.notes) == ("mine", ())
    for path in ("no/digits_cnn", "digits_cnn_x"):
        with pytest.raises(ConfigError):
            load_config(path)


def keys(node: Node, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Node]]:
    """Every key of a config, with the node that it stands over."""
    found = []
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            found += [((*path, key), child), *keys(child, (*path, key))]
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            found += keys(child, (*path, index))
    return found


def mutations() -> list[tuple[str, str, int, int, str]]:
    found = []
    for config in CONFIGS:
        root, _, _ = read_file(config.path)
        for path, node in keys(root):
            key = str(path[-1])
            for drop in range(len(key)):
                found.append((config.name, key, node.key_line, node.key_column, key[:drop] + key[drop + 1 :]))
    return found


@pytest.mark.slow
def test_a_key_with_a_letter_dropped_is_corrected(tmp_path: Path) -> None:
    """For every key of every shipped config and every letter: that line, and the key as the suggestion."""
    path = tmp_path / "run.yaml"
    wrong = []
    tried = 0
    for name, key, line, column, misspelled in mutations():
        if not misspelled:
            continue
        tried += 1
        lines = (folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        row = lines[line]
        assert row.startswith(key, column)
        lines[line] = row[:column] + misspelled + row[column + len(key) :]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            load_config(path)
        except ConfigError as error:
            told = [p for p in error.problems if p.place is not None and p.place.line == line + 1]
            if not any(f"did you mean {key}?" in problem.message for problem in told):
                wrong.append((name, key, misspelled, [str(p) for p in error.problems]))
        else:
            wrong.append((name, key, misspelled, ["no error"]))
    assert tried > 1000
    share = 1 - len(wrong) / tried
    assert share >= 0.98, f"{share:.3f}: {wrong[:20]}"

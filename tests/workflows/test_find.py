"""Runs and checkpoints by name, by path, or by nothing: the same words in every command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.cli.predict import split_arguments
from trainkit.errors import CheckpointError, UserError
from trainkit.system import Frontend
from trainkit.workflows.find import find_checkpoint, find_run, last_of
from trainkit.workflows.train.run import train

OLD, NEW = "20260101-120000_digits", "20260102-120000_digits_cnn"


@pytest.fixture
def here(tiny_run, tmp_path, monkeypatch):
    """A folder with two runs; the current folder."""
    for name in (OLD, NEW):
        shutil.copytree(tiny_run.run.path, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_whole_name_comes_before_a_part(here):
    for given, name in (
        ("digits", OLD),
        ("DIGITS", OLD),
        ("cnn", NEW),
        ("digits_cnn", NEW),
        (OLD, OLD),
        ("0102-12", NEW),
        (f"runs/{OLD}/", OLD),
        (None, NEW),
    ):
        assert find_run(given, runs_dir=Path("runs")).path.name == name, given
    with pytest.raises(UserError, match="digit: fits 2 runs"):
        find_run("digit", runs_dir=Path("runs"))
    shutil.copytree(Path("runs") / OLD, Path("runs") / "20260103-120000_digits_2")
    with pytest.raises(UserError, match="digits: fits 2 runs"):
        find_run("digits", runs_dir=Path("runs"))
    assert find_run("digits_2", runs_dir=Path("runs")).path.name == "20260103-120000_digits_2"


def test_trials_of_sweeps_are_found_by_sweep_and_number(here):
    for kind, sweep, number in (("sweeps", "mine", "000"), ("sweeps", "mine", "001"), ("cv", "digits", "fold0")):
        shutil.copytree(Path("runs") / OLD, Path(kind) / sweep / "runs" / f"20260104-120000_{sweep}-{number}")
    assert find_run("mine-001", runs_dir=Path("runs")).path.parent == Path("sweeps/mine/runs")
    assert find_run("digits-fold0", runs_dir=Path("runs")).path.parent == Path("cv/digits/runs")
    assert find_run("digits", runs_dir=Path("runs")).path.name == OLD, "a run comes before a trial"
    assert find_run(None, runs_dir=Path("runs")).path.name == NEW
    with pytest.raises(UserError, match="mine: fits 2 runs"):
        find_run("mine", runs_dir=Path("runs"))
    for name in ("mine", "sweeps/mine/"):
        listed = CliRunner().invoke(app, ["runs", "list", "--sweep", name]).stdout
        assert [line.split()[0] for line in listed.splitlines()[1:]] == [
            *("20260104-120000_mine-000", "20260104-120000_mine-001")
        ]
    result = CliRunner().invoke(app, ["runs", "list"])
    assert "and sweeps/mine, cv/digits: `trainkit runs list --sweep NAME` shows what is in one" in result.stderr
    with pytest.raises(UserError, match=r"--sweep mime: no sweep .* did you mean mine\?"):
        CliRunner().invoke(app, ["runs", "list", "--sweep", "mime"], catch_exceptions=False)
    compared = CliRunner().invoke(app, ["runs", "compare", "mine-000", "mine-001", "--json"], catch_exceptions=False)
    assert compared.exit_code == 0


def test_a_checkpoint_by_its_run(here):
    def found(given, **options):
        given = None if given is None else Path(given)
        return find_checkpoint(given, runs_dir=Path("runs"), frontend=Frontend(), **options).parents[1].name

    (here / "digits").mkdir()  # a folder of data is no run
    assert [found(given) for given in ("digits", "cnn", f"runs/{OLD}", f"runs/{OLD}/checkpoints", None)] == [
        OLD,
        NEW,
        OLD,
        OLD,
        NEW,
    ]
    assert find_checkpoint(Path("other.pth"), runs_dir=Path("runs"), frontend=Frontend()) == Path("other.pth")
    assert found("cnn", pick=last_of) == NEW
    with pytest.raises(UserError, match="wine: no such file, and no run of this name in runs"):
        found("wine")
    shutil.rmtree(here / "runs" / NEW / "checkpoints")
    assert found(None) == OLD
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        found("cnn")


def test_every_command_takes_a_name_or_nothing(here):
    np.save("rows.npy", np.zeros((2, 1, 8, 8), dtype=np.uint8))
    for command, before, after in (
        ("eval", [], ["--no-plots"]),
        ("export", [], ["--safetensors"]),
        ("report", [], []),
        ("inspect", [], []),
        ("resume", [], []),
        ("runs show", [], []),
        ("ckpt verify", [], []),
        ("ckpt list", [], []),
        ("predict", [], ["rows.npy"]),
    ):
        for name in (["digits"], []):
            if command == "resume" and not name:
                continue  # all are finished: that is another answer
            result = CliRunner().invoke(app, [*command.split(), *before, *name, *after])
            assert result.exit_code == 0, (command, name, result.output)
            said = result.output + result.stderr
            expected = OLD if name else NEW
            assert command == "predict" or expected in said, (command, name, said)
    assert CliRunner().invoke(app, ["runs", "compare"]).exit_code == 0
    assert (here / "runs" / "compare.html").is_file()


def test_a_run_is_a_place_to_start_from(here):
    config = here / "again.yaml"
    shutil.copy(here / "runs" / OLD / "config.resolved.yaml", config)
    said = []
    frontend = Frontend(say=said.append)
    train(config, overrides=["training.epochs=3"], resume=Path("digits"), frontend=frontend)
    assert any(line.startswith("going on from") and OLD in line for line in said)
    train(config, overrides=["training.epochs=1"], init_from=Path("cnn"), frontend=frontend)
    assert any(line.startswith("weights:") and NEW in line for line in said)


def test_predict_tells_a_model_from_an_input(here):
    assert split_arguments(["digits", "a.png"]) == (Path("digits"), ["a.png"])
    for inputs in (["a.png"], ["a.PNG", "b.jpg"], ["*.jpeg", "folder"], ["t.csv", "u.csv"], ["rows.npy"], ["folder"]):
        assert split_arguments(inputs) == (None, inputs)
    for model in (f"runs/{OLD}", f"runs/{OLD}/checkpoints/a.pth"):
        with pytest.raises(UserError, match="a model, and nothing to predict"):
            split_arguments([model])


def test_what_is_something_else_is_named(here):
    (here / "c.yaml").write_text("model: mlp\n")
    with pytest.raises(CheckpointError, match=r"c\.yaml: a config, not a checkpoint; give the run"):
        find_checkpoint(Path("c.yaml"), runs_dir=Path("runs"), frontend=Frontend())
    with pytest.raises(UserError, match=r"c\.yaml: a file, not a run; `trainkit runs list`"):
        find_run("c.yaml", runs_dir=Path("runs"))
    file = next(Path("runs", OLD, "checkpoints").glob("*.pth"))
    with pytest.raises(UserError, match=f"belongs to the run runs/{OLD} .`trainkit train CONFIG --resume {file}"):
        find_run(file, runs_dir=Path("runs"))
    with pytest.raises(UserError, match="a checkpoint or another zip file, not a config"):
        train(file)
    with pytest.raises(UserError, match=f"this is a run; its config is runs/{OLD}/config.yaml"):
        train(Path("runs", OLD))

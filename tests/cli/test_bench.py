"""``trainkit bench`` as a user runs it: real processes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from trainkit.cli.bench import bench as command
from trainkit.errors import UserError

SOURCE = Path(__file__).parents[2] / "src"
# A larger batch would not fit into the data: two settings, fp32 and bf16.
CONFIG = """
dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}
model: {type: mlp, hidden_sizes: [16]}
training: {epochs: 2, batch_size: 400}
"""


def start(folder, *arguments, **environment):
    command = [sys.executable, "-m", "trainkit", "bench", "config.yaml", "--seconds", "0.1", *arguments]
    env = {**os.environ, "PYTHONPATH": str(SOURCE), **environment}
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def bench(folder, *arguments, text=CONFIG, **environment):
    """Exit code, stdout, stderr; the folder of runs must be as it was."""
    (folder / "config.yaml").write_text(text)
    (folder / "runs").mkdir()
    process = start(folder, *arguments, **environment)
    out, err = process.communicate()
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "runs"]
    assert list((folder / "runs").iterdir()) == []
    return process.returncode, out, err


@pytest.mark.slow
def test_json(tmp_path):
    code, out, err = bench(tmp_path, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == {"config", "trials", "planned", "advice", "compile_skipped", "interrupted"}
    first, second = found["trials"]
    assert set(first) == {"overrides", "setting", "measurement", "error"}
    assert first["overrides"] == []
    assert second["overrides"] in (["training.precision=bf16"], ["training.precision=fp32"])
    assert set(first["measurement"]) == {
        *("setting", "samples_per_second", "spread", "steps_measured", "epoch_samples", "epochs"),
        *("compile_seconds", "memory", "seconds", "machine", "convolutional", "notes"),
    }
    assert set(first["measurement"]["seconds"]) == {
        *("data", "forward", "backward", "optimizer", "validation", "checkpoint")
    }
    assert second["measurement"]["samples_per_second"] > 0
    assert found["compile_skipped"] is True
    assert found["interrupted"] is False
    assert err.splitlines()[0] == "measuring the config as it is"


def test_a_single_one_for_the_eye(tmp_path):
    code, out, err = bench(tmp_path, "--single")
    assert code == 0, err
    assert "fp32, channels-first, batch 400" in out
    assert "samples/s" in out
    assert "MB at the peak" in out
    for phase in ("data", "forward", "backward", "optimizer", "validation", "checkpoint"):
        assert phase in out


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (CONFIG + "optmizer: adam\n", "config.yaml:5:1: optmizer: unknown section"),
        (
            CONFIG.replace("{type: mlp, hidden_sizes: [16]}", "{type: cnn, blocks: [{channels: 4, pool: 16}]}"),
            "config.yaml:3:49: model.blocks[0].pool: ",
        ),
    ],
    ids=["schema", "shapes"],
)
def test_a_wrong_config_is_reported_with_its_place(tmp_path, text, place):
    code, out, err = bench(tmp_path, text=text)
    assert code == 2
    assert f"error: {place}" in err
    assert "Traceback" not in err
    assert out == ""


def test_ctrl_c_ends_the_child_and_shows_what_was_measured(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    process = start(tmp_path, "--json", "--seconds", "0.5")
    for line in process.stderr:
        if line.endswith("samples/s\n"):
            break
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    found = json.loads(out)
    assert found["interrupted"] is True
    assert len(found["trials"]) == 1
    assert found["advice"] is None
    assert err.splitlines()[-1] == "stopped by SIGINT: measured 1 of 2 settings"


@pytest.mark.slow
def test_compile_without_a_compiler_is_a_row_that_says_why(tmp_path):
    (tmp_path / "empty").mkdir()
    place = tmp_path / "place"
    place.mkdir()
    code, out, err = bench(place, "--compile", PATH=str(tmp_path / "empty"), CXX="")
    assert code == 0, err
    assert re.search(r"compiled, batch 400.*: failed: torch.compile failed: ", out), out
    assert "ompiler" in out.partition("torch.compile failed: ")[2]


@pytest.mark.slow
def test_a_whole_table_ends_in_advice(tmp_path):
    text = CONFIG.replace("batch_size: 400", "batch_size: 64, precision: bf16")
    code, out, err = bench(tmp_path, "--seconds", "1", text=text)
    assert code == 0, err
    assert "as it is" in out
    _, advised, pasted = out.partition("For config.yaml:\n\n")
    if advised:
        training = yaml.safe_load(pasted.partition("\nor only once: ")[0])["training"]
        assert training
        assert set(training) <= {"precision", "compile"}
        assert all(f"--set training.{key}=" in pasted for key in training)
    else:
        assert "the config is already the fastest" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nproc": "1,two"}, "--nproc takes a number of processes, or gpu for one on each GPU, got 'two'"),
        ({"nproc": "1,2", "try_compile": True}, "--compile tries other settings, --nproc other numbers of processes"),
        ({"nproc": "1,3", "set_": ["training.accumulation_steps=2"]}, "3 processes cannot share 2 pieces of a batch"),
        ({"nproc": "3", "set_": ["training.accumulation_steps=2"], "single": True}, "3 processes cannot share"),
    ],
)
def test_numbers_of_processes_are_looked_at_before_anything_is_measured(tmp_path, capsys, options, message):
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(UserError, match=message):
        command(tmp_path / "config.yaml", seconds=0.1, **options)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_what_numbers_of_processes_bring(tmp_path):
    code, out, err = bench(tmp_path, "--nproc", "1,2", "--json", "--set", "training.num_threads=1")
    assert code == 0, err
    one, two = json.loads(out)["processes"]
    assert (one["processes"], one["pieces"], one["times"]) == (1, 1, 1.0)
    assert (two["processes"], two["pieces"]) == (2, 2)
    assert two["times"] == two["samples_per_second"] / one["samples_per_second"] > 0
    assert one["setting"] == two["setting"]
    assert err.splitlines()[:2] == ["measuring 1 process ...", "measuring 2 processes ..."]

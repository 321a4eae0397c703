"""Names that the terminal's encoding lacks, and names that are no UTF-8: every line is printed."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainkit.config import load_config
from trainkit.recorders.logs import read_json_lines
from trainkit.workflows.train import train

CLASSES = {"猫": 60, "dog é": 200}
CONFIG = """\
dataset: {type: image_folder, root: データ, val_fraction: 0.2, test_fraction: 0.2}
model: {type: cnn, blocks: [{channels: 4}]}
training: {epochs: 1}
"""
CP1252 = {"PYTHONIOENCODING": "cp1252"}
ASCII = {"PYTHONIOENCODING": "ascii"}
STRICT = {"PYTHONIOENCODING": "latin-1:strict"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0"}
"""Without its UTF-8 mode, Python then takes file names, the standard streams and open() for ASCII."""


def pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, level in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(15):
            pixels = np.clip(rng.normal(level, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    pictures(folder / "データ")
    (folder / "c.yaml").write_text(CONFIG, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        train(load_config("c.yaml"), runs_dir=Path("runs"))
    finally:
        os.chdir(before)
    return folder


def trainkit(place: Path, environment: dict[str, str], *arguments: str, code: int = 0) -> tuple[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "PYTHONIO", "PYTHONUTF"))}
    command = [sys.executable, "-m", "trainkit", *arguments]
    done = subprocess.run(command, cwd=place, env={**plain, **environment}, capture_output=True, check=False)
    encoding = environment.get("PYTHONIOENCODING", "ascii").partition(":")[0]
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == code, err
    assert "Traceback" not in err
    assert "Warning" not in err
    assert "\xa0" not in out + err
    assert r"\xa0" not in out + err
    return out, err


@pytest.mark.parametrize("environment", [CP1252, pytest.param(ASCII, marks=pytest.mark.slow), C_LOCALE])
def test_predictions_are_all_there(place, environment):
    out, _ = trainkit(place, environment, "predict", next((place / "runs").iterdir()).as_posix(), "データ")
    lines = out.splitlines()
    assert len(lines) == 31
    assert len({line.count("\t") for line in lines}) == 1
    assert all(line.endswith(tuple("0123456789")) for line in lines[1:])
    assert any(r"\u732b" in line for line in lines)


@pytest.mark.parametrize("environment", [ASCII, pytest.param(CP1252, marks=pytest.mark.slow)])
def test_an_evaluation_prints_and_draws(place, environment):
    out, _ = trainkit(place, environment, "eval")
    assert r"\u732b" in out
    assert "support" in out
    assert "confusion.png" in out


@pytest.mark.slow
@pytest.mark.parametrize("environment", [STRICT, C_LOCALE], ids=["strict", "C"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "c.yaml"),
        ("train", "c.yaml"),
        ("eval",),
        ("eval", "--json"),
        ("predict", "runs/*", "データ", "--json"),
        ("inspect", "c.yaml"),
        ("report",),
        ("runs", "list"),
        ("runs", "show"),
        ("runs", "show", "--json"),
        ("ckpt", "list", "runs/*"),
        ("export", "--torchscript", "--output", "bundle"),
        ("bench", "c.yaml", "--single", "--seconds", "0.1"),
        ("data", "preview", "c.yaml", "--output", "p.png"),
        ("data", "list"),
        ("config", "show", "c.yaml"),
        ("config", "list"),
        ("config", "schema"),
        ("predict", "--help"),
    ],
    ids=" ".join,
)
def test_every_command_ends_well(place, tmp_path, environment, arguments):
    first = str(sorted((place / "runs").iterdir())[0])
    filled = [str(tmp_path / one) if one in ("bundle", "p.png") else one.replace("runs/*", first) for one in arguments]
    out, _ = trainkit(place, environment, *filled)
    assert out.strip()
    if "--json" in arguments:
        json.loads(out)


@pytest.mark.parametrize("environment", [STRICT, C_LOCALE], ids=str)
def test_json_and_yaml_on_stdout_hold_the_names(place, environment):
    shown = json.loads(trainkit(place, environment, "config", "show", "c.yaml", "--json")[0])
    assert Path(shown["config"]["dataset"]["root"]).name == "データ"
    as_yaml, _ = trainkit(place, environment, "config", "show", "c.yaml")
    (place / "again.yaml").write_text(as_yaml, encoding="utf-8")
    assert load_config(place / "again.yaml").config == load_config(place / "c.yaml").config


@pytest.mark.parametrize("environment", [ASCII, C_LOCALE], ids=str)
def test_an_error_is_shown(place, environment):
    _, err = trainkit(place, environment, "check", "c.yaml", "--set", "model=猫", code=2)
    assert r"got '\u732b'" in err


@pytest.mark.slow
def test_files_are_utf8_in_any_locale(place):
    run = sorted((place / "runs").iterdir())[0]
    trainkit(place, C_LOCALE, "predict", str(run), "データ", "-o", "answers.csv")
    rows = list(csv.DictReader((place / "answers.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["label"] for row in rows} <= set(CLASSES)
    assert {Path(row["source"]).parent.name for row in rows} == set(CLASSES)
    trainkit(place, C_LOCALE, "train", "c.yaml", "--run-dir", "猫")
    (made,) = (place / "猫").iterdir()
    assert "猫" in (made / "train.log").read_text(encoding="utf-8")
    assert json.loads((made / "run.json").read_text(encoding="utf-8"))["class_names"] == sorted(CLASSES)
    assert read_json_lines(made / "metrics.jsonl")
    assert '/データ"' in (made / "config.resolved.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes there")
def test_names_that_are_no_utf8(place):
    """``b\\xe9.png`` and a folder ``caf\\xe9``, as older systems wrote them."""
    run = sorted((place / "runs").iterdir())[0]
    folder = os.fsdecode(os.fsencode(place) + b"/caf\xe9")
    os.mkdir(folder)
    file = os.fsdecode(b"b\xe9.png")
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(os.path.join(folder, file))
    utf8 = {"PYTHONIOENCODING": "utf-8"}
    out, _ = trainkit(place, utf8, "predict", str(run), folder)
    assert r"caf\udce9/b\udce9.png" in out
    out, _ = trainkit(place, utf8, "predict", str(run), folder, "--json")
    assert json.loads(out)["predictions"][0]["source"].endswith(file)
    trainkit(place, utf8, "predict", str(run), folder, "-o", os.path.join(folder, "p.csv"))
    assert r"b\udce9.png" in Path(folder, "p.csv").read_text(encoding="utf-8")
    trainkit(place, utf8, "train", "c.yaml", "--run-dir", folder)
    (made,) = (one for one in Path(folder).iterdir() if one.is_dir())
    assert r"caf\udce9" in (made / "train.log").read_text(encoding="utf-8")

"""``--data-root``: data that were moved after the training, in every command that reads them."""

import json
import shutil

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.config import at_data_root, load_config
from trainkit.system import newest_run

TABLE = """dataset: {type: table, path: data/t.csv, test_path: data/u.csv, target: y, task: classification}
model: {type: mlp, hidden_sizes: [4]}
training: {epochs: 1, batch_size: 16}
logging: {plots: false}
"""


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    shown = result.output if result.exception is None else f"{result.output}{result.exception}"
    assert (result.exit_code if result.exit_code != 1 or result.exception is None else 2) == code, shown
    return shown


def test_moved_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("t", "u"):
        rows = [f"{number % 7},{number % 2},{number % 2}" for number in range(60)]
        (tmp_path / "data" / f"{name}.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")
    (tmp_path / "c.yaml").write_text(TABLE)
    invoke("train", "c.yaml", "-q")
    shutil.move("data", "elsewhere")

    assert "t.csv" in invoke("eval", "--no-plots", code=2)
    invoke("eval", "--no-plots", "--data-root", "elsewhere")
    invoke("export", "--safetensors", "--data-root", "elsewhere")
    page = newest_run("runs").path / "report.html"
    page.unlink()
    assert "no-such" in invoke("report", "--data-root", "no-such", code=2)
    assert not page.exists(), "a wrong folder is an error, not a page without scores"
    invoke("report", "--data-root", "elsewhere")
    assert 'href="#network"' in page.read_text()
    name = newest_run("runs").path.name
    invoke("resume", name, "--set", "training.epochs=2", "--data-root", "elsewhere", "-q")
    stored = json.loads((newest_run("runs").path / "run.json").read_text())["config"]["dataset"]
    assert stored["path"] == str(tmp_path / "elsewhere" / "t.csv")
    assert stored["test_path"] == str(tmp_path / "elsewhere" / "u.csv")
    invoke("eval", "--no-plots")  # the run knows the new place now
    invoke("train", "c.yaml", "--data-root", "elsewhere", "-q")


def test_moved_pictures_and_data_without_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("dataset: {type: image_folder, root: gone}\nmodel: mlp\n")
    for label in ("a", "b"):
        (tmp_path / "now" / label).mkdir(parents=True)
        for number in range(10):
            pixels = np.full((8, 8), 10 * number + 100 * (label == "b"), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "now" / label / f"{number}.png")
    assert at_data_root(load_config("c.yaml").config, "now/").dataset.root == str(tmp_path / "now")
    invoke("train", "c.yaml", "--dry-run", "--data-root", "now")
    refused = invoke("train", "digits_mlp", "--dry-run", "--data-root", "now", code=2)
    assert "--data-root now: the data set digits has no files; leave it out" in refused
    assert "is not a folder but a file" in invoke("train", "c.yaml", "--dry-run", "--data-root", "c.yaml", code=2)

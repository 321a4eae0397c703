"""What a server says is what ``trainkit predict`` says: of 1,000 pictures, of 1,000 rows, whatever the batches are."""

import json
import os
import random
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import Server, form

from trainkit.api import export
from trainkit.config import load_config
from trainkit.workflows.predict import predict
from trainkit.workflows.train.run import train

pytestmark = pytest.mark.slow
ENDING = "training: {epochs: 1, batch_size: 64}\nlogging: {plots: false}\nexport: {torchscript: false}\n"
PICTURES = """
dataset: {{type: image_folder, root: {folder}, val_fraction: 0.2}}
transforms: [{{type: resize, size: 20}}, {{type: center_crop, size: 16}}]
model: {{type: cnn, blocks: [{{channels: 4, kernel_size: 3, pool: 4}}]}}
"""
ROWS = """
dataset: {{type: table, path: {folder}/t.csv, target: y}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: [8]}}
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """(checkpoint, bundle, 1,000 files): of several sizes, gray and color, PNG and JPEG, some of them broken."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(1000):
        shape = (int(rng.integers(20, 60)), int(rng.integers(20, 60)), 3)
        tint = rng.integers(0, 200, 3) // (1 + 3 * (np.arange(3) != number % 3))
        image = Image.fromarray((rng.integers(0, 56, shape) + tint).astype(np.uint8))
        path = folder / "train" / ["red", "green", "blue"][number % 3] / f"{number:04}.{('png', 'jpg')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if number % 10 == 7 else image).save(path)
    (folder / "c.yaml").write_text(PICTURES.format(folder=folder) + ENDING)
    checkpoint, bundle = trained(folder)
    files = sorted((folder / "train").rglob("*.*g"))
    for path in files[::97]:
        path.write_bytes(path.read_bytes()[:60])
    return checkpoint, bundle, files


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """(checkpoint, bundle, CSV file of 1,000 rows): numbers, categories and dates, some missing, some unknown."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    lines = ["price,shop,day,y"]
    for number in range(1000):
        price = "" if number % 50 == 3 else f"{rng.normal(100, 30):.2f}"
        lines.append(
            f"{price},{rng.choice(['north', 'south', ''])},2024-{1 + number % 12:02}-17,{rng.choice(['a', 'b'])}"
        )
    (folder / "t.csv").write_text("\n".join(lines))
    (folder / "c.yaml").write_text(ROWS.format(folder=folder) + ENDING)
    checkpoint, bundle = trained(folder)
    lines[40], lines[60] = "1,east,2024-01-01,a", "1.000.5,north,2024-01-01,a"
    (folder / "t.csv").write_text("\n".join(lines))
    return checkpoint, bundle, folder / "t.csv"


def trained(folder: Path) -> tuple[Path, Path]:
    best = train(load_config(folder / "c.yaml"), runs_dir=folder / "runs").best_checkpoint
    return best, export(best, formats=("onnx", "torchscript"), output=folder / "bundle", triton=True).bundle


def expected(checkpoint: Path, inputs: list[Path]) -> list[dict]:
    return [one.as_json() for one in predict(checkpoint, inputs, top_k=3)]


def check(found: list[dict], wanted: list[dict]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() - {"filled"} == other.keys()
        if "error" in other:
            assert one["error"] == other["error"]
            continue
        assert one["label"] == other["label"]
        given = {pair["label"]: pair["probability"] for pair in one["top"]}
        assert given == pytest.approx({pair["label"]: pair["probability"] for pair in other["top"]}, abs=1e-5)


def ask_in_groups(server: Server, files: list[Path]) -> list[dict]:
    """The answers to files that come in requests of 1 to 40 from eight clients."""
    sizes = random.Random(0)
    groups, start = [], 0
    while start < len(files):
        groups.append(files[start : start + sizes.choice([1, 1, 1, 3, 7, 40])])
        start += len(groups[-1])

    def ask(group: list[Path]) -> list[dict]:
        body, kind = form(*((path.name, path.read_bytes()) for path in group))
        return server.predict(body, content_type=kind)[1]["predictions"]

    with ThreadPoolExecutor(8) as pool:
        return [one for answer in pool.map(ask, groups) for one in answer]


@pytest.mark.parametrize("which", ["bundle", "model.pt", "checkpoint"])
def test_a_thousand_pictures(pictures, which):
    checkpoint, bundle, files = pictures
    model = {"bundle": bundle, "model.pt": bundle / "model.pt", "checkpoint": checkpoint}[which]
    with Server(model, "--max-batch", "24") as server:
        check(ask_in_groups(server, files), expected(checkpoint, files))
        assert server.metric("trainkit_batch_size_count") < 1000
        assert server.metric("trainkit_batch_size_sum") == 989


@pytest.mark.parametrize("which", ["bundle", "checkpoint"])
def test_a_thousand_rows(rows, which):
    checkpoint, bundle, path = rows
    wanted = expected(checkpoint, [path])
    header, *lines = path.read_text().splitlines()
    cells = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    with Server(bundle if which == "bundle" else checkpoint) as server:
        found = server.predict(path.read_bytes())[1]["predictions"]
        check(found, wanted)
        assert [bool(one.get("filled")) for one in found if "error" not in one] == [
            not row["price"] or row["shop"] not in ("north", "south") for row in cells if row["price"] != "1.000.5"
        ]
        places = [one["source"].rpartition(":")[2] for one in found]
        assert places == [one["source"].rpartition(":")[2] for one in wanted]
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda start: server.predict(json.dumps(cells[start : start + 9])), range(0, 1000, 9))
            check([one for _, answer in answers for one in answer["predictions"]], wanted)


def test_serve_py_in_an_environment_of_its_own(pictures, tmp_path):
    """Without trainkit and torch."""
    checkpoint, bundle, files = pictures
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [python, "-m", "pip", "install", "-q", "-r", bundle / "requirements.txt"]
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be installed here: {done.stderr.strip().splitlines()[-1]}")
    program = "import trainkit.__main__, torch"
    assert subprocess.run([python, "-P", "-c", program], env=environment, capture_output=True, check=False).returncode
    command = ("env", "-u", "PYTHONPATH", python, bundle / "serve.py")
    with Server(command=command) as server:
        check(ask_in_groups(server, files[:100]), expected(checkpoint, files[:100]))
        assert "trainkit" not in server.ask("GET", "/info")[1]["versions"]
        assert server.stop() == 0
    assert "from trainkit" not in "".join(path.read_text() for path in bundle.glob("*.py"))
    verify = [sys.executable, "-m", "trainkit", "export", "--verify", bundle]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0


def test_the_model_repository_of_triton(pictures):
    _, bundle, _ = pictures
    [folder] = (bundle / "triton").iterdir()
    assert (folder / "1" / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert (folder / "labels.txt").read_text().split() == ["blue", "green", "red"]
    assert (folder / "config.pbtxt").read_text().splitlines() == [
        f'name: "{folder.name}"',
        'backend: "onnxruntime"',
        "max_batch_size: 64",
        'input [{ name: "images", data_type: TYPE_UINT8, dims: [3, 16, 16] }]',
        'output [{ name: "probabilities", data_type: TYPE_FP32, dims: [3], label_filename: "labels.txt" }]',
        "dynamic_batching {}",
        "instance_group [{ kind: KIND_AUTO }]",
    ]

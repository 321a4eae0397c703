"""The README's table "What to type", typed: every command in it, in its order, in one folder with small data."""

import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SERVERS = ("serve", "ui")


def commands() -> list[str]:
    """The command lines in the second column of the table."""
    table = (ROOT / "README.md").read_text().partition("## What to type")[2].partition("\n## ")[0]
    cells = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    return [span for cell in cells for span in re.findall(r"`(trainkit [^`]+)`", cell)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """photos/, flights.csv, new.csv, a sweep, and the example of a plug-in."""
    folder = tmp_path_factory.mktemp("work")
    generator = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(15):
            pixels = generator.integers(100 * label, 100 * label + 100, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{index}.png")
    rows = [(distance, carrier) for distance in range(60) for carrier in "AB"[distance % 2]]
    lines = [f"{distance},{carrier},{distance / 7 + (carrier == 'A')}" for distance, carrier in rows]
    (folder / "flights.csv").write_text("\n".join(["distance,carrier,arr_delay", *lines]))
    (folder / "new.csv").write_text("distance,carrier\n10,A\n20,B\n")
    search = "search: {optimizer.lr: {choice: [0.001, 0.003]}}"
    (folder / "lr.yaml").write_text(f"config: photos.yaml\nobjective: val_accuracy\n{search}\nsampler: grid\n")
    for file in ("acme.py", "train.yaml"):
        shutil.copy(ROOT / "examples" / "plugin" / file, folder)
    return folder


def run_of(folder: Path, name: str) -> str:
    return max(path.name for path in (folder / "runs").glob(f"*_{name}*"))


def arguments(line: str, folder: Path) -> list[str]:
    """The words of a command, with names of this folder for the words in capitals."""
    words = line.split()[1:]
    here = {"CONFIG": "train.yaml" if "--plugin" in words else "photos.yaml", "SWEEP.yaml": "lr.yaml"}
    for index, word in enumerate(words):
        if word == "RUN":
            words[index] = run_of(folder, "flights")
        elif word in ("A", "B"):
            words[index] = sorted(path.name for path in (folder / "runs").glob("*_photos*"))[("A", "B").index(word)]
        else:
            words[index] = here.get(word, word)
    return [sys.executable, "-m", "trainkit", *words, *(["--port", "0"] if words[0] in SERVERS else [])]


def answers(arguments: list[str], folder: Path) -> None:
    """Start a server, open its page, and stop it."""
    with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            assert child.stdout is not None
            said = ""
            while not (found := re.search(r"http://[\d.]+:\d+", said)):
                line = child.stdout.readline()
                assert line, said
                said += line
            for _ in range(100):
                try:
                    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                    assert direct.open(found[0]).status == 200
                    break
                except OSError:
                    time.sleep(0.2)
        finally:
            child.send_signal(signal.SIGTERM)


def crash(folder: Path) -> None:
    """Begin a run and kill it in the middle."""
    command = [sys.executable, "-m", "trainkit", "train", "photos.yaml"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        while not child.stderr.readline().lstrip().startswith(("epoch   2/", "epoch  2/", "epoch 2/")):
            assert child.poll() is None
        child.kill()


@pytest.mark.slow
def test_the_table_can_be_typed_from_top_to_bottom(folder):
    typed = commands()
    kinds = {line.split()[1] for line in typed}
    assert kinds >= {"init", "train", "predict", "serve", "resume", "export", "lr-find", "sweep", "ui", "cv", "runs"}
    for line in typed:
        words = arguments(line, folder)
        if line == "trainkit resume":
            crash(folder)
        if line.split()[1] in SERVERS:
            answers(words, folder)
            continue
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, line

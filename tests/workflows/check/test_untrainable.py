"""Every config of untrainable.yaml is valid YAML and cannot be trained: found with its place, before any step."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trainkit.config import load_config
from trainkit.engine import step
from trainkit.errors import ProblemsError
from trainkit.workflows.check.run import check
from trainkit.workflows.train.run import train

CASES = yaml.load((Path(__file__).parent / "untrainable.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
MARK = "‸"


def write_files(files: dict) -> None:
    """Text as it is; for a folder the sizes of the gray images in it: ``[8, 12]`` is 8 x 8 and 12 x 8 pixels."""
    for name, content in files.items():
        path = Path(name)
        if isinstance(content, str):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            continue
        path.mkdir(parents=True, exist_ok=True)
        for index, height in enumerate(content):
            Image.fromarray(np.full((height, 8), 10 * index + len(name), dtype=np.uint8)).save(path / f"{index}.png")


def without_marks(text: str) -> tuple[str, list[str]]:
    """The text without its marks, and the line and column of each: ``3:5``."""
    places = []
    while MARK in text:
        at = text.index(MARK)
        text = text[:at] + text[at + 1 :]
        places.append(f"{text.count(chr(10), 0, at) + 1}:{at - text.rfind(chr(10), 0, at)}")
    return text, places


def everything_in(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def steps(monkeypatch):
    """Optimizer steps taken, by any optimizer."""
    taken: list[object] = []

    def seen(*arguments: object) -> None:
        taken.append(arguments)

    monkeypatch.setattr(step, "take_step", seen)
    hook = register_optimizer_step_pre_hook(seen)
    yield taken
    hook.remove()


def test_a_step_would_be_seen(tmp_path, monkeypatch, steps) -> None:
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "c.yaml").write_text("dataset: {type: iris}\nmodel: {type: mlp}\ntraining: {epochs: 1}\n")
    train(load_config(tmp_path / "c.yaml"), runs_dir=tmp_path / "runs")
    assert steps


def prepare(case: dict, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write the case's files into ``folder``; returns the places that the errors must have."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRAINKIT_CACHE", str(folder / "cache"))
    text, marks = without_marks(case["config"])
    Path("c.yaml").write_text(text, encoding="utf-8")
    write_files(case.get("files", {}))
    return [f"c.yaml:{mark}" for mark in marks] or ["c.yaml"]


def shown(problems) -> list[str]:
    """What is this machine's own is replaced by #: its devices, its free memory; the folder of the test is left out."""
    texts = [f"{problem.key}: {problem.message}".replace(f"{Path.cwd()}/", "") for problem in problems]
    for pattern in (r"(?<=; )[^;]*this machine has [^;]*(?=;)", r"[\d.]+ [TGM]B(?=( are)? free)", r"\d+ at most.*"):
        texts = [re.sub(pattern, "#", text) for text in texts]
    return texts


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_found_before_any_step(case, tmp_path, monkeypatch, steps) -> None:
    places = prepare(case, tmp_path, monkeypatch)
    before = everything_in(tmp_path)

    with pytest.raises(ProblemsError) as caught:
        check(load_config("c.yaml"))

    problems = caught.value.problems
    assert shown(problems) == case["errors"]
    assert [str(problem.place) for problem in problems] == places
    assert caught.value.exit_code == 2
    assert not steps
    assert everything_in(tmp_path) == before


def test_there_are_enough_kinds() -> None:
    assert len(CASES) >= 50
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", ["pooled until nothing is left", "several at once", "a missing cell"])
def test_train_says_the_same(name, tmp_path, monkeypatch, steps) -> None:
    case = next(case for case in CASES if case["name"] == name)
    places = prepare(case, tmp_path, monkeypatch)

    with pytest.raises(ProblemsError) as caught:
        train(load_config("c.yaml"))

    assert shown(caught.value.problems) == case["errors"]
    assert [str(problem.place) for problem in caught.value.problems] == places
    assert not steps
    assert not Path("runs").exists()


def test_a_good_config_next_to_them_passes(tmp_path, monkeypatch, steps) -> None:
    case = next(case for case in CASES if case["name"] == "pooled until nothing is left")
    prepare(case, tmp_path, monkeypatch)
    before = everything_in(tmp_path)
    found = check(load_config("c.yaml", overrides=["model.blocks[3].pool=1"]))
    assert found.rows[-1].output_shape == (10,)
    assert not steps
    assert everything_in(tmp_path) == before
    assert torch.is_grad_enabled()
    assert os.listdir() == ["c.yaml"]

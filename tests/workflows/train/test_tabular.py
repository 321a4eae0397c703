"""tabular_mlp from a file with gaps and categories to its answers, alone and with members."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainkit.api import evaluate
from trainkit.config import load_config
from trainkit.workflows.train.run import train

pytestmark = pytest.mark.usefixtures("fast_runs")


def write(path: Path, count: int = 400, seed: int = 0) -> Path:
    """A class that only number and category together tell, with gaps in both and many cities that say nothing."""
    rng = np.random.default_rng(seed)
    number, side, city = rng.normal(size=count), rng.integers(0, 3, count), rng.integers(0, 15, count)
    label = np.where((number > 0) == (side == 1), "yes", "no")
    lines = ["number,side,city,label"]
    for row in range(count):
        cells = [f"{number[row]:.4f}", "abc"[side[row]], f"city{city[row]}", str(label[row])]
        if row % 40 == 0:
            cells[row // 40 % 3] = ""
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("members", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_table_with_gaps_is_learned_and_scored_the_same_later(
    tmp_path: Path, forked_checks: None, members: int
) -> None:
    path = write(tmp_path / "table.csv")
    config = {
        "dataset": {"type": "table", "path": str(path), "target": "label"},
        "model": {"type": "tabular_mlp", "members": members, "hidden_sizes": [32, 32]},
        "training": {"epochs": 128},
        "logging": {"plots": False},
        "export": {"torchscript": True},
        "device": "cpu",
    }
    result = train(load_config(config), runs_dir=tmp_path / "runs")
    assert result.metrics["test"]["accuracy"] > 0.9
    again = evaluate(result.best_checkpoint, split="test")
    for name, value in result.metrics["test"].items():
        assert again.metrics[name] == pytest.approx(value), name
    [parity] = result.run.path.rglob("parity.json")
    assert json.loads(parity.read_text())["passed"]

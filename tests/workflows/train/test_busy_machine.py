"""A run beside programs that keep every core busy says so, and trains as ever."""

import subprocess
import sys

import pytest

from trainkit.config import load_config
from trainkit.system import Frontend, count_cores
from trainkit.workflows.train import train

# Preparing it takes some tenths of a second, in which others can be heard.
CONFIG = """
dataset: {type: synthetic, problem: moons, num_samples: 1000000}
model: {type: mlp, hidden_sizes: [2]}
training: {epochs: 1, batch_size: 100000}
export: {torchscript: false}
logging: {plots: false}
"""


@pytest.mark.slow  # it keeps every core busy
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")
def test_a_busy_machine_is_said_in_one_line(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    loaded = load_config(tmp_path / "config.yaml", overrides=[f"training.num_threads={count_cores()}"])
    said: list[str] = []
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count_cores())]
    try:
        train(loaded, runs_dir=tmp_path / "runs", frontend=Frontend(say=said.append))
    finally:
        for other in others:
            other.kill()
            other.wait()
    [line] = [line for line in said if "machine is busy" in line]
    assert line.startswith("note: the machine is busy: other programs keep ")
    assert line.endswith("training.num_threads=1 may be faster") == (count_cores() > 1)

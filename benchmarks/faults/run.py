"""The same fault in trainkit and in what people use today: who says it, when, and in which words.

    python -m pip install '.[bench]' && python benchmarks/faults/run.py [--only FAULT] [--tools trainkit,lightning]

Each fault is planted as its users write code (for trainkit: a config), and each try is a process of its own. What a
tool has no counterpart for is left empty. The result is the table of docs/compare.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS = {
    "trainkit": ("with_trainkit.py", "trainkit"),
    "PyTorch loop": ("loop.py", "torch"),
    "Lightning": ("with_lightning.py", "lightning"),
    "Ignite": ("with_ignite.py", "pytorch-ignite"),
    "Keras": ("with_keras.py", "keras"),
    "skorch": ("with_skorch.py", "skorch"),
}
"""The file with its tries, and the package whose version is named."""
FAULTS = {
    "misspelt_key": "a key is misspelt (`wieght_decay`)",
    "misspelt_metric": "the metric to watch is misspelt (`val_acuracy`)",
    "wrong_shape": "the network does not fit the data (63 inputs for 64)",
    "softmax_twice": "softmax before cross-entropy (Keras: none where it is needed)",
    "label_out_of_range": "a label is none (10 of 0 to 9; in a table `bad`)",
    "nan_target": "one value to predict is NaN",
    "nan_input": "one input is NaN (in a table `inf`)",
    "high_learning_rate": "the learning rate is 1e20",
    "class_missing_from_val": "a class has no folder in val/",
    "flipped_bit": "one bit of the saved weights has flipped",
    "payload": "a checkpoint from somebody else holds code",
    "killed_and_resumed": "killed after 2 of 4 epochs and resumed: the weights of a run that was not?",
}
LATER = ("flipped_bit", "payload", "killed_and_resumed")
"""Faults that come when the training is over."""


def attempt(file: str, fault: str) -> str:
    """Run a try, and put into words what its user sees."""
    program = Path(__file__).with_name(file)
    if f"def {fault}(" not in program.read_text():
        return ""
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, str(program), fault]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=900, env=environment)
    lines = done.stdout.splitlines()
    if done.returncode == 0:
        return next((line.removeprefix("silent: ") for line in lines if line.startswith("silent: ")), "not a word")
    when = "" if fault in LATER else " while training" if "first batch" in lines else " before the first batch"
    return f"error{when}: `{first_line(done.stderr)}`"


def first_line(stderr: str) -> str:
    """What a user reads first: trainkit's error, or the last line of a traceback."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("error:")]
    last = next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)), lines[-1])
    text = re.sub(r"/tmp/\w+/", "", " ".join((own[0] if own else last).split())).replace("|", "\\|").replace("`", "'")
    return text if len(text) <= 150 else text[:147] + "..."


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=FAULTS, help="one fault alone")
    parser.add_argument("--tools", default=",".join(TOOLS))
    arguments = parser.parse_args()
    tools = {name: TOOLS[name] for name in arguments.tools.split(",")}
    print(", ".join(f"{name} {importlib.metadata.version(package)}" for name, (_, package) in tools.items()))
    print(f"\n| | {' | '.join(tools)} |\n|---|{'---|' * len(tools)}")
    for fault, told in FAULTS.items():
        if arguments.only in (None, fault):
            cells = [attempt(file, fault) for file, _ in tools.values()]
            print(f"| {told} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

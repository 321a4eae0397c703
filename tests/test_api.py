"""The commands as functions of the package, in a process of their own."""

import subprocess
import sys

import pytest

PROGRAM = """
import gc, sys
before = gc.get_threshold()
import trainkit
assert "torch" not in sys.modules
loaded = trainkit.load_config(sys.argv[1], overrides=["training.epochs=1"])
result = trainkit.train(loaded, runs_dir=trainkit_runs)
scores = trainkit.evaluate(result.best_checkpoint, split="test").metrics
assert scores["accuracy"] == result.metrics["test"]["accuracy"], scores
runs = trainkit_runs
assert trainkit.resume(type(runs)(result.run.path)) is None
more = trainkit.resume(result.run.path.name, runs_dir=runs, overrides=["training.epochs=2"])
again = trainkit.train(loaded, runs_dir=runs, init_from=type(runs)(more.best_checkpoint))
fork = trainkit.train(loaded, runs_dir=runs, resume=type(runs)(result.best_checkpoint))
rows = type(runs)(result.run.path) if isinstance(runs, str) else result.run.path
bundle = trainkit.export(rows, formats=("safetensors",), output=type(runs)(again.run.path / "bundle"), runs_dir=runs)
assert bundle.bundle.is_dir() and fork.epochs_completed == 1
open(sys.argv[1] + ".csv", "w").write("5.1,3.5,1.4,0.2\\n")
assert len(list(trainkit.predict(type(runs)(more.run.path), [type(runs)(sys.argv[1] + ".csv")]))) == 1
assert gc.isenabled() and gc.get_threshold() == before and gc.get_freeze_count() == 0
print("fine")
"""


@pytest.mark.parametrize("runs_dir", ["sys.argv[2]", "__import__('pathlib').Path(sys.argv[2])"], ids=["text", "Path"])
def test_train_and_evaluate_from_python(tmp_path, runs_dir):
    config = tmp_path / "config.yaml"
    config.write_text("dataset: iris\nmodel: {type: mlp, hidden_sizes: [4]}\nlogging: {plots: false}\n")
    program = PROGRAM.replace("trainkit_runs", runs_dir)
    command = [sys.executable, "-c", program, str(config), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr

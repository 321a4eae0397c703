"""The commands as functions of the package, in a process of their own."""

import subprocess
import sys

PROGRAM = """
import gc, sys
before = gc.get_threshold()
import trainkit
assert "torch" not in sys.modules
loaded = trainkit.load_config(sys.argv[1], overrides=["training.epochs=1"])
result = trainkit.train(loaded, runs_dir=trainkit_runs)
scores = trainkit.evaluate(result.best_checkpoint, split="test").metrics
assert scores["accuracy"] == result.metrics["test"]["accuracy"], scores
assert callable(trainkit.export) and callable(trainkit.predict) and callable(trainkit.resume)
assert gc.isenabled() and gc.get_threshold() == before and gc.get_freeze_count() == 0
print("fine")
"""


def test_train_and_evaluate_from_python(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("dataset: iris\nmodel: {type: mlp, hidden_sizes: [4]}\nlogging: {plots: false}\n")
    program = PROGRAM.replace("trainkit_runs", "__import__('pathlib').Path(sys.argv[2])")
    command = [sys.executable, "-c", program, str(config), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr

"""The commands as functions of the package, in a process of their own."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import trainkit

PROGRAM = """
import gc, sys
before = gc.get_threshold()
import trainkit
trainkit.load_config({"dataset": "iris", "model": "mlp"})
assert "torch" not in sys.modules
from trainkit import *
assert set(trainkit.__all__) <= set(dir(trainkit)) and ConfigError and train
loaded = trainkit.load_config(sys.argv[1], overrides=["training.epochs=1"])
result = trainkit.train(loaded, runs_dir=trainkit_runs)
scores = trainkit.evaluate(result.best_checkpoint, split="test").metrics
assert scores["accuracy"] == result.metrics["test"]["accuracy"], scores
runs = trainkit_runs
assert trainkit.resume(type(runs)(result.run.path)) is None
more = trainkit.resume(result.run.path.name, runs_dir=runs, overrides=["training.epochs=2"])
again = trainkit.train(loaded, runs_dir=runs, init_from=type(runs)(more.best_checkpoint))
longer = trainkit.load_config(sys.argv[1], overrides=["training.epochs=2"])
fork = trainkit.train(longer, runs_dir=runs, resume=type(runs)(result.best_checkpoint))
rows = type(runs)(result.run.path) if isinstance(runs, str) else result.run.path
bundle = trainkit.export(rows, formats=("safetensors",), output=type(runs)(again.run.path / "bundle"), runs_dir=runs)
assert bundle.bundle.is_dir() and fork.epochs_completed == 2
header = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)"
open(sys.argv[1] + ".csv", "w").write(header + "\\n5.1,3.5,1.4,0.2\\n")
[one] = trainkit.predict(type(runs)(more.run.path), [type(runs)(sys.argv[1] + ".csv")])
assert one.label in ("setosa", "versicolor", "virginica"), one
assert gc.isenabled() and gc.get_threshold() == before and gc.get_freeze_count() == 0
print("fine")
"""


@pytest.mark.parametrize(
    "runs_dir",
    ["sys.argv[2]", pytest.param("__import__('pathlib').Path(sys.argv[2])", marks=pytest.mark.slow)],
    ids=["text", "Path"],
)
def test_train_and_evaluate_from_python(tmp_path, runs_dir):
    config = tmp_path / "config.yaml"
    config.write_text("dataset: iris\nmodel: {type: mlp, hidden_sizes: [4]}\nlogging: {plots: false}\n")
    program = PROGRAM.replace("trainkit_runs", runs_dir)
    command = [sys.executable, "-c", program, str(config), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr


SCRIPT = """
import trainkit

seen: list[float] = []
lines: list[str] = []
result = trainkit.train({"dataset": "iris", "model": "mlp"}, log=lines.append, progress=lambda p: seen.append(p.done))
accuracy: float = trainkit.evaluate(result, split="test").metrics["accuracy"]
labels: list[str | None] = [one.label for one in trainkit.predict(result, "flowers.csv")]
module = trainkit.load_model(result).model.eval()
try:
    trainkit.export(result, formats="onnx")
except trainkit.UserError as error:
    print(error, module)
"""


@pytest.mark.slow
def test_the_wheel_tells_type_checkers_the_types_of_the_api(tmp_path):
    pytest.importorskip("hatchling")
    root = Path(__file__).parents[1]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    [sdist] = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        files = {name.partition("/")[2] for name in packed.getnames()}
    names = {file.split("/")[0] for file in files}
    assert {"src", "configs", "tests", "docs", "LICENSE", "pyproject.toml", "PKG-INFO"} <= names
    assert not names & {"data", "cv", "sweeps", "dist", ".git"}
    assert not [file for file in files if file.startswith("runs/") and file != "runs/README.md"]
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert {"trainkit/py.typed", "trainkit/configs/digits_mlp.yaml"} <= set(packed.namelist())
        packed.extractall(tmp_path / "site")
    found = {}
    for name, text in (("right", SCRIPT), ("wrong", f"{SCRIPT}split: int = trainkit.evaluate(result).split\n")):
        (tmp_path / f"{name}.py").write_text(text)
        check = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", f"{name}.py"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        found[name] = subprocess.run(check, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert found["right"].returncode == 0, found["right"].stdout
    assert 'expression has type "str", variable has type "int"' in found["wrong"].stdout


def test_errors_are_a_tree_of_two_kinds():
    assert issubclass(trainkit.ConfigError, trainkit.ProblemsError)
    for error in (trainkit.ProblemsError, trainkit.DataError, trainkit.CheckpointError):
        assert issubclass(error, trainkit.UserError)
    for error in (trainkit.UserError, trainkit.Interrupted, trainkit.ExportError):
        assert issubclass(error, trainkit.TrainkitError)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trainkit.train(42), "config: expected a file, a dict or what load_config returned, got int"),
        (lambda: trainkit.train({}), "<dict>: dataset: missing"),
        (lambda: trainkit.train("no.yaml"), "no.yaml: there is no such file"),
        (lambda: trainkit.train("digits_mlp", config_dir="x"), "config_dir is for a config given as a dict"),
        (lambda: trainkit.train("digits_mlp", overrides="seed=x"), "--set seed=x: seed: expected a whole number"),
        (
            lambda: trainkit.train("digits_mlp", overrides=[3]),
            "overrides: expected text such as optimizer.lr=0.1, got 3",
        ),
        (
            lambda: trainkit.train(trainkit.load_config("digits_mlp"), overrides=["seed=1"]),
            "overrides go with a file or a dict, and this config is loaded already",
        ),
        (lambda: trainkit.evaluate("no_run"), "no_run: no such file, and no run of this name"),
        (lambda: trainkit.load_model("no.pth"), "no.pth"),
        (
            lambda: trainkit.export("no_run", formats="onx"),
            "formats: expected one of torchscript, pt2, onnx, safetensors, got 'onx'; did you mean onnx?",
        ),
        (lambda: trainkit.export("no_run", formats=["onnx", "tf"]), "got 'tf'"),
        (lambda: trainkit.export("no_run", quantize="int8"), "quantize: expected one of dynamic, static, got 'int8'"),
        (lambda: trainkit.predict("no_run", "x.png"), "no_run: no such file, and no run of this name"),
    ],
)
def test_wrong_arguments_are_user_errors(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(trainkit.UserError) as error:
        call()
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []

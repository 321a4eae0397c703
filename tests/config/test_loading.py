"""From text to a checked config: values, origins, places, the way back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.config import Config, config_from_dict, load_config
from trainkit.config.text.writer import to_yaml
from trainkit.errors import ConfigError, Problem

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
TEXT = """\
dataset: digits
model:
  type: sequential
  layers:
    - Flatten
    - {type: Linear, out_features: 10}
optimizer: {type: sgd, lr: 0.1}
training: {early_stopping: {patience: 2}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "my run!.yaml"
    path.write_text(TEXT)
    return path


def test_what_is_loaded(path: Path) -> None:
    loaded = load_config(path, overrides=["seed=3"], unset=["optimizer.lr"])
    assert isinstance(loaded.config, Config)
    assert loaded.path == path
    assert loaded.text == TEXT
    assert loaded.overrides == ("--unset optimizer.lr", "--set seed=3")
    assert loaded.name == "my_run_"
    assert load_config(path, overrides=["name=a.b-c"]).name == "a.b-c"


def test_origins_say_default_file_and_line_or_override(path: Path) -> None:
    loaded = load_config(path, overrides=["training.epochs=3", "optimizer.momentum=0.9"])
    origins = {key: str(origin) for key, origin in loaded.origins.items()}
    assert origins["seed"] == "default"
    assert origins["dataset.type"] == f"{path}:1"
    assert origins["dataset.val_fraction"] == "default"
    assert origins["model.layers[0].type"] == f"{path}:5"
    assert origins["model.layers[1].out_features"] == f"{path}:6"
    assert origins["optimizer.lr"] == f"{path}:7"
    assert origins["optimizer.momentum"] == "--set optimizer.momentum=0.9"
    assert origins["training.epochs"] == "--set training.epochs=3"
    assert origins["training.early_stopping.patience"] == f"{path}:8"


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("model.layers[1].out_features", "6:36"),  # the value
        ("model.layers[1].in_features", "6:7"),  # left out: the layer
        ("model.layers[0].type", "5:7"),  # short for {type: Flatten}
        ("model.layers[7]", "4:3"),
        ("training.batch_size", "8:1"),
        ("dataset.val_fraction", "1:10"),
    ],
)
def test_a_problem_gets_the_place_of_the_nearest_key(path: Path, key: str, place: str) -> None:
    located = load_config(path).locate(Problem("does not fit", key=key))
    assert str(located) == f"{path}:{place}: {key}: does not fit"


def test_a_problem_without_a_place_stays_without(path: Path) -> None:
    loaded = load_config(path)
    for problem in (Problem("x"), Problem("x", key="logging.every"), Problem("x", key="not a path ][")):
        assert loaded.locate(problem) == problem


@pytest.mark.parametrize("config", CONFIGS, ids=[config.stem for config in CONFIGS])
def test_the_resolved_config_loads_to_the_same(config: Path, tmp_path: Path) -> None:
    loaded = load_config(config)
    again = tmp_path / "resolved.yaml"
    again.write_text(to_yaml(loaded.resolved()), encoding="utf-8")
    reloaded = load_config(again)
    assert reloaded.config == loaded.config
    assert reloaded.resolved() == loaded.resolved()
    assert config_from_dict(loaded.resolved(), where="checkpoint").model_dump() == loaded.config.model_dump()
    assert set(loaded.origins) == set(reloaded.origins)
    assert "default" not in {str(origin) for origin in reloaded.origins.values()}


def test_a_stored_config_that_does_not_hold_names_what_holds_it() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"dataset": "digits", "model": "mlp", "seed": -1}, where="best.pth")
    expected = "expected a whole number of at least 0 and below 2^63, got -1; the default is 0"
    assert str(caught.value) == f"best.pth: seed: {expected}"


def floats(low: float, high: float, **options: bool) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, **options)


NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789._-", min_size=1, max_size=64).filter(
    lambda s: s[0] not in ".-"
)
PROBABILITIES = floats(0, 1)
FRACTIONS = floats(0, 1, exclude_max=True)
POSITIVE = floats(0, 1e300, exclude_min=True)
COUNTS = st.integers(1, 2**40)


@st.composite
def configs(draw: st.DrawFn) -> dict:
    """A config with random explicit values in every kind of field, all of which are valid together."""
    return {
        "name": draw(NAMES),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "device": draw(st.sampled_from(["auto", "cpu", "cuda", "mps", "cuda:3"])),
        "dataset": {
            "type": "table",
            "path": draw(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)),
            "target": draw(
                st.sampled_from(["y", "no", "1:30", "1e3", "null", "~", "a b", "ü: #", " x ", "- y", "true", "<<"])
            ),
            "val_fraction": draw(FRACTIONS.filter(lambda value: value > 0)),
            "delimiter": draw(st.sampled_from([",", ";", "\t", " ", ":", "#"])),
        },
        "model": {
            "type": "mlp",
            "hidden_sizes": draw(st.lists(COUNTS, max_size=4)),
            "dropout": draw(PROBABILITIES),
            "init": {"type": "orthogonal", "gain": draw(POSITIVE)},
        },
        "optimizer": {
            "type": "adamw",
            "lr": draw(POSITIVE),
            "betas": draw(st.lists(FRACTIONS, min_size=2, max_size=2)),
            "weight_decay": draw(floats(0, 1e300)),
            "amsgrad": draw(st.booleans()),
        },
        "scheduler": {"type": "cosine", "eta_min": draw(floats(0, 1)), "warmup": draw(st.sampled_from(["1ep", "3st"]))},
        "training": {
            "epochs": draw(st.integers(2, 2**40)),
            "batch_size": draw(COUNTS),
            "shuffle": draw(st.booleans()),
            "clip_grad_norm": draw(POSITIVE | st.none()),
            "compile": draw(st.booleans() | st.sampled_from(["default", "max-autotune"])),
        },
        "checkpoint": {"every": draw(st.sampled_from([1, "2ep", "10st", "3min"])), "keep_last": draw(COUNTS)},
    }


def same(given: object, loaded: object) -> bool:
    """Equal with equal types; whole numbers may stand for floats."""
    if isinstance(given, dict):
        return all(same(value, getattr(loaded, key)) for key, value in given.items())
    if isinstance(given, list):
        assert isinstance(loaded, list)
        return len(given) == len(loaded) and all(map(same, given, loaded))
    return given == loaded and (type(given) is type(loaded) or (type(given), type(loaded)) == (int, float))


@settings(deadline=None)
@given(values=configs())
def test_what_was_written_is_what_is_loaded(values: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "values.yaml"
    path.write_text(to_yaml(values), encoding="utf-8")
    loaded = load_config(path)
    for key in {"root", "path"} & set(values["dataset"]):
        values["dataset"][key] = os.path.normpath(path.parent.resolve() / values["dataset"][key])
    assert same(values, loaded.config)
    path.write_text(to_yaml(loaded.resolved()), encoding="utf-8")
    assert load_config(path).config == loaded.config


def test_reading_configs_imports_no_heavy_library(path: Path) -> None:
    program = (
        "import sys; from trainkit.config import load_config; load_config(sys.argv[1])\n"
        "heavy = {'torch', 'numpy', 'rich', 'typer', 'sklearn', 'torchvision', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

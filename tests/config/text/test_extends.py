"""``extends:`` merges, and says where each value came from."""

import os
from pathlib import Path

import pytest

from trainkit.config import load_config
from trainkit.errors import ConfigError

BASE = """\
dataset: {type: digits, val_fraction: 0.2}
model: {type: mlp, hidden_sizes: [32, 16], dropout: 0.1}
optimizer: {type: sgd, lr: 0.1, momentum: 0.9}
loss: cross_entropy
training: {epochs: 3, batch_size: 8}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "run.yaml"


def errors(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return [str(problem).replace(f"{path.parent}{os.sep}", "") for problem in caught.value.problems]


def test_mappings_merge_and_everything_else_replaces(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        base=BASE,
        run="extends: base.yaml\ntraining: {epochs: 5}\nmodel: {hidden_sizes: [8]}\noptimizer: {lr: 0.2}\n",
    )
    config = load_config(path).config
    assert (config.training.epochs, config.training.batch_size) == (5, 8)
    assert (config.model.hidden_sizes, config.model.dropout) == ([8], 0.1)
    assert (config.optimizer.lr, config.optimizer.momentum) == (0.2, 0.9)
    assert config.dataset.val_fraction == 0.2


def test_another_type_replaces_the_choice(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE, run="extends: base.yaml\noptimizer: {type: adam, lr: 0.2}\n")
    assert load_config(path).config.optimizer.model_dump(exclude_none=True) | {"lr": None} == {
        "type": "adam", "lr": None, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False,
    }  # fmt: skip
    path.write_text("extends: base.yaml\noptimizer: adam\n")
    assert load_config(path).config.optimizer.lr == 0.001


def test_knobs_complete_a_bare_name(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE, run="extends: base.yaml\nloss: {label_smoothing: 0.1}\n")
    loss = load_config(path).config.loss
    assert (loss.type, loss.label_smoothing) == ("cross_entropy", 0.1)


def test_several_levels_in_several_folders(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        shared__base=BASE,
        shared__middle="extends: base.yaml\ntraining: {epochs: 4}\nseed: 1\n",
        run="extends: shared/middle.yaml\nseed: 2\n",
    )
    loaded = load_config(path)
    assert (loaded.config.seed, loaded.config.training.epochs, loaded.config.training.batch_size) == (2, 4, 8)
    assert str(loaded.origins["training.epochs"]) == f"{tmp_path}/shared/middle.yaml:2"
    assert str(loaded.origins["training.batch_size"]) == f"{tmp_path}/shared/base.yaml:5"
    assert str(loaded.origins["seed"]) == f"{path}:2"
    assert [Path(file).name for file in loaded.files] == ["run.yaml", "middle.yaml", "base.yaml"]


def test_mistakes_are_told_where_they_stand_own_file_first(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE.replace("0.9", "fast"), run="seed: x\nextends: base.yaml\n")
    assert errors(path) == [
        "run.yaml:1:7: seed: expected a whole number of at least 0 and below 2^63, got 'x'; the default is 0",
        "base.yaml:3:43: optimizer.momentum: expected a number of at least 0, got 'fast'; the default is 0.0",
    ]


def test_a_rule_names_a_place_in_another_file(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE, run="extends: base.yaml\nscheduler: {type: step, step_size: 9}\n")
    assert errors(path) == [
        "run.yaml:2:36: scheduler.step_size: the first step comes after the run, got 9 epochs with "
        "`training.epochs: 3` (base.yaml:5); lower it, or train longer"
    ]


PATH_EXPECTED = "extends: expected the path of one config file, relative to this one, such as base.yaml"
LOOKED = "it is looked for in run.yaml"
CIRCLE = "extends: the files extend each other in a circle"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bsae.yaml", "run.yaml:1:10: extends: there is no such file, got 'bsae.yaml'; did you mean base.yaml?"),
        ("3", f"run.yaml:1:10: {PATH_EXPECTED}, got 3"),
        ("''", f"run.yaml:1:10: {PATH_EXPECTED}, got ''"),
        ("[base.yaml]", f"run.yaml:1:10: {PATH_EXPECTED}, got [base.yaml]"),
        ("run.yaml", f"run.yaml:1:10: {CIRCLE} (run.yaml -> run.yaml); remove one `extends:`"),
        ("a.yaml", f"b.yaml:1:10: {CIRCLE} (run.yaml -> a.yaml -> b.yaml -> run.yaml); remove one `extends:`"),
        ("sub", "sub: expected a config file, got a folder"),
        ("x" * 300, "x" * 300 + ": cannot be read: File name too long"),
        ("run.yaml/x", f"run.yaml:1:10: extends: there is no such file, got 'run.yaml/x'; {LOOKED}"),
        ("empty.yaml", "empty.yaml: the file is empty; `trainkit init` writes a config to start from"),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sub").mkdir()
    path = write(
        tmp_path, base=BASE, a="extends: b.yaml\n", b="extends: run.yaml\n", empty="", run=f"extends: {text}\n"
    )
    assert errors(path) == [message]


def test_a_chain_has_an_end(tmp_path: Path) -> None:
    files = {f"c{i}": f"extends: c{i + 1}.yaml\n" for i in range(40)}
    path = write(tmp_path, **files, run="extends: c0.yaml\n")
    assert "more than 16 files extend one another" in errors(path)[0]

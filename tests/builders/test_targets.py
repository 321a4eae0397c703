"""``dataset.scale_target`` for opened data: measured on the training split, or taken from a checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from trainkit.builders.data import load_source
from trainkit.builders.targets import scale_choice
from trainkit.config import Config, load_config
from trainkit.errors import ProblemsError


def config_of(folder: Path, *, factor: float = 1.0, shift: float = 0.0, scale_target: str = "auto") -> Config:
    values = factor * np.random.default_rng(0).standard_normal(200) + shift
    table = folder / "t.csv"
    rows = zip(np.random.default_rng(1).standard_normal(200).tolist(), values.tolist(), strict=True)
    table.write_text("x,y\n" + "".join(f"{x!r},{y!r}\n" for x, y in rows))
    path = folder / "config.yaml"
    path.write_text(f"dataset: {{type: table, path: {table}, target: y, scale_target: {scale_target}}}\nmodel: mlp\n")
    return load_config(path).config


@pytest.mark.parametrize(
    ("units", "scale_target", "value", "reason"),
    [
        ({}, "auto", "false", "auto: mean and deviation are about 0 and 1 already"),
        ({}, "true", "true", "as asked for: in the training split y has mean "),
        ({"factor": 10.0}, "auto", "true", "auto: in the training split y has mean "),
        ({"factor": 0.1}, "auto", "true", "auto: in the training split y has mean "),
        ({"shift": 1.0}, "auto", "true", "auto: in the training split y has mean "),
        ({"factor": 10.0}, "false", "false", "as asked for"),
    ],
)
def test_whether_a_target_is_scaled(
    tmp_path: Path, units: dict[str, float], scale_target: str, value: str, reason: str
) -> None:
    config = config_of(tmp_path, **units, scale_target=scale_target)
    data = load_source(config)
    choice = scale_choice(config, data)["scale_target"]
    assert (choice.value, choice.reason[: len(reason)]) == (value, reason)
    assert (data.target_scale is not None) == (value == "true")


def test_the_model_sees_the_training_split_standardized_and_people_the_values_of_the_file(tmp_path: Path) -> None:
    data = load_source(config_of(tmp_path, factor=3.0, shift=1e9))
    seen = data.model_targets("train").astype(np.float64)
    assert data.model_targets("train").dtype == np.float32
    assert (seen.mean(), seen.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
    assert abs(data.model_targets("test").mean()) > 1e-3, "the test split by the mean of the training split"
    lines = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert data.parts["all"].targets[:, 0].tolist() == [float(line.split(",")[1]) for line in lines]


def test_a_checkpoint_decides(tmp_path: Path) -> None:
    config = config_of(tmp_path, factor=10.0)
    assert load_source(config, stored={"target_scale": [[3.0, 4.0]]}).target_scale == ((3.0, 4.0),)
    assert load_source(config, stored={"target_scale": None}).target_scale is None
    assert load_source(config, stored={}).target_scale is None, "from before the key"
    for scale_target, scale, how in (("true", None, "without"), ("false", [[3.0, 4.0]], "with")):
        asked = config_of(tmp_path, scale_target=scale_target)
        with pytest.raises(ProblemsError, match=f"the checkpoint was trained {how} scaling of the target; leave it so"):
            load_source(asked, stored={"target_scale": scale})


def test_classes_are_not_scaled(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("dataset: {type: synthetic, problem: moons}\nmodel: mlp\n")
    config = load_config(path).config
    data = load_source(config)
    assert (scale_choice(config, data), data.target_scale, data.target_std) == ({}, None, ())
    assert data.model_parts is data.parts

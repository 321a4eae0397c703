"""Configs that look odd and are right: the rules must let them pass."""

from pathlib import Path

import pytest
import yaml

from trainkit.config import load_config

VALID = yaml.safe_load((Path(__file__).parent / "valid_configs.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", VALID)
def test_loads(text: str, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("dataset: digits\nmodel: mlp\n")
    path = tmp_path / "run.yaml"
    path.write_text(text)
    load_config(path)

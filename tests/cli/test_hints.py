"""A command line that is refused says what was probably meant."""

import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "train c.yaml --epochs 3",
            "No such option: --epochs; it is a setting of the config: --set training.epochs=...",
        ),
        ("check c.yaml --learning-rate=3", "--set optimizer.lr=..."),
        ("train c.yaml --batch-size 8 --json", "--set training.batch_size=..."),
        ("train c.yaml --run-dri x", "(Possible options: --run-dir)"),
        ("train c.yaml training.epochs=3 seed=1", "settings of the config: --set training.epochs=3 --set seed=1"),
        ("train c.yaml d.yaml", "extra argument(s) (d.yaml)\n"),
        ("preview c.yaml", "No such command 'preview'. There is `trainkit data preview`."),
        ("trian c.yaml", "Did you mean 'train'?"),
        ("runs lst", "Did you mean 'list'?"),
        ("eval --split foo", "Invalid value for '--split': 'foo' is not one of 'train', 'val', 'test'.\n"),
        ("predict --top-k 0 x", "'--top-k': has to be greater than or equal to 1, got '0'\n"),
        ("ui --port one", "'--port': has to be a valid integer, got 'one'\n"),
    ],
)
def test_hint(line, hint):
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2
    assert hint in result.output


def test_a_command_without_a_config_has_no_settings():
    assert "--set" not in CliRunner().invoke(app, ["predict", "--epochs", "3"]).output

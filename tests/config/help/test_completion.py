"""What a shell offers after --set."""

import pytest

from trainkit.config.help.introspect import complete_set


@pytest.mark.parametrize(
    ("incomplete", "offered"),
    [
        ("optim", ["optimizer.", "optimizer="]),
        ("optimizer.mom", ["optimizer.momentum=", "optimizer.momentum_decay="]),
        ("optimizer=ad", ["optimizer=adam", "optimizer=adamw", "optimizer=adafactor", "optimizer=adagrad"]),
        ("training.ep", ["training.epochs="]),
        ("training.em", ["training.ema."]),
        ("training.early_stopping.p", ["training.early_stopping.patience="]),
        ("model.blocks[0].ch", ["model.blocks[0].channels="]),
        ("transforms[0].deg", ["transforms[0].degrees="]),
        ("dataset.problem.num_c", ["dataset.problem.num_classes="]),
        ("nothing.x", []),
        ("seed=", []),
    ],
)
def test_continuations(incomplete: str, offered: list[str]) -> None:
    assert complete_set(incomplete) == offered


def test_all_sections_are_offered_first() -> None:
    assert {"seed=", "training.", "optimizer.", "optimizer=", "transforms="} <= set(complete_set(""))

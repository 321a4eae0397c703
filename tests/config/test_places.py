"""The places of a mistake that an override and a file make together: the override first, the line of the file below."""

from pathlib import Path

import pytest

from trainkit.builders import build_setup
from trainkit.config import load_config
from trainkit.config.help import render
from trainkit.errors import ConfigError, Problem, ProblemsError

BASE = """\
dataset: {type: digits, val_fraction: 0.2}
model: {type: mlp, hidden_sizes: [64, 32]}
optimizer: {type: sgd, momentum: 0.9, nesterov: true}
training: {epochs: 5, batch_size: 64}
"""
CHILD = """\
extends: base.yaml
scheduler: {type: cosine, warmup: 2ep}
training:
  accumulation_steps: 4
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("child.yaml").write_text(CHILD)


def error_of(file: str, *overrides: str, unset: tuple[str, ...] = ()) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides=overrides, unset=unset)
    return caught.value


@pytest.mark.parametrize(
    ("file", "overrides", "key", "place", "also"),
    [
        # one value alone
        ("base.yaml", ["training.epochs=-1"], "training.epochs", "training.epochs=-1", []),
        ("child.yaml", ["training.epochs=-1"], "training.epochs", "training.epochs=-1", []),
        ("base.yaml", ["training.epochs=3", "training.epochs=-2"], "training.epochs", "training.epochs=-2", []),
        ("base.yaml", ["seed=x"], "seed", "seed=x", []),
        ("base.yaml", ["model.hidden_sizes[1]=-3"], "model.hidden_sizes[1]", "model.hidden_sizes[1]=-3", []),
        ("base.yaml", ["model.hidden_sizes=[4, -3]"], "model.hidden_sizes[1]", "model.hidden_sizes=[4, -3]", []),
        ("base.yaml", ["transforms+={type: resize}"], "transforms[0].size", "transforms+={type: resize}", []),
        ("base.yaml", ["trainin.epochs=3"], "trainin", "trainin.epochs=3", []),
        # a type that does not go with the keys in the file
        ("base.yaml", ["optimizer.type=adam"], "optimizer.nesterov", "optimizer.type=adam", ["base.yaml:3:39"]),
        ("base.yaml", ["model.type=cnn"], "model.blocks", "model.type=cnn", ["base.yaml:2:1"]),
        # rules: one key from an override, the other from a file, and the other way round
        ("child.yaml", ["training.epochs=2"], "scheduler.warmup", "training.epochs=2", ["child.yaml:2:35"]),
        ("child.yaml", ["training={epochs: 2}"], "scheduler.warmup", "training={epochs: 2}", ["child.yaml:2:35"]),
        (
            *("child.yaml", ["training.batch_size=2"], "training.accumulation_steps", "training.batch_size=2"),
            ["child.yaml:4:23"],
        ),
        ("child.yaml", ["scheduler.warmup=9ep"], "scheduler.warmup", "scheduler.warmup=9ep", ["base.yaml:4:20"]),
        ("base.yaml", ["optimizer.momentum=0"], "optimizer.nesterov", "optimizer.momentum=0", ["base.yaml:3:49"]),
        # both from overrides
        (
            *("base.yaml", ["optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer.nesterov"),
            *("optimizer.nesterov=true", []),
        ),
        ("base.yaml", ["scheduler.warmup=7ep"], "scheduler.warmup", "scheduler.warmup=7ep", ["base.yaml:4:20"]),
    ],
)
def test_an_override_is_the_place_of_what_it_spoils(file, overrides, key, place, also):
    problem = next(one for one in error_of(file, *overrides).problems if one.key == key)
    assert problem.place.file == f"--set {place}"
    assert problem.place.text == f"--set {place}"
    assert problem.place.column is not None
    assert [str(one) for one in problem.also] == also


def test_an_unset_is_the_place_of_what_it_spoils():
    (problem,) = error_of("base.yaml", unset=("optimizer.momentum",)).problems
    assert problem.key == "optimizer.nesterov"
    assert str(problem.place) == "--unset optimizer.momentum"
    assert [str(one) for one in problem.also] == ["base.yaml:3:49"]
    assert "(--unset optimizer.momentum)" in problem.message


def test_a_file_that_is_wrong_by_itself_is_its_own_place():
    Path("base.yaml").write_text(BASE.replace("0.9", "0").replace("[64, 32]", "[64, -1]"))
    problems = error_of("base.yaml", "training.epochs=2", "model.type=mlp", "optimizer.lr=0.5").problems
    assert [str(one.place) for one in problems] == ["base.yaml:2:39", "base.yaml:3:47"]
    assert [one.also for one in problems] == [(), ()]


def test_a_rule_about_the_opened_data_shows_the_override_too():
    """``drop_last`` and the number of samples, which is known when the data are open."""
    Path("t.csv").write_text("x,y\n" + "".join(f"{row / 7},{row % 2}\n" for row in range(60)))
    data = "{type: table, path: t.csv, target: y}"
    text = BASE.replace("batch_size: 64", "drop_last: true").replace("{type: digits, val_fraction: 0.2}", data)
    Path("base.yaml").write_text(text)
    loaded = load_config("base.yaml", overrides=["training.batch_size=5000"])
    with pytest.raises(ProblemsError) as caught:
        build_setup(loaded.config)
    (problem,) = map(loaded.locate, caught.value.problems)
    assert str(problem.place) == "--set training.batch_size=5000"
    assert [str(one) for one in problem.also] == ["base.yaml:4:34"]


def test_a_mistake_of_a_whole_section_shows_what_was_overridden_in_it():
    """Not the old line of the value that an override replaced."""
    Path("base.yaml").write_text("dataset: digits\nmodel:\n  hidden_sizes: [8, 8]\n  type: mlp\n")
    for overrides, also in (
        (["model.hidden_sizes=[1000000, 1000000]"], []),
        (["model.hidden_sizes[1]=1000000"], []),
        (["model.dropout=0.1", "model.hidden_sizes=[1000000]"], ["--set model.dropout=0.1"]),
    ):
        located = load_config("base.yaml", overrides=overrides).locate(Problem("takes 12 TB", key="model"))
        assert str(located.place) == f"--set {overrides[-1]}"
        assert [str(one) for one in located.also] == [*also, "base.yaml:2:1"]
    alone = load_config("base.yaml", overrides=["training.epochs=2"]).locate(Problem("takes 12 TB", key="model"))
    assert (str(alone.place), alone.also) == ("base.yaml:3:3", ())


def test_both_are_shown_with_their_carets():
    text = render(error_of("child.yaml", "training.epochs=2"))
    assert text.splitlines()[1:] == [
        "      --set training.epochs=2",
        "                            ^",
        "       see child.yaml:2:35",
        "    2 | scheduler: {type: cosine, warmup: 2ep}",
        "                                          ^",
    ]

"""Every entry of bad_configs.yaml: the exact message at the exact place, and nothing written."""

import os
from pathlib import Path

import pytest
import yaml

from trainkit.config import load_config
from trainkit.errors import ConfigError, Problem

CASES = yaml.load((Path(__file__).parent / "bad_configs.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
MARK = "‸"
REST = {"dataset:": "dataset: digits\n", "model:": "model: mlp\n"}


def completed(case: dict) -> str:
    text = case.get("config", "")
    if case.get("alone"):
        return text
    lines = text.replace(MARK, "").splitlines()
    return text + "".join(rest for key, rest in REST.items() if not any(line.startswith(key) for line in lines))


def without_marks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and the line and column (from 1) of each."""
    places = []
    while MARK in text:
        at = text.index(MARK)
        text = text[:at] + text[at + 1 :]
        places.append((text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1))
    return text, places


def place_text(problem: Problem) -> str:
    place = problem.place
    assert place is not None, problem
    if place.line is None and place.column is not None:  # an override: the caret's column in its own text
        return f"{place.file} column {place.column}"
    return str(place)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_message_and_place(case: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, marks = without_marks(completed(case))
    places = [f"bad.yaml:{line}:{column}" for line, column in marks]
    options: dict[str, list[str]] = {"unset": [], "set": []}
    for option, items in options.items():
        for marked in case.get(option, []):
            item, item_marks = without_marks(marked)
            items.append(item)
            places += [f"--{option} {item} column {column + len(option) + 3}" for _, column in item_marks]
    Path("bad.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load_config("bad.yaml", overrides=options["set"], unset=options["unset"])

    problems = caught.value.problems
    assert [f"{p.key}: {p.message}" if p.key else p.message for p in problems] == case["errors"]
    assert [place_text(p) for p in problems] == (places or ["bad.yaml"] * len(problems))
    assert caught.value.exit_code == 2
    assert os.listdir() == ["bad.yaml"]
    assert Path("bad.yaml").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("case", CASES[:30], ids=[case["name"] for case in CASES[:30]])
def test_without_libyaml_the_message_is_the_same(case: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    test_message_and_place(case, tmp_path, monkeypatch)


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(CASES) >= 250
    assert len({case["name"] for case in CASES}) == len(CASES)

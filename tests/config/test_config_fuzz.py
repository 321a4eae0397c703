"""Mutated configs end in a config or in a ConfigError: never in a traceback, never late, never in a broken message."""

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainkit.config import load_config
from trainkit.config.help.introspect import annotation_of, item_annotation, sections, variants
from trainkit.config.help.messages import render
from trainkit.config.help.shipped import list_shipped
from trainkit.config.schema import Config
from trainkit.config.text.writer import to_yaml
from trainkit.errors import ConfigError

SHIPPED = [config.path.read_bytes() for config in list_shipped()]
RESOLVED = [load_config(config.path).resolved() for config in list_shipped()]
QUICK = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=4_000, deadline=None, suppress_health_check=list(HealthCheck))


def load(path: Path, overrides: list[str]) -> ConfigError | None:
    try:
        load_config(path, overrides=overrides)
    except ConfigError as error:
        return error
    return None


def try_to_load(path: Path, overrides: list[str] = ()) -> None:
    start = time.process_time()
    error = load(path, overrides)
    assert time.process_time() - start < 2
    if error is None:
        return
    for problem in error.problems:
        assert problem.place is not None, problem
        assert len(str(problem)) < 1500, problem
        assert "Traceback" not in problem.message
        assert "pydantic" not in problem.message
    text = render(error)
    assert all(character.isprintable() or character == "\n" for character in text)
    shown = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(shown) == min(len(error.problems), 10)


def vocabulary() -> tuple[list[str], list[str]]:
    """Every key and every name of a variant in the schema."""
    keys: dict[str, None] = {}
    names: dict[str, None] = {}

    def visit(annotation: Any, depth: int) -> None:
        if depth == 0:
            return
        names.update(dict.fromkeys(variants(annotation)))
        item = item_annotation(annotation)
        if item is not None:
            visit(item, depth)
        for section in sections(annotation):
            for key, field in section.model_fields.items():
                keys[key] = None
                visit(annotation_of(field), depth - 1)

    visit(Config, 5)
    return list(keys), list(names)


KEYS, NAMES = vocabulary()
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 10**30, -(2**63), 0.5, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", " ", "no", "1e-3", "0x", "1:30", "../..", "a/b", "\x7f", "é😀\u2028", "x" * 300, "torch.nn.Linear"),
    *("module:Class", "10ep", "0st", "5min", "99999999999999999999ep", "cuda:999", "auto", "balanced", "val_accuracy"),
    *([], {}, [[]], [{}], {"type": None}, {"type": []}, {"type": "x"}, [None], [1, 2, 3], {"": 1}, [3, -3]),
    {"_target_": "os.system"},
]
ODD_KEYS = ["extends", "<<", "_target_", "", "a.b", "x[0]", "\n", "é"]


def odd_value(dice: random.Random) -> Any:
    number = dice.choice([dice.randint(-5, 300), dice.uniform(-2, 2), 10 ** dice.uniform(-20, 20)])
    return dice.choice([dice.choice(ODD), dice.choice(NAMES), number])


def odd_key(dice: random.Random) -> str:
    return dice.choice(KEYS if dice.random() < 0.8 else ODD_KEYS)


def mutate(data: Any, dice: random.Random) -> Any:
    """A copy with one place changed: a value replaced, a key renamed, added, removed or cut, an item doubled."""
    if isinstance(data, dict) and data:
        key = dice.choice(list(data))
        action = dice.choice(["into", "into", "into", "replace", "rename", "add", "remove", "letter"])
        copy = dict(data)
        if action == "into":
            copy[key] = mutate(data[key], dice)
        elif action == "replace":
            copy[key] = odd_value(dice)
        elif action == "add":
            copy[odd_key(dice)] = odd_value(dice)
        else:
            value = copy.pop(key)
            if action != "remove":
                copy[odd_key(dice) if action == "rename" else key[1:]] = value
        return copy
    if isinstance(data, list) and data:
        index = dice.randrange(len(data))
        action = dice.choice(["into", "into", "double", "remove", "odd"])
        changed = {"into": [mutate(data[index], dice)], "double": [data[index]] * 2, "remove": []}
        return data[:index] + changed.get(action, [odd_value(dice)]) + data[index + 1 :]
    return odd_value(dice)


def mutated_config(seed: int) -> dict[str, Any]:
    dice = random.Random(seed)
    data = dice.choice(RESOLVED)
    for _ in range(dice.randint(1, 4)):
        mutated = mutate(data, dice)
        data = mutated if isinstance(mutated, dict) else data
    return data


def mutated_bytes(seed: int) -> bytes:
    dice = random.Random(seed)
    data = bytearray(dice.choice(SHIPPED))
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        to = min(len(data), at + dice.choice([1, 1, 2, 5, 30, 200]))
        action = dice.choice(["flip", "cut", "copy", "token", "token", "truncate"])
        if action == "flip" and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif action == "cut":
            del data[at:to]
        elif action == "copy":
            data[at:at] = data[at:to]
        elif action == "token":
            data[at:at] = dice.choice(TOKENS)
        elif action == "truncate" and dice.random() < 0.2:
            del data[at:]
    return bytes(data)


TOKENS = [
    *(b"\t", b"\n", b"\r", b": ", b":", b"- ", b"? ", b"[", b"]", b"{", b"}", b",", b"#", b" #", b"&a ", b"*a", b"*b"),
    *(
        b"!x ",
        b"!!python/object:os.system ",
        b"|\n",
        b">\n",
        b"'",
        b'"',
        b"%YAML 1.2\n",
        b"---\n",
        b"...\n",
        b"@",
        b"`",
    ),
    *(b"<<: ", b"<<: *a", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"  "),
    *(b"\\", b"\\x", b"null", b"1e999", b"type: ", b"extends: run.yaml\n", b"extends: nothing.yaml\n", b"0" * 400),
]
ENDINGS = ["=1", "=", "+=1", "+=[", "={a: ", "=~", "=[1, 2]", "={type: adam}", "=.nan", "=x: y", "", "=!!a b"]


def override(seed: int) -> str:
    dice = random.Random(seed)
    pieces = [
        dice.choice([*Config.model_fields, *KEYS, "[0]", "[9]", "[-1]", "[", ".", "x"])
        for _ in range(dice.randint(0, 4))
    ]
    return ".".join(pieces).replace(".[", "[") + dice.choice(ENDINGS)


seeds = st.integers(0, 2**64)
override_texts = seeds.map(override) | st.text(max_size=30)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "run.yaml"


def check_schema_aware(path: Path, seed: int) -> None:
    path.write_text(to_yaml(mutated_config(seed)), encoding="utf-8")
    try_to_load(path)


def check_bytes(path: Path, seed: int) -> None:
    path.write_bytes(mutated_bytes(seed))
    try_to_load(path)


def check_overrides(path: Path, index: int, overrides: list[str]) -> None:
    path.write_bytes(SHIPPED[index])
    with contextlib.suppress(UnicodeEncodeError):
        try_to_load(path, overrides)


@QUICK
@given(seed=seeds)
def test_schema_aware_mutations(path: Path, seed: int) -> None:
    check_schema_aware(path, seed)


@QUICK
@given(seed=seeds)
def test_byte_level_mutations(path: Path, seed: int) -> None:
    check_bytes(path, seed)


@QUICK
@given(index=st.integers(0, len(SHIPPED) - 1), overrides=st.lists(override_texts, min_size=1, max_size=3))
def test_overrides(path: Path, index: int, overrides: list[str]) -> None:
    check_overrides(path, index, overrides)


@pytest.mark.slow
@LONG
@given(seed=seeds)
def test_many_schema_aware_mutations(path: Path, seed: int) -> None:
    check_schema_aware(path, seed)


@pytest.mark.slow
@LONG
@given(seed=seeds)
def test_many_byte_level_mutations(path: Path, seed: int) -> None:
    check_bytes(path, seed)


@pytest.mark.slow
@LONG
@given(index=st.integers(0, len(SHIPPED) - 1), overrides=st.lists(override_texts, min_size=1, max_size=3))
def test_many_overrides(path: Path, index: int, overrides: list[str]) -> None:
    check_overrides(path, index, overrides)

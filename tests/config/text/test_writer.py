"""Plain data to YAML and back."""

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainkit.config.text.nodes import Source
from trainkit.config.text.reader import read_text
from trainkit.config.text.writer import to_yaml

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\ufffe\uffff"), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=20
)


def read(text: str) -> object:
    node, problems = read_text(text, Source("test", tuple(text.splitlines())))
    assert not problems
    assert node is not None
    return node.plain()


@settings(deadline=None)
@given(data=st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
@example(
    data={"a": ["no", "1:30", "1e3", "~", "", " ", "- x", "a: b", "a #b", "<<", "0x1", "\t", "\n", "'", '"', "%", "@"]}
)
@example(data={"a": [{"b": [{}, [], {"c": [[]]}]}, 1, {"d": 1e-8, "e": 1e22, "f": -0.0}]})
def test_this_package_reads_the_same(data: dict) -> None:
    back = read(to_yaml(data))
    assert back == data
    assert repr(back) == repr(data)  # types too: 1, 1.0 and true are equal


@pytest.mark.parametrize(
    "value", ["no", "on", "y", "1:30", 1e-08, 1e22, 0.1, "1e3", True, None, "null", "2020-01-01", "0b1"]
)
def test_readers_of_yaml_1_1_read_the_same(value: object) -> None:
    assert yaml.safe_load(to_yaml({"key": value})) == {"key": value}


def test_notes_stand_behind_their_values() -> None:
    data = {"a": 1, "b": {"c": [1, 2]}, "d": [{"e": "x"}]}
    notes = {"a": "default", "b.c": "run.yaml:3", "d[0].e": "--set d=x"}
    assert to_yaml(data, notes=notes) == (
        "a: 1         # default\nb:\n  c: [1, 2]  # run.yaml:3\nd:\n  - e: x     # --set d=x\n"
    )

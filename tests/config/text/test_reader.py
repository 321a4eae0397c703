"""Reading YAML: scalars of YAML 1.2, places, limits, and files that are no configs."""

import os
import resource
import time
from pathlib import Path

import pytest
import yaml

from trainkit.config.text.nodes import Source, read_scalar
from trainkit.config.text.reader import MAX_BYTES, read_file, read_text
from trainkit.errors import ConfigError

INIT = "`trainkit init` writes a config to start from"


@pytest.fixture(params=[True, False], ids=["libyaml", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of PyYAML's two parsers."""
    monkeypatch.setattr(yaml, "__with_libyaml__", request.param and yaml.__with_libyaml__)


def read(text: str):
    node, problems = read_text(text, Source("test.yaml", tuple(text.splitlines())))
    assert not problems
    assert node is not None
    return node


def message(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    assert len(caught.value.problems) == 1
    return str(caught.value.problems[0]).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("+.5e+2", 50.0), ("-1", -1), ("+7", 7), ("010", 10),
        ("0o17", 15), ("0x1F", 31), ("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("off", "off"), ("y", "y"), ("1:30", "1:30"), ("1_000", "1_000"),
        ("0b11", "0b11"), ("2020-01-01", "2020-01-01"), ("<<", "<<"), ("=", "="), ("tRue", "tRue"), ("1e", "1e"),
        (".", "."), ("-", "-"), (".inf", float("inf")), ("-.INF", float("-inf")), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    read = read_scalar(text)
    assert read == value
    assert type(read) is type(value)


def test_nan() -> None:
    value = read_scalar(".NaN")
    assert isinstance(value, float)
    assert value != value


def test_quoted_text_stays_text() -> None:
    assert read("a: '1'\nb: \"true\"\nc: |\n  3\n").plain() == {"a": "1", "b": "true", "c": "3\n"}


@pytest.mark.usefixtures("parser")
def test_places_of_keys_and_values() -> None:
    node = read("a: 1\nb:\n  - x: [10,\n      é, 30]\n    'y': t\n")
    places = {
        path: (found.line + 1, found.column + 1, found.key_line + 1, found.key_column + 1)
        for path in [("a",), ("b", 0), ("b", 0, "x"), ("b", 0, "x", 2), ("b", 0, "y")]
        if (found := node.find(path)) is not None
    }
    assert places == {
        ("a",): (1, 4, 1, 1),
        ("b", 0): (3, 5, 0, 0),
        ("b", 0, "x"): (3, 8, 3, 5),
        ("b", 0, "x", 2): (4, 10, 0, 0),
        ("b", 0, "y"): (5, 10, 5, 5),
    }


def test_columns_count_characters_not_bytes() -> None:
    node = read("a: {'é😀': 1, b: 2}\n")
    assert node.find(("a", "b")).key_place.column == 14


def test_anchors_aliases_and_merge_keys() -> None:
    text = "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: *x\nd: {<<: [{q: 4}, *x]}\n"
    assert read(text).plain() == {
        "a": {"p": 1, "q": 2},
        "b": {"p": 1, "q": 3},
        "c": {"p": 1, "q": 2},
        "d": {"q": 4, "p": 1},
    }


def test_a_merge_key_keeps_the_place_of_what_it_brings() -> None:
    node = read("a: &x {p: 1}\nb: {<<: *x}\n")
    assert node.find(("b", "p")).place.line == 1


def test_an_anchor_written_again_holds_from_there_on() -> None:
    assert read("a: &x 1\nb: *x\nc: &x [*x, 2]\nd: *x\n").plain() == {"a": 1, "b": 1, "c": [1, 2], "d": [1, 2]}


def test_a_quoted_merge_key_is_a_key() -> None:
    assert read("a: {'<<': 3}\n").plain() == {"a": {"<<": 3}}


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    node, text, _ = read_file(path)
    assert node.plain() == {"a": 1, "b": "x"}
    assert node.find(("b",)).place.line == 2
    assert text == "a: 1\r\nb: x\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", f"FILE: the file is empty; {INIT}"),
        (b"\xef\xbb\xbf", f"FILE: the file is empty; {INIT}"),
        (b"# a\n\n# b\n", f"FILE: the file is only comments; {INIT}"),
        (b"---\n", f"FILE: the file is only comments; {INIT}"),
        (b"a: 1\nbb: \xff\n", "FILE:2:5: not UTF-8 text, got byte 0xff; save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "FILE:1:1: not UTF-8 text, got byte 0xff; save the file as UTF-8"),
        (b"a: \x00\n", "FILE:1:4: not allowed in YAML, got the control character U+0000; remove it"),
        (b"a: " + b"[" * 40, "FILE:1:35: nested deeper than 32 levels"),
        (b"a: " + b"[" * 5000, "FILE:1:35: nested deeper than 32 levels"),
        (b"a: " + b"{b: " * 5000, "FILE:1:128: nested deeper than 32 levels"),
        (
            b"a: " + b"- " * 5000,
            "FILE:1:4: not valid YAML: a list cannot start here; put each `- item` on a line of its own, "
            "or write [item, item]",
        ),
        (
            b"? " * 5000,
            "FILE:1:3: expected text as a key, got a list, a mapping or an alias; for a value, put the key before it",
        ),
        (b"#" * (MAX_BYTES + 1), "FILE: larger than 1024 KiB, got 1024 KiB; is it a config?"),
        (b"a: [" + b"1," * 200_000 + b"1]", "FILE:1:200001: more than 100000 values"),
    ],
)
@pytest.mark.usefixtures("parser")
def test_what_is_no_config(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    assert message(path) == expected


def test_a_folder_a_pipe_and_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert message(tmp_path) == "FILE: expected a config file, got a folder"
    assert message(tmp_path / "pipe") == "FILE: expected a config file, got a device or a pipe"
    assert message(tmp_path / "nothing") == "FILE: cannot be read: No such file or directory"
    assert message(Path("/dev/zero")).endswith("expected a config file, got a device or a pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\n")
    path.chmod(0)
    assert message(path) == "FILE: cannot be read: Permission denied"


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(("levels", "width"), [(9, 10), (30, 2), (4, 200)])
def test_an_alias_bomb_is_refused_before_it_expands(tmp_path: Path, levels: int, width: int) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb(levels, width))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "aliases expand to more than 100000 values" in message(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_aliases_cannot_nest_deeper_than_values(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 50)]
    path.write_text("\n".join(lines))
    assert "aliases nest deeper than 32 levels" in message(path)


@pytest.mark.parametrize(
    "unit", ["[", "{a: ", "a: &b\n", "- ", "? ", "'a': ", '"', "*a ", "!!x ", "a: 1\n", "&a ", "|\n", "# x\n"]
)
def test_a_hostile_file_of_the_largest_size_ends(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "large.yaml"
    path.write_text((unit * (MAX_BYTES // len(unit)))[:MAX_BYTES])
    start = time.process_time()
    message(path)
    assert time.process_time() - start < 30, "work is bounded by the limits, not by what the file asks for"

"""One value of a config's text changes, and no other byte."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.config.text import set_in_section
from trainkit.errors import UserError

TURNS_INTO = {
    "optimizer: adam  # c\nx: 1\n": "optimizer: {type: adam, lr: 0.5}  # c\nx: 1\n",
    'optimizer: "adam"\n': "optimizer: {type: adam, lr: 0.5}\n",
    "optimizer:\n  adam\nx: 1\n": "optimizer:\n  {type: adam, lr: 0.5}\nx: 1\n",
    "optimizer: {type: sgd, lr: 0.10, momentum: 0.9} # c\n": "optimizer: {type: sgd, lr: 0.5, momentum: 0.9} # c\n",
    "optimizer: {type: sgd, momentum: 0.9}\n": "optimizer: {type: sgd, lr: 0.5, momentum: 0.9}\n",
    "optimizer: {\n type: sgd,\n # lr: 2\n 'lr': .1,\n}\n": "optimizer: {\n type: sgd,\n # lr: 2\n 'lr': 0.5,\n}\n",
    "optimizer: {momentum: 0.9}\n": "optimizer: {lr: 0.5, momentum: 0.9}\n",
    "optimizer: {}\n": "optimizer: {lr: 0.5}\n",
    "optimizer:\n  # a\n  type: sgd # t\n  lr: 1e-3   # why\n  eps: .9\n": (
        "optimizer:\n  # a\n  type: sgd # t\n  lr: 0.5   # why\n  eps: .9\n"
    ),
    "optimizer:\n  type: adam # t\n  # eps\n  eps: 3": "optimizer:\n  type: adam # t\n  lr: 0.5\n  # eps\n  eps: 3",
    "optimizer:\n    eps: 3\n    type: adam": "optimizer:\n    eps: 3\n    type: adam\n    lr: 0.5",
    "optimizer:\n  type:\n    sgd\n  eps: 3\n": "optimizer:\n  type:\n    sgd\n  lr: 0.5\n  eps: 3\n",
    "optimizer:\n  type: adam\n  lr:\n  eps: 3\n": "optimizer:\n  type: adam\n  lr: 0.5\n  eps: 3\n",
    "optimizer:\nx: 1\n": "optimizer: {type: adam, lr: 0.5}\nx: 1\n",
    "optimizer: ~\nx: 1\n": "optimizer: {type: adam, lr: 0.5}\nx: 1\n",
    "x: 1\n# end": "x: 1\n# end\noptimizer: {type: adam, lr: 0.5}\n",
    "{x: 1, y: 2}\n": "{optimizer: {type: adam, lr: 0.5}, x: 1, y: 2}\n",
    "x: |\n  abc\n\n": "x: |\n  abc\n\noptimizer: {type: adam, lr: 0.5}\n",
    "a: &l 0.1\noptimizer: {type: sgd, lr: *l}\n": "a: &l 0.1\noptimizer: {type: sgd, lr: 0.5}\n",
    "optimizer: {type: sgd, lr: &l 0.1}\n": "optimizer: {type: sgd, lr: &l 0.5}\n",
    "o: &o {type: sgd, lr: 3}\noptimizer:\n  <<: *o\n": "o: &o {type: sgd, lr: 3}\noptimizer:\n  lr: 0.5\n  <<: *o\n",
    "? optimizer\n: {type: adam}\n": "? optimizer\n: {type: adam, lr: 0.5}\n",
    "n: '猫 \U0001f408'\noptimizer: {type: adam, lr: 2}\n": "n: '猫 \U0001f408'\noptimizer: {type: adam, lr: 0.5}\n",
}


@pytest.mark.parametrize("text", TURNS_INTO)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_one_place_changes(text, line_end):
    changed, values = set_in_section(text.replace("\n", line_end), "optimizer", "lr", 0.5, type="adam")
    expected = TURNS_INTO[text]
    assert changed == (expected if "\n" not in text else expected.replace("\n", line_end))
    assert values["optimizer"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("o: &o {type: sgd}\noptimizer: *o\n", "optimizer is an alias of another mapping (line 2)"),
        ("optimizer: [sgd]\n", "not a name or a mapping (line 1)"),
        ("optimizer: {type: sgd, lr: &l 0.1}\na: *l\n", "used at other places too"),
        ("--- \nx: 1\n...\n", "written in a way that is not changed here"),
    ],
)
def test_what_cannot_be_changed_at_one_place_is_refused(text, why):
    with pytest.raises(UserError) as caught:
        set_in_section(text, "optimizer", "lr", 0.5, type="adam")
    assert why in str(caught.value)


def test_without_a_type_none_is_written():
    assert set_in_section("x: 1\n", "optimizer", "lr", 1e-8)[0] == "x: 1\noptimizer: {lr: 1.0e-08}\n"


@settings(max_examples=50)
@given(
    st.floats(1e-9, 10),
    st.sampled_from(["", "  # why", "\n  # below"]),
    st.lists(
        st.sampled_from(["eps: 1e-8", "betas: [0.9, 0.99]", "# lr: 3", "groups:\n  - {modules: [a]}"]), unique=True
    ),
    st.integers(0, 4),
)
def test_lines_around_the_value_stay(lr, comment, others, place):
    lines = ["type: adam", *others]
    lines.insert(min(place, len(lines)), f"lr: 0.25{comment}")
    text = "x: 1\noptimizer:\n" + "".join(f"  {line}\n" for line in lines) + "y: 2"
    changed, values = set_in_section(text, "optimizer", "lr", lr)
    assert values["optimizer"]["lr"] == lr
    before, _, after = text.partition("0.25")
    assert changed.startswith(before)
    assert changed.endswith(after)

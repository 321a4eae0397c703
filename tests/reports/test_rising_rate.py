"""The curve of ``trainkit lr-find`` as text and as a picture."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.reports import plot_rising_rate, rising_rate_lines
from trainkit.reports.rising_rate import HEIGHT, WIDTH


def rates(count):
    return [1e-7 * 10 ** (8 * step / 149) for step in range(count)]


def test_the_loss_falls_from_the_upper_left_and_the_rate_is_marked():
    losses = [2 - step / 150 for step in range(150)]
    drawn = rising_rate_lines([(rates(150), losses)], lr=1e-3, ascii_only=True)
    assert "".join(drawn).isascii()
    rows = [line.split("|", 1)[1].ljust(WIDTH) for line in drawn[:HEIGHT]]
    assert rows[0].startswith("*")
    assert rows[-1].endswith("*")
    assert {row.index("|") for row in rows if "|" in row} == {round(4 / 8 * (WIDTH - 1))}
    assert drawn[-1].split() == [f"1e{power:+03d}" for power in range(-7, 2)]


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.floats(-1e30, 1e30), max_size=30), max_size=4), st.booleans(), st.sampled_from([None, 1e-9, 5])
)
def test_any_curve_can_be_drawn(curves, ascii_only, lr):
    drawn = rising_rate_lines([(rates(len(losses)), losses) for losses in curves], lr=lr, ascii_only=ascii_only)
    assert len(drawn) in (0, HEIGHT + 2)
    assert all(len(line) < 120 for line in drawn)


@pytest.mark.parametrize("curves", [[], [[1.0]], [[2.0, 1.5, 1.0, 900.0], [2.0, 1.9]]])
def test_a_picture_of_any_curves(tmp_path, curves):
    path = plot_rising_rate(
        tmp_path / "x.png", [(rates(len(one)), one) for one in curves], lr=0.01 if curves else None, title="a $ b"
    )
    assert path.read_bytes().startswith(b"\x89PNG")

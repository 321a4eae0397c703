"""How answers are compared, by hand."""

import math

import numpy as np
import pytest

from trainkit.exports.parity import compare, failures, score


def test_errors_are_absolute_below_one_and_relative_above():
    expected = [np.array([[0.5, 0.5], [100.0, 1.0]])]
    result = compare([np.array([[0.5, 0.4], [101.0, 1.0]])], expected)
    assert result["max_absolute"] == pytest.approx(1.0)
    assert result["max_relative"] == pytest.approx(0.2)
    assert result["error"] == pytest.approx(0.1)
    assert result["class_agreement"] == 1.0


def test_fewer_rows_are_compared_with_the_first_ones():
    expected = [np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])]
    result = compare([np.array([[1.0, 0.0], [1.0, 0.0]])], expected)
    assert result["class_agreement"] == 0.5
    assert result["error"] == 1.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_never_passes(wrong):
    assert compare([np.array([[wrong, 0.0]])], [np.array([[0.0, 0.0]])])["error"] == math.inf


def test_another_shape_never_passes():
    assert compare([np.zeros((2, 3))], [np.zeros((2, 2))])["error"] == math.inf


def test_every_output_counts():
    same, other = np.zeros((2, 2)), np.full((2, 2), 0.3)
    assert compare([same, other], [same, same])["error"] == pytest.approx(0.3)


def test_scores():
    assert score(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1])) == pytest.approx(2 / 3)
    assert score(np.array([[1.0], [3.0]]), np.array([[0.0], [0.0]])) == pytest.approx(math.sqrt(5))


def test_a_failure_names_program_error_and_batch_size():
    program = {
        "passed": False,
        "error": 0.25,
        "tolerance": 1e-5,
        "batch_sizes": {"1": {"error": 0.1}, "7": {"error": 0.25}},
    }
    weights = {"passed": False, "differing_tensors": ["a", "b"], "tensors": 9}
    lines = failures({"programs": {"model.pt": program, "model.safetensors": weights, "ok": {"passed": True}}})
    assert lines == [
        "model.pt does not answer as the model does: error 0.25 at batch size 7, allowed 1e-05",
        "model.safetensors: 2 tensors differ: a, b",
    ]

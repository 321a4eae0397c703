import numpy as np
import pytest

from trainkit.evaluation.calibration import expected_calibration_error


def test_calibration_error_worked_out_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.45, 0.55]])
    # Bins of 1/10: 0.9 twice, half right; 0.6 right; 0.55, wrong, in the same bin as 0.6.
    expected = (2 * abs(0.5 - 0.9) + abs(1 - (0.6 + 0.55))) / 4
    assert expected_calibration_error(probabilities, [0, 1, 1, 0], num_bins=10) == pytest.approx(expected)


def test_calibration_error_is_zero_for_the_certain_and_right():
    assert expected_calibration_error(np.eye(3), [0, 1, 2]) == 0
    assert expected_calibration_error(np.eye(3), [1, 2, 0]) == 1

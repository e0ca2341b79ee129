"""Reliability bins and the expected calibration error, against hand arithmetic and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from distilkit.errors import DistilkitError
from distilkit.evaluation.calibration import BINS, check_plot, draw_reliability, expected_error, reliability


def test_expected_error_by_hand() -> None:
    """Two bins of width 0.5: one of two right at a mean of 0.4, none of three right at 0.8."""
    confidence, right = np.array([0.3, 0.5, 0.8, 0.8, 0.8]), np.array([1.0, 0, 0, 0, 0])
    bins = reliability(confidence, right, bins=2)

    assert [(entry.low, entry.high, entry.size) for entry in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]
    assert expected_error(bins) == pytest.approx(2 / 5 * 0.1 + 3 / 5 * 0.8)


def test_bins_are_scikit_learns() -> None:
    """The curve equals calibration_curve of scikit-learn, limits included, and every prediction is in one bin."""
    random = np.random.default_rng(0)
    confidence = np.concatenate([random.uniform(0.3, 1, 500), np.linspace(0, 1, BINS + 1)])
    right = random.integers(0, 2, len(confidence)).astype(float)
    bins = reliability(confidence, right)
    share, mean = calibration_curve(right, confidence, n_bins=BINS)

    np.testing.assert_allclose([entry.right for entry in bins], share)
    np.testing.assert_allclose([entry.confidence for entry in bins], mean)
    assert sum(entry.size for entry in bins) == len(confidence)


def test_a_calibrated_model_has_no_error() -> None:
    """The error is 0 if the share of right predictions equals the confidence in every bin."""
    confidence, right = np.repeat([0.25, 0.75], 4), np.array([1.0, 0, 0, 0, 1, 1, 1, 0])

    assert expected_error(reliability(confidence, right)) == pytest.approx(0)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_draws_a_plot(tmp_path: Path, suffix: str) -> None:
    """The file has the format of its suffix and a legend entry per curve; no temporary file remains."""
    path = tmp_path / f"reliability{suffix}"
    draw_reliability({"mine": reliability(np.array([0.5, 0.9]), np.array([1.0, 1.0]))}, path)

    start = b"\x89PNG" if suffix == ".png" else b"<?xml"
    assert path.read_bytes().startswith(start)
    assert suffix == ".png" or "mine (ECE 0.300)" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_another_format_is_refused() -> None:
    """The error names the option and both formats."""
    with pytest.raises(DistilkitError, match=r"--plot 'x.pdf'.*\.svg.*\.png"):
        check_plot(Path("x.pdf"))

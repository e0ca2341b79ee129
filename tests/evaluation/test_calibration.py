"""Reliability bins and the expected calibration error, against hand arithmetic and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from distilkit.errors import DistilkitError
from distilkit.evaluation.calibration import BINS, check_picture, draw, expected_error, reliability


def test_expected_error_by_hand() -> None:
    """Two bins of 0.5: of 0.3 and 0.5 one is right (|0.5 - 0.4| of 2), of 0.8 three all wrong (|0 - 0.8| of 3)."""
    confidence, right = np.array([0.3, 0.5, 0.8, 0.8, 0.8]), np.array([1.0, 0, 0, 0, 0])
    bins = reliability(confidence, right, bins=2)

    assert [(entry.low, entry.high, entry.size) for entry in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]
    assert expected_error(bins) == pytest.approx(2 / 5 * 0.1 + 3 / 5 * 0.8)


def test_bins_are_scikit_learns() -> None:
    """The points of the curve are calibration_curve's, limits included, and every answer is in one bin."""
    random = np.random.default_rng(0)
    confidence = np.concatenate([random.uniform(0.3, 1, 500), np.linspace(0, 1, BINS + 1)])
    right = random.integers(0, 2, len(confidence)).astype(float)
    bins = reliability(confidence, right)
    share, mean = calibration_curve(right, confidence, n_bins=BINS)

    np.testing.assert_allclose([entry.right for entry in bins], share)
    np.testing.assert_allclose([entry.confidence for entry in bins], mean)
    assert sum(entry.size for entry in bins) == len(confidence)


def test_a_calibrated_model_has_no_error() -> None:
    """Where as many are right as the confidence says, the error is 0, whatever the bin."""
    confidence, right = np.repeat([0.25, 0.75], 4), np.array([1.0, 0, 0, 0, 1, 1, 1, 0])

    assert expected_error(reliability(confidence, right)) == pytest.approx(0)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_draws_a_picture(tmp_path: Path, suffix: str) -> None:
    """The file is of its suffix's format and has a legend entry a curve; nothing else is left beside it."""
    pytest.importorskip("matplotlib")
    path = tmp_path / f"reliability{suffix}"
    draw({"mine": reliability(np.array([0.5, 0.9]), np.array([1.0, 1.0]))}, path)

    start = b"\x89PNG" if suffix == ".png" else b"<?xml"
    assert path.read_bytes().startswith(start)
    assert suffix == ".png" or "mine (ECE 0.300)" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_another_format_is_refused() -> None:
    """The error names the flag and what there is."""
    with pytest.raises(DistilkitError, match=r"--plot 'x.pdf' is neither .svg nor .png"):
        check_picture(Path("x.pdf"))

"""Reliability diagram and expected calibration error (Guo et al. 2017, arXiv 1706.04599, section 2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distilkit.errors import DistilkitError
from distilkit.files import replacing, writing

Array = npt.NDArray[np.float64]
BINS = 15  # as in the tables of the paper


class Bin(NamedTuple):
    """Predictions with a confidence in (low, high]: their number, mean confidence and share of right ones."""

    low: float
    high: float
    size: int
    confidence: float
    right: float


def reliability(confidence: Array, right: Array, bins: int = BINS) -> list[Bin]:
    """Sort predictions into bins of equal width by their confidence from 0 to 1; (N,) each. Empty bins are dropped."""
    limits = np.linspace(0, 1, bins + 1)
    numbers = np.searchsorted(limits[1:-1], confidence)  # A limit belongs to the bin below it.
    counts = np.bincount(numbers, minlength=bins)
    total, correct = (np.bincount(numbers, weights=values, minlength=bins) for values in (confidence, right))
    return [
        Bin(limits[i], limits[i + 1], int(counts[i]), total[i] / counts[i], correct[i] / counts[i])
        for i in range(bins)
        if counts[i]
    ]


def expected_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the mean of |share right - confidence| over bins, weighted by size."""
    total = sum(entry.size for entry in bins)
    return sum(entry.size / total * abs(entry.right - entry.confidence) for entry in bins)


def check_plot(path: Path) -> None:
    """Raise DistilkitError if --plot has another format than SVG or PNG."""
    if path.suffix not in (".svg", ".png"):
        raise DistilkitError(f"--plot '{path}' is neither .svg nor .png: use one of these formats")


def draw_reliability(curves: dict[str, Sequence[Bin]], path: Path) -> None:
    """Draw a reliability diagram: the diagonal is perfect calibration, the area of a point grows with its bin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot(
        xlabel="confidence", ylabel="agreement with the teacher", xlim=(0, 1), ylim=(0, 1), aspect="equal"
    )
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    for name, bins in curves.items():
        confidence, right = [entry.confidence for entry in bins], [entry.right for entry in bins]
        total = sum(entry.size for entry in bins)
        (line,) = axes.plot(confidence, right, label=f"{name} (ECE {expected_error(bins):.3f})")
        areas = [10 + 300 * entry.size / total for entry in bins]
        axes.scatter(confidence, right, s=areas, color=line.get_color(), clip_on=False)
    axes.legend()
    with writing(path), replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=150)

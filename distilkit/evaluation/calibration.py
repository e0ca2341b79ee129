"""Calibration: how far a confidence can be trusted, in bins (Guo et al. 2017, arXiv 1706.04599, section 2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distilkit.errors import DistilkitError
from distilkit.files import replacing

Array = npt.NDArray[np.float64]
BINS = 15  # as in the paper's tables


class Bin(NamedTuple):
    """Answers of about the same confidence: its limits (low, high], how many, their mean confidence, share right."""

    low: float
    high: float
    size: int
    confidence: float
    right: float


def reliability(confidence: Array, right: Array, bins: int = BINS) -> list[Bin]:
    """Sort answers by confidence into bins of equal width, 0 to 1; (N,) each. Empty bins are left out."""
    limits = np.linspace(0, 1, bins + 1)
    places = np.searchsorted(limits[1:-1], confidence)  # a limit belongs to the bin below it
    counts = np.bincount(places, minlength=bins)
    sure, correct = (np.bincount(places, weights=values, minlength=bins) for values in (confidence, right))
    return [
        Bin(limits[i], limits[i + 1], int(counts[i]), sure[i] / counts[i], correct[i] / counts[i])
        for i in range(bins)
        if counts[i]
    ]


def expected_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: |share right - confidence| of the bins, weighted by their sizes."""
    total = sum(entry.size for entry in bins)
    return sum(entry.size / total * abs(entry.right - entry.confidence) for entry in bins)


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be drawn: another format, or no matplotlib."""
    if path.suffix not in (".svg", ".png"):
        raise DistilkitError(f"--plot '{path}' is neither .svg nor .png: give one of them")
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise DistilkitError("--plot draws with matplotlib, which is missing: pip install 'distilkit[plots]'") from None


def draw(curves: dict[str, Sequence[Bin]], path: Path) -> None:
    """Draw reliability curves over the diagonal of perfect calibration; a point's area grows with its bin's size."""
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
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=150)

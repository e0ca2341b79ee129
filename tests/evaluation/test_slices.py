"""Slices and the bounds that rank them against hand arithmetic and textbook formulas."""

import math

import numpy as np
import pytest
from scipy import stats

from distilkit.evaluation import slices


@pytest.mark.parametrize(
    ("number", "name"), [(0, "0"), (1, "1-2"), (2, "1-2"), (3, "3-5"), (5, "3-5"), (6, "6+"), (99, "6+")]
)
def test_bands(number: int, name: str) -> None:
    """A top belongs to its band; the last band is open."""
    assert slices.band_name(number, (0, 2, 5)) == name


def test_texts_are_sliced_by_what_is_in_them() -> None:
    """Slices are by words, words that occur once in all texts (ignoring case), punctuation marks and digits."""
    found = slices.slice_texts(["The cat sat.", "the cat ran, and 12 ran!"])

    assert found == {
        "words": ["0-8", "0-8"],
        "rare_words": ["1", "2-3"],  # sat; and, 12
        "punctuation": ["1-2", "1-2"],
        "digits": ["0", "1+"],
    }


def test_tokens_are_sliced_by_kind_frequency_characters_and_position() -> None:
    """The quarters of a block of 128 tokens end at 31, 63 and 95."""
    found = slices.slice_tokens(["...", "b2b", "word"], [1, 10, 1000], [0, 31, 127], 128)

    assert found == {
        "kind": ["punctuation", "digits", "letters"],
        "frequency": ["1", "10-99", "1000+"],
        "characters": ["2-3", "2-3", "4-6"],
        "position": ["0-31", "0-31", "96+"],
    }


def test_a_very_small_slice_is_not_ranked_worst() -> None:
    """3 of 3 is a higher share than 40 of 50, but the lower bound of the larger slice is higher."""
    disagreements = np.array([1.0] * 3 + [1.0] * 40 + [0.0] * 10 + [0.0] * 47)
    ranked = slices.rank_slices(
        disagreements, {"part": ["tiny"] * 3 + ["large"] * 50 + ["good"] * 47, "all": ["same"] * 100}
    )

    assert [(entry.name, entry.size, entry.disagreement) for entry in ranked] == [
        ("part/large", 50, 0.8), ("part/tiny", 3, 1.0), ("part/good", 47, 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("wrong", "total"), [(3, 3), (40, 50), (0, 7), (1, 200)])
def test_shares_are_bounded_by_wilsons_interval(wrong: int, total: int) -> None:
    """(p + z²/2n - z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96."""
    p, z = wrong / total, 1.959963985
    root = math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    expected = (p + z**2 / (2 * total) - z * root) / (1 + z**2 / total)
    disagreements = np.array([1.0] * wrong + [0.0] * (total - wrong))

    assert slices.share_lower_bound(disagreements) == pytest.approx(expected, abs=1e-9)


def test_means_are_bounded_by_students_interval() -> None:
    """It is the lower end of SciPy's interval, never below 0, and 0 for a single number."""
    disagreements = np.array([0.5, 0.75, 1.25, 2.0])
    interval = stats.t.interval(0.95, 3, loc=disagreements.mean(), scale=stats.sem(disagreements))

    assert interval[0] > 0
    assert slices.mean_lower_bound(disagreements) == pytest.approx(interval[0])
    assert slices.mean_lower_bound(np.array([0.0, 9.0])) == 0.0
    assert slices.mean_lower_bound(np.array([9.0])) == 0.0

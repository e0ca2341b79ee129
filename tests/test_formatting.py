"""Numbers for people."""

import pytest

from distilkit.formatting import (
    format_duration,
    format_gibibytes,
    format_millions,
    format_number,
    format_percent,
    format_score,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (36 * 60 + 12, "36 min 12 s"),
        (3600, "1 h 0 min"),
        (3 * 86400 + 5 * 3600 + 59, "3 d 5 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    """Short ones have one unit, and below ten seconds a decimal."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12345.0, "12,345"), (0.123456789, "0.123457"), (3, "3"), ("cpu", "cpu"), (None, "")]
)
def test_whole_numbers_have_separators_and_others_six_digits(value: float | str | None, text: str) -> None:
    """Text stays as it is, and None is an empty cell."""
    assert format_number(value) == text


def test_sizes_scores_and_shares() -> None:
    """SQuAD's scores are percentages, with two decimals; all others are shares, with three."""
    assert [format_gibibytes(value) for value in (2**30 * 1.5, 2**30 * 0.125)] == ["1.5", "0.12"]
    assert [format_score(value) for value in (0.8364, -0.1, 88.4567)] == ["0.836", "-0.100", "88.46"]
    assert format_percent(0.9503) == "95.0%"
    assert format_millions(66_362_880) == "66.4M"

"""Group tokens or texts into slices, and rank the slices by disagreement, worst first."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Slices = dict[str, list[str]]  # for each way of slicing (length, digits, …), the slice of each item
LEVEL = 0.95  # of confidence intervals


class Slice(NamedTuple):
    """A slice, its number of items, their mean disagreement, and the lower end of its 95 % confidence interval."""

    name: str
    size: int
    disagreement: float
    lower_bound: float


def slice_texts(texts: Sequence[str]) -> Slices:
    """Slice texts by their numbers of words, rare words (found once in all texts), punctuation marks and digits."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    counts = Counter(word for entry in words for word in entry)
    rare = [sum(counts[word] == 1 for word in entry) for entry in words]
    return {
        "words": [band_name(len(entry), (8, 16, 32, 64, 128)) for entry in words],
        "rare_words": [band_name(number, (0, 1, 3)) for number in rare],
        "punctuation": [band_name(len(re.findall(r"[^\w\s]", text)), (0, 2, 5)) for text in texts],
        "digits": [band_name(len(re.findall(r"\d", text)), (0,)) for text in texts],
    }


def slice_tokens(tokens: Sequence[str], frequencies: Sequence[int], positions: Sequence[int], length: int) -> Slices:
    """Slice tokens by kind, frequency in the text, number of characters, and position in a block of `length` tokens."""
    quarters = [length * quarter // 4 - 1 for quarter in (1, 2, 3)]
    return {
        "kind": [token_kind(token) for token in tokens],
        "frequency": [band_name(number, (1, 9, 99, 999), 1) for number in frequencies],
        "characters": [band_name(len(token), (1, 3, 6), 1) for token in tokens],
        "position": [band_name(position, quarters) for position in positions],
    }


def token_kind(token: str) -> str:
    """Return `digits` for a token with a digit, else `letters` or `punctuation`."""
    if any(character.isdigit() for character in token):
        return "digits"
    return "letters" if any(character.isalnum() for character in token) else "punctuation"


def band_name(number: int, tops: Sequence[int], lowest: int = 0) -> str:
    """Return the name of a number's band. The tops (0, 2, 5) give the bands 0, 1-2, 3-5 and 6+."""
    index = bisect_left(tops, number)
    low = tops[index - 1] + 1 if index else lowest
    if index == len(tops):
        return f"{low}+"
    return str(low) if low == tops[index] else f"{low}-{tops[index]}"


def rank_slices(disagreements: Array, slices: Slices) -> list[Slice]:
    """Return all slices, worst first, by the lower bound of their mean disagreement; disagreements (N,).

    The lower bound keeps very small slices from winning by chance. A way of slicing that puts all items into one slice
    is omitted.
    """
    binary = bool(np.isin(disagreements, (0, 1)).all())
    found = []
    for way, values in slices.items():
        names, members = np.unique(np.array(values), return_inverse=True)
        for number, name in enumerate(names) if len(names) > 1 else ():
            mine = disagreements[members == number]
            bound = share_lower_bound(mine) if binary else mean_lower_bound(mine)
            found.append(Slice(f"{way}/{name}", len(mine), float(mine.mean()), bound))
    return sorted(found, key=lambda entry: -entry.lower_bound)


def share_lower_bound(values: Array) -> float:
    """Return the lower end of Wilson's 95 % confidence interval (Wilson 1927) for the share of ones; values (N,)."""
    return float(stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, "wilson").low)


def mean_lower_bound(values: Array) -> float:
    """Return the lower end of Student's 95 % confidence interval for the mean of values >= 0 (N,); 0.0 if N is 1."""
    if len(values) < 2:
        return 0.0
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    return max(0.0, float(values.mean() - stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * error))

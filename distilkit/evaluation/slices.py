"""Slices: parts of a text that have something in common, and in which of them answers are worst."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Families = dict[str, list[str]]  # for each way of slicing, the slice of each item
LEVEL = 0.95


class Slice(NamedTuple):
    """A slice, how many items it has, their mean miss, and what that is at least, with a confidence of 95 %."""

    name: str
    size: int
    miss: float
    at_least: float


def of_texts(texts: Sequence[str]) -> Families:
    """Slice texts by their words, the words met once in all of the text, punctuation marks and digits."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    counts = Counter(word for entry in words for word in entry)
    rare = [sum(counts[word] == 1 for word in entry) for entry in words]
    return {
        "words": [band(len(entry), (8, 16, 32, 64, 128)) for entry in words],
        "rare_words": [band(number, (0, 1, 3)) for number in rare],
        "punctuation": [band(len(re.findall(r"[^\w\s]", text)), (0, 2, 5)) for text in texts],
        "digits": [band(len(re.findall(r"\d", text)), (0,)) for text in texts],
    }


def of_tokens(tokens: Sequence[str], frequencies: Sequence[int], positions: Sequence[int], length: int) -> Families:
    """Slice tokens by kind, by how often each is met in the text, by characters and by place in a block of `length`."""
    quarters = [length * quarter // 4 - 1 for quarter in (1, 2, 3)]
    return {
        "kind": [kind(token) for token in tokens],
        "frequency": [band(number, (1, 9, 99, 999), 1) for number in frequencies],
        "characters": [band(len(token), (1, 3, 6), 1) for token in tokens],
        "position": [band(place, quarters) for place in positions],
    }


def kind(token: str) -> str:
    """Say what a token is made of."""
    if any(character.isdigit() for character in token):
        return "digits"
    return "letters" if any(character.isalnum() for character in token) else "punctuation"


def band(number: int, tops: Sequence[int], lowest: int = 0) -> str:
    """Name the band that a number lies in: tops (0, 2, 5) make 0, 1-2, 3-5 and 6+."""
    place = bisect_left(tops, number)
    low = tops[place - 1] + 1 if place else lowest
    if place == len(tops):
        return f"{low}+"
    return str(low) if low == tops[place] else f"{low}-{tops[place]}"


def rank(misses: Array, families: Families) -> list[Slice]:
    """Return every slice, the worst first: by what its mean miss (N,) is at least, so that a handful doesn't win.

    A family whose items are all in one slice says nothing and is left out.
    """
    shares = bool(np.isin(misses, (0, 1)).all())
    found = []
    for family, values in families.items():
        names, members = np.unique(np.array(values), return_inverse=True)
        for number, name in enumerate(names) if len(names) > 1 else ():
            mine = misses[members == number]
            bound = share_at_least(mine) if shares else mean_at_least(mine)
            found.append(Slice(f"{family}/{name}", len(mine), float(mine.mean()), bound))
    return sorted(found, key=lambda entry: -entry.at_least)


def share_at_least(misses: Array) -> float:
    """Return the lower end of Wilson's 95 % interval of a share (Wilson 1927), of zeros and ones (N,)."""
    return float(stats.binomtest(int(misses.sum()), len(misses)).proportion_ci(LEVEL, "wilson").low)


def mean_at_least(misses: Array) -> float:
    """Return the lower end of Student's 95 % interval of the mean of numbers from 0 (N,); 0.0 for a single one."""
    if len(misses) < 2:
        return 0.0
    error = float(misses.std(ddof=1)) / len(misses) ** 0.5
    return max(0.0, float(misses.mean() - stats.t.ppf((1 + LEVEL) / 2, len(misses) - 1) * error))

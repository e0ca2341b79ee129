"""Scores on bootstrap samples of a task's rows, all at once (Efron and Tibshirani 1993, chapter 13)."""

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import stats

from distilkit.evaluation import metrics
from distilkit.evaluation.predictions import Answers, Said

RESAMPLES = 2000
CELLS = 4_000_000  # of the matrix of weights that is worked on at once
Scores = dict[str, np.ndarray]


def resample(said: Sequence[Said], prefix: str, seed: int) -> list[Scores]:
    """Score models on the same bootstrap samples of their rows; returns {metric: (R,)} for each of them.

    `said` is what each model says to the same rows. The samples depend on the seed and the name of the rows alone.
    Not scipy.stats.bootstrap, which would draw anew for every statistic: retention, differences and the GLUE average
    are all made of one set of samples, and only so are they paired.
    """
    scorers = [scorer(one) for one in said]
    parts = [[score(weights) for score in scorers] for weights in draw(_count(said[0]), prefix, seed)]
    return [
        {name: np.concatenate([part[place][name] for part in parts]) for name in parts[0][place]}
        for place in range(len(said))
    ]


def _count(said: Said) -> int:
    return len(said.golds) if isinstance(said, Answers) else len(said.said)


def draw(count: int, prefix: str, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each of `count` rows is in each sample: (B, N), RESAMPLES of them in all."""
    generator = np.random.default_rng([seed, zlib.crc32(prefix.encode())])
    most = max(1, CELLS // count)
    for done in range(0, RESAMPLES, most):
        size = min(most, RESAMPLES - done)
        places = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * count).reshape(size, count).astype(float)


def scorer(said: Said) -> Callable[[np.ndarray], Scores]:
    """Return the function that scores weighted rows: weights (B, N) -> {metric: (B,)}."""
    if isinstance(said, Answers):
        return _mean_scorer(said)
    assert said.asked is not None
    if said.task.kind == "regression":
        x, y = said.said.astype(float), said.asked.astype(float)
        return lambda weights: {
            "pearson": correlation(weights, x, y),
            "spearmanr": correlation(weights, midranks(weights, x), midranks(weights, y)),
        }
    return _count_scorer(said.said, said.asked, said.task.metrics)


def _mean_scorer(said: Answers) -> Callable[[np.ndarray], Scores]:
    version = 2 if said.task.name == "squad_v2" else 1
    values = metrics.squad_values(said.final(), said.golds, version=version)
    table = 100.0 * np.array([values[key] for key in said.golds])  # (N, 2)

    def score(weights: np.ndarray) -> Scores:
        means = weights @ table / weights.sum(axis=1, keepdims=True)
        return {"exact_match": means[:, 0], "f1": means[:, 1]}

    return score


def _count_scorer(said: np.ndarray, asked: np.ndarray, names: Sequence[str]) -> Callable[[np.ndarray], Scores]:
    """Score classes (N,) or flags (N, C) from three counts a class: said, asked, and both."""
    classes = said.ndim == 1
    right = said == asked if classes else (said == asked).all(axis=1)  # (N,)
    if classes:
        known = np.arange(max(2, said.max() + 1, asked.max() + 1))
        said, asked = said[:, None] == known, asked[:, None] == known
    table = np.concatenate([said, asked, (said > 0) & (asked > 0), right[:, None]], axis=1).astype(float)  # (N, 3C + 1)

    def score(weights: np.ndarray) -> Scores:
        *counts, right = np.split(weights @ table, np.arange(1, 4) * said.shape[1], axis=1)
        of: dict[str, Callable[[], np.ndarray]] = {
            "accuracy": lambda: right[:, 0] / weights.sum(axis=1),
            "f1": lambda: f1(*counts)[:, 1],
            "f1_micro": lambda: f1(*(part.sum(axis=1) for part in counts)),
            "f1_macro": lambda: _mean_f1(*counts, present_only=classes),
            "matthews_correlation": lambda: matthews(*counts),
        }
        return {name: of[name]() for name in names}

    return score


def f1(said: np.ndarray, asked: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Return 2 |both| / (|said| + |asked|), 0 where a class was neither said nor asked for."""
    share: np.ndarray = 2 * both / np.maximum(said + asked, 1)
    return share


def _mean_f1(said: np.ndarray, asked: np.ndarray, both: np.ndarray, *, present_only: bool) -> np.ndarray:
    """Return the mean over classes; as scikit-learn has it, over those in the sample, but over all labels of flags."""
    present = (said + asked > 0) | (not present_only)
    mean: np.ndarray = (f1(said, asked, both) * present).sum(axis=1) / present.sum(axis=1)
    return mean


def matthews(said: np.ndarray, asked: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Return Matthews' coefficient of counts (B, C) (Gorodkin 2004, R_K), 0 where one side is constant."""
    total = asked.sum(axis=1)
    covariance = total * both.sum(axis=1) - (said * asked).sum(axis=1)
    spread = (total**2 - (said**2).sum(axis=1)) * (total**2 - (asked**2).sum(axis=1))
    coefficient: np.ndarray = covariance / np.sqrt(np.where(spread > 0, spread, np.inf))
    return coefficient


def correlation(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Pearson's coefficient of weighted rows, 0 where one side is constant; x, y (N,) or (B, N)."""
    total = weights.sum(axis=1)
    x, y = (values - ((weights * values).sum(axis=1) / total)[:, None] for values in (x, y))
    spread = (weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1)
    varied = [((weights > 0) & (abs(values) > 1e-12)).any(axis=1) for values in (x, y)]
    covariance = (weights * x * y).sum(axis=1)
    coefficient: np.ndarray = covariance / np.sqrt(np.where(varied[0] & varied[1], spread, np.inf))
    return coefficient


def midranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return each row's rank in each sample (B, N), the mean rank of equal values: what Spearman's takes."""
    order = np.argsort(values, kind="stable")
    dense = stats.rankdata(values, method="dense") - 1  # which of the different values, from 0
    first = np.searchsorted(dense[order], np.arange(dense.max() + 1))
    count = np.add.reduceat(weights[:, order], first, axis=1)  # (B, different values)
    ranks: np.ndarray = (np.cumsum(count, axis=1) - count + (count + 1) / 2)[:, dense]
    return ranks

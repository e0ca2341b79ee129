"""Compute all metrics on bootstrap samples of a task's rows at once (Efron and Tibshirani 1993, chapter 13)."""

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import stats

from distilkit.evaluation import metrics
from distilkit.evaluation.predictions import Predictions, SpanPredictions
from distilkit.evaluation.ranking import RankingPredictions
from distilkit.evaluation.tags import TagPredictions

RESAMPLES = 2000
BATCH_WEIGHTS = 4_000_000  # weights (samples times rows) in memory at once
Scores = dict[str, np.ndarray]


def resample(predictions: Sequence[Predictions], prefix: str, seed: int) -> list[Scores]:
    """Score models on the same bootstrap samples of their rows; return {metric: (R,)} for each model.

    `predictions` holds each model's predictions for the same rows. The samples depend only on the seed and the prefix.
    scipy.stats.bootstrap would draw new samples for every statistic. Retention, differences and the GLUE average need
    one common set of samples: only then are the comparisons paired.
    """
    scorers = [make_scorer(one) for one in predictions]
    batches = [
        [score(weights) for score in scorers] for weights in draw_weights(_count_rows(predictions[0]), prefix, seed)
    ]
    return [
        {name: np.concatenate([batch[model][name] for batch in batches]) for name in batches[0][model]}
        for model in range(len(predictions))
    ]


def _count_rows(predictions: Predictions) -> int:
    return len(predictions.golds) if isinstance(predictions, SpanPredictions) else len(predictions.predicted)


def draw_weights(count: int, prefix: str, seed: int, batch_weights: int = BATCH_WEIGHTS) -> Iterator[np.ndarray]:
    """Yield how often each of `count` rows is in each sample, (B, N) at a time, for RESAMPLES samples in all."""
    generator = np.random.default_rng([seed, zlib.crc32(prefix.encode())])
    max_samples = max(1, batch_weights // count)
    for done in range(0, RESAMPLES, max_samples):
        size = min(max_samples, RESAMPLES - done)
        rows = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(rows.ravel(), minlength=size * count).reshape(size, count).astype(float)


def make_scorer(predictions: Predictions) -> Callable[[np.ndarray], Scores]:
    """Return a function from row weights (B, N) to the metrics of the weighted rows, {metric: (B,)}."""
    if isinstance(predictions, SpanPredictions):
        return _span_scorer(predictions)
    if isinstance(predictions, RankingPredictions):
        return _mean_scorer(predictions.values(), predictions.task.metrics)
    if isinstance(predictions, TagPredictions):
        return _tag_scorer(predictions)
    assert predictions.labels is not None
    if predictions.task.kind == "regression":
        x, y = predictions.predicted.astype(float), predictions.labels.astype(float)
        return lambda weights: {
            "pearson": correlation(weights, x, y),
            "spearmanr": correlation(weights, midranks(weights, x), midranks(weights, y)),
        }
    return _count_scorer(predictions.predicted, predictions.labels, predictions.task.metrics)


def _span_scorer(predictions: SpanPredictions) -> Callable[[np.ndarray], Scores]:
    """Score spans: their metrics are means over questions."""
    version = 2 if predictions.task.name == "squad_v2" else 1
    values = metrics.squad_values(predictions.final_answers(), predictions.golds, version=version)
    table = 100.0 * np.array([values[key] for key in predictions.golds])  # (N, 2)
    return _mean_scorer(table, ("exact_match", "f1"))


def _mean_scorer(table: np.ndarray, names: Sequence[str]) -> Callable[[np.ndarray], Scores]:
    """Score rows by the means of their values (N, metrics)."""

    def score(weights: np.ndarray) -> Scores:
        means = weights @ table / weights.sum(axis=1, keepdims=True)
        return dict(zip(names, means.T, strict=True))

    return score


def _count_scorer(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Callable[[np.ndarray], Scores]:
    """Score classes (N,) or 0 and 1 (N, C) from three counts per class: predicted, true, and both."""
    classes = predicted.ndim == 1
    right = predicted == labels if classes else (predicted == labels).all(axis=1)  # (N,)
    if classes:
        known = np.arange(max(2, predicted.max() + 1, labels.max() + 1))
        predicted, labels = predicted[:, None] == known, labels[:, None] == known
    columns = [predicted, labels, (predicted > 0) & (labels > 0), right[:, None]]
    table = np.concatenate(columns, axis=1).astype(float)  # (N, 3C + 1)

    def score(weights: np.ndarray) -> Scores:
        *counts, right = np.split(weights @ table, np.arange(1, 4) * predicted.shape[1], axis=1)
        formulas: dict[str, Callable[[], np.ndarray]] = {
            "accuracy": lambda: right[:, 0] / weights.sum(axis=1),
            "f1": lambda: f1(*counts)[:, 1],
            "f1_micro": lambda: f1(*(count.sum(axis=1) for count in counts)),
            "f1_macro": lambda: _mean_f1(*counts, present_only=classes),
            "matthews_correlation": lambda: matthews(*counts),
        }
        return {name: formulas[name]() for name in names}

    return score


def _tag_scorer(predictions: TagPredictions) -> Callable[[np.ndarray], Scores]:
    """Score tags from the counts of entities in each sentence: predicted, true, and both."""
    counts, words = predictions.counts()
    table, names = np.concatenate([*counts, words], axis=1), predictions.task.metrics

    def score(weights: np.ndarray) -> Scores:
        *by_type, right = np.split(weights @ table, np.arange(1, 4) * counts[0].shape[1], axis=1)
        predicted, true, both = (count.sum(axis=1) for count in by_type)
        found = {"accuracy": right[:, 0] / np.maximum(right[:, 1], 1), "f1": f1(predicted, true, both)}
        found |= {"precision": both / np.maximum(predicted, 1), "recall": both / np.maximum(true, 1)}
        found["f1_macro"] = _mean_f1(*by_type, present_only=True)
        return {name: found[name] for name in names}

    return score


def f1(predicted: np.ndarray, true: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Return F1 = 2 · both / (predicted + true) of counts, 0 for a class that is neither predicted nor true."""
    score: np.ndarray = 2 * both / np.maximum(predicted + true, 1)
    return score


def _mean_f1(predicted: np.ndarray, true: np.ndarray, both: np.ndarray, *, present_only: bool) -> np.ndarray:
    """Return the mean F1 over classes: those in the sample or, as in scikit-learn for multi-label tasks, all."""
    present = (predicted + true > 0) | (not present_only)
    mean: np.ndarray = (f1(predicted, true, both) * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    return mean


def matthews(predicted: np.ndarray, true: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Return Matthews' coefficient of counts (B, C) (Gorodkin 2004, R_K), 0 if one side is constant."""
    total = true.sum(axis=1)
    covariance = total * both.sum(axis=1) - (predicted * true).sum(axis=1)
    spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    coefficient: np.ndarray = covariance / np.sqrt(np.where(spread > 0, spread, np.inf))
    return coefficient


def correlation(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Pearson's coefficient of weighted rows, 0 if one side is constant; x, y (N,) or (B, N)."""
    total = weights.sum(axis=1)
    x, y = (values - ((weights * values).sum(axis=1) / total)[:, None] for values in (x, y))
    spread = (weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1)
    varied = [((weights > 0) & (abs(values) > 1e-12)).any(axis=1) for values in (x, y)]
    covariance = (weights * x * y).sum(axis=1)
    coefficient: np.ndarray = covariance / np.sqrt(np.where(varied[0] & varied[1], spread, np.inf))
    return coefficient


def midranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the rank of each row in each sample (B, N). Equal values share their mean rank, as Spearman's needs."""
    order = np.argsort(values, kind="stable")
    dense = stats.rankdata(values, method="dense") - 1  # index among the distinct values
    first = np.searchsorted(dense[order], np.arange(dense.max() + 1))
    count = np.add.reduceat(weights[:, order], first, axis=1)  # (B, distinct values)
    ranks: np.ndarray = (np.cumsum(count, axis=1) - count + (count + 1) / 2)[:, dense]
    return ranks

"""Metrics on bootstrap samples against scikit-learn and SciPy on the rows of each sample."""

import zlib
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as formulas

from distilkit.evaluation import bootstrap
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.metrics import compute
from distilkit.evaluation.predictions import SpanPredictions
from distilkit.tasks.catalogue import TASKS, Task

GENERATOR = np.random.default_rng(0)
FLAGS = tuple(GENERATOR.integers(2, size=(2, 30, 4)))
FIVE, TWO = (tuple(GENERATOR.integers(classes, size=(2, 30))) for classes in (5, 2))
CASES: list[tuple[str, str, tuple[str, ...], Any, Any]] = [
    ("classes", "classification", ("accuracy", "f1_macro", "matthews_correlation"), *FIVE),
    ("two classes", "classification", ("f1", "accuracy", "matthews_correlation"), *TWO),
    ("one answer", "classification", ("f1", "matthews_correlation"), np.ones(9, int), np.arange(9) % 2),
    ("one label", "classification", ("f1", "f1_macro", "accuracy"), np.arange(9) % 2, np.zeros(9, int)),
    ("flags", "multi-label", ("f1_micro", "f1_macro", "accuracy"), *FLAGS),
    ("numbers", "regression", ("pearson", "spearmanr"), *GENERATOR.normal(size=(2, 30))),
    ("ties", "regression", ("pearson", "spearmanr"), *GENERATOR.integers(4, size=(2, 30)).astype(float)),
    ("mostly constant", "regression", ("pearson", "spearmanr"), np.eye(1, 5, 2)[0], np.arange(5.0)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "names", "predicted", "labels"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_a_sample_scores_as_its_rows_do(kind: Any, names: tuple[str, ...], predicted: Any, labels: Any) -> None:
    """Weighted rows score as repeated rows do in scikit-learn and SciPy, also with constant sides and ties."""
    weights = (
        np.random.default_rng(1)
        .multinomial(len(predicted), np.full(len(predicted), 1 / len(predicted)), size=12)
        .astype(float)
    )
    found = bootstrap.make_scorer(LabelPredictions(Task("t", kind, (), names), predicted, labels))(weights)
    for name in names:
        rows = [np.repeat(np.arange(len(predicted)), row.astype(int)) for row in weights]
        expected = [compute(name, predicted[row].tolist(), labels[row].tolist())[name] for row in rows]
        assert found[name] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("version", ["squad", "squad_v2"])
def test_spans_score_as_a_mean_over_questions(version: str) -> None:
    """A missing prediction counts 0."""
    golds = {"a": ["x"], "b": ["y z"], "c": ["w"]}
    spans = SpanPredictions(TASKS[version], {"b": "y", "a": "x"}, golds, {"a": 0.0, "b": 1.0}, null_threshold=2.0)
    found = bootstrap.make_scorer(spans)(np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]]))
    assert found["exact_match"] == pytest.approx([100 / 3, 200 / 3])
    assert found["f1"] == pytest.approx([100 * (1 + 2 / 3) / 3, 100 * (2 + 2 / 3) / 3])


def test_the_interval_is_scipys() -> None:
    """The same samples give the paired percentile interval of scipy.stats.bootstrap, digit for digit."""
    labels, mine, theirs = np.random.default_rng(2).integers(2, size=(3, 50))
    task = TASKS["sst2"]
    predicted = [LabelPredictions(task, mine, labels), LabelPredictions(task, theirs, labels)]
    student, teacher = (scores["accuracy"] for scores in bootstrap.resample(predicted, "sst2", seed=3))

    def retention(s: Any, t: Any, y: Any, axis: int) -> Any:
        return (s == y).mean(axis=axis) / (t == y).mean(axis=axis)

    generator = np.random.default_rng([3, zlib.crc32(b"sst2")])
    options = {"paired": True, "vectorized": True, "n_resamples": bootstrap.RESAMPLES, "method": "percentile"}
    expected = stats.bootstrap((mine, theirs, labels), retention, **options, rng=generator).confidence_interval
    assert np.percentile(student / teacher, (2.5, 97.5)) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_samples_depend_on_seed_and_prefix_alone() -> None:
    """The samples are the same in small batches; another seed or prefix gives others."""

    def samples(prefix: str, seed: int, batch_weights: int = bootstrap.BATCH_WEIGHTS) -> np.ndarray:
        return np.concatenate([*bootstrap.draw_weights(7, prefix, seed, batch_weights)])

    first = samples("rte", 1)
    assert first.shape == (bootstrap.RESAMPLES, 7)
    assert (first.sum(axis=1) == 7).all()
    assert (samples("rte", 1, batch_weights=70) == first).all()
    assert (samples("rte", 2) != first).any()
    assert (samples("wnli", 1) != first).any()


def test_matthews_coefficient_of_five_classes() -> None:
    """On all rows the coefficient equals scikit-learn's."""
    predicted, labels = np.random.default_rng(4).integers(5, size=(2, 40))
    found = bootstrap.make_scorer(
        LabelPredictions(Task("t", "classification", (), ("matthews_correlation",)), predicted, labels)
    )
    assert found(np.ones((1, 40)))["matthews_correlation"] == pytest.approx(
        [formulas.matthews_corrcoef(labels, predicted)]
    )

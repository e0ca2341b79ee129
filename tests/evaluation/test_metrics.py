"""Metrics against hand arithmetic, scikit-learn, SciPy and documented examples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as formulas

from distilkit.errors import DistilkitError
from distilkit.evaluation import metrics


@pytest.mark.parametrize(
    ("name", "predictions", "references", "expected"),
    [
        ("accuracy", [0, 1, 1, 0], [0, 1, 0, 0], 3 / 4),
        ("f1", [0, 0, 1, 1, 0], [0, 1, 0, 1, 0], 1 / 2),  # one true positive, one false positive, one false negative
        ("f1", [0, 0], [1, 0], 0.0),
        ("f1_macro", [0, 2, 1, 0, 0, 1], [0, 1, 2, 0, 1, 2], 0.8 / 3),  # class 0: 2 hits, 1 false positive; others 0
        (
            "f1_micro",
            [[1, 0], [1, 1], [0, 0]],
            [[1, 0], [0, 1], [0, 1]],
            2 * 2 / (2 * 2 + 1 + 1),
        ),  # 2 hits, 1 + 1 wrong
        ("f1_macro", [[1, 0], [1, 1], [0, 0]], [[1, 0], [0, 1], [0, 1]], 2 / 3),  # each label: 1 hit, 1 wrong
        ("accuracy", [[1, 0], [1, 1], [0, 0]], [[1, 0], [0, 1], [0, 1]], 1 / 3),  # rows with every label right
        ("matthews_correlation", [1, 2, 2, 0, 3, 3], [1, 3, 2, 0, 3, 2], 0.5384615384615384),  # documented example
        ("matthews_correlation", [1, 1], [0, 1], 0.0),
        ("f1_micro", [0, 2, 1, 0, 0, 1], [0, 1, 2, 0, 1, 2], 2 / 6),  # of classes it is the accuracy
        ("pearson", [1.0, 2.0, 4.0], [1.0, 3.0, 2.0], 0.5 / (7 / 3) ** 0.5),  # covariance 1/2, variances 7/3 and 1
        ("spearmanr", [10.0, 9.0, 2.5, 6.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0], -0.7),  # ranks 5 4 1 3 2
    ],
)
def test_scores(name: str, predictions: list[Any], references: list[Any], expected: float) -> None:
    """Each metric gives the value computed by hand."""
    assert metrics.compute(name, predictions, references) == pytest.approx({name: expected})


CLASSES = ("accuracy", "f1", "f1_micro", "f1_macro", "matthews_correlation")
LIBRARIES: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": formulas.accuracy_score,
    "f1": lambda y, p: formulas.f1_score(y, p, zero_division=0),
    "f1_micro": lambda y, p: formulas.f1_score(y, p, average="micro", zero_division=0),
    "f1_macro": lambda y, p: formulas.f1_score(y, p, average="macro", zero_division=0),
    "matthews_correlation": formulas.matthews_corrcoef,
    "pearson": lambda y, p: stats.pearsonr(y, p).statistic,
    "spearmanr": lambda y, p: stats.spearmanr(y, p).statistic,
}


def test_rows_can_have_weights() -> None:
    """evaluate's documented examples of a weighted Matthews correlation."""
    rows = [1, 2, 2, 0, 3, 3], [1, 3, 2, 0, 3, 2]
    for weights, expected in (([0.5, 3, 1, 1, 1, 2], 0.09782608695652174), ([0.5, 1, 0, 0, 0, 1], -0.25)):
        found = metrics.compute("matthews_correlation", *rows, sample_weight=weights)
        assert found == pytest.approx({"matthews_correlation": expected}, abs=1e-15)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LIBRARIES)
def test_matches_libraries(name: str, seed: int) -> None:
    """On random rows, with ties among the numbers, the values are scikit-learn's and SciPy's."""
    generator = np.random.default_rng(seed)
    predicted, labels = generator.integers(2 if name in CLASSES else 8, size=(2, 50))
    found = metrics.compute(name, predicted.tolist(), labels.tolist())[name]
    assert found == pytest.approx(LIBRARIES[name](labels, predicted), abs=1e-15)


@pytest.mark.parametrize(
    ("predicted", "labels"), [([1, 1, 1], [0, 1, 1]), ([0, 0, 0], [0, 1, 1]), ([0, 0, 0], [0, 0, 0])]
)
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_one_class_scores_as_in_the_library(name: str, predicted: list[int], labels: list[int]) -> None:
    """Constant predictions and rows of a single class score as in scikit-learn."""
    assert metrics.compute(name, predicted, labels)[name] == pytest.approx(LIBRARIES[name](labels, predicted))


# From the README files of the metrics glue, f1 and spearmanr of evaluate.
@pytest.mark.parametrize(
    ("name", "references", "predictions", "expected"),
    [
        ("matthews_correlation", [0, 1], [1, 1], 0.0),
        ("accuracy", [0, 1], [0, 1], 1.0),
        ("f1", [0, 1], [0, 1], 1.0),
        ("f1", [0, 1, 0, 1, 0], [0, 0, 1, 1, 0], 0.5),
        ("pearson", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [-10.0, -11.0, -12.0, -13.0, -14.0, -15.0], -1.0),
        ("spearmanr", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [-10.0, -11.0, -12.0, -13.0, -14.0, -15.0], -1.0),
        ("spearmanr", [1, 2, 3, 4, 5], [10, 9, 2.5, 6, 4], -0.7),
    ],
)
def test_documented_examples(name: str, references: list[Any], predictions: list[Any], expected: float) -> None:
    """The examples in the documentation of evaluate give the documented values."""
    assert metrics.compute(name, predictions, references) == pytest.approx({name: expected})


@pytest.mark.parametrize("name", ["pearson", "spearmanr", "matthews_correlation"])
@pytest.mark.filterwarnings("error")
def test_constant_predictions_score_zero(name: str) -> None:
    """Constant predictions have a correlation of 0, without a warning."""
    assert metrics.compute(name, [1, 1, 1], [0, 1, 2]) == {name: 0.0}


@pytest.mark.parametrize(
    ("text", "normal"),
    [("The  Cat!", "cat"), ("a-b, an\tc", "ab c"), ("Another theme", "another theme"), ("the", ""), ("U.S.", "us")],
)
def test_normalize(text: str, normal: str) -> None:
    """Case, punctuation, whole-word articles and extra blanks do not count."""
    assert metrics.normalize(text) == normal


def test_squad_takes_the_best_answer() -> None:
    """Each question takes its best gold answer; F1 is over shared words; scores are means over all questions."""
    texts = {"a": "the Denver Broncos", "b": "gold and blue", "c": "nothing right"}
    golds = {"a": ["Broncos", "Denver Broncos"], "b": ["gold", "deep blue"], "c": ["1 May"]}
    # a is exact; b shares 1 word of 3 with 1 of 1: F1 1/2 (with "deep blue" 2/5); c is wrong
    assert metrics.squad_scores(texts, golds, version=1) == pytest.approx({"exact_match": 100 / 3, "f1": 150 / 3})


def test_squad_missing_prediction_counts_zero() -> None:
    """A question without a prediction counts 0."""
    scores = metrics.squad_scores({"a": "x"}, {"a": ["x"], "b": ["y"]}, version=1)
    assert scores == {"exact_match": 50.0, "f1": 50.0}


def test_squad_repeated_words_count_as_often_as_shared() -> None:
    """Words are a multiset: "x x" against "x" has precision 1/2 and recall 1."""
    assert metrics.token_f1("x x", "x", version=1) == pytest.approx(2 / 3)


def test_squad_v2_scores_answered_and_unanswerable_apart() -> None:
    """An empty text is right only if there is no answer. Questions with and without an answer are also scored apart."""
    texts = {"a": "x y", "b": "", "c": "z"}
    predictions = [{"id": key, "prediction_text": text, metrics.NULL_ODDS: None} for key, text in texts.items()]
    answers = {"a": ["x"], "b": [], "c": []}
    references = [
        {"id": key, "answers": {"text": right, "answer_start": [0] * len(right)}} for key, right in answers.items()
    ]
    assert metrics.compute("squad_v2", predictions, references) == pytest.approx(
        {
            "exact_match": 100 / 3,
            "f1": 100 * (2 / 3 + 1) / 3,
            "has_answer_exact_match": 0.0,
            "has_answer_f1": 100 * 2 / 3,
            "no_answer_exact_match": 50.0,
            "no_answer_f1": 50.0,
        }
    )


def test_versions_differ_on_answers_that_are_only_articles() -> None:
    """In 2.0, "the" and "a" are both empty after normalising, so F1 is 1; in 1.1 it is 0 without a shared word."""
    assert (metrics.token_f1("the", "a", version=2), metrics.token_f1("the", "a", version=1)) == (1.0, 0.0)


def test_squad_refuses_unanswerable_questions() -> None:
    """SQuAD 1.1 has no unanswerable questions; the error names the task to use."""
    with pytest.raises(DistilkitError, match="--task squad_v2"):
        metrics.squad_scores({"a": ""}, {"a": []}, version=1)


def test_scores_by_class_by_hand() -> None:
    """Of classes a, b and c: one a is taken for b, and c is never predicted. Zeros of the matrix are left out."""
    found = metrics.by_class(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 2]), ["a", "b", "c d"])
    assert found == pytest.approx(
        {
            "precision/a": 1 / 2,
            "recall/a": 1 / 2,
            "f1/a": 1 / 2,
            "f1/a/count": 2,
            "precision/b": 1 / 2,
            "recall/b": 1,
            "f1/b": 2 / 3,
            "f1/b/count": 1,
            "precision/c d": 0,
            "recall/c d": 0,
            "f1/c d": 0,
            "f1/c d/count": 1,
            "confusion/a/a": 1,
            "confusion/a/b": 1,
            "confusion/b/b": 1,
            "confusion/c d/a": 1,
        }
    )


def test_labels_of_one_name_have_scores_of_their_own() -> None:
    """<=50K and >50K are both _50K without the signs of a gate: three rows, one of each taken for the other."""
    found = metrics.by_class(np.array([0, 0, 1]), np.array([0, 1, 0]), ["<=50K", ">50K"])
    assert (found["f1/_50K/count"], found["f1/_50K-2/count"]) == (2, 1)
    assert (found["f1/_50K"], found["f1/_50K-2"]) == (1 / 2, 0)
    confused = {name: value for name, value in found.items() if name.startswith("confusion")}
    assert confused == {"confusion/_50K/_50K": 1, "confusion/_50K/_50K-2": 1, "confusion/_50K-2/_50K": 1}


def test_scores_by_label_by_hand() -> None:
    """Several labels a row have no confusion matrix."""
    found = metrics.by_class(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]]), ["a", "b"])
    assert found == pytest.approx(
        {
            "precision/a": 1 / 2,
            "recall/a": 1,
            "f1/a": 2 / 3,
            "f1/a/count": 1,
            "precision/b": 1,
            "recall/b": 1,
            "f1/b": 1,
            "f1/b/count": 1,
        }
    )

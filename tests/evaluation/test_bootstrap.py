"""Scores on bootstrap samples, against scikit-learn and SciPy on the rows of each sample."""

import zlib
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as formulas

from distilkit.evaluation import bootstrap
from distilkit.evaluation.metrics import compute
from distilkit.evaluation.predictions import Answers, Predictions
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
    ("kind", "names", "said", "asked"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_a_sample_scores_as_its_rows_do(kind: Any, names: tuple[str, ...], said: Any, asked: Any) -> None:
    """Weights give what scikit-learn and SciPy say of the rows repeated as often, whatever is constant or tied."""
    weights = np.random.default_rng(1).multinomial(len(said), np.full(len(said), 1 / len(said)), size=12).astype(float)
    found = bootstrap.scorer(Predictions(Task("t", kind, (), names), said, asked))(weights)
    for name in names:
        rows = [np.repeat(np.arange(len(said)), row.astype(int)) for row in weights]
        expected = [compute(name, said[row].tolist(), asked[row].tolist())[name] for row in rows]
        assert found[name] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("version", ["squad", "squad_v2"])
def test_answers_score_as_their_mean(version: str) -> None:
    """SQuAD's are means over questions; a missing prediction counts 0."""
    golds = {"a": ["x"], "b": ["y z"], "c": ["w"]}
    answers = Answers(TASKS[version], {"b": "y", "a": "x"}, golds, {"a": 0.0, "b": 1.0}, threshold=2.0)
    found = bootstrap.scorer(answers)(np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]]))
    assert found["exact_match"] == pytest.approx([100 / 3, 200 / 3])
    assert found["f1"] == pytest.approx([100 * (1 + 2 / 3) / 3, 100 * (2 + 2 / 3) / 3])


def test_the_interval_is_scipys() -> None:
    """The same draws give the paired percentile interval of scipy.stats.bootstrap, digit for digit."""
    asked, mine, theirs = np.random.default_rng(2).integers(2, size=(3, 50))
    task = TASKS["sst2"]
    said = [Predictions(task, mine, asked), Predictions(task, theirs, asked)]
    student, teacher = (scores["accuracy"] for scores in bootstrap.resample(said, "sst2", seed=3))

    def retention(s: Any, t: Any, y: Any, axis: int) -> Any:
        return (s == y).mean(axis=axis) / (t == y).mean(axis=axis)

    generator = np.random.default_rng([3, zlib.crc32(b"sst2")])
    options = {"paired": True, "vectorized": True, "n_resamples": bootstrap.RESAMPLES, "method": "percentile"}
    expected = stats.bootstrap((mine, theirs, asked), retention, **options, rng=generator).confidence_interval
    assert np.percentile(student / teacher, (2.5, 97.5)) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_samples_are_seeded_whatever_their_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed and a name give the same samples, also in small pieces; another seed or name gives others."""

    def samples(prefix: str, seed: int) -> np.ndarray:
        return np.concatenate([*bootstrap.draw(7, prefix, seed)])

    first = samples("rte", 1)
    assert first.shape == (bootstrap.RESAMPLES, 7)
    assert (first.sum(axis=1) == 7).all()
    monkeypatch.setattr(bootstrap, "CELLS", 70)
    assert (samples("rte", 1) == first).all()
    assert (samples("rte", 2) != first).any()
    assert (samples("wnli", 1) != first).any()


def test_formulas_are_those_of_the_books() -> None:
    """On the whole rows the coefficient is scikit-learn's, for five classes too."""
    said, asked = np.random.default_rng(4).integers(5, size=(2, 40))
    found = bootstrap.scorer(Predictions(Task("t", "classification", (), ("matthews_correlation",)), said, asked))
    assert found(np.ones((1, 40)))["matthews_correlation"] == pytest.approx([formulas.matthews_corrcoef(asked, said)])

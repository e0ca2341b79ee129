"""Tags of words: entities as seqeval counts them, parts of speech as scikit-learn does, bootstrap samples."""

from pathlib import Path

import numpy as np
import pytest
from seqeval import metrics as seqeval
from sklearn.metrics import accuracy_score, f1_score

from distilkit.evaluation import bootstrap
from distilkit.evaluation.tags import TagPredictions
from distilkit.tasks.catalogue import METRICS, WORD_METRICS, Task

NAMES = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
TASK = Task("custom", "tokens", ("tokens",), METRICS["tokens"], NAMES, label="ner_tags")
SPEECH = Task("custom", "tokens", ("tokens",), WORD_METRICS, ("NOUN", "VERB", "X", "Y", "Z"), label="pos")


def draw(task: Task, seed: int = 0) -> TagPredictions:
    """Return random tags of thirty sentences, right for most words."""
    generator = np.random.default_rng(seed)
    tags = [generator.integers(5, size=size).tolist() for size in generator.integers(0, 9, size=30)]
    guesses = [[tag if generator.random() < 0.7 else int(generator.integers(5)) for tag in row] for row in tags]
    return TagPredictions(task, guesses, tags)


def test_golden_entities() -> None:
    """By conlleval's rules, an entity is right if its type and both ends are: here 1 of 2 found, and of 3 true ones."""
    tags = [[1, 3, 4, 0], [1, 4]]  # PER PER O LOC; PER O
    guesses = [[1, 3, 4, 4], [1, 3]]  # the first person is right, the last one is too long
    scores = TagPredictions(TASK, guesses, tags).score()
    assert scores == pytest.approx(
        {
            "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "accuracy": 4 / 6,
            "precision/PER": 1 / 2, "recall/PER": 1 / 2, "f1/PER": 1 / 2, "f1/PER/count": 2,
            "precision/LOC": 0, "recall/LOC": 0, "f1/LOC": 0, "f1/LOC/count": 1,
        }
    )  # fmt: skip


def test_the_name_of_a_type_does_not_depend_on_the_rows() -> None:
    """a_b keeps its name, a/b is a_b-2, also where no a_b occurs."""
    task = Task("custom", "tokens", ("tokens",), METRICS["tokens"], ("B-a/b", "B-a_b", "O"), label="ner_tags")
    for tags, expected in (([[0, 1]], {"f1/a_b-2": 1, "f1/a_b": 1}), ([[0, 2]], {"f1/a_b-2": 1})):
        scores = TagPredictions(task, tags, tags).score()
        assert {name: value for name, value in scores.items() if name[:3] == "f1/" and "count" not in name} == expected


def test_a_lost_word_is_outside() -> None:
    """A word without a prediction is scored as O, and written as O."""
    assert TagPredictions(TASK, [[-1, -1]], [[1, 4]]).score()["accuracy"] == 0.5


def test_the_file_has_a_line_for_each_sentence(tmp_path: Path) -> None:
    """With the number of the sentence and the tags of its words."""
    TagPredictions(TASK, [[1, 3], [-1]], [[1, 3], [4]]).write(tmp_path, "custom", range(2))
    assert (tmp_path / "custom.tsv").read_text() == "index\tprediction\n0\tB-PER I-PER\n1\tO\n"


def test_bootstrap_samples_score_as_seqeval_does() -> None:
    """A sample of sentences, some of them several times, scores as seqeval scores these sentences."""
    found = draw(TASK)
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=8).astype(float)
    scores = bootstrap.make_scorer(found)(weights)
    for number, row in enumerate(weights):
        chosen = np.repeat(np.arange(30), row.astype(int))
        truths, guesses = ([found.names(rows[i]) for i in chosen] for rows in (found.tags, found.predicted))
        for name, formula in (
            ("f1", seqeval.f1_score),
            ("precision", seqeval.precision_score),
            ("recall", seqeval.recall_score),
        ):
            assert scores[name][number] == pytest.approx(formula(truths, guesses)), name
        assert scores["accuracy"][number] == pytest.approx(seqeval.accuracy_score(truths, guesses))


def test_other_tags_are_scored_by_word() -> None:
    """Parts of speech have the accuracy and macro F1 of scikit-learn over all words, in samples too."""
    found = draw(SPEECH)
    truths, guesses = ([tag for row in rows for tag in row] for rows in (found.tags, found.predicted))
    expected = {"accuracy": accuracy_score(truths, guesses), "f1_macro": f1_score(truths, guesses, average="macro")}
    assert found.score() == pytest.approx(expected)
    sample = bootstrap.make_scorer(found)(np.ones((1, 30)))
    assert {name: float(values[0]) for name, values in sample.items()} == pytest.approx(expected)

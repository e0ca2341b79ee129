"""Predictions: scored by the rules of the official scripts, and written and read in their formats."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distilkit.errors import DistilkitError
from distilkit.evaluation import label_predictions, metrics, predictions
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.predictions import SpanPredictions
from distilkit.tasks.catalogue import TASKS

SQUAD_V2 = TASKS["squad_v2"]


def best_by_search(
    texts: dict[str, str], golds: dict[str, list[str]], odds: dict[str, float], version: str
) -> tuple[float, float]:
    """Score every threshold; return the best score and its threshold."""
    found = []
    for threshold in (min(odds.values()) - 1, *odds.values()):
        final = {key: text if odds[key] <= threshold else "" for key, text in texts.items()}
        found.append((metrics.squad_scores(final, golds, version=2)[version], -threshold))
    best, negative = max(found)
    return best, -negative


@pytest.mark.parametrize("seed", range(5))
def test_best_thresholds_equal_a_search(seed: int) -> None:
    """The threshold is the lowest one with the best score, and scoring with it gives that score."""
    generator = np.random.default_rng(seed)
    words = ["red", "red fox", "blue", "blue sky"]
    keys = [f"q{n}" for n in range(30)]
    golds = {key: [words[generator.integers(4)]] * int(generator.random() < 0.7) for key in keys}
    texts = {key: (golds[key] or words)[0] if n % 2 else words[n % 4] for n, key in enumerate(keys)}
    odds = {key: float(generator.normal() + 2 * (not golds[key])) for key in keys}
    found = SpanPredictions(SQUAD_V2, texts, golds, odds, null_threshold=0.0).score()
    for name in ("exact_match", "f1"):
        best, threshold = best_by_search(texts, golds, odds, name)
        assert found[f"best_{name}"] == pytest.approx(best)
        assert found[f"best_{name}_threshold"] == threshold
        again = SpanPredictions(SQUAD_V2, texts, golds, odds, null_threshold=threshold).score()
        assert again[name] == pytest.approx(best)


@pytest.mark.parametrize(("lowest", "threshold"), [(1.0, 0.0), (-1.0, np.nextafter(-1.0, -2.0))])
def test_predicting_no_answer_may_be_best(lowest: float, threshold: float) -> None:
    """If every text is wrong, "" is best for all questions: the threshold is 0.0, or lower if there are lower odds."""
    found = SpanPredictions(SQUAD_V2, {"a": "x", "b": "y"}, {"a": ["z"], "b": []}, {"a": lowest, "b": 2.0}).score()
    assert (found["best_f1"], found["best_f1_threshold"]) == (50.0, threshold)


def test_no_best_thresholds_without_null_odds() -> None:
    """A prediction file alone is scored as it is; a missing question counts as wrong."""
    found = SpanPredictions(SQUAD_V2, {"a": "x"}, {"a": ["x"], "b": []}).score()
    assert found["exact_match"] == 50.0
    assert not [name for name in found if name.startswith("best_")]


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
def test_reads_what_it_writes(tmp_path: Path, name: str) -> None:
    """predictions.json and null_odds.json give the same scores when read; infinite odds are written as a number."""
    golds: dict[str, list[str]] = {"a": ["x"], "b": [], "c": ["v"]}
    odds = {"a": -1.0, "b": 1.0, "c": np.inf}
    first = SpanPredictions(SQUAD_V2, {"a": "x", "b": "y", "c": ""}, golds, odds, null_threshold=0.0)
    first.write(tmp_path)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"a": "x", "b": "", "c": ""}
    assert json.loads((tmp_path / "null_odds.json").read_text(), parse_constant=pytest.fail)["b"] == 1.0
    text = (tmp_path / "predictions.json").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    again = predictions.read_span_predictions(SQUAD_V2, golds, tmp_path / name, tmp_path / "null_odds.json")
    assert again.score() == first.score()


@pytest.mark.parametrize(
    ("text", "odds", "words"),
    [
        ("{", "{}", "--predictions '.*' cannot be read"),
        ("[]", "{}", "--predictions '.*p.json'.*texts"),
        ('{"a": 1}', "{}", "--predictions '.*p.json'.*texts"),
        ('{"z": "x"}', "{}", "--predictions '.*p.json'.*--data"),
        ('{"a": "x"}', '{"a": "x"}', "--null-odds '.*o.json'.*numbers"),
        ('{"a": "x"}', '{"z": 1}', "--null-odds '.*o.json'.*p.json"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, odds: str, words: str) -> None:
    """The error names the option and the file."""
    (tmp_path / "p.json").write_text(text)
    (tmp_path / "o.json").write_text(odds)
    with pytest.raises(DistilkitError, match=words):
        predictions.read_span_predictions(SQUAD_V2, {"a": ["x"]}, tmp_path / "p.json", tmp_path / "o.json")
    with pytest.raises(DistilkitError, match="cannot be read"):
        predictions.read_span_predictions(SQUAD_V2, {"a": ["x"]}, tmp_path / "absent.json", None)


@pytest.mark.parametrize(
    ("task", "predicted", "lines"),
    [
        ("cola", np.array([1, 0]), ["0\t1", "1\t0"]),
        ("qnli", np.array([1, 0]), ["0\tnot_entailment", "1\tentailment"]),
        ("rte", np.array([0]), ["0\tentailment"]),
        ("mnli", np.array([0, 1, 2]), ["0\tentailment", "1\tneutral", "2\tcontradiction"]),
        ("wnli", np.array([1]), ["0\t1"]),
        ("stsb", np.array([-0.2, 2.3456, 5.1]), ["0\t0.000", "1\t2.346", "2\t5.000"]),
        ("imdb", np.array([1, 0]), ["0\tpos", "1\tneg"]),
    ],
)
def test_files_have_the_format_of_the_leaderboard(
    tmp_path: Path, task: str, predicted: np.ndarray, lines: list[str]
) -> None:
    """One line per row: label names for MNLI, QNLI and RTE, numbers from 0 to 5 for STS-B, else label ids."""
    LabelPredictions(TASKS[task], predicted).write(tmp_path, "File", range(len(predicted)))
    assert (tmp_path / "File.tsv").read_text() == "\n".join(["index\tprediction", *lines, ""])
    assert [path.name for path in tmp_path.iterdir()] == ["File.tsv"]


@pytest.mark.parametrize(
    ("predicted", "labels", "expected"),
    [
        ([1, 1, 1], [0, 1, 1], True),
        ([1, 1, 0], [0, 1, 1], False),
        ([1, 1, 1], [1, 1, 1], False),  # these are right
        ([2.5, 2.51, 2.5], [0.0, 5.0, 1.0], True),
        ([2.5, 2.9, 2.1], [0.0, 5.0, 1.0], False),
        ([[1, 0], [1, 0]], [[0.0, 1.0], [1.0, 0.0]], True),
        ([[1, 0], [0, 0]], [[0.0, 1.0], [1.0, 0.0]], False),
    ],
)
def test_collapsed(predicted: list[float], labels: list[float], expected: bool) -> None:
    """All predictions are the same, or nearly the same numbers, although the labels are not."""
    assert label_predictions.collapsed(np.array(predicted), np.array(labels)) is expected


def test_numbers_of_a_custom_task_have_all_digits(tmp_path: Path) -> None:
    """Only STS-B is rounded to three decimals; a custom task may have much smaller numbers."""
    predicted = np.array([0.092123456, 1.5e-7], dtype=np.float32)
    task = replace(TASKS["stsb"], name="custom", scale=None, tests=())
    LabelPredictions(task, predicted).write(tmp_path, "custom", range(2))
    lines = (tmp_path / "custom.tsv").read_text().splitlines()[1:]
    assert [np.float32(line.split("\t")[1]) for line in lines] == predicted.tolist()


@pytest.mark.parametrize(
    ("texts", "golds", "expected"),
    [
        ({"a": "x", "b": "x"}, {"a": ["x"], "b": ["y"]}, True),
        ({"a": "", "b": ""}, {"a": ["x"], "b": []}, True),
        ({"a": "", "b": ""}, {"a": [], "b": []}, False),  # these are right
        ({"a": "x"}, {"a": ["y"]}, False),  # one question is not enough
    ],
)
def test_spans_collapse(texts: dict[str, str], golds: dict[str, list[str]], expected: bool) -> None:
    """All questions get the same text, which is not right for all of them."""
    assert ("collapsed" in SpanPredictions(SQUAD_V2, texts, golds).score()) is expected

"""Prediction files: read, scored by the official scripts' rules, and written as leaderboards take them."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distilkit.errors import DistilkitError
from distilkit.evaluation import metrics, predictions
from distilkit.evaluation.predictions import Answers, Predictions
from distilkit.tasks.catalogue import TASKS

SQUAD_V2 = TASKS["squad_v2"]


def best_by_trying(
    texts: dict[str, str], golds: dict[str, list[str]], odds: dict[str, float], version: str
) -> tuple[float, float]:
    """Return the best score over all thresholds and the threshold, by scoring every one of them."""
    found = []
    for threshold in (min(odds.values()) - 1, *odds.values()):
        final = {key: text if odds[key] <= threshold else "" for key, text in texts.items()}
        found.append((metrics.squad_scores(final, golds, version=2)[version], -threshold))
    best, negative = max(found)
    return best, -negative


@pytest.mark.parametrize("seed", range(5))
def test_best_thresholds_are_those_that_a_search_finds(seed: int) -> None:
    """Of all thresholds on distinct odds, the lowest of those that give the best score; and it does give it."""
    generator = np.random.default_rng(seed)
    words = ["red", "red fox", "blue", "blue sky"]
    keys = [f"q{n}" for n in range(30)]
    golds = {key: [words[generator.integers(4)]] * int(generator.random() < 0.7) for key in keys}
    texts = {key: (golds[key] or words)[0] if n % 2 else words[n % 4] for n, key in enumerate(keys)}
    odds = {key: float(generator.normal() + 2 * (not golds[key])) for key in keys}
    found = Answers(SQUAD_V2, texts, golds, odds, threshold=0.0).score()
    for name in ("exact_match", "f1"):
        best, threshold = best_by_trying(texts, golds, odds, name)
        assert found[f"best_{name}"] == pytest.approx(best)
        assert found[f"best_{name}_threshold"] == threshold
        again = Answers(SQUAD_V2, texts, golds, odds, threshold=threshold).score()
        assert again[name] == pytest.approx(best)


@pytest.mark.parametrize(("lowest", "threshold"), [(1.0, 0.0), (-1.0, np.nextafter(-1.0, -2.0))])
def test_answering_nothing_may_be_best(lowest: float, threshold: float) -> None:
    """Where every text is wrong, the best score is that of no text at all: 0.0 says so, unless odds are below it."""
    found = Answers(SQUAD_V2, {"a": "x", "b": "y"}, {"a": ["z"], "b": []}, {"a": lowest, "b": 2.0}).score()
    assert (found["best_f1"], found["best_f1_threshold"]) == (50.0, threshold)


def test_answers_without_odds_have_no_thresholds() -> None:
    """A prediction file alone is scored as it is; a question that it lacks counts as wrong."""
    found = Answers(SQUAD_V2, {"a": "x"}, {"a": ["x"], "b": []}).score()
    assert found["exact_match"] == 50.0
    assert not [name for name in found if name.startswith("best_")]


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
def test_reads_what_it_writes(tmp_path: Path, name: str) -> None:
    """predictions.json and null_odds.json come back with the same scores; an infinite odd stays a number of JSON."""
    golds: dict[str, list[str]] = {"a": ["x"], "b": [], "c": ["v"]}
    odds = {"a": -1.0, "b": 1.0, "c": np.inf}
    first = Answers(SQUAD_V2, {"a": "x", "b": "y", "c": ""}, golds, odds, threshold=0.0)
    first.write(tmp_path)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"a": "x", "b": "", "c": ""}
    assert json.loads((tmp_path / "null_odds.json").read_text(), parse_constant=pytest.fail)["b"] == 1.0
    text = (tmp_path / "predictions.json").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    again = predictions.read_answers(SQUAD_V2, golds, tmp_path / name, tmp_path / "null_odds.json")
    assert again.score() == first.score()


@pytest.mark.parametrize(
    ("text", "odds", "words"),
    [
        ("{", "{}", "--predictions '.*' cannot be read"),
        ("[]", "{}", "--predictions '.*' holds no object of question ids and texts"),
        ('{"a": 1}', "{}", "--predictions '.*' holds no object of question ids and texts"),
        ('{"z": "x"}', "{}", "answers no question of --data"),
        ('{"a": "x"}', '{"a": "x"}', "--null-odds '.*' holds no object of question ids and numbers"),
        ('{"a": "x"}', '{"z": 1}', "--null-odds '.*' lacks questions"),
    ],
)
def test_refuses_what_is_no_prediction_file(tmp_path: Path, text: str, odds: str, words: str) -> None:
    """One line says which file, and what is wrong with it."""
    (tmp_path / "p.json").write_text(text)
    (tmp_path / "o.json").write_text(odds)
    with pytest.raises(DistilkitError, match=words):
        predictions.read_answers(SQUAD_V2, {"a": ["x"]}, tmp_path / "p.json", tmp_path / "o.json")
    with pytest.raises(DistilkitError, match="cannot be read"):
        predictions.read_answers(SQUAD_V2, {"a": ["x"]}, tmp_path / "absent.json", None)


@pytest.mark.parametrize(
    ("task", "said", "lines"),
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
def test_writes_what_the_leaderboard_takes(tmp_path: Path, task: str, said: np.ndarray, lines: list[str]) -> None:
    """A line a row: MNLI, QNLI and RTE by name, STS-B from 0 to 5, the others by number."""
    Predictions(TASKS[task], said).write(tmp_path, "File", range(len(said)))
    assert (tmp_path / "File.tsv").read_text() == "\n".join(["index\tprediction", *lines, ""])
    assert [path.name for path in tmp_path.iterdir()] == ["File.tsv"]


@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        ([1, 1, 1], [0, 1, 1], True),
        ([1, 1, 0], [0, 1, 1], False),
        ([1, 1, 1], [1, 1, 1], False),  # which is right
        ([2.5, 2.51, 2.5], [0.0, 5.0, 1.0], True),
        ([2.5, 2.9, 2.1], [0.0, 5.0, 1.0], False),
        ([[1, 0], [1, 0]], [[0.0, 1.0], [1.0, 0.0]], True),
        ([[1, 0], [0, 0]], [[0.0, 1.0], [1.0, 0.0]], False),
    ],
)
def test_collapsed(said: list[float], asked: list[float], expected: bool) -> None:
    """The same answer to every row, or nearly the same number, though the right ones differ."""
    assert predictions.collapsed(np.array(said), np.array(asked)) is expected


def test_a_number_of_your_own_is_written_whole(tmp_path: Path) -> None:
    """Three digits behind the point are STS-B's: elsewhere they might be all that differs."""
    said = np.array([0.092123456, 1.5e-7], dtype=np.float32)
    task = replace(TASKS["stsb"], name="custom", scale=None, tests=())
    Predictions(task, said).write(tmp_path, "custom", range(2))
    lines = (tmp_path / "custom.tsv").read_text().splitlines()[1:]
    assert [np.float32(line.split("\t")[1]) for line in lines] == said.tolist()


@pytest.mark.parametrize(
    ("texts", "golds", "expected"),
    [
        ({"a": "x", "b": "x"}, {"a": ["x"], "b": ["y"]}, True),
        ({"a": "", "b": ""}, {"a": ["x"], "b": []}, True),
        ({"a": "", "b": ""}, {"a": [], "b": []}, False),  # which is right
        ({"a": "x"}, {"a": ["y"]}, False),  # one question says nothing
    ],
)
def test_answers_collapse(texts: dict[str, str], golds: dict[str, list[str]], expected: bool) -> None:
    """The same text to every question, though not every one should have it."""
    assert ("collapsed" in Answers(SQUAD_V2, texts, golds).score()) is expected

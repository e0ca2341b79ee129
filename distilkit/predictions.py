"""What a model says to a task's rows: how it is scored, and the files that leaderboards take."""

import gzip
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distilkit import metrics
from distilkit.errors import DistilkitError
from distilkit.files import write_text
from distilkit.record import COLLAPSED, json_text
from distilkit.tasks.catalogue import SCALE, Task

WORDS = ("mnli", "qnli", "rte")  # whose labels GLUE's leaderboard wants by name


@dataclass(frozen=True)
class Predictions:
    """What is said to rows, in their order, and what is asked for: classes or numbers (N,), or 0 and 1 (N, C)."""

    task: Task
    said: np.ndarray
    asked: np.ndarray | None = None  # a test split keeps it to itself

    def score(self) -> dict[str, float]:
        """Return the task's metrics, and the mark `collapsed` where it applies."""
        assert self.asked is not None
        values = {COLLAPSED: 1.0} if collapsed(self.said, self.asked) else {}
        for metric in self.task.metrics:
            values |= metrics.compute(metric, self.said.tolist(), self.asked.tolist())
        return values

    def write(self, directory: Path, name: str, numbers: Sequence[int]) -> None:
        """Write NAME.tsv as GLUE's leaderboard takes it: a line a row, its number and what is said to it."""
        lines = [f"{number}\t{_spell(self.task, value)}\n" for number, value in zip(numbers, self.said, strict=True)]
        write_text(directory / f"{name}.tsv", "".join(["index\tprediction\n", *lines]))


@dataclass(frozen=True)
class Answers:
    """What is said to SQuAD's questions: {id: text}, with the right answers to them all.

    `odds` is by how much the score of no answer exceeds the text's; above `threshold` the answer is "".
    """

    task: Task
    texts: dict[str, str]
    golds: dict[str, list[str]]
    odds: dict[str, float] = field(default_factory=dict)
    threshold: float | None = None

    def final(self) -> dict[str, str]:
        """Return the texts, "" where no answer is the better one."""
        if self.threshold is None:
            return self.texts
        return {
            key: text if self.odds.get(key, -math.inf) <= self.threshold else "" for key, text in self.texts.items()
        }

    def score(self) -> dict[str, float]:
        """Return the scores from 0 to 100, for 2.0 with the best thresholds, and the mark `collapsed`."""
        final = self.final()
        values = {COLLAPSED: 1.0} if self._collapsed(final) else {}
        values |= self._compute(final, {})
        if self.odds and self.task.name == "squad_v2":
            tried = self._compute(self.texts, self.odds)
            values |= {name: value for name, value in tried.items() if name.startswith("best_")}
        return values

    def _collapsed(self, final: dict[str, str]) -> bool:
        said = set(final.values())
        return len(said) == 1 < len(final) and not all(said <= set(golds or [""]) for golds in self.golds.values())

    def _compute(self, texts: dict[str, str], odds: dict[str, float]) -> dict[str, float]:
        predictions: list[dict[str, Any]] = [{"id": key, "prediction_text": texts.get(key)} for key in self.golds]
        if self.task.name == "squad_v2":
            predictions = [row | {metrics.ODDS: odds.get(row["id"])} for row in predictions]
        references = [
            {"id": key, "answers": {"text": answers, "answer_start": [0] * len(answers)}}
            for key, answers in self.golds.items()
        ]
        return metrics.compute(self.task.name, predictions, references)

    def write(self, directory: Path) -> None:
        """Write predictions.json, and for 2.0 null_odds.json, as the official scripts take them."""
        write_text(directory / "predictions.json", json_text(self.final()) + "\n")
        if self.task.name == "squad_v2":
            most = sys.float_info.max  # JSON has no infinity, the odds where a question has no span at all
            write_text(
                directory / "null_odds.json",
                json_text({key: min(odds, most) for key, odds in self.odds.items()}) + "\n",
            )


Said = Predictions | Answers


def collapsed(said: np.ndarray, asked: np.ndarray) -> bool:
    """Say whether predictions (N,) or (N, C) are the same for every row though what was asked for is not.

    Numbers count as the same where they differ by less than a hundredth of what the right ones do.
    """
    mine, right = (values.astype(float).std(axis=0).max() for values in (said, asked))
    return bool(right > 0 and mine < 0.01 * right)


def _spell(task: Task, value: Any) -> str:
    """Spell a prediction as the leaderboard does; a custom task's and IMDb's by name."""
    if task.kind == "regression":
        if task.name not in SCALE:
            return f"{value:.9g}"  # all that fp32 holds
        low, high = SCALE[task.name]
        return f"{min(max(float(value), low), high):.3f}"
    if task.kind == "multi-label":
        return ",".join(label for label, flag in zip(task.labels, value, strict=True) if flag)
    return task.labels[value] if task.name in WORDS or not task.tests else str(int(value))


def read_answers(
    task: Task, golds: dict[str, list[str]], path: Path, odds: Path | None, threshold: float | None = None
) -> Answers:
    """Read a prediction file of SQuAD's, {id: text}, and its null odds, {id: number}; `threshold` as in Answers.

    Raises DistilkitError where a file isn't that, or answers none of the questions.
    """
    texts = _read(path, "--predictions", (str,))
    if not texts.keys() & golds.keys():
        raise DistilkitError(f"--predictions '{path}' answers no question of --data: give the file that belongs to it")
    numbers = _read(odds, "--null-odds", (int, float)) if odds else {}
    if odds and not texts.keys() & golds.keys() <= numbers.keys():
        raise DistilkitError(
            f"--null-odds '{odds}' lacks questions that '{path}' answers: give the file of the same run"
        )
    return Answers(task, texts, golds, numbers, threshold)


def _read(path: Path, flag: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            entries = json.load(file)
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DistilkitError(f"{flag} '{path}' cannot be read ({error}): give a JSON file (.gz too)") from None
    if not isinstance(entries, dict) or not all(type(entry) in kinds for entry in entries.values()):
        held = "texts" if str in kinds else "numbers"
        raise DistilkitError(f"{flag} '{path}' holds no object of question ids and {held}: give SQuAD's layout")
    return entries

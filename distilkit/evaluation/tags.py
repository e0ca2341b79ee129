"""Predicted tags of words: their scores, and what a bootstrap over sentences counts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities

from distilkit.evaluation import metrics
from distilkit.files import write_text
from distilkit.record import COLLAPSED
from distilkit.tasks.catalogue import Task
from distilkit.tasks.labels import OUTSIDE, marks_entities


@dataclass(frozen=True)
class TagPredictions:
    """A model's tag for each word and the true ones: ids, sentence by sentence. A lost word (tagging.LOST) has -1."""

    task: Task
    predicted: Sequence[Sequence[int]]
    tags: Sequence[Sequence[int]]

    def names(self, sentence: Sequence[int]) -> list[str]:
        """Return the names of tags; a lost word is outside of all entities."""
        return [self.task.labels[tag] if tag >= 0 else OUTSIDE for tag in sentence]

    def score(self) -> dict[str, float]:
        """Return the task's metrics, those of each type of entity, and any COLLAPSED mark."""
        guesses, truths = (list(chain.from_iterable(rows)) for rows in (self.predicted, self.tags))
        values = {COLLAPSED: 1.0} if len(set(guesses)) == 1 < len(set(truths)) else {}
        if marks_entities(self.task.labels):
            named = ([self.names(sentence) for sentence in rows] for rows in (self.predicted, self.tags))
            return values | metrics.compute("entities", *named, labels=self.task.labels)
        for metric in self.task.metrics:
            values |= metrics.compute(metric, guesses, truths)
        return values

    def counts(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Return, for each sentence, the entities of each type that are predicted, true and both: (N, types) each.

        The second result is the number of right words and of all words, (N, 2). If the tags mark no entities, every
        word counts as an entity whose type is its tag.
        """
        found = [[Counter(self._entities(sentence)) for sentence in rows] for rows in (self.predicted, self.tags)]
        found.append([ours & theirs for ours, theirs in zip(*found, strict=True)])
        types = sorted({kind for rows in found for row in rows for kind, _, _ in row})
        tables = [np.zeros((len(self.tags), len(types))) for _ in found]
        for table, rows in zip(tables, found, strict=True):
            for number, row in enumerate(rows):
                for kind, _, _ in row:
                    table[number, types.index(kind)] += 1
        pairs = zip(self.predicted, self.tags, strict=True)
        right = [sum(map(int.__eq__, *pair)) for pair in pairs]
        return tables, np.array([right, list(map(len, self.tags))], dtype=float).T

    def _entities(self, sentence: Sequence[int]) -> Iterator[tuple[str, int, int]]:
        names = self.names(sentence)
        if marks_entities(self.task.labels):
            yield from get_entities(names)
        else:
            yield from ((name, word, word) for word, name in enumerate(names))

    def row(self, number: int) -> dict[str, list[str | None]]:
        """Return the tags of a sentence's words. A lost word gets the tag for outside of entities, if any."""
        lost = OUTSIDE if OUTSIDE in self.task.labels else None
        return {"prediction": [self.task.labels[tag] if tag >= 0 else lost for tag in self.predicted[number]]}

    def write(self, directory: Path, name: str, numbers: Sequence[int]) -> None:
        """Write NAME.tsv: one line per sentence with its number and the tags of its words, separated by spaces."""
        rows = zip(numbers, self.predicted, strict=True)
        lines = [f"{number}\t{' '.join(self.names(sentence))}\n" for number, sentence in rows]
        write_text(directory / f"{name}.tsv", "".join(["index\tprediction\n", *lines]))

"""Rankings of passages for queries: recall, reciprocal rank and nDCG, as trec_eval computes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distilkit.files import write_text
from distilkit.tasks.catalogue import Task

DEPTH = 10  # passages of a ranking that the metrics look at


@dataclass(frozen=True)
class RankingPredictions:
    """The best passages for each query, by number, and the grades of the relevant ones."""

    task: Task
    predicted: Sequence[Sequence[int]]  # DEPTH numbers or fewer, the best first
    relevant: Sequence[Mapping[int, float]]

    def values(self) -> np.ndarray:
        """Return the task's metrics of each query, (N, 4)."""
        return np.array([query_metrics(*pair) for pair in zip(self.predicted, self.relevant, strict=True)])

    def score(self) -> dict[str, float]:
        """Return the means over queries."""
        return dict(zip(self.task.metrics, self.values().mean(axis=0).tolist(), strict=True))

    def write(self, directory: Path, name: str, numbers: Sequence[int]) -> None:
        """Write NAME.tsv: one line per query with its number and the numbers of its best passages."""
        rows = zip(numbers, self.predicted, strict=True)
        lines = [f"{number}\t{' '.join(map(str, best))}\n" for number, best in rows]
        write_text(directory / f"{name}.tsv", "".join(["index\tprediction\n", *lines]))


def query_metrics(ranking: Sequence[int], relevant: Mapping[int, float]) -> tuple[float, float, float, float]:
    """Return nDCG@10, MRR@10, recall@1 and recall@10 of a query.

    As in trec_eval, a passage gains its grade divided by log2(1 + its rank), and the ideal ranking has the best grades
    first (Järvelin and Kekäläinen 2002).
    """
    gains = [relevant.get(passage, 0.0) for passage in ranking[:DEPTH]]
    ideal = sorted(relevant.values(), reverse=True)[:DEPTH]
    rank = next((number for number, gain in enumerate(gains, 1) if gain), None)
    recall = [sum(map(bool, gains[:cut])) / len(relevant) for cut in (1, DEPTH)]
    return _discounted(gains) / _discounted(ideal), 1 / rank if rank else 0.0, recall[0], recall[1]


def _discounted(gains: Sequence[float]) -> float:
    return float(sum(gain / np.log2(1 + rank) for rank, gain in enumerate(gains, 1)))

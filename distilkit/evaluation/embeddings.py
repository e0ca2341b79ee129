"""Score sentence encoders without training: similarity of pairs, and retrieval."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distilkit.data.readers import values_hash
from distilkit.encoders.sentence import SentenceEncoder, neighbour_overlap
from distilkit.errors import DistilkitError
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.paired_outputs import PairedOutputs
from distilkit.evaluation.predictions import Predictions
from distilkit.evaluation.ranking import DEPTH, RankingPredictions
from distilkit.evaluation.retention import Result
from distilkit.evaluation.slices import slice_texts
from distilkit.options.evaluate import EvalOptions
from distilkit.progress import is_first_process, track
from distilkit.runtimes.exported import open_sentence_encoder
from distilkit.tasks.catalogue import Task
from distilkit.tasks.labels import label_to_target
from distilkit.tasks.retrieval import read_retrieval
from distilkit.tasks.rows import hash_rows, read_validation, with_score_column
from distilkit.training.devices import device

PART = 512  # texts between two steps of the progress bar
NEIGHBOURHOOD = 5000  # texts among which neighbours are sought, to bound memory
SCORED = 1024  # queries whose cosines are in memory at once
# Names of prompts, as in sentence-transformers' encode_query and encode_document.
QUERY_PROMPTS, PASSAGE_PROMPTS = ("query",), ("document", "passage", "corpus")


class EmbeddingScorer:
    """Scores encoders on a task. Rows are read once; embeddings are cached, so that a teacher encodes a text once."""

    def __init__(self, task: Task, options: EvalOptions) -> None:
        self.task, self.options = task, options
        self.known: dict[tuple[str, str], Tensor] = {}
        if task.name == "sts":
            self.task = with_score_column(task, options.data)
            ((_, self.rows),) = read_validation(self.task, options.data).items()
        else:
            self.pairs = read_retrieval(Path(str(options.data)), options.text)

    def rows_hash(self) -> str:
        """Return a hash of the rows that are scored."""
        if self.task.name == "sts":
            return hash_rows(self.rows, self.task)
        grades = ([*grades.items()] for grades in self.pairs.relevant)
        return values_hash(chain(self.pairs.queries, self.pairs.passages, grades))

    def score(self, name: str, out: Path | None = None) -> Result:
        """Score an encoder; write its predictions to the directory `out`, if given."""
        found = self._similarities(name) if self.task.name == "sts" else self._rankings(name)
        if out and is_first_process():
            found.write(out, self.task.name, range(len(found.predicted)))
        predictions: dict[str, Predictions] = {self.task.name: found}
        return Result(
            predictions,
            {f"{self.task.name}/{metric}": value for metric, value in found.score().items()},
            {self.task.name: self.rows_hash()},
        )

    def _similarities(self, name: str) -> LabelPredictions:
        sides = [list(map(str, self.rows[column][:])) for column in self.task.text]
        texts = list(dict.fromkeys([*sides[0], *sides[1]]))
        rows = dict(zip(texts, F.normalize(self._embed(name, "texts", texts)), strict=True))
        first, second = (torch.stack([rows[text] for text in side]) for side in sides)
        targets = [label_to_target(self.task, value) for value in self.rows[self.task.label]]
        return LabelPredictions(self.task, (first * second).sum(dim=1).double().numpy(), np.array(targets, dtype=float))

    def _rankings(self, name: str) -> RankingPredictions:
        encoder = self.options.passages_from or name
        queries = F.normalize(self._embed(name, "queries", self.pairs.queries, QUERY_PROMPTS))
        passages = F.normalize(self._embed(encoder, "passages", self.pairs.passages, PASSAGE_PROMPTS))
        if queries.shape[1] != passages.shape[1]:
            raise DistilkitError(
                f"'{name}' has embeddings of width {queries.shape[1]}, '{encoder}' of width {passages.shape[1]}: "
                "--passages-from needs an encoder of the same width"
            )
        depth = min(DEPTH, len(passages))
        best = [(part @ passages.T).topk(depth, dim=1).indices for part in queries.split(SCORED)]
        return RankingPredictions(self.task, torch.cat(best).tolist(), self.pairs.relevant)

    def _embed(self, name: str, label: str, texts: Sequence[str], prompts: Sequence[str] = ()) -> Tensor:
        if (name, label) not in self.known:
            encoder = open_sentence_encoder(name).to(device())
            if self.options.max_length:
                encoder.max_length = min(encoder.max_length, self.options.max_length)
            prompt = next((encoder.prompts[prompt] for prompt in prompts if prompt in encoder.prompts), None)
            found = embed(encoder, texts, self.options.batch_size, f"encode {label}", prompt)
            if not found.isfinite().all():
                raise DistilkitError(
                    f"'{name}' produces NaN or infinite outputs: its training diverged; use another checkpoint"
                )
            self.known[name, label] = found
        return self.known[name, label]


def compare_embeddings(student: str, teacher: str, texts: Sequence[str], options: EvalOptions) -> PairedOutputs:
    """Compare the embeddings that two sentence encoders give to texts: 1 - cosine of each, and its slices.

    Raises DistilkitError if their widths differ.
    """
    ours, theirs = (
        embed(open_sentence_encoder(name).to(device()), texts, options.batch_size, "encode texts")
        for name in (student, teacher)
    )
    if ours.shape != theirs.shape:
        raise DistilkitError(
            f"'{student}' has embeddings of width {ours.shape[1]}, '{teacher}' of width {theirs.shape[1]}: "
            "--agreement requires the same width, so use --task"
        )
    cosines = F.cosine_similarity(ours, theirs, dim=1).double().numpy()
    overlap = neighbour_overlap(ours[:NEIGHBOURHOOD], theirs[:NEIGHBOURHOOD])
    overall = {"agreement/cosine": float(cosines.mean()), "agreement/neighbours": overlap}

    def show(item: int) -> dict[str, Any]:
        return {"text": texts[item], "cosine": float(cosines[item])}

    return PairedOutputs(np.ones(len(texts)), cosines, None, slice_texts(texts), show, "texts", overall)


def embed(
    encoder: SentenceEncoder, texts: Sequence[str], batch_size: int, label: str, prompt: str | None = None
) -> Tensor:
    """Return the embeddings (N, D) of texts, with progress; the longest texts come first, to save padding."""
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    found = []
    with track(label, len(texts), unit="texts") as advance:
        for start in range(0, len(order), PART):
            part = [texts[number] for number in order[start : start + PART]]
            found.append(encoder.encode(part, batch_size=batch_size, prompt=prompt))
            advance(len(part))
    return torch.cat(found)[torch.tensor(order).argsort()]

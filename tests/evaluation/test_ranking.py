"""Rankings: every metric of every query against trec_eval, and means on bootstrap samples."""

from pathlib import Path

import numpy as np
import pytest

from distilkit.evaluation import bootstrap
from distilkit.evaluation.ranking import RankingPredictions
from distilkit.tasks.catalogue import TASKS

pytrec_eval = pytest.importorskip("pytrec_eval")
TREC = ("ndcg_cut_10", "recip_rank", "recall_1", "recall_10")


def draw() -> RankingPredictions:
    """Return random rankings of forty passages for thirty queries, with one to fifteen relevant ones, in grades."""
    generator = np.random.default_rng(0)
    rankings = [generator.permutation(40)[:10].tolist() for _ in range(30)]
    relevant = [
        {int(n): float(generator.integers(1, 4)) for n in generator.permutation(40)[: generator.integers(1, 16)]}
        for _ in range(30)
    ]
    return RankingPredictions(TASKS["retrieval"], rankings, relevant)


def test_metrics_are_those_of_trec_eval() -> None:
    """nDCG@10, MRR@10, recall@1 and recall@10 of each query; its ranking has ten passages, so recip_rank is MRR@10."""
    found = draw()
    qrels = {str(q): {str(p): int(g) for p, g in grades.items()} for q, grades in enumerate(found.relevant)}
    run = {str(q): {str(p): float(10 - n) for n, p in enumerate(best)} for q, best in enumerate(found.predicted)}
    scored = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recip_rank", "recall.1,10"}).evaluate(run)
    expected = np.array([[scored[str(query)][name] for name in TREC] for query in range(30)])
    assert found.values() == pytest.approx(expected)
    assert 0 < expected[:, 1].min() + expected[:, 1].max() < 2  # there are hits and misses
    assert found.score() == pytest.approx(dict(zip(found.task.metrics, expected.mean(axis=0), strict=True)))
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=5).astype(float)
    samples = bootstrap.make_scorer(found)(weights)
    assert samples["mrr_at_10"] == pytest.approx(weights @ expected[:, 1] / 30)


def test_the_file_has_a_line_for_each_query(tmp_path: Path) -> None:
    """With the numbers of its best passages."""
    RankingPredictions(TASKS["retrieval"], [[3, 1]], [{1: 1.0}]).write(tmp_path, "retrieval", range(1))
    assert (tmp_path / "retrieval.tsv").read_text() == "index\tprediction\n0\t3 1\n"

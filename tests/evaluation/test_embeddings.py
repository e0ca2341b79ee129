"""Sentence encoders without training: cosines and rankings against sentence-transformers, retention, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from libraries import sentence_transformers
from scipy import stats
from typer.testing import CliRunner, Result

from distilkit.cli import app
from distilkit.encoders.sentence import SentenceEncoder


def run(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def metrics_of(done: Result) -> dict[str, float]:
    """Return the metrics that a command printed."""
    assert done.exit_code == 0, done.output
    found: dict[str, float] = json.loads(done.stdout)["metrics"]
    return found


@pytest.fixture(scope="module")
def encoders(make_sentence_encoder: Callable[..., Path]) -> tuple[Path, Path]:
    """Two sentence encoders, one with fewer layers."""
    return make_sentence_encoder(2), make_sentence_encoder(1, seed=7)


def test_sts_scores_cosines(make_sentence_encoder: Callable[..., Path], prose: list[str], tmp_path: Path) -> None:
    """Spearman and Pearson are those of sentence-transformers' cosines; any file with a score column does."""
    # pooled by mean: the state of an untrained CLS hardly depends on the text, so its cosines differ by rounding alone
    encoders = [make_sentence_encoder(layers, pooling="mean", seed=layers) for layers in (2, 1)]
    pairs = [(prose[n], prose[-1 - n // 2], n % 7) for n in range(30)]
    rows = [json.dumps({"sentence1": a, "sentence2": b, "score": score}) for a, b, score in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows) + "\n")
    words = ("--task", "sts", "--data", tmp_path / "pairs.jsonl", "--json")
    found = metrics_of(run("eval", encoders[1], *words, "--against", encoders[0], "--require", "sts/spearmanr>=-1"))
    model = sentence_transformers().SentenceTransformer(str(encoders[1]), device="cpu")
    sides = [model.encode([pair[side] for pair in pairs], normalize_embeddings=True) for side in (0, 1)]
    cosines, scores = np.sum(sides[0] * sides[1], axis=1), [score for *_, score in pairs]
    assert found["sts/spearmanr"] == pytest.approx(stats.spearmanr(cosines, scores).statistic, abs=1e-4)
    assert found["sts/pearson"] == pytest.approx(stats.pearsonr(cosines, scores).statistic, abs=1e-4)
    assert (
        found["difference/sts/teacher/low"] <= found["difference/sts/teacher"] <= found["difference/sts/teacher/high"]
    )
    assert not any(name.endswith("collapsed") for name in found)


def test_retrieval_ranks_passages(
    encoders: tuple[Path, Path], prose: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --passages-from, the teacher reads the passages once, and a student its queries alone."""
    pairs = [(" ".join(text.split()[:5]), text) for text in prose[:40]]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({"query": q, "passage": p}) + "\n" for q, p in pairs))
    read: list[int] = []
    encode = SentenceEncoder.encode

    def counted(self: SentenceEncoder, texts: list[str], **words: object) -> object:
        read.append(len(texts))
        return encode(self, texts, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(SentenceEncoder, "encode", counted)
    teacher, student = encoders
    words = ("--task", "retrieval", "--data", tmp_path / "pairs.jsonl", "--json")
    found = metrics_of(run("eval", student, *words, "--against", teacher, "--passages-from", teacher))
    queries = len({query for query, _ in pairs})
    assert read == [queries, 40, queries]
    texts = list(dict.fromkeys(query for query, _ in pairs))
    ours = (
        sentence_transformers().SentenceTransformer(str(student), device="cpu").encode(texts, normalize_embeddings=True)
    )
    theirs = (
        sentence_transformers()
        .SentenceTransformer(str(teacher), device="cpu")
        .encode([p for _, p in pairs], normalize_embeddings=True)
    )
    best = (ours @ theirs.T).argsort(axis=1)[:, ::-1]
    answers = [{n for n, (query, _) in enumerate(pairs) if query == text} for text in texts]
    ranks = [min(list(row).index(n) + 1 for n in right) for row, right in zip(best, answers, strict=True)]
    assert found["retrieval/mrr_at_10"] == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]))
    assert {"retention/retrieval", "retention/retrieval/recall_at_10", "teacher/retrieval/recall_at_1"} <= found.keys()


def test_agreement_of_embeddings(encoders: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    """The mean cosine is that of sentence-transformers; a model agrees with itself."""
    examples = tmp_path / "worst.jsonl"
    words = ("--agreement", corpus, "--against", encoders[0], "--json")
    found = metrics_of(run("eval", encoders[1], *words, "--examples", examples, "--require", "agreement/cosine>=-1"))
    texts = corpus.read_text().splitlines()
    ours, theirs = (
        sentence_transformers().SentenceTransformer(str(name), device="cpu").encode(texts, normalize_embeddings=True)
        for name in encoders[::-1]
    )
    assert found["agreement/cosine"] == pytest.approx(np.sum(ours * theirs, axis=1).mean(), abs=1e-5)
    assert found["difference"] == pytest.approx(1 - found["agreement/cosine"], abs=1e-6)
    assert any(name.startswith("difference/slices/words/") for name in found)
    assert {"text", "cosine", "slice"} <= json.loads(examples.read_text().splitlines()[0]).keys()
    itself = metrics_of(run("eval", encoders[0], *words))
    assert itself["agreement/cosine"] == pytest.approx(1)
    assert itself["agreement/neighbours"] == 1


def test_refusals(encoders: tuple[Path, Path], make_sentence_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """Retrieval needs data, --passages-from embeddings of one width, and finetune takes no such task."""
    (tmp_path / "pairs.jsonl").write_text('{"query": "seed", "passage": "random"}\n')
    words = ("--task", "retrieval", "--data", tmp_path / "pairs.jsonl")
    wide = make_sentence_encoder(1, dense=20)
    done = run("eval", encoders[0], *words, "--passages-from", wide)
    assert done.exit_code == 1
    assert "width 24" in done.stderr
    assert "width 20: --passages-from needs an encoder of the same width" in done.stderr
    assert run("eval", encoders[0], "--task", "retrieval").exit_code == 1
    assert run("finetune", encoders[0], "--task", "sts", "-o", tmp_path / "out").exit_code == 2

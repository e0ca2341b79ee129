"""The programs of examples/qa and examples/search give what torch gives, in a process without torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from exports import installed
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import distilkit
from distilkit.encoders.sentence import open_sentence_encoder

pytestmark = [  # each exports a model
    pytest.mark.slow,
    pytest.mark.skipif(not installed("onnx"), reason="requires distilkit[onnx]"),
]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
WITHOUT_TORCH = (
    "import sys, runpy; sys.modules['torch'] = None; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def run(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a process in which torch cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(EXAMPLES / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_search_ranks_as_the_encoder_does(
    make_sentence_encoder: Callable[..., Path], tmp_path: Path, prose: list[str]
) -> None:
    """Cosines and order are those of the checkpoint's embeddings; a paragraph finds itself."""
    encoder = make_sentence_encoder(2, pooling="mean", dense=0)
    distilkit.export(str(encoder), output=tmp_path / "onnx")
    texts = [" ".join(text.split()[:20]) for text in prose[:12]]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    done = run("search/search.py", tmp_path / "onnx", tmp_path / "texts", texts[3], 4)
    lines = done.stdout.splitlines()
    assert texts[3][:100] in lines[0]
    model = open_sentence_encoder(str(encoder))
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(model.encode(texts), dim=1)
    cosines = sorted((vectors @ vectors[3]).tolist(), reverse=True)[:4]
    assert [float(line.split()[0]) for line in lines] == pytest.approx(cosines, abs=2e-3)
    assert "12 paragraphs" in done.stderr


def test_an_answer_is_the_best_span(make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str]) -> None:
    """The span of the highest sum of logits that lies in the text, as torch has it."""
    model = make_checkpoint("bert", 2, AutoModelForQuestionAnswering)
    distilkit.export(str(model), output=tmp_path / "onnx")
    text, question = prose[5][:80], "which value"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    done = run("qa/answer.py", tmp_path / "onnx", tmp_path / "text.txt", question)
    tokenizer, torch_model = AutoTokenizer.from_pretrained(model), AutoModelForQuestionAnswering.from_pretrained(model)
    wanted = {"return_offsets_mapping": True, "return_token_type_ids": True}
    encoded = tokenizer(question, text, return_tensors="pt", **wanted)
    offsets, owners = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids(0)
    with torch.no_grad():
        output = torch_model.eval()(**encoded)
    start, end = output.start_logits[0].tolist(), output.end_logits[0].tolist()
    places = [place for place, owner in enumerate(owners) if owner == 1]
    spans = [(start[i] + end[j], i, j) for i in places for j in places if i <= j < i + 30]
    score, first, last = max(spans)
    assert done.stdout.strip() == text[offsets[first][0] : offsets[last][1]]
    assert float(done.stderr.split()[1].rstrip(";")) == pytest.approx(score, abs=0.02)

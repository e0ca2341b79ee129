"""--architecture distilbert: the published form, with token type 0 folded into the positions."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertForMaskedLM,
    DistilBertModel,
)

from distilkit.commands.init import init
from distilkit.encoders import distilbert
from distilkit.encoders.layers import truncate_shared
from distilkit.errors import DistilkitError
from distilkit.options.init import InitOptions

IDS = torch.randint(5, 400, (2, 30), generator=torch.Generator().manual_seed(0))


def make(teacher: Path, out: Path, **options: object) -> Path:
    init(InitOptions(teacher=str(teacher), output=out, architecture="distilbert", **options))  # type: ignore[arg-type]
    return out


def test_parameters_are_the_published_ones() -> None:
    """bert-base becomes DistilBERT with the parameter counts of Sanh et al. 2019, with and without the head (shapes
    only).
    """
    counts = []
    for bert_class in (BertModel, BertForMaskedLM):
        with torch.device("meta"):
            bert = bert_class(BertConfig())
        student = distilbert.convert(truncate_shared(bert, [0, 2, 4, 7, 9, 11]))
        counts.append((type(student), bert.num_parameters(), student.num_parameters()))

    assert counts == [
        (DistilBertModel, 109_482_240, 66_362_880),
        (DistilBertForMaskedLM, 109_514_298, 66_985_530),
    ]


def test_it_computes_what_the_bert_student_does(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Logits on one segment equal those of the student that stays a BERT, with a token type embedding that is not 0."""
    teacher = make_checkpoint("bert", 4)
    init(InitOptions(teacher=str(teacher), output=tmp_path / "same"))
    make(teacher, tmp_path / "distilbert")
    same, student = (AutoModelForMaskedLM.from_pretrained(tmp_path / name).eval() for name in ("same", "distilbert"))
    with torch.no_grad():
        difference = (same(input_ids=IDS).logits - student(input_ids=IDS).logits).abs().max()

    assert isinstance(student, DistilBertForMaskedLM)
    assert same.bert.embeddings.token_type_embeddings.weight[0].abs().max() > 0.01
    assert difference < 1e-5


def test_a_teacher_in_half_precision_is_rounded(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The sum of two embeddings is rounded to bf16; the difference is small but not 0."""
    half = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 4), dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    for path in make_checkpoint("bert", 4).glob("*tok*"):
        shutil.copy(path, tmp_path / "half")
    done = init(InitOptions(teacher=str(tmp_path / "half"), output=tmp_path / "out", architecture="distilbert"))
    assert 0 < done.metrics["max_difference"] < 0.1


def test_embeddings_equal_the_teacher_s(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Token type 0 is in the position embeddings, so the first layer has the same input."""
    teacher = make_checkpoint("bert", 4)
    make(teacher, tmp_path / "student")
    bert = AutoModel.from_pretrained(teacher).eval()
    student = AutoModel.from_pretrained(tmp_path / "student").eval()
    with torch.no_grad():
        torch.testing.assert_close(student.embeddings(IDS), bert.embeddings(IDS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("auto", [AutoModelForQuestionAnswering, AutoModel])
def test_other_heads(make_checkpoint: Callable[..., Path], tmp_path: Path, auto: type) -> None:
    """A question-answering head is kept; an encoder without a head loses only its pooler."""
    teacher = make_checkpoint("bert", 4, auto=auto)
    init(InitOptions(teacher=str(teacher), output=tmp_path / "same"))
    make(teacher, tmp_path / "distilbert")
    same, student = (auto.from_pretrained(tmp_path / name).eval() for name in ("same", "distilbert"))  # type: ignore[attr-defined]
    with torch.no_grad():
        torch.testing.assert_close(student(input_ids=IDS)[0], same(input_ids=IDS)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "auto", "changes", "words"),
    [
        ("roberta", AutoModelForMaskedLM, {}, "--architecture distilbert.*RobertaForMaskedLM"),
        ("bert", AutoModelForSequenceClassification, {}, "--architecture distilbert.*BertForSequenceClassification"),
        ("bert", AutoModelForMaskedLM, {"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-12"),
    ],
)
def test_what_distilbert_has_no_form_for_is_refused(
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    family: str,
    auto: type,
    changes: dict[str, object],
    words: str,
) -> None:
    """The error names the reason, and nothing is written."""
    with pytest.raises(DistilkitError, match=words):
        make(make_checkpoint(family, 2, auto=auto, **changes), tmp_path / "student")

    assert not (tmp_path / "student").exists()

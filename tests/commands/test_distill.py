"""distill: the losses fall, the held-out loss is transformers' own, and models that do not fit are refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, BertModel, PreTrainedTokenizerFast

from distilkit.commands.distill import distill
from distilkit.commands.init import init
from distilkit.data import corpus as corpora
from distilkit.data.batches import Batches
from distilkit.data.blocks import pack_documents
from distilkit.data.masking import make_collate
from distilkit.distillation import losses
from distilkit.distillation.text_objective import make_objective
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.init import InitOptions
from distilkit.record import read_biography


@pytest.fixture
def options(teacher: Path, corpus: Path, tmp_path: Path) -> DistillOptions:
    """Options for twelve updates of a two-layer student of the teacher."""
    init(InitOptions(teacher=str(teacher), output=tmp_path / "student"))
    return DistillOptions(
        student=str(tmp_path / "student"),
        corpus=str(corpus),
        output=tmp_path / "out",
        seq_length=32,
        batch_size=8,
        steps=12,
    )


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_distilling_lowers_every_loss(options: DistillOptions, positions: str) -> None:
    """The teacher comes from the student's history. Its losses fall, and the result has two records."""
    record = distill(replace(options, ce_positions=positions, steps=40, lr=2e-3, alpha_mlm=0.0))  # type: ignore[arg-type]
    updates = [json.loads(line) for line in (options.output / "train.jsonl").read_text().splitlines()]
    updates = [line for line in updates if "loss" in line]
    first, last = updates[:5], updates[-5:]

    for term in ("ce", "cos"):
        assert sum(line[term] for line in last) < 0.8 * sum(line[term] for line in first), term
    assert [entry.command for entry in read_biography(options.output)] == ["init", "distill"]
    assert record.metrics["tokens"] == 40 * 8 * 32
    AutoModelForMaskedLM.from_pretrained(options.output)
    assert not list(options.output.glob("checkpoint-*"))


@pytest.mark.parametrize("objective", ["triple", "hidden", "embedding"])
def test_the_heldout_text_is_read_first(options: DistillOptions, tmp_path: Path, objective: str) -> None:
    """Its errors come before a long corpus is tokenised: of two damaged texts, it is the one that is named."""
    for name in ("corpus", "heldout"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "the cat"}\n{"text":\n')
    texts = {"corpus": str(tmp_path / "corpus.jsonl"), "heldout": str(tmp_path / "heldout.jsonl")}
    with pytest.raises(DistilkitError, match=r"heldout\.jsonl"):
        distill(replace(options, **texts, objective=objective))  # type: ignore[arg-type]
    assert not options.output.exists()


@pytest.mark.parametrize("layout", ["blocks", "documents"])
def test_heldout_loss_is_the_mean_over_the_masked_tokens(
    options: DistillOptions, tokenizer: PreTrainedTokenizerFast, layout: Literal["blocks", "documents"]
) -> None:
    """Before the first update it equals the loss that transformers computes on the same masked blocks."""
    heldout = distill(replace(options, heldout=options.corpus, steps=5, packing=layout))
    first = json.loads((options.output / "train.jsonl").read_text().splitlines()[0])
    blocks = pack_documents(corpora.read_documents(options.corpus), tokenizer, 32, packing=layout)
    blocks = blocks.select(range(min(len(blocks), 256)))
    batches = Batches(blocks, make_collate(tokenizer, 0.15), batch_size=32, seed=0)
    model = AutoModelForMaskedLM.from_pretrained(options.student).eval()
    with torch.no_grad():
        total = count = 0.0
        for number in range(batches.per_epoch):
            targets = int((batches[number]["labels"] != -100).sum())
            total, count = total + model(**batches[number]).loss.item() * targets, count + targets

    assert first["heldout_loss"] == pytest.approx(total / count, rel=1e-5)
    assert heldout.metrics["heldout_loss"] != first["heldout_loss"]


def test_masked_lm_alone_learns_frequent_words(options: DistillOptions) -> None:
    """Without a teacher the loss starts at that of a random model and falls."""
    record = distill(replace(options, objective="mlm", steps=60, lr=3e-3))
    first = json.loads((options.output / "train.jsonl").read_text().splitlines()[0])

    assert first["heldout_loss"] > math.log(400) - 0.5
    assert record.metrics["heldout_loss"] < first["heldout_loss"] - 0.5


def test_bare_encoder_needs_a_new_head(make_checkpoint: Callable[..., Path], options: DistillOptions) -> None:
    """A checkpoint without a masked-LM head is refused, unless --new-head is given."""
    bare = make_checkpoint("bert", 2, auto=AutoModel)
    without_head = replace(options, student=str(bare), objective="mlm")
    with pytest.raises(DistilkitError, match=r"no trained masked-LM head .* --new-head"):
        distill(without_head)
    assert not options.output.exists()

    distill(replace(without_head, new_head=True))
    assert (options.output / "distilkit.json").exists()


def test_head_lr_changes_the_head_only(options: DistillOptions) -> None:
    """With --lr 0 the encoder does not change, while --head-lr trains the head's transform."""
    distill(replace(options, lr=0.0, head_lr=1e-2))
    before, after = (AutoModelForMaskedLM.from_pretrained(d).state_dict() for d in (options.student, options.output))

    for name, tensor in after.items():
        if name.startswith("bert."):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(
        before["cls.predictions.transform.dense.weight"], after["cls.predictions.transform.dense.weight"]
    )


def test_a_frozen_encoder_gives_the_head_of_a_slow_one(options: DistillOptions) -> None:
    """--lr 0 leaves out the encoder's gradients. A rate too low to change it computes them; the head is the same."""
    frozen = replace(options, objective="mlm", head_lr=1e-2, lr=0.0, max_grad_norm=0.0)
    slow = replace(frozen, lr=1e-30, output=options.output.with_name("slow"))
    for run in (frozen, slow):
        distill(run)
    ours, theirs = (AutoModelForMaskedLM.from_pretrained(run.output).state_dict() for run in (frozen, slow))
    torch.testing.assert_close(ours, theirs)


def test_lr_0_without_a_head_to_train_is_refused(options: DistillOptions) -> None:
    """A loss on hidden states does not depend on the head."""
    with pytest.raises(DistilkitError, match="--lr 0 trains a head alone"):
        distill(replace(options, objective="hidden", lr=0.0, head_lr=1e-2))
    assert not options.output.exists()


def test_lr_0_on_a_bare_encoder_is_refused(make_checkpoint: Callable[..., Path], options: DistillOptions) -> None:
    """It has no head at all."""
    bare = [str(make_checkpoint("bert", layers, auto=AutoModel)) for layers in (2, 4)]
    with pytest.raises(DistilkitError, match="--lr 0 trains a head alone"):
        distill(replace(options, student=bare[0], teacher=bare[1], objective="embedding", lr=0.0, head_lr=1e-2))


def test_teacher_without_head_is_refused(make_checkpoint: Callable[..., Path], options: DistillOptions) -> None:
    """A newly initialised head would predict noise."""
    with pytest.raises(DistilkitError, match="no trained masked-LM head"):
        distill(replace(options, teacher=str(make_checkpoint("bert", 4, auto=AutoModel))))


def test_identical_teacher_is_refused(options: DistillOptions) -> None:
    """A student cannot learn from an identical teacher."""
    with pytest.raises(DistilkitError, match="identical weights"):
        distill(replace(options, teacher=options.student))

    assert not options.output.exists()


def test_other_vocabulary_is_refused(
    make_checkpoint: Callable[..., Path], options: DistillOptions, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A vocabulary of the same size with other tokens is refused."""
    other = make_checkpoint("bert", 4)
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    word = max((w for w in tokenizer.get_vocab() if w.isalpha()), key=len)
    (other / "tokenizer.json").write_text(text.replace(f'"{word}"', '"zzzunknown"'), encoding="utf-8")
    with pytest.raises(DistilkitError, match="different vocabularies"):
        distill(replace(options, teacher=str(other)))


def test_other_width_is_refused_unless_the_cosine_is_off(
    make_checkpoint: Callable[..., Path], options: DistillOptions
) -> None:
    """Logits compare at any hidden size. The last hidden states of the cosine loss do not."""
    narrow = make_checkpoint("bert", 2, hidden_size=16)
    with pytest.raises(DistilkitError, match="--alpha-cos 0"):
        distill(replace(options, student=str(narrow), teacher=options.student))

    distill(replace(options, student=str(narrow), teacher=options.student, alpha_cos=0.0))


def test_an_unknown_teacher_must_be_given(make_checkpoint: Callable[..., Path], options: DistillOptions) -> None:
    """A student without a history requires --teacher."""
    with pytest.raises(DistilkitError, match="--teacher"):
        distill(replace(options, student=str(make_checkpoint("bert", 2, auto=AutoModelForMaskedLM))))


def test_too_long_blocks_are_refused(options: DistillOptions) -> None:
    """--seq-length must not exceed the model's positions."""
    with pytest.raises(DistilkitError, match=r"--seq-length 97 .* 96 positions"):
        distill(replace(options, seq_length=97))


def test_directory_in_use_is_refused(options: DistillOptions) -> None:
    """The files of a directory in use are not changed."""
    options.output.mkdir()
    (options.output / "notes.txt").write_text("mine")
    with pytest.raises(DistilkitError, match="not empty"):
        distill(options)

    assert (options.output / "notes.txt").read_text() == "mine"


def test_a_student_opens_as_a_bare_encoder(options: DistillOptions) -> None:
    """AutoModel opens a distilled student as an encoder without a head."""
    distill(options)

    assert isinstance(AutoModel.from_pretrained(options.output), BertModel)


@pytest.mark.parametrize(("name", "function"), [("mse", losses.hidden), ("cosine", losses.cosine)])
def test_hidden_loss_selects_the_distance(
    options: DistillOptions, make_checkpoint: Callable[..., Path], name: Literal["mse", "cosine"], function: object
) -> None:
    """--hidden-loss selects the distance between hidden states."""
    student, teacher = (AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", layers)) for layers in (2, 4))
    options = replace(options, objective="hidden", hidden_loss=name)
    assert make_objective(options, student, teacher).layer_matching.distance is function


@pytest.mark.slow  # a minute in the compiler
def test_compiled_models_learn_the_same(make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    """--compile changes the speed of the updates but not their result."""
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    init(InitOptions(teacher=str(make_checkpoint("bert", 4, **no_dropout)), output=tmp_path / "student"))
    weights = []
    for compiled in (False, True):
        output = tmp_path / str(compiled)
        distill(
            DistillOptions(
                student=str(tmp_path / "student"), corpus=str(corpus), output=output, steps=4, batch_size=4,
                seq_length=32, compile=compiled,
            )
        )  # fmt: skip
        weights.append(load_file(output / "model.safetensors"))

    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-5, msg=name)

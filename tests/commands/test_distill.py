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
from distilkit.data.blocks import pack_documents
from distilkit.data.masking import make_collate
from distilkit.distillation import losses
from distilkit.distillation.text_objective import make_objective
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.init import InitOptions
from distilkit.record import read_biography


@pytest.fixture
def config(teacher: Path, corpus: Path, tmp_path: Path) -> DistillOptions:
    """A dozen updates of the teacher's two-layer student."""
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
def test_distilling_lowers_every_part(config: DistillOptions, positions: str) -> None:
    """The teacher comes from the biography; ce and cosine fall; the result is a plain checkpoint with two records."""
    record = distill(replace(config, ce_positions=positions, steps=40, lr=2e-3, alpha_mlm=0.0))  # type: ignore[arg-type]
    updates = [json.loads(line) for line in (config.output / "train.jsonl").read_text().splitlines()]
    updates = [line for line in updates if "loss" in line]
    first, last = updates[:5], updates[-5:]

    for part in ("ce", "cos"):
        assert sum(line[part] for line in last) < 0.8 * sum(line[part] for line in first), part
    assert [entry.command for entry in read_biography(config.output)] == ["init", "distill"]
    assert record.metrics["tokens"] == 40 * 8 * 32
    AutoModelForMaskedLM.from_pretrained(config.output)
    assert not list(config.output.glob("checkpoint-*"))


@pytest.mark.parametrize("layout", ["blocks", "documents"])
def test_heldout_loss_is_the_mean_over_the_masked_tokens(
    config: DistillOptions, tokenizer: PreTrainedTokenizerFast, layout: Literal["blocks", "documents"]
) -> None:
    """Read before the first update, it is what transformers' own loss gives on the same masked blocks."""
    heldout = distill(replace(config, heldout=config.corpus, steps=5, packing=layout))
    first = json.loads((config.output / "train.jsonl").read_text().splitlines()[0])
    blocks = pack_documents(corpora.read_documents(config.corpus), tokenizer, 32, packing=layout)
    blocks = blocks.select(range(min(len(blocks), 256)))
    from distilkit.data.batches import Batches

    batches = Batches(blocks, make_collate(tokenizer, 0.15), batch_size=32, seed=0)
    model = AutoModelForMaskedLM.from_pretrained(config.student).eval()
    with torch.no_grad():
        total = count = 0.0
        for number in range(batches.per_epoch):
            targets = int((batches[number]["labels"] != -100).sum())
            total, count = total + model(**batches[number]).loss.item() * targets, count + targets

    assert first["heldout_loss"] == pytest.approx(total / count, rel=1e-5)
    assert heldout.metrics["heldout_loss"] != first["heldout_loss"]


def test_masked_lm_alone_learns_frequent_words(config: DistillOptions) -> None:
    """Without a teacher the loss starts near that of a random model and falls."""
    record = distill(replace(config, objective="mlm", steps=60, lr=3e-3))
    first = json.loads((config.output / "train.jsonl").read_text().splitlines()[0])

    assert first["heldout_loss"] > math.log(400) - 0.5
    assert record.metrics["heldout_loss"] < first["heldout_loss"] - 0.5


def test_bare_encoder_needs_a_new_head(make_checkpoint: Callable[..., Path], config: DistillOptions) -> None:
    """A checkpoint without a masked-LM head is refused by name, and trained when --new-head says so."""
    bare = make_checkpoint("bert", 2, auto=AutoModel)
    asked = replace(config, student=str(bare), objective="mlm")
    with pytest.raises(DistilkitError, match=r"no trained masked-LM head .* --new-head"):
        distill(asked)
    assert not config.output.exists()

    distill(replace(asked, new_head=True))
    assert (config.output / "distilkit.json").exists()


def test_head_rate_moves_the_head_only(config: DistillOptions) -> None:
    """With --lr 0 the body stays bit by bit while --head-lr trains the head's transform."""
    distill(replace(config, lr=0.0, head_lr=1e-2))
    before, after = (AutoModelForMaskedLM.from_pretrained(d).state_dict() for d in (config.student, config.output))

    for name, tensor in after.items():
        if name.startswith("bert."):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(
        before["cls.predictions.transform.dense.weight"], after["cls.predictions.transform.dense.weight"]
    )


def test_teacher_without_head_is_refused(make_checkpoint: Callable[..., Path], config: DistillOptions) -> None:
    """Its vocabulary logits would be noise."""
    with pytest.raises(DistilkitError, match="no trained masked-LM head"):
        distill(replace(config, teacher=str(make_checkpoint("bert", 4, auto=AutoModel))))


def test_identical_teacher_is_refused(config: DistillOptions) -> None:
    """There is nothing to learn from oneself."""
    with pytest.raises(DistilkitError, match="identical weights"):
        distill(replace(config, teacher=config.student))

    assert not config.output.exists()


def test_other_vocabulary_is_refused(
    make_checkpoint: Callable[..., Path], config: DistillOptions, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Same size, other tokens."""
    other = make_checkpoint("bert", 4)
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    word = max((w for w in tokenizer.get_vocab() if w.isalpha()), key=len)
    (other / "tokenizer.json").write_text(text.replace(f'"{word}"', '"zzzunknown"'), encoding="utf-8")
    with pytest.raises(DistilkitError, match="different vocabularies"):
        distill(replace(config, teacher=str(other)))


def test_other_width_is_refused_unless_the_cosine_is_off(
    make_checkpoint: Callable[..., Path], config: DistillOptions
) -> None:
    """Logits compare whatever the widths; last hidden states don't."""
    narrow = make_checkpoint("bert", 2, hidden_size=16)
    with pytest.raises(DistilkitError, match="--alpha-cos 0"):
        distill(replace(config, student=str(narrow), teacher=config.student))

    distill(replace(config, student=str(narrow), teacher=config.student, alpha_cos=0.0))


def test_an_unknown_teacher_must_be_given(make_checkpoint: Callable[..., Path], config: DistillOptions) -> None:
    """A student without a history has no recorded teacher."""
    with pytest.raises(DistilkitError, match="--teacher"):
        distill(replace(config, student=str(make_checkpoint("bert", 2, auto=AutoModelForMaskedLM))))


def test_too_long_blocks_are_refused(config: DistillOptions) -> None:
    """The model's positions bound --seq-length."""
    with pytest.raises(DistilkitError, match="--seq-length 97 is longer than the model's 96 positions"):
        distill(replace(config, seq_length=97))


def test_directory_in_use_is_refused(config: DistillOptions) -> None:
    """What lies there stays."""
    config.output.mkdir()
    (config.output / "notes.txt").write_text("mine")
    with pytest.raises(DistilkitError, match="not empty"):
        distill(config)

    assert (config.output / "notes.txt").read_text() == "mine"


def test_bare_model_class_is_what_auto_model_reads(config: DistillOptions) -> None:
    """A distilled student opens as a plain encoder too."""
    distill(config)

    assert isinstance(AutoModel.from_pretrained(config.output), BertModel)


@pytest.mark.parametrize(("name", "function"), [("mse", losses.hidden), ("cosine", losses.cosine)])
def test_hidden_loss_is_the_one_asked_for(
    config: DistillOptions, make_checkpoint: Callable[..., Path], name: Literal["mse", "cosine"], function: object
) -> None:
    """--hidden-loss reaches the comparison of hidden states."""
    student, teacher = (AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", layers)) for layers in (2, 4))
    asked = replace(config, objective="hidden", hidden_loss=name)
    assert make_objective(asked, student, teacher).layer_matching.distance is function


@pytest.mark.slow  # a minute in the compiler
def test_compiled_bodies_learn_the_same(make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    """--compile changes how the updates are computed, not what they come to."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    init(InitOptions(teacher=str(make_checkpoint("bert", 4, **still)), output=tmp_path / "student"))
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

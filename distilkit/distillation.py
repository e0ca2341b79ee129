"""`distill`: train a student on text, against its teacher or by masked LM alone."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit import checkpoint, corpus, vocabulary
from distilkit.config import DistillConfig
from distilkit.errors import DistilkitError
from distilkit.objectives import MaskedLM, TripleLoss
from distilkit.record import Record, claim, read_biography, record, remembered_teacher, write_biography
from distilkit.rows import Rows
from distilkit.snapshot import remove_snapshots
from distilkit.stream import RowStream, StreamedBatches, set_aside
from distilkit.training import Batches, train

HELDOUT_BATCH = 32  # fixed, so that held-out masks are the same whatever the run


def distill(config: DistillConfig) -> Record:
    """Train a student on a corpus and write it with its record; `heldout_loss` is its masked-LM loss on unseen text."""
    if config.streaming and not config.steps:
        raise DistilkitError("--streaming needs --steps: a stream doesn't say how long it is")
    if config.new_head and config.objective != "mlm":
        raise DistilkitError("--new-head goes with --objective mlm: train the head before you distil")
    student = checkpoint.open_model(config.student, "masked-lm", new_head=config.new_head)
    tokenizer = checkpoint.open_tokenizer(config.student)
    check_length(student, config.seq_length)
    if getattr(student.config, "default_language", "") is None:
        raise DistilkitError(
            f"'{config.student}' has adapters by language: name one as default_language in config.json"
        )
    objective = make_objective(config, student, tokenizer)
    with claim(config.output, resume=config.resume, keep="checkpoint-*[0-9]") as out:
        batches, heldout = read_batches(config, tokenizer)
        with closing(batches):
            metrics = train(
                objective,
                batches,
                config,
                out,
                evaluate=lambda: heldout_loss(student, heldout),
                evaluate_every=config.evaluate_every,
                label="distill" if config.objective != "mlm" else "masked LM",
            )
        checkpoint.save(student, tokenizer, out)
        done = record("distill", config, metrics | {"parameters": float(student.num_parameters())})
        write_biography(out, [*read_biography(config.student), done])
        remove_snapshots(out)  # last: killed before, it can still go on from them
    return done


def make_objective(config: DistillConfig, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """Build what --objective names, with the teacher that --teacher or the student's biography names."""
    if config.objective == "mlm":
        return MaskedLM(student)
    name = config.teacher or remembered_teacher(config.student)
    if name is None:
        raise DistilkitError(f"'{config.student}' does not say what it was made from: name the teacher with --teacher")
    teacher = checkpoint.open_model(name, "masked-lm")
    theirs = checkpoint.open_tokenizer(name)
    if has_fewer_tokens(config.student):
        teacher, theirs = vocabulary.prune(teacher, vocabulary.shared_ids(tokenizer, theirs)), tokenizer
    check_pair(config, student, teacher, checkpoint.same_vocabulary(tokenizer, theirs))
    check_length(teacher, config.seq_length)
    return TripleLoss(
        student,
        teacher,
        alpha_ce=config.alpha_ce,
        alpha_mlm=config.alpha_mlm,
        alpha_cos=config.alpha_cos,
        temperature=config.temperature,
        ce_positions=config.ce_positions,
    )


def has_fewer_tokens(student: str) -> bool:
    """Say whether a checkpoint's vocabulary was cut when it was made."""
    return any(entry.command == "init" and entry.config.get("vocabulary") for entry in read_biography(student))


def check_pair(
    config: DistillConfig, student: PreTrainedModel, teacher: PreTrainedModel, same_vocabulary: bool
) -> None:
    """Refuse a teacher from whom the student can't learn: another vocabulary or width, or the very same weights."""
    if not same_vocabulary or student.config.vocab_size != teacher.config.vocab_size:
        raise DistilkitError(
            "teacher and student have different vocabularies: give a --teacher with the student's tokenizer"
        )
    if config.alpha_cos and student.config.hidden_size != teacher.config.hidden_size:
        widths = f"{student.config.hidden_size} and {teacher.config.hidden_size}"
        raise DistilkitError(
            f"student and teacher have different widths ({widths}): leave out the cosine with --alpha-cos 0"
        )
    mine, theirs = student.state_dict(), teacher.state_dict()
    if mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine):
        raise DistilkitError(
            "teacher and student have identical weights, nothing to learn: make a student with distilkit init"
        )


def check_length(model: PreTrainedModel, seq_length: int) -> None:
    """Refuse blocks that are longer than the model's positions."""
    positions = checkpoint.max_tokens(model)
    if positions is not None and seq_length > positions:
        raise DistilkitError(f"--seq-length {seq_length} is longer than the model's {positions} positions: lower it")


def read_batches(config: DistillConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[Batches, Batches]:
    """Return the masked batches to train on and those held out."""
    collate = corpus.masked_batch(tokenizer, config.mask_probability)
    shape = {"batch_size": config.batch_size, "seed": config.seed}
    heldout: Sequence[dict[str, Any]]
    if config.streaming:
        packer = corpus.make_packer(tokenizer, config.seq_length, config.packing)
        if config.heldout is None:
            stream, heldout = set_aside(config.corpus, packer, config.workers)
        else:
            stream, heldout = RowStream(config.corpus, packer, config.workers), read_heldout(config, tokenizer)
        batches: Batches = StreamedBatches(stream, collate, **shape)
    else:
        blocks = pack(config, config.corpus, tokenizer)
        if config.heldout is None:
            rows, heldout = corpus.split(blocks, config.seed)
        else:
            rows, heldout = Rows(blocks), read_heldout(config, tokenizer)
        batches = Batches(rows, collate, lengths=rows.lengths if config.packing == "documents" else None, **shape)
    return batches, Batches(heldout, collate, batch_size=HELDOUT_BATCH, seed=0)


def pack(config: DistillConfig, source: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Read text and pack it as the options say."""
    with corpus.readable(source):
        documents, fingerprint = corpus.read_once(source)
        return corpus.pack(
            documents,
            tokenizer,
            config.seq_length,
            fingerprint=fingerprint,
            packing=config.packing,
            workers=config.workers,
        )


def read_heldout(config: DistillConfig, tokenizer: PreTrainedTokenizerBase) -> Sequence[dict[str, Any]]:
    """Return the rows of --heldout, as many as are looked at."""
    blocks = pack(config, str(config.heldout), tokenizer)
    return Rows(blocks, np.arange(min(len(blocks), corpus.HELDOUT_BLOCKS)))


@torch.no_grad()
def heldout_loss(student: PreTrainedModel, batches: Batches) -> dict[str, float]:
    """Return the mean masked-LM loss over one pass of held-out batches, always masked the same way."""
    training, objective = student.training, MaskedLM(student)
    student.eval()
    device = next(student.parameters()).device
    total = count = 0.0
    for number in range(batches.per_epoch):
        batch = send_to_device(batches[number], device)
        targets = float((batch["labels"] != -100).sum())
        total, count = total + float(objective(batch)["mlm"]) * targets, count + targets
    student.train(training)
    return {"heldout_loss": total / count}

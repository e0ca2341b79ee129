"""`distill`: train a student on text, against its teacher or by masked LM alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit import checkpoint, corpus, vocabulary
from distilkit.config import DistillConfig
from distilkit.errors import DistilkitError
from distilkit.examiner import Examiner
from distilkit.objectives import PARTS, WEIGHTS, Distillation
from distilkit.processes import claimed, is_main_process, state
from distilkit.record import Record, read_biography, record, remembered_teacher, write_biography
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
    teacher = None if config.objective == "mlm" else open_teacher(config, student, tokenizer)
    objective = make_objective(config, student, teacher)
    with claimed(config.output, resume=config.resume, keep="checkpoint-*[0-9]") as out:
        with state().main_process_first():  # the others then find the text in the cache
            batches, heldout = read_batches(config, tokenizer)
        examiner = Examiner(heldout, teacher)
        metrics = train(
            objective,
            batches,
            config,
            out,
            evaluate=lambda: examiner.examine(student),
            evaluate_every=config.evaluate_every,
            label="distill" if config.objective != "mlm" else "masked LM",
        )
        done = record("distill", config, metrics | {"parameters": float(student.num_parameters())})
        if is_main_process():
            checkpoint.save(student, tokenizer, out)
            write_biography(out, [*read_biography(config.student), done])
            remove_snapshots(out)  # last: killed before, it can still go on from them
    return done


def make_objective(config: DistillConfig, student: PreTrainedModel, teacher: PreTrainedModel | None) -> Distillation:
    """Build what --objective and the weights ask for."""
    given = {part: getattr(config, f"alpha_{part}") for part in PARTS}
    weights = WEIGHTS[config.objective] | {part: weight for part, weight in given.items() if weight is not None}
    asked = {part for part, weight in weights.items() if weight}
    if not asked:
        raise DistilkitError("every weight of the loss is 0, nothing to learn: raise an --alpha")
    if teacher is None and asked != {"mlm"}:
        raise DistilkitError(f"--objective mlm has no teacher for {', '.join(sorted(asked - {'mlm'}))}: choose another")
    if config.ce_until < 1 and "mlm" not in asked:
        raise DistilkitError("--ce-until leaves masked LM alone, which has no weight: give --alpha-mlm")
    return Distillation(
        student,
        teacher,
        weights,
        temperature=config.temperature,
        ce_positions=config.ce_positions,
        layer_map=() if teacher is None else map_layers(config.layer_map, student, teacher),
        until=config.ce_until,
    )


def open_teacher(
    config: DistillConfig, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Open the teacher that --teacher or the student's biography names, and refuse one that doesn't fit."""
    name = config.teacher or remembered_teacher(config.student)
    if name is None:
        raise DistilkitError(f"'{config.student}' does not say what it was made from: name the teacher with --teacher")
    teacher = checkpoint.open_model(name, "masked-lm")
    theirs = checkpoint.open_tokenizer(name)
    if has_fewer_tokens(config.student):
        teacher, theirs = vocabulary.prune(teacher, vocabulary.shared_ids(tokenizer, theirs)), tokenizer
    check_pair(student, teacher, checkpoint.same_vocabulary(tokenizer, theirs))
    check_length(teacher, config.seq_length)
    return teacher


def map_layers(given: tuple[int, ...] | None, student: PreTrainedModel, teacher: PreTrainedModel) -> list[int]:
    """Return the teacher's layer for each of the student's: as given, or evenly spread with the last for the last.

    Evenly spread is TinyBERT's map (Jiao et al. 2020, section 4.1): for 4 of 12 the layers 2, 5, 8 and 11.
    Raises DistilkitError where a layer isn't there or the numbers don't fit.
    """
    ours, theirs = (model.config.num_hidden_layers for model in (student, teacher))
    even = [round((i + 1) * theirs / ours) - 1 for i in range(ours)]
    layers = even if given is None else [*even[:-1], *given] if len(given) == 1 else list(given)
    if len(layers) != ours or not all(0 <= layer < theirs for layer in layers):
        raise DistilkitError(
            f"--layer-map {','.join(map(str, layers))} does not fit: give one number or {ours}, from 0 to {theirs - 1}"
        )
    return layers


def has_fewer_tokens(student: str) -> bool:
    """Say whether a checkpoint's vocabulary was cut when it was made."""
    return any(entry.command == "init" and entry.config.get("vocabulary") for entry in read_biography(student))


def check_pair(student: PreTrainedModel, teacher: PreTrainedModel, same_vocabulary: bool) -> None:
    """Refuse a teacher from whom the student can't learn: another vocabulary, or the very same weights."""
    if not same_vocabulary or student.config.vocab_size != teacher.config.vocab_size:
        raise DistilkitError(
            "teacher and student have different vocabularies: give a --teacher with the student's tokenizer"
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

"""`init`: choose layers, extract them, and verify the student."""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.claims import claim
from distilkit.data import corpus
from distilkit.data.batches import Batches
from distilkit.data.blocks import pack_documents
from distilkit.data.masking import make_collate
from distilkit.distillation.presets import kind_of
from distilkit.encoders import checkpoint, distilbert, vocabulary
from distilkit.encoders.layer_selection import STRATEGIES, Candidate, LayerEvaluator, neighbouring_choices, search
from distilkit.encoders.layers import find_stack, format_layers, is_shared, truncate_shared
from distilkit.encoders.sentence import wrap
from distilkit.encoders.sentence_layout import Layout, read_layout
from distilkit.encoders.sentence_modules import is_supported, make_head
from distilkit.encoders.sizes import compare_sizes
from distilkit.encoders.surgery import reinitialise
from distilkit.encoders.verify import TOLERANCE, check_values, max_embedding_difference, max_output_difference
from distilkit.encoders.weights import read_tensors
from distilkit.errors import DistilkitError
from distilkit.options.init import InitOptions
from distilkit.progress import say
from distilkit.record import Record, read_biography, record, write_biography
from distilkit.special_tokens import Special

SEARCH_BLOCKS, SEARCH_BLOCK_TOKENS, SEARCH_BATCH_BLOCKS = 32, 128, 8  # 4,096 tokens in all
MAX_SUGGESTIONS_TRIED = 60  # choices of layers to try before an error gives up suggesting one


class Student(NamedTuple):
    """A student before it is written. `kept_ids` are the teacher's tokens that it keeps; None means all."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kept_ids: list[int] | None
    layout: Layout | None  # the teacher's modules of sentence-transformers, copied to the student

    def save(self, out: Path) -> None:
        """Write the checkpoint."""
        checkpoint.save(self.model, self.tokenizer, out)
        if self.layout:
            self.layout.write(out)


def init(options: InitOptions) -> Record:
    """Extract a student from a teacher, save it, reload it, compare it with the teacher, and write its record."""
    with nullcontext() if options.dry_run else claim(options.output):
        return extract(options)


def extract(options: InitOptions) -> Record:
    """Extract the student, and write it to the output directory unless --dry-run is given."""
    if options.corpus and not options.uses_corpus:
        say("--corpus has no effect without --strategy search or --vocabulary N")
    teacher = checkpoint.open_as_saved(options.teacher, allow_pickle=options.allow_pickle)
    tokenises = options.strategy == "search" or options.vocabulary is not None
    if not options.no_verify:
        check_values(teacher, read_tensors(options.teacher, allow_pickle=options.allow_pickle), options.teacher)
    needs: list[Special] = ["cls", "sep", "mask"] if options.strategy == "search" else []
    tokenizer = checkpoint.open_tokenizer(options.teacher, teacher, fast=tokenises, needs=needs)
    depth = len(find_stack(teacher).layers)
    refuse_shared(options, teacher)
    ranked = rank_strategies(options, teacher, tokenizer) if options.strategy == "search" else []
    kept = choose_layers(options, depth) if not ranked else ranked[0].layers
    try:
        shorter = truncate_shared(teacher, kept)
    except DistilkitError as error:
        raise not_exact(str(error), teacher, kept) from None
    student = written = convert_student(options, shorter, tokenizer)
    if not options.dry_run:
        student.save(options.output)
        written = student if options.no_verify else reopen(student, options.output)
    metrics = compare_sizes(teacher, student.model) | {
        f"strategies/{candidate.strategy}/{name}": getattr(candidate, name)
        for candidate in ranked
        for name in ("loss", "agreement")
    }
    if not options.no_verify and not options.random:
        metrics["max_difference"] = verify(options, teacher, written, shorter, kept)
        metrics |= verify_embeddings(options, teacher, tokenizer, written, kept)
    head = kind_of(student.layout, checkpoint.head_of_model(teacher))
    layers = {"weights": "random"} if options.random else describe_layers(kept, depth, ranked)
    done = record("init", options, metrics, head=head, **layers)
    if not options.dry_run:
        write_biography(options.output, [*read_biography(options.teacher), done])
    return done


def refuse_shared(options: InitOptions, teacher: PreTrainedModel) -> None:
    """Raise DistilkitError for a stack whose layers share weights, unless --layers or --keep was given."""
    stack = find_stack(teacher)
    if is_shared(stack) and options.layers is None and options.keep is None:
        raise DistilkitError(
            f"the {len(stack.layers)} layers of this {teacher.config.model_type} share one set of weights, so a student"
            " would be faster but not smaller: give --layers N to repeat them fewer times anyway"
        )


def rank_strategies(
    options: InitOptions, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[Candidate]:
    """Evaluate the layers that each strategy chooses, and those found by the search, on --corpus; best first."""
    if checkpoint.head_of_model(teacher) != "masked-lm":
        raise DistilkitError("--strategy search requires a masked-LM head: choose another --strategy")
    depth = len(find_stack(teacher).layers)
    documents = corpus.read_documents(str(options.corpus)).shuffle(seed=options.seed)
    sample = documents.select(range(min(len(documents), 50 * SEARCH_BLOCKS)))
    length = min(SEARCH_BLOCK_TOKENS, checkpoint.max_tokens(teacher) or SEARCH_BLOCK_TOKENS)
    blocks = pack_documents(sample, tokenizer, length)
    collate = make_collate(tokenizer, 0.15)
    rows = [blocks[i] for i in range(min(len(blocks), SEARCH_BLOCKS))]
    numbered = Batches(rows, collate, batch_size=SEARCH_BATCH_BLOCKS, seed=options.seed)
    batches = [numbered[i] for i in range(numbered.per_epoch)]
    return search(LayerEvaluator(teacher, batches), depth, student_depth(options, depth))


def choose_layers(options: InitOptions, depth: int) -> list[int]:
    """Return the teacher layers that the student keeps, in ascending order.

    Raises DistilkitError for layers that the teacher does not have.
    """
    if options.keep is not None:
        kept = list(options.keep)
        if kept != sorted(set(kept)) or not kept or kept[0] < 0 or kept[-1] >= depth:
            raise DistilkitError(f"--keep takes ascending layer numbers from 0 to {depth - 1}")
        if options.layers not in (None, len(kept)):
            raise DistilkitError(
                f"--keep names {len(kept)} layers, but --layers is {options.layers}: remove one of them"
            )
        return kept
    return STRATEGIES[options.strategy](depth, student_depth(options, depth))


def student_depth(options: InitOptions, depth: int) -> int:
    """Return the number of layers to keep: --layers, else half of the teacher's."""
    layers = options.layers or max(1, depth // 2)
    if layers > depth:
        raise DistilkitError(f"--layers {layers} is more than the teacher has ({depth}): lower it")
    return layers


def convert_student(options: InitOptions, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Student:
    """Give a truncated teacher the architecture and vocabulary of the student, and with --random new weights."""
    kept_ids = None
    if options.architecture == "distilbert":
        model = distilbert.convert(model)
    if options.vocabulary:
        tokenizer, kept_ids = prune_tokenizer(options, tokenizer)
        model = vocabulary.prune(model, kept_ids)
    if options.random:
        model = reinitialise(model, options.seed)
    layout = read_layout(options.teacher)
    if layout and layout.is_sentence_encoder and (is_supported(layout) or not options.no_verify):
        make_head(options.teacher, layout, model.config.hidden_size)  # refuses modules that do not fit
    return Student(model, tokenizer, kept_ids, layout)


def reopen(student: Student, out: Path) -> Student:
    """Reopen a saved student and return it. Raises DistilkitError if its model is not bit-identical."""
    return student._replace(model=checkpoint.reopen(out, student.model), layout=read_layout(str(out)))


def prune_tokenizer(
    options: InitOptions, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """Return the tokenizer pruned by --vocabulary, and the ids of the tokens that it keeps.

    Raises DistilkitError if the text has only unknown tokens, or if the pruned tokenizer would split it differently.
    """
    wanted = str(options.vocabulary)
    max_tokens = int(wanted) if wanted.isdecimal() else None
    text = wanted if max_tokens is None else str(options.corpus)
    documents = corpus.read_documents(text)
    counts = vocabulary.count_tokens(documents, tokenizer)
    if not np.delete(counts, tokenizer.all_special_ids).any():
        raise DistilkitError(
            f"only unknown tokens in '{text}': give a text in the language and script of the tokenizer"
        )
    kept = vocabulary.choose_tokens(counts, tokenizer, max_tokens)
    definition = tokenizer.backend_tokenizer.to_str()
    smaller = checkpoint.redefine(tokenizer, vocabulary.rewrite_tokenizer(definition, kept))
    if max_tokens is not None:
        return smaller, kept
    differing = list(vocabulary.find_differences(documents, tokenizer, smaller, kept))
    if differing:  # before WordPiece calls a word unknown, it tries tokens that do not occur in the result
        kept = sorted({*kept, *vocabulary.find_tokens_inside(differing, tokenizer)})
        smaller = checkpoint.redefine(tokenizer, vocabulary.rewrite_tokenizer(definition, kept))
        if any(vocabulary.find_differences(documents, tokenizer, smaller, kept)):
            raise DistilkitError("--vocabulary would split its own text differently: remove it, and please report this")
    return smaller, kept


def verify(
    options: InitOptions, teacher: PreTrainedModel, student: Student, shorter: PreTrainedModel, kept: Sequence[int]
) -> float:
    """Return the largest output difference between the student and the truncated teacher.

    `shorter` is the student before its architecture and vocabulary were changed.
    Raises DistilkitError if the difference exceeds rounding. The message names the option that causes it: the new
    architecture or vocabulary, or the choice of layers, with a choice that would be exact.
    """
    converted = options.architecture != "same"  # convert() adds two embedding tables; saving rounds their sum
    rounding = max(TOLERANCE, 2 * torch.finfo(student.model.dtype).eps) if converted else TOLERANCE
    difference, scale = max_output_difference(teacher, student.model, kept, student.kept_ids)
    bound = rounding * max(1.0, scale)
    if difference <= bound:  # nan fails this comparison
        return difference
    option = "--vocabulary" if options.vocabulary else "--architecture" if converted else ""
    if option and max_output_difference(teacher, shorter, kept, None)[0] <= bound:
        raise DistilkitError(f"with {option} the student computes other outputs than the truncated teacher: remove it")
    raise not_exact(
        f"in this architecture a layer depends on its index: a student with layers {format_layers(kept)} differs from "
        f"the truncated teacher (by up to {difference:.2g})",
        teacher,
        kept,
    )


def verify_embeddings(
    options: InitOptions,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    student: Student,
    kept: Sequence[int],
) -> dict[str, float]:
    """Return the largest difference of sentence embeddings between the student and the truncated teacher, as a metric.

    Both use the modules of their own checkpoints. Returns {} if the model is not a sentence encoder.
    Raises DistilkitError if the difference exceeds rounding.
    """
    layout = read_layout(options.teacher)
    if layout is None or student.layout is None or not layout.is_sentence_encoder:
        return {}
    ours = wrap(str(options.output), student.model, student.tokenizer, student.layout)
    theirs = wrap(options.teacher, teacher, tokenizer, layout)
    difference, scale = max_embedding_difference(theirs, ours, kept, student.kept_ids)
    if not difference <= 10 * TOLERANCE * max(1.0, scale):
        raise DistilkitError(
            f"the student's sentence embeddings differ from the truncated teacher's (by up to {difference:.2g}): "
            "please report this model"
        )
    return {"max_embedding_difference": difference}


def not_exact(reason: str, teacher: PreTrainedModel, kept: Sequence[int]) -> DistilkitError:
    """Return an error that suggests the nearest choice of as many layers for which the student is exact, if any."""
    for layers in itertools.islice(neighbouring_choices(kept, len(find_stack(teacher).layers)), MAX_SUGGESTIONS_TRIED):
        try:
            difference, scale = max_output_difference(teacher, truncate_shared(teacher, layers), layers, None)
        except DistilkitError:
            continue
        if difference <= TOLERANCE * max(1.0, scale):
            return DistilkitError(f"{reason}: --keep {format_layers(layers)} would be exact")
    return DistilkitError(
        f"{reason}: no similar choice of {len(kept)} layers would be exact, so keep another number of layers"
    )


def describe_layers(kept: Sequence[int], depth: int, ranked: Sequence[Candidate]) -> dict[str, str]:
    """Return entries for the record: the layers kept and dropped, and those that each strategy would keep."""
    dropped = [i for i in range(depth) if i not in kept]
    return {
        "kept_layers": format_layers(kept),
        "dropped_layers": format_layers(dropped),
        **{f"strategies/{candidate.strategy}": format_layers(candidate.layers) for candidate in ranked},
    }

"""`init`: choose layers, extract them, and verify the student."""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data import corpus
from distilkit.data.batches import Batches
from distilkit.data.blocks import pack_documents
from distilkit.data.masking import make_collate
from distilkit.encoders import checkpoint, distilbert, vocabulary
from distilkit.encoders.layer_selection import STRATEGIES, Candidate, LayerEvaluator, neighbouring_choices, search
from distilkit.encoders.layers import find_stack, format_layers, is_shared, truncate_shared
from distilkit.encoders.sizes import compare_sizes
from distilkit.encoders.verify import TOLERANCE, max_output_difference
from distilkit.errors import DistilkitError
from distilkit.files import claim
from distilkit.options.init import InitOptions
from distilkit.record import Record, read_biography, record, write_biography

SEARCH_BLOCKS, SEARCH_LENGTH, SEARCH_BATCH = 32, 128, 8  # 4,096 tokens
TRIED = 60  # other choices of layers to try before a refusal without a suggestion


class Student(NamedTuple):
    """A student before it is written: model, tokenizer, and the teacher's token ids that it kept (None: all)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kept_ids: list[int] | None


def init(config: InitOptions) -> Record:
    """Extract a student from a teacher, save it, reload and compare it, then write its record."""
    teacher = checkpoint.open_as_saved(config.teacher, allow_pickle=config.allow_pickle)
    splits = config.strategy == "search" or config.vocabulary is not None
    tokenizer = checkpoint.open_tokenizer(config.teacher, fast=splits)
    depth = len(find_stack(teacher).layers)
    refuse_shared(config, teacher)
    ranked = ranking(config, teacher, tokenizer) if config.strategy == "search" else []
    kept = choose(config, depth) if not ranked else ranked[0].layers
    try:
        shorter = truncate_shared(teacher, kept)
    except DistilkitError as error:
        raise refusal(str(error), teacher, kept) from None
    student = convert(config, shorter, tokenizer)
    with nullcontext(config.output) if config.dry_run else claim(config.output) as out:
        model = student.model
        if not config.dry_run:
            checkpoint.save(model, student.tokenizer, out)
            model = model if config.no_verify else checkpoint.reopen(out, model)
        metrics = compare_sizes(teacher, student.model) | {
            f"strategies/{candidate.strategy}/{name}": getattr(candidate, name)
            for candidate in ranked
            for name in ("loss", "agreement")
        }
        if not config.no_verify:
            metrics["max_difference"] = verify(config, teacher, student._replace(model=model), shorter, kept)
        head = checkpoint.head_of(teacher.config)
        done = record("init", config, metrics, head=head, **describe(kept, depth, ranked))
        if not config.dry_run:
            write_biography(out, [*read_biography(config.teacher), done])
    return done


def verify(
    config: InitOptions, teacher: PreTrainedModel, student: Student, shorter: PreTrainedModel, kept: Sequence[int]
) -> float:
    """Return the largest output difference between the student and the truncated teacher.

    Raises DistilkitError if it exceeds rounding, with the cause: another change than the layers (`shorter` is the
    student before that), or the choice of layers, with one that would be exact.
    """
    added = config.architecture != "same"  # embedding tables are added, and the sum is rounded when saved
    rounding = max(TOLERANCE, 2 * torch.finfo(student.model.dtype).eps) if added else TOLERANCE
    difference, scale = max_output_difference(teacher, student.model, kept, student.kept_ids)
    bound = rounding * max(1.0, scale)
    if difference <= bound:  # nan fails this comparison
        return difference
    option = "--vocabulary" if config.vocabulary else "--architecture" if config.architecture != "same" else ""
    if option and max_output_difference(teacher, shorter, kept, None)[0] <= bound:
        raise DistilkitError(f"with {option} the student computes something else: remove it")
    raise refusal(
        f"in this architecture a layer depends on its index: a student with layers {format_layers(kept)} differs from "
        f"the truncated teacher (by up to {difference:.2g})",
        teacher,
        kept,
    )


def refuse_shared(config: InitOptions, teacher: PreTrainedModel) -> None:
    """Raise DistilkitError for a stack whose layers share weights, unless --layers or --keep was given."""
    stack = find_stack(teacher)
    if is_shared(stack) and config.layers is None and config.keep is None:
        raise DistilkitError(
            f"the {len(stack.layers)} layers of this {teacher.config.model_type} share one set of weights, so a student"
            " would be faster but not smaller: give --layers N to repeat them fewer times anyway"
        )


def convert(config: InitOptions, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Student:
    """Give a truncated teacher the architecture and vocabulary of the student."""
    kept_ids = None
    if config.architecture == "distilbert":
        model = distilbert.convert(model)
    if config.vocabulary:
        tokenizer, kept_ids = fewer_tokens(config, tokenizer)
        model = vocabulary.prune(model, kept_ids)
    return Student(model, tokenizer, kept_ids)


def fewer_tokens(config: InitOptions, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """Return the tokenizer of --vocabulary and the ids that it kept.

    Raises DistilkitError if it would split the text of --vocabulary TEXT differently.
    """
    wanted = str(config.vocabulary)
    most = int(wanted) if wanted.isdigit() else None
    documents = corpus.read_documents(wanted if most is None else str(config.corpus))
    counts = vocabulary.count_tokens(documents, tokenizer)
    kept = vocabulary.choose_tokens(counts, tokenizer, most)
    definition = tokenizer.backend_tokenizer.to_str()
    smaller = checkpoint.redefine(tokenizer, vocabulary.rewrite_tokenizer(definition, kept))
    if most is not None:
        return smaller, kept
    differing = list(vocabulary.find_differences(documents, tokenizer, smaller, kept))
    if differing:  # a word that ends as unknown was split into tokens that were not counted
        kept = sorted({*kept, *vocabulary.find_tokens_inside(differing, tokenizer)})
        smaller = checkpoint.redefine(tokenizer, vocabulary.rewrite_tokenizer(definition, kept))
        if any(vocabulary.find_differences(documents, tokenizer, smaller, kept)):
            raise DistilkitError("--vocabulary would split its own text differently: remove it, and please report this")
    return smaller, kept


def ranking(config: InitOptions, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[Candidate]:
    """Measure the strategies on --corpus, best first."""
    if checkpoint.head_of(teacher.config) != "masked-lm":
        raise DistilkitError("--strategy search requires a masked-LM head: choose another --strategy")
    depth = len(find_stack(teacher).layers)
    documents = corpus.read_documents(str(config.corpus)).shuffle(seed=config.seed)
    sample = documents.select(range(min(len(documents), 50 * SEARCH_BLOCKS)))
    length = min(SEARCH_LENGTH, checkpoint.max_tokens(teacher) or SEARCH_LENGTH)
    blocks = pack_documents(sample, tokenizer, length)
    collate = make_collate(tokenizer, 0.15)
    rows = [blocks[i] for i in range(min(len(blocks), SEARCH_BLOCKS))]
    numbered = Batches(rows, collate, batch_size=SEARCH_BATCH, seed=config.seed)
    batches = [numbered[i] for i in range(numbered.per_epoch)]
    return search(LayerEvaluator(teacher, batches), depth, wanted_layers(config, depth))


def choose(config: InitOptions, depth: int) -> list[int]:
    """Return the teacher layers that the student keeps, in order.

    Raises DistilkitError for layers that the teacher does not have, and if none would be dropped.
    """
    if config.keep is not None:
        kept = list(config.keep)
        if kept != sorted(set(kept)) or not kept or kept[0] < 0 or kept[-1] >= depth:
            raise DistilkitError(f"--keep takes ascending layer numbers from 0 to {depth - 1}")
        if config.layers not in (None, len(kept)):
            raise DistilkitError(
                f"--keep names {len(kept)} layers, but --layers is {config.layers}: remove one of them"
            )
        return kept
    return STRATEGIES[config.strategy](depth, wanted_layers(config, depth))


def wanted_layers(config: InitOptions, depth: int) -> int:
    """Return the number of layers to keep: --layers, else half of the teacher's."""
    layers = config.layers or max(1, depth // 2)
    if layers > depth:
        raise DistilkitError(f"--layers {layers} is more than the teacher's {depth}: give fewer")
    return layers


def refusal(reason: str, teacher: PreTrainedModel, kept: Sequence[int]) -> DistilkitError:
    """Return the error, with the nearest choice of the same size that would be exact if one is found."""
    for layers in itertools.islice(neighbouring_choices(kept, len(find_stack(teacher).layers)), TRIED):
        try:
            difference, scale = max_output_difference(teacher, truncate_shared(teacher, layers), layers, None)
        except DistilkitError:
            continue
        if difference <= TOLERANCE * max(1.0, scale):
            return DistilkitError(f"{reason}: --keep {format_layers(layers)} would be exact")
    return DistilkitError(f"{reason}: no {len(kept)} layers near them would be exact, so keep another number")


def describe(kept: Sequence[int], depth: int, ranked: Sequence[Candidate]) -> dict[str, str]:
    """Return the layers that were kept and dropped, and those that each strategy would have kept."""
    dropped = [i for i in range(depth) if i not in kept]
    return {
        "kept_layers": format_layers(kept),
        "dropped_layers": format_layers(dropped),
        **{f"strategies/{candidate.strategy}": format_layers(candidate.layers) for candidate in ranked},
    }

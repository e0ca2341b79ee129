"""What a run of `distill` starts from: student, teacher, loss and text, opened and checked first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data.batches import Batches
from distilkit.data.blocks import read_batches
from distilkit.data.texts import Reader, read_text_batches
from distilkit.distillation.cache_manifest import cache_seed
from distilkit.distillation.heldout import HeldoutEvaluator, LossEvaluator, WholeTextEvaluator
from distilkit.distillation.layer_matching import map_layers
from distilkit.distillation.presets import PREDICTS_TOKENS, loss_weights
from distilkit.distillation.teacher import (
    TEACHER_PREFIX,
    adapt_teacher,
    check_different,
    check_length,
    open_teacher,
    teacher_name,
)
from distilkit.distillation.text_objective import Distillation, make_objective
from distilkit.distillation.whole_text_objective import (
    EmbeddingDistillation,
    OutputDistillation,
    WholeTextDistillation,
)
from distilkit.encoders import checkpoint
from distilkit.encoders.contents import Head
from distilkit.encoders.sentence import LONGEST_TEXT, SentenceEncoder, wrap
from distilkit.encoders.sentence_layout import Layout, new_layout, read_layout
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.progress import say
from distilkit.record import read_biography
from distilkit.special_tokens import Special
from distilkit.tasks.catalogue import task_of_pairs
from distilkit.tasks.labels import match_label_order, output_kind
from distilkit.training.devices import state
from distilkit.training.objective import Objective

LAYER_TERMS = ("hidden", "attention", "relation")


class Evaluator(Protocol):
    """Computes held-out metrics."""

    def evaluate(self, student: PreTrainedModel) -> dict[str, float]:
        """Return the metrics of a student by name."""


@dataclass(frozen=True)
class Models:
    """What a run starts from. The teacher is None if masked LM or a teacher cache replaces it."""

    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    teacher: PreTrainedModel | None
    objective: Objective
    layout: Layout | None = None  # the student's modules of sentence-transformers, saved with it
    readers: tuple[Reader, ...] = ()  # of whole texts: the student, and a teacher that reads other tokens
    given: DistillOptions | None = None  # the options before defaults were filled in

    def save(self, out: Path) -> None:
        """Write the student."""
        checkpoint.save(self.student, self.tokenizer, out)
        if self.layout:
            trained = self.objective.head.weights() if isinstance(self.objective, EmbeddingDistillation) else {}
            self.layout.with_weights(trained).write(out)


def open_models(options: DistillOptions) -> Models:
    """Open the student and, if the objective needs it, its teacher.

    Raises DistilkitError if they do not fit the objective, each other, or --seq-length.
    """
    if options.objective == "embedding":
        return open_sentence_encoders(options)
    if options.objective == "soft-targets":
        return open_classifiers(options)
    return open_encoders(options)


def open_encoders(options: DistillOptions) -> Models:
    """Open models that learn from blocks of text. Only losses on predicted tokens need a vocabulary head."""
    predicts = PREDICTS_TOKENS & loss_weights(options).keys() or options.new_head
    student = checkpoint.open_model(options.student, "masked-lm" if predicts else None, new_head=options.new_head)
    needs: list[Special] = ["cls", "sep", "mask"] if options.mask_probability else ["cls", "sep"]
    tokenizer = checkpoint.open_tokenizer(options.student, student, needs=needs)
    check_length(student, options.seq_length)
    check_languages(options.student, student)
    without = options.objective == "mlm" or options.teacher_cache
    head: Head = "masked-lm" if checkpoint.head_of_model(student) == "masked-lm" else "encoder"
    teacher = None if without else open_teacher(options, student, tokenizer, head)
    objective = make_objective(options, student, teacher)
    return Models(student, tokenizer, teacher, objective, read_layout(options.student))


def open_sentence_encoders(options: DistillOptions) -> Models:
    """Open models that are compared by their sentence embeddings.

    A student without modules of its own gets the teacher's kind of pooling.
    """
    name = teacher_name(options)
    teacher = open_encoder(name)
    student = open_encoder(options.student, like=teacher)
    adapted, tokenizer = adapt_teacher(teacher.model, teacher.tokenizer, student.tokenizer)
    teacher = SentenceEncoder(adapted, tokenizer, teacher.head, teacher.layout)
    check_different(student.model, teacher.model)
    if student.width != teacher.width and options.projection == "save":
        say(f"the student gets a Dense module from {student.width} to the teacher's {teacher.width} dimensions")
        student = student.with_dense(teacher.width)
    readers = [
        Reader(encoder.tokenizer, cut_length(options, encoder.model, encoder.max_length), encoder.default_prompt)
        for encoder in (student, teacher)
    ]
    matched, weights = match_readers(options, readers, name)
    objective = EmbeddingDistillation(
        student, teacher, weights, **layer_options(options, student.model, teacher.model, matched)
    )
    layout = student.layout if student.layout.modules else None
    return Models(student.model, student.tokenizer, teacher.model, objective, layout, matched)


def open_encoder(name: str, like: SentenceEncoder | None = None) -> SentenceEncoder:
    """Open a checkpoint as a sentence encoder; if it has no modules of its own, give it the pooling of `like`."""
    model = checkpoint.open_model(name)
    layout = read_layout(name)
    if layout is None and like and like.layout.modules:
        normalize = like.layout.modules[-1].kind == "Normalize"
        layout = new_layout(model.config.hidden_size, like.pooling, normalize=normalize)
    check_languages(name, model)
    return wrap(name, model, checkpoint.open_tokenizer(name, model, needs=["pad"]), layout)


def open_classifiers(options: DistillOptions) -> Models:
    """Open classifiers or taggers of the same labels.

    Raises DistilkitError for a classifier that was trained on pairs of texts.
    """
    name = teacher_name(options, ("init", "distill", "finetune"))
    check_single_text(options.student)
    student = checkpoint.open_model(options.student)
    tokenizer = checkpoint.open_tokenizer(options.student, student, needs=["pad"])
    check_languages(options.student, student)
    teacher = checkpoint.open_model(name, checkpoint.head_of_model(student))
    teacher, theirs = adapt_teacher(teacher, checkpoint.open_tokenizer(name, teacher), tokenizer)
    check_different(student, teacher)
    order = match_label_order(student.config, teacher.config, name)
    readers = [
        Reader(reads, cut_length(options, model, trained_length(options.student)))
        for model, reads in ((student, tokenizer), (teacher, theirs))
    ]
    kind = output_kind(student.config)
    matched, weights = match_readers(options, readers, name, tokens=kind == "tokens")
    objective = OutputDistillation(
        student,
        teacher,
        weights,
        kind=kind,
        order=order,
        temperature=options.temperature,
        **layer_options(options, student, teacher, matched),
    )
    return Models(student, tokenizer, teacher, objective, read_layout(options.student), matched)


def check_single_text(name: str) -> None:
    """Raise DistilkitError if a checkpoint was fine-tuned on rows of two texts."""
    if task := task_of_pairs(name):
        raise DistilkitError(
            f"'{name}' was trained on pairs of texts ({task}), but --corpus has single texts: give --objective "
            "hidden, or finetune with --teacher"
        )


def trained_length(name: str) -> int | None:
    """Return the tokens at which a checkpoint's last fine-tuning cut its rows, None if it is not known."""
    lengths = [entry.config.get("max_length") for entry in read_biography(name) if entry.command == "finetune"]
    return next((int(length) for length in reversed(lengths) if length), None)


def check_languages(name: str, student: PreTrainedModel) -> None:
    """Raise DistilkitError for a student whose adapter depends on the language of a text."""
    if getattr(student.config, "default_language", "") is None:
        raise DistilkitError(f"'{name}' has one adapter per language: set default_language in config.json")


def cut_length(options: DistillOptions, model: PreTrainedModel, usual: int | None) -> int:
    """Return the number of tokens at which texts are cut: --seq-length, else the usual length if the model has it.

    Raises DistilkitError if --seq-length exceeds the model's positions.
    """
    check_length(model, options.seq_length)
    positions = checkpoint.max_tokens(model) or LONGEST_TEXT
    return options.seq_length or min(usual or positions, positions)


def match_readers(
    options: DistillOptions, readers: Sequence[Reader], teacher: str, *, tokens: bool = False
) -> tuple[tuple[Reader, ...], dict[str, float]]:
    """Return the readers of a text and the loss weights.

    If student and teacher read the same tokens, one reader serves both. Otherwise the teacher's columns have a prefix,
    and nothing is compared token by token.
    Raises DistilkitError if --alpha options or the outputs (`tokens`) need the same tokens.
    """
    weights = loss_weights(options)
    if readers[0].same_tokens(readers[1]):
        return (readers[0],), weights
    given = [term for term in LAYER_TERMS if getattr(options, f"alpha_{term}")]
    if given or tokens:
        what = f"--alpha-{given[0]} compares" if given else "taggers are compared"
        raise DistilkitError(f"{what} token by token, and '{teacher}' has another tokenizer: give another --teacher")
    if dropped := [term for term in LAYER_TERMS if term in weights]:
        say(f"'{teacher}' has another tokenizer than the student: {' and '.join(dropped)} states are not compared")
    weights = {term: weight for term, weight in weights.items() if term not in LAYER_TERMS}
    return (readers[0], readers[1]._replace(prefix=TEACHER_PREFIX)), weights


def layer_options(
    options: DistillOptions, student: PreTrainedModel, teacher: PreTrainedModel, readers: Sequence[Reader]
) -> dict[str, Any]:
    """Return arguments for a loss on whole texts: the ones that concern the teacher's tokens and layers."""
    return {
        "prefix": readers[-1].prefix,
        "layer_map": map_layers(options.layer_map, student, teacher),
        "hidden_loss": options.hidden_loss,
    }


def read_text(options: DistillOptions, models: Models) -> tuple[Batches, Evaluator]:
    """Return the training batches, and an evaluator on the held-out text."""
    with state().main_process_first():  # the other processes then find the text in the cache
        if models.readers:
            batches, heldout = read_text_batches(options, models.readers, options.seed)
        else:
            batches, heldout = read_batches(options, models.tokenizer, cache_seed(options))
    if isinstance(models.objective, WholeTextDistillation):
        return batches, WholeTextEvaluator(heldout, models.objective)
    if checkpoint.head_of_model(models.student) == "masked-lm" and options.mask_probability:
        return batches, HeldoutEvaluator(heldout, models.teacher)
    return batches, LossEvaluator(heldout, cast(Distillation, models.objective), options.precision)

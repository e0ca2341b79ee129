"""`distill`: train a student on text, with its teacher or by masked LM alone."""

from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data.batches import Batches
from distilkit.data.blocks import read_batches
from distilkit.distillation.cache_manifest import cache_seed
from distilkit.distillation.heldout import HeldoutEvaluator
from distilkit.distillation.teacher import check_length, open_teacher
from distilkit.distillation.teacher_cache import CachedBatches, fill_cache
from distilkit.distillation.text_objective import WEIGHTS, Distillation, make_objective
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.progress import waiting
from distilkit.record import Record, read_biography, record, write_biography
from distilkit.training.devices import claim_once, is_main_process, state, temporary_directory
from distilkit.training.learning_curve import draw_run
from distilkit.training.log import check_tracker
from distilkit.training.loop import train
from distilkit.training.memory import explain_out_of_memory, memory_suggestions
from distilkit.training.plan import calibrate
from distilkit.training.resume import remove_run_checkpoints


class Models(NamedTuple):
    """What a run starts from. The teacher is None if masked LM or a teacher cache replaces it."""

    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    teacher: PreTrainedModel | None
    objective: Distillation


def distill(options: DistillOptions) -> Record:
    """Train a student on a corpus and write it with its record; with --plan, only estimate what the run would take.

    The metric `heldout_loss` is the student's masked-LM loss on held-out text.
    """
    check_tracker(options.log_with)
    with waiting(f"opening {options.student}"):
        models = open_models(options)
    return estimate_run(options, models) if options.plan else train_student(options, models)


def open_models(options: DistillOptions) -> Models:
    """Open the student and, if the objective needs it, its teacher.

    Raises DistilkitError if the student cannot be trained on blocks of --seq-length, or if the teacher does not fit.
    """
    student = checkpoint.open_model(options.student, "masked-lm", new_head=options.new_head)
    tokenizer = checkpoint.open_tokenizer(options.student, student)
    check_length(student, options.seq_length)
    if getattr(student.config, "default_language", "") is None:
        raise DistilkitError(f"'{options.student}' has one adapter per language: set default_language in config.json")
    without = options.objective == "mlm" or options.teacher_cache
    teacher = None if without else open_teacher(options, student, tokenizer)
    return Models(student, tokenizer, teacher, make_objective(options, student, teacher))


def train_student(options: DistillOptions, models: Models) -> Record:
    """Train the student, fill the teacher cache first if there is one, and write the student with its record."""
    student, tokenizer, _, objective = models
    with (
        claim_once(options.output, resume=options.resume, keep="checkpoint-*[0-9]") as out,
        explain_out_of_memory(less_memory(options), out),
    ):
        batches, evaluator = read_text(options, models)
        cache = fill_cache(options, student, tokenizer, batches, evaluator) if options.teacher_cache else None
        if cache:
            batches = CachedBatches(cache, batch_size=options.batch_size, seed=options.seed)
        metrics = train(objective, batches, options, out, **evaluation(options, models, evaluator))
        if cache:
            metrics |= cache.metrics(options.batch_size * options.accumulate)
        done = make_record(options, models, metrics)
        if is_main_process():
            draw_run(out)
            checkpoint.save(student, tokenizer, out)
            write_biography(out, [*read_biography(options.student), done])
            remove_run_checkpoints(out)  # last, so that a killed run can still be resumed
    return done


def estimate_run(options: DistillOptions, models: Models) -> Record:
    """Estimate tokens, time and memory of the run from a few updates (--plan). Nothing is written."""
    with temporary_directory() as out, explain_out_of_memory(less_memory(options), out):
        batches, evaluator = read_text(options, models)
        metrics = calibrate(models.objective, batches, options, out, **evaluation(options, models, evaluator))
        return make_record(options, models, metrics)


def read_text(options: DistillOptions, models: Models) -> tuple[Batches, HeldoutEvaluator]:
    """Return the training batches, and an evaluator on the held-out text."""
    with state().main_process_first():  # the other processes then find the text in the cache
        batches, heldout = read_batches(options, models.tokenizer, cache_seed(options))
    return batches, HeldoutEvaluator(heldout, models.teacher)


def evaluation(options: DistillOptions, models: Models, evaluator: HeldoutEvaluator) -> dict[str, Any]:
    """Return the arguments that train() and calibrate() share: how and how often to evaluate, and the run's label."""
    return {
        "evaluate": lambda: evaluator.evaluate(models.student),
        "evaluate_every": options.evaluate_every,
        "label": "masked LM" if options.objective == "mlm" else "distill",
    }


def make_record(options: DistillOptions, models: Models, metrics: dict[str, float]) -> Record:
    """Return the record of the run or of its estimate."""
    return record("distill", options, metrics | {"parameters": float(models.student.num_parameters())})


def less_memory(options: DistillOptions) -> list[str]:
    """List options that reduce the memory of a run."""
    weight = WEIGHTS[options.objective].get("ce", 0.0) if options.alpha_ce is None else options.alpha_ce
    masked = ["use --ce-positions masked"] if weight and options.ce_positions == "all" else []
    return memory_suggestions(options, *masked, f"lower --seq-length (now {options.seq_length})")

"""`distill`: train a student on text, with its teacher or by masked LM alone."""

from dataclasses import replace
from typing import Any, cast

import torch

from distilkit.commands.distill_inputs import Evaluator, Models, open_models, read_text
from distilkit.distillation.heldout import HeldoutEvaluator
from distilkit.distillation.presets import ON_TEXTS, kind_of, loss_weights, with_objective
from distilkit.distillation.teacher_cache import CachedBatches, fill_cache
from distilkit.encoders import checkpoint
from distilkit.options.distill import DistillOptions
from distilkit.progress import waiting
from distilkit.record import Record, read_biography, record, write_biography
from distilkit.training.devices import claim_once, is_main_process, temporary_directory
from distilkit.training.learning_curve import draw_run
from distilkit.training.log import check_tracker
from distilkit.training.loop import train
from distilkit.training.memory import explain_out_of_memory, memory_suggestions
from distilkit.training.plan import calibrate
from distilkit.training.resume import remove_run_checkpoints


def distill(given: DistillOptions) -> Record:
    """Train a student on a corpus and write it with its record; with --plan, only estimate what the run would take.

    The metric `heldout_loss` is the student's masked-LM loss on held-out text.
    """
    check_tracker(given.log_with)
    options = with_objective(given)
    torch.manual_seed(options.seed)  # new weights are drawn with it: projections, a new head
    with waiting(f"opening {options.student}"):
        models = replace(open_models(options), given=given)
    return estimate_run(options, models) if options.plan else train_student(options, models)


def train_student(options: DistillOptions, models: Models) -> Record:
    """Train the student, fill the teacher cache first if there is one, and write the student with its record."""
    student, tokenizer, objective = models.student, models.tokenizer, models.objective
    with (
        claim_once(options.output, resume=options.resume, keep="checkpoint-*[0-9]") as out,
        explain_out_of_memory(less_memory(options), out),
    ):
        batches, evaluator = read_text(options, models)
        cache = None
        if options.teacher_cache:
            cache = fill_cache(options, student, tokenizer, batches, cast(HeldoutEvaluator, evaluator))
            batches = CachedBatches(cache, batch_size=options.batch_size, seed=options.seed)
        metrics = train(objective, batches, options, out, **evaluation(options, models, evaluator))
        if cache:
            metrics |= cache.metrics(options.batch_size * options.accumulate)
        done = make_record(options, models, metrics)
        if is_main_process():
            draw_run(out)
            models.save(out)
            write_biography(out, [*read_biography(options.student), done])
            remove_run_checkpoints(out)  # last, so that a killed run can still be resumed
    return done


def estimate_run(options: DistillOptions, models: Models) -> Record:
    """Estimate tokens, time and memory of the run from a few updates (--plan). Nothing is written."""
    with temporary_directory() as out, explain_out_of_memory(less_memory(options), out):
        batches, evaluator = read_text(options, models)
        metrics = calibrate(models.objective, batches, options, out, **evaluation(options, models, evaluator))
        return make_record(options, models, metrics)


def evaluation(options: DistillOptions, models: Models, evaluator: Evaluator) -> dict[str, Any]:
    """Return the arguments that train() and calibrate() share: how and how often to evaluate, and the run's label."""
    return {
        "evaluate": lambda: evaluator.evaluate(models.student),
        "evaluate_every": options.evaluate_every,
        "label": "masked LM" if options.objective == "mlm" else "distill",
    }


def make_record(options: DistillOptions, models: Models, metrics: dict[str, float]) -> Record:
    """Return the record of the run or of its estimate."""
    metrics = metrics | {"parameters": float(models.student.num_parameters())}
    kind = kind_of(models.layout, checkpoint.head_of_model(models.student))
    return record("distill", options, metrics, given=models.given, head=kind)


def less_memory(options: DistillOptions) -> list[str]:
    """List options that reduce the memory of a run."""
    everywhere = options.objective not in ON_TEXTS and options.ce_positions == "all" and "ce" in loss_weights(options)
    masked = ["use --ce-positions masked"] if everywhere else []
    length = f"lower --seq-length (now {options.seq_length})" if options.seq_length else "give a --seq-length"
    return memory_suggestions(options, *masked, length)

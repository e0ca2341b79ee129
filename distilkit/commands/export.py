"""`export`: write a checkpoint for another runtime, and check that the exported model gives the same outputs."""

from dataclasses import fields
from pathlib import Path

from distilkit.claims import claim
from distilkit.data.own_rows import with_recorded_task
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation.embeddings import EmbeddingScorer
from distilkit.evaluation.retention import TEACHER, compare
from distilkit.evaluation.scoring import headline_metric, score_checkpoint
from distilkit.options.evaluate import EvalOptions
from distilkit.options.export import ExportOptions
from distilkit.options.tasks import TaskOptions
from distilkit.progress import warn
from distilkit.record import Record, read_biography, record, write_biography
from distilkit.runtimes.exported import program_bytes, save_exported
from distilkit.runtimes.exporting import export_model, open_whole, sentence_layout
from distilkit.runtimes.formats import require_packages
from distilkit.runtimes.verify import verify
from distilkit.tasks.catalogue import Task, resolve


def export(options: ExportOptions) -> Record:
    """Export a checkpoint, save it, compare it with the checkpoint in a new process, and write its record.

    With --task, both are scored. `retention/TASK` is the export's share of the checkpoint's score, whose metrics start
    with `teacher/`.
    Raises DistilkitError if the outputs differ, or if the score falls by more than --max-drop.
    """
    require_packages(options.format)
    options = with_recorded_task(options, options.model) if options.task else options
    chosen = resolve(options) if options.task else []
    model, tokenizer = open_whole(options.model)
    history = read_biography(options.model)
    with claim(options.output) as out:
        save_exported(export_model(model, options.format, int8=options.int8), tokenizer, out)
        if layout := sentence_layout(options.model):
            layout.write(out)
        metrics = {
            "bytes": float(program_bytes(out)),
            "max_difference": verify(str(out), options.model, options.seed, exact=not options.int8),
        }
        if chosen:
            metrics |= score_both(options, chosen[0], out)
        elif options.int8:
            warn("the drop in score from --int8 was not measured: give --task and --data")
        head = "sentence" if layout else checkpoint.head_of_model(model)
        done = record("export", options, metrics, head=head)
        write_biography(out, [*history, done])
    return done


def score_both(options: ExportOptions, task: Task, out: Path) -> dict[str, float]:
    """Score the export and the checkpoint on a task.

    Raises DistilkitError if the export's headline metric is lower by more than --max-drop.
    """
    shared = {item.name: getattr(options, item.name) for item in fields(TaskOptions)}
    settings = EvalOptions(**shared, models=(str(out),), against=options.model, batch_size=options.batch_size)
    if task.zero_shot:
        embeddings = EmbeddingScorer(task, settings)
        results = {"": embeddings.score(str(out)), TEACHER: embeddings.score(options.model)}
    else:
        results = {
            "": score_checkpoint(str(out), [task], settings, trained=options.model),
            TEACHER: score_checkpoint(options.model, [task], settings),
        }
    metric = headline_metric(task)
    before, after = results[TEACHER].scores[metric], results[""].scores[metric]
    if after < before - options.max_drop * abs(before):
        raise DistilkitError(
            f"{metric} falls from {before:.4g} to {after:.4g}, by more than --max-drop {options.max_drop:g}: "
            "export without --int8, or raise --max-drop"
        )
    scores = {prefix + name: value for prefix, result in results.items() for name, value in result.scores.items()}
    return scores | compare(results, [task], options.seed, [""], [])

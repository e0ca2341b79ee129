"""An earlier eval, given as --baseline: read it, and refuse it before the scoring if it cannot be compared."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from distilkit.data import corpus
from distilkit.data.readers import values_hash
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation.embeddings import EmbeddingScorer
from distilkit.evaluation.scoring import places
from distilkit.files import read_json
from distilkit.gates import BASELINE, check_relative_gates
from distilkit.options.evaluate import EvalOptions
from distilkit.record import Record, parse_record
from distilkit.tasks import labels
from distilkit.tasks.catalogue import Task
from distilkit.tasks.rows import hash_rows, read_validation

SCORED_ROWS = "scored_rows"  # in a record's environment, scored_rows/<task> is a hash of the texts and labels


def read_earlier(path: Path) -> Record:
    """Return the record of an earlier eval, without the metrics of its own baseline.

    Raises DistilkitError if the file is not the record of one.
    """
    try:
        found = parse_record(read_json(path))
        if found.command != "eval":
            raise ValueError(f"it is a record of {found.command}")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DistilkitError(
            f"--baseline '{path}' is not the record of an eval ({reason}): give one that --json printed, or that eval "
            "saved in a checkpoint's folder"
        ) from None
    for name in [name for name in found.metrics if name.startswith(BASELINE)]:
        del found.metrics[name]
    return found


def mark_rows(chosen: Sequence[Task], options: EvalOptions, embeddings: EmbeddingScorer | None) -> dict[str, str]:
    """Return entries for a record's environment: a hash of the rows of each task, and of the text of --agreement."""
    marks = {embeddings.task.name: embeddings.rows_hash()} if embeddings else {}
    for task in () if embeddings else chosen:
        _, data = places("", task, chosen, options)
        known = task
        if task.name == "custom":
            known = labels.labels_from_model(task, checkpoint.open_config(options.models[0]), options.kind)
        marks |= {prefix: hash_rows(rows, known) for prefix, rows in read_validation(known, data).items()}
    if options.agreement:
        marks["agreement"] = values_hash(corpus.texts(corpus.read_documents(str(options.agreement))))
    return named_marks(marks)


def named_marks(marks: dict[str, str]) -> dict[str, str]:
    """Return hashes of rows, by metric prefix, as entries for a record's environment."""
    return {f"{SCORED_ROWS}/{name}": mark for name, mark in marks.items()}


def check_baseline(earlier: Record, names: Collection[str], marks: dict[str, str], options: EvalOptions) -> None:
    """Raise DistilkitError if --baseline has other metrics than `names`, or lacks those of a gate, or has other rows.

    `marks` are those of mark_rows(). Records of older versions have none, and are taken as they are.
    """
    check_common(earlier, names, options)
    check_relative_gates(options.require, names, earlier.metrics)
    for key, mark in marks.items():
        if earlier.environment.get(key, mark) != mark:
            what = key.removeprefix(f"{SCORED_ROWS}/")
            other, same = ("another text", "text") if what == "agreement" else ("other rows", "rows")
            raise DistilkitError(
                f"--baseline '{options.baseline}' was measured on {other} ({what}): give an eval of the same {same}"
            )


def check_common(earlier: Record, names: Iterable[str], options: EvalOptions) -> None:
    """Raise DistilkitError if --baseline has none of these metrics."""
    if not earlier.metrics.keys() & set(names):
        raise DistilkitError(
            f"--baseline '{options.baseline}' has none of these metrics: give an eval of the same task"
        )

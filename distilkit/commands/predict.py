"""`predict`: label new rows with a fine-tuned classifier or tagger."""

import base64
import csv
import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

from distilkit.claims import claim_files
from distilkit.class_scores import names_of_labels
from distilkit.data.conll import ENDINGS as CONLL
from distilkit.data.conll import read_sentences
from distilkit.data.own_rows import with_text_columns
from distilkit.data.readers import file_type
from distilkit.data.tables import Row, is_json, json_objects, read_table
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.predictions import predict as predict_rows
from distilkit.evaluation.scoring import open_for_task
from distilkit.evaluation.tags import TagPredictions
from distilkit.files import write_text
from distilkit.options.evaluate import EvalOptions
from distilkit.options.predict import PREDICTION, PROBABILITY, PredictOptions
from distilkit.progress import say
from distilkit.record import Record, json_text, record
from distilkit.tasks import encoding, tagging
from distilkit.tasks.catalogue import Task, resolve
from distilkit.tasks.labels import OUTSIDE, output_kind
from distilkit.tasks.rows import read_rows
from distilkit.training.devices import device

PROBABILITIES = "probabilities"  # of all labels, in a JSON row


def predict(options: PredictOptions) -> Record:
    """Write every row of --data with what a model predicts for it.

    It adds the columns `prediction` and `probability` (of the predicted class, or of each label of a multi-label task).
    A table also gets a column with the probability of each label. The metrics are the rows per second and the share of
    each label.
    Raises DistilkitError if the model is not a classifier or tagger, or if the rows lack its text columns or have a
    column that the output adds.
    """
    given, options = options, with_text_columns(options)
    if options.text != given.text:
        say(f"text: {', '.join(options.text or ())}")
    used = eval_options(options)
    with claim_files({options.output: "-o"}):
        start = time.perf_counter()
        source = read_source(options)
        found = run(options, used, source)
        write_rows(options, source, found)
        seconds = time.perf_counter() - start
    rows = len(found.predicted)
    speed = {"rows": float(rows), "rows_per_second": rows / seconds}
    return record("predict", options, speed | shares(found), given=given, device=str(device()))


def eval_options(options: PredictOptions) -> EvalOptions:
    """Return the options of an eval on these rows. An eval needs a label column: it is named here but never read."""
    kind = output_kind(checkpoint.open_config(options.model))
    return EvalOptions(
        models=(options.model,),
        task="custom",
        data=options.data,
        text=options.text,
        label=PREDICTION,  # with_text_columns() refuses a file that has this column
        kind=kind if kind == "tokens" else None,
        max_length=options.max_length,
        long=options.long,
        batch_size=options.batch_size,
        seed=options.seed,
    )


def run(options: PredictOptions, used: EvalOptions, source: Sequence[Row]) -> LabelPredictions | TagPredictions:
    """Return a model's predictions for the rows. Warns if they are cut."""
    (task,) = resolve(used)
    opened = open_for_task(options.model, task, used)
    check_columns(options, opened.task, source)
    if options.max_length:
        encoding.warn_if_shortened(opened.settings, encoding.window_length(opened.settings, opened.model))
    rows = read_rows(opened.task, options.data, "train", labelled=False)
    found = predict_rows(
        opened.model, opened.tokenizer, opened.task, rows, opened.settings, order=opened.order, name=options.model
    )
    assert isinstance(found, LabelPredictions | TagPredictions)  # the only kinds that a custom task has
    if isinstance(found, TagPredictions):
        effect = f"they get the tag {OUTSIDE}" if OUTSIDE in found.task.labels else "they get no tag"
        tagging.warn_if_lost(found.predicted, f"'{options.data}'", effect)
    return found


def shares(found: LabelPredictions | TagPredictions) -> dict[str, float]:
    """Return the share of each predicted class among the rows; {} for taggers and multi-label tasks."""
    if isinstance(found, TagPredictions) or found.task.kind != "classification":
        return {}
    counts = Counter(found.predicted.tolist())
    return {
        f"share/{name}": counts[number] / len(found.predicted)
        for number, name in enumerate(names_of_labels(found.task.labels))
    }


def read_source(options: PredictOptions) -> list[Row]:
    """Return the rows of the file with all of their columns."""
    return list(read_sentences(options.data) if file_type(options.data) in CONLL else read_table(options.data))


def check_columns(options: PredictOptions, task: Task, rows: Sequence[Row]) -> None:
    """Raise DistilkitError if a row has a column that the output adds."""
    added = {PREDICTION}
    if task.kind == "classification":
        added.add(PROBABILITY)
    if task.kind in ("classification", "multi-label"):
        as_json = file_type(options.output) == ".jsonl"
        added |= {PROBABILITIES} if as_json else {f"{PROBABILITY}_{label}" for label in task.labels}
    for number, row in enumerate(rows, 1):
        if taken := sorted(added & row.keys()):
            raise DistilkitError(
                f"'{options.data}' has a column '{taken[0]}' in row {number}, which the output adds: rename it"
            )


def write_rows(options: PredictOptions, source: Sequence[Row], found: LabelPredictions | TagPredictions) -> None:
    """Write the rows of the file with their predictions, as JSON lines or as a table."""
    predicted = map(found.row, range(len(source)))
    ending = file_type(options.output)
    if ending == ".jsonl":
        rows = zip(object_starts(options, source), predicted, strict=True)
        write_text(options.output, "".join(f"{start}, {json_text(row, indent=None)[1:]}\n" for start, row in rows))
        return
    table = [as_cells(*rows) for rows in zip(source, predicted, strict=True)]
    text = io.StringIO()
    columns = dict.fromkeys(name for row in table for name in row)  # JSON rows may have different columns
    writer = csv.DictWriter(text, columns, delimiter="\t" if ending == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(table)
    write_text(options.output, text.getvalue())


def object_starts(options: PredictOptions, source: Sequence[Row]) -> Iterator[str]:
    """Yield the JSON of each row without the closing brace. That of a JSON file stays as it is written."""
    as_json = is_json(options.data) and file_type(options.data) not in CONLL
    kept = json_objects(options.data) if as_json else repeat(None, len(source))
    for text, row in zip(kept, source, strict=True):
        yield (text or json_text(row, indent=None, default=written))[:-1].rstrip()


def written(value: Any) -> str:
    """Return the text of a value of a parquet file that JSON does not have: times in ISO 8601, bytes in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def as_cells(row: Row, predicted: dict[str, Any]) -> Row:
    """Return a row as table cells: labels or tags joined by commas, and a column for the probability of each label."""
    cells = {name: cell(value) for name, value in row.items()}
    for name, value in predicted.items():
        if name == PROBABILITIES:
            cells |= {f"{PROBABILITY}_{label}": chance for label, chance in value.items()}
        else:
            cells[name] = ",".join(tag or "" for tag in value) if isinstance(value, list) else value
    return cells


def cell(value: Any) -> Any:
    """Return a value as a table cell: lists and objects as JSON, bytes in base64."""
    if isinstance(value, bytes):
        return written(value)
    return json_text(value, indent=None, default=written) if isinstance(value, (list, dict)) else value

"""`predict`: label new rows with a fine-tuned classifier or tagger."""

import csv
import io
import time
from collections import Counter
from typing import Any

from distilkit.claims import claim_files
from distilkit.class_scores import names_of_labels
from distilkit.data.conll import ENDINGS as CONLL
from distilkit.data.conll import read_sentences
from distilkit.data.own_rows import with_text_columns
from distilkit.data.readers import file_type
from distilkit.data.tables import read_table
from distilkit.encoders import checkpoint
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.predictions import predict as predict_rows
from distilkit.evaluation.scoring import open_for_task
from distilkit.evaluation.tags import TagPredictions
from distilkit.files import write_text
from distilkit.options.evaluate import EvalOptions
from distilkit.options.predict import PREDICTION, PROBABILITY, PredictOptions
from distilkit.progress import say
from distilkit.record import Record, json_text, record
from distilkit.tasks.catalogue import resolve
from distilkit.tasks.labels import output_kind
from distilkit.tasks.rows import read_rows
from distilkit.training.devices import device

PROBABILITIES = "probabilities"  # of all labels, in a JSON row


def predict(options: PredictOptions) -> Record:
    """Write every row of --data with what a model predicts for it.

    It adds the columns `prediction` and `probability` (of the predicted class, or of each label of a multi-label task).
    A table also gets a column with the probability of each label. The metrics are the rows per second and the share of
    each label.
    Raises DistilkitError if the model is not a classifier or tagger, or if the rows lack its text columns.
    """
    given, options = options, with_text_columns(options)
    if options.text != given.text:
        say(f"text: {', '.join(options.text or ())}")
    used = eval_options(options)
    with claim_files({options.output: "-o"}):
        start = time.perf_counter()
        found = run(options, used)
        write_rows(options, found)
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


def run(options: PredictOptions, used: EvalOptions) -> LabelPredictions | TagPredictions:
    """Return a model's predictions for the rows."""
    (task,) = resolve(used)
    opened = open_for_task(options.model, task, used)
    rows = read_rows(opened.task, options.data, "train", labelled=False)
    found = predict_rows(
        opened.model, opened.tokenizer, opened.task, rows, opened.settings, order=opened.order, name=options.model
    )
    assert isinstance(found, LabelPredictions | TagPredictions)  # the only kinds that a custom task has
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


def write_rows(options: PredictOptions, found: LabelPredictions | TagPredictions) -> None:
    """Write the rows of the file with their predictions, as JSON lines or as a table."""
    source = read_sentences(options.data) if file_type(options.data) in CONLL else read_table(options.data)
    rows = [row | found.row(number) for number, row in enumerate(source)]
    ending = file_type(options.output)
    if ending == ".jsonl":
        write_text(options.output, "".join(json_text(row, indent=None) + "\n" for row in rows))
        return
    table = [as_cells(row) for row in rows]
    text = io.StringIO()
    columns = dict.fromkeys(name for row in table for name in row)  # JSON rows may have different columns
    writer = csv.DictWriter(text, columns, delimiter="\t" if ending == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(table)
    write_text(options.output, text.getvalue())


def as_cells(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as table cells: labels or tags joined by commas, and a column for the probability of each label."""
    cells = {name: value for name, value in row.items() if name != PROBABILITIES}
    if isinstance(cells[PREDICTION], list):
        cells[PREDICTION] = ",".join(cells[PREDICTION])
    return cells | {f"{PROBABILITY}_{label}": value for label, value in row.get(PROBABILITIES, {}).items()}
